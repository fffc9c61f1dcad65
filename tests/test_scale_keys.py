"""What acts on the scale of logits and weights: StableMax, temperature, a clamped norm, orthogonal gradients.

Each against plain loops in float64 that know nothing of dynalab's, and to the bit over widths, pieces and forks.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stored import assert_same, bits, only_ensemble
from torch import nn

import dynalab
from dynalab import train
from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.networks.build import network_of
from dynalab.optim.orthogonal import orthogonal
from dynalab.tasks.classification import stablemax
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["task=grokking", "task.modulus=7", "model.width=8", "eval.every=5"]
SGD = ["optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"]
ADAM = ["optimizer.eps=1e-3"]
CPU = torch.device("cpu")


def config_of(*words, base=SMALL):
    (request,) = read_command([*base, *words]).requests
    return request.config


def loop_of(*words, seeds=(3, 0, 5), base=SMALL):
    config = config_of(*words, base=base)
    return Loop(config, [Streams.from_seed(seed) for seed in seeds], 100, CPU)


def plain_loss(config, outputs, labels):
    """Return the mean loss as the papers print it: s(z) / sum s(z), outputs over the temperature."""
    z = outputs / config.train.temperature
    if config.task.loss == "mse":
        return (z - nn.functional.one_hot(labels, z.shape[1])).square().mean()
    s = torch.where(z >= 0, z + 1, 1 / (1 - z)) if config.task.loss == "stablemax" else z.exp()
    return -(s / s.sum(1, keepdim=True)).gather(1, labels[:, None]).log().mean()


def plain(words, seed, steps):
    """Train one seed in float64 as everybody writes it; return its losses and its weights."""
    config, streams = config_of(*words), Streams.from_seed(seed)
    model = network_of(config, streams).double()
    task = registry.find("task", "grokking").build(config.task)
    batch = task.data([streams], batch_size=None, eval_size=None, device=CPU).train_batch(0)
    params = list(model.parameters())
    sgd = config.optimizer.name == "sgd"
    names = ("lr", "weight_decay", *(("momentum",) if sgd else ("betas", "eps")))
    kind = torch.optim.SGD if sgd else torch.optim.AdamW
    optimizer = kind(params, **{name: getattr(config.optimizer, name) for name in names})

    def norm():
        return float(torch.cat([p.detach().flatten() for p in params]).norm())

    first, losses = norm(), []
    for _ in range(steps):
        loss = plain_loss(config, model(batch.inputs[0]), batch.targets[0])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if config.train.clip:
            nn.utils.clip_grad_norm_(params, config.train.clip)
        if config.optimizer.orthogonal:
            for p in params:
                w, g = p.detach().flatten(), p.grad.flatten()
                rest = g - torch.dot(w, g) / torch.dot(w, w) * w
                p.grad.copy_((rest * (g.norm() / rest.norm())).view_as(p))
        optimizer.step()
        if config.train.norm_clamp:
            factor = config.train.norm_clamp * first / norm()
            with torch.no_grad():
                for p in params:
                    p.mul_(factor)
    return losses, dict(model.named_parameters())


@pytest.mark.parametrize(
    "words",
    [
        ["task.loss=stablemax", *SGD],
        ["train.temperature=0.25", *SGD],
        ["task.loss=mse", "train.temperature=3", *ADAM],
        ["train.norm_clamp=0.7", *SGD],
        ["optimizer.orthogonal=true", "train.clip=0.1", *SGD],
        [
            "task.loss=stablemax",
            "train.temperature=2",
            "train.norm_clamp=2",
            "optimizer.orthogonal=true",
            *ADAM,
        ],
    ],
    ids=" ".join,
)
def test_training_is_that_of_a_plain_loop_of_every_seed(words):
    loop, steps = loop_of(*words, "eval.every=1"), 10
    rows = []
    for _ in range(steps):
        rows.append(loop.rows()["every-1"]["train_loss"])
        loop.update()
    for place, seed in enumerate((3, 0, 5)):
        losses, weights = plain(words, seed, steps)
        np.testing.assert_allclose([row[place].item() for row in rows], losses, rtol=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(
                loop.stack.params[name][place].detach().double(), weight.detach(), rtol=1e-3, atol=1e-4
            )


def test_stablemax_is_its_formula_and_sound_where_float32_ends():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 50, 9, generator=generator, dtype=torch.float64) * 20
    z[:, :5] = 0.0  # a network of zeros, as at the start of some
    y = torch.randint(9, (2, 50), generator=generator)
    ours, theirs = (z.clone().requires_grad_() for _ in range(2))
    s = torch.where(theirs >= 0, theirs + 1, 1 / (1 - theirs))
    expected = -(s / s.sum(2, keepdim=True)).gather(2, y[..., None]).log().mean((1, 2))
    found = stablemax(ours, y)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    huge = torch.tensor([[[0.0, 1e38, -3e38, 3e38]]]).requires_grad_()
    for label in range(4):
        loss = stablemax(huge, torch.tensor([[label]]))
        (gradient,) = torch.autograd.grad(loss.sum(), [huge])
        assert loss.isfinite().all() and gradient.isfinite().all(), label
    assert stablemax(huge, torch.tensor([[2]])).item() == pytest.approx(2 * np.log(3e38), rel=1e-2)
    # Where softmax in float32 has lost its gradient, StableMax has one.
    sure = torch.tensor([[[30.0, 0.0, 0.0]]]).requires_grad_()
    (gradient,) = torch.autograd.grad(stablemax(sure, torch.tensor([[0]])).sum(), [sure])
    assert (gradient.abs() > 1e-3).all()


def test_an_orthogonal_gradient_is_orthogonal_run_by_run_and_as_long_as_before():
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(4, 3, 5, generator=generator) for _ in range(2))
    w[1], g[2], g[3] = 0.0, 0.0, 2.5 * w[3]
    found = orthogonal(g, w)
    inside = (found * w).double().flatten(1).sum(1)
    assert inside.abs().max() < 1e-5
    norms = [x.double().flatten(1).norm(dim=1) for x in (found, g)]
    torch.testing.assert_close(norms[0][:3], norms[1][:3])
    assert torch.equal(found[1], g[1]), "weights of 0 have no direction"
    assert not found[2].any() and not found[3].any(), "rounding must not be scaled up"
    assert not orthogonal(torch.tensor([[0.3], [-2.0]]), torch.tensor([[0.7], [1.3]])).any()
    alone = orthogonal(g[:1], w[:1])
    assert torch.equal(alone[0], found[0])


def norms_of(tensors, width):
    squares = sum(tensor.detach().double().flatten(1).square().sum(1) for tensor in tensors)
    return squares.sqrt()[:width]


@pytest.mark.parametrize(
    "words", [["optimizer=sam"], ["optimizer=lookahead", "optimizer.inner_state=pullback", "optimizer.k=3"]]
)
def test_the_norm_is_held_also_of_slow_weights_and_across_a_checkpoint(words):
    words = [*words, "train.norm_clamp=0.5", "optimizer.orthogonal=true"]
    loop = loop_of(*words)
    wanted = 0.5 * norms_of(loop.params, 3)
    for _ in range(7):
        loop.update()
        torch.testing.assert_close(norms_of(loop.params, 3), wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(norms_of(loop.updates.evaluated().values(), 3), wanted, rtol=1e-6, atol=0)
    resumed = loop_of(*words)
    resumed.load(7, *copy.deepcopy(loop.tensors(3)))
    for one in (loop, resumed):
        for _ in range(3):
            one.update()
    assert all(torch.equal(a, b) for a, b in zip(loop.params, resumed.params, strict=True))


def test_what_an_update_will_be_given_is_what_it_is_given():
    """The preconditioner of the probe curvature is made of it."""
    loop = loop_of("optimizer.orthogonal=true", "train.clip=0.01")
    told = loop.updates.upcoming().gradients
    for name, gradient in told.items():
        inside = (gradient * loop.stack.params[name].detach()).double().flatten(1).sum(1)
        assert inside.abs().max() < 1e-7, name
    loop.update()
    for param, gradient in zip(loop.params, told.values(), strict=True):
        first = loop.updates.optimizer.state[param]["exp_avg"]
        torch.testing.assert_close(first, 0.1 * gradient)


ALL = ["task.loss=stablemax", "train.temperature=0.7", "train.norm_clamp=1.5", "optimizer.orthogonal=true"]


@pytest.mark.parametrize(
    "words", [[], ["optimizer=lookahead", "train.batch_size=8", "train.loss_dtype=float64", "train.clip=0.5"]]
)
def test_width_and_interruption_do_not_show(words, tmp_path):
    words = [*SMALL, *ALL, *words, "train.steps=20", "launcher=inline", "probes=[weights,gradients,numerics]"]

    def trained(folder, *more):
        train([*words, *more], outputs=tmp_path / folder)
        return bits(only_ensemble(tmp_path / folder))

    together = trained("together", "seed=0..4", "compute.width=5")
    assert_same(together, trained("alone", "seed=3"), ["s0003"])
    pieces = trained("pieces", "seed=1..2", "train.steps=7", "compute.width=2")
    pieces = trained("pieces", "seed=1..2", "compute.width=2")
    assert_same(together, pieces, pieces)


def test_a_fork_that_sets_a_key_goes_on_with_it_from_its_step_on(tmp_path):
    words = [*SMALL, "launcher=inline", "train.steps=15", "checkpoint.keep=[10]", "eval.every=1"]
    (parent,) = train([*words, "seed=0..2"], outputs=tmp_path)
    keys = ["train.temperature=2", "train.norm_clamp=2", "optimizer.orthogonal=true", "task.loss=stablemax"]
    (forked,) = dynalab.fork(parent, 10, ["launcher=inline", *keys])
    before, after = parent.array("param_norm"), forked.array("param_norm")
    np.testing.assert_array_equal(before[:, :11], after[:, :11])
    np.testing.assert_allclose(after[:, 11:], np.repeat(2 * before[:, :1], 5, 1), rtol=1e-6)
    # Row 10 has the parent's weights and the fork's loss.
    loss = forked.array("train_loss")
    np.testing.assert_array_equal(loss[:, :10], parent.array("train_loss")[:, :10])
    assert (loss[:, 10] != parent.array("train_loss")[:, 10]).all()
    # To the bit also where the checkpoint of its step has to be made again, for a run alone.
    (other,) = train([*words, "checkpoint.keep=2", "seed=1"], outputs=tmp_path / "other")
    (again,) = dynalab.fork(other, 10, ["launcher=inline", *keys])
    assert again.id == forked.id
    assert_same(bits(forked.path), bits(again.path), ["s0001"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.temperature=0"], "train.temperature=0.0: expected a number above 0"),
        (["train.temperature=nan"], "train.temperature=nan: expected a finite number"),
        (["train.norm_clamp=-1"], "train.norm_clamp=-1.0: expected a number above 0, or null"),
        (["train.norm_clamp=1", "train.sphere=true"], "only one of them holds a norm"),
        (["optimizer.orthogonal=maybe"], "optimizer.orthogonal"),
        (["task.loss=stabelmax"], "did you mean stablemax"),
        (["task=parity", "task.loss=stablemax"], "hinge, square or logistic"),
        (["task=regression", "task.loss=stablemax"], "half_square or mse"),
        (["train.norm_clam=1"], "norm_clamp"),
    ],
)
def test_bad_values_are_refused_in_a_line(words, said, here, tmp_path):
    answer = here("train", "--outputs", str(tmp_path), *words)
    assert answer.code == 2 and said in answer.err and len(answer.err.strip().splitlines()) <= 2, answer.err
    assert not any(tmp_path.iterdir())


def test_weights_that_an_edit_holds_are_not_rescaled(here, tmp_path):
    (parent,) = train([*SMALL, "launcher=inline", "train.steps=10"], outputs=tmp_path)
    frozen = ("fork", parent.id, "5", "edit=freeze", "edit.keep=head", "launcher=inline")
    answer = here(*frozen, "train.norm_clamp=1", DYNALAB_OUTPUTS=str(tmp_path))
    assert answer.code == 2 and "train.norm_clamp=1" in answer.err, answer.err
    (held,) = dynalab.fork(parent, 5, ["launcher=inline", "edit=freeze", "edit.keep=head"])
    with pytest.raises(ConfigError, match=r"train\.norm_clamp=1: .*an edit holds some"):
        dynalab.fork(held, 8, ["launcher=inline", "train.norm_clamp=1"])


@pytest.mark.parametrize("key", ["optimizer.orthogonal=true", "train.norm_clamp=1"])
def test_no_stability_threshold_is_claimed(key, tmp_path):
    words = [*SMALL, "launcher=inline", "train.steps=4", "probes=[curvature]", "probe.curvature.every=2"]
    (ensemble,) = train([*words, "optimizer=sgd", "eval.every=2", key], outputs=tmp_path)
    assert np.isfinite(ensemble.array("sharpness")).all()
    assert np.isnan(ensemble.array("stability_threshold")).all()
    result = dynalab.analyze("eos", ensemble)
    (run,) = result.value.runs
    assert run.verdict == "unknown" and run.reason == f"no stability threshold is known with {key}"


def test_probes_see_the_loss_that_is_trained():
    words = ["task.loss=stablemax", "train.temperature=2", "probes=[curvature,numerics]"]
    loop = loop_of(*words, "probe.curvature.every=5")
    batch, row = loop.data.train_batch(0), loop.rows()["every-5"]
    outputs = loop.stack.forward(batch.inputs)
    objective = loop.measuring.items[0].probe._objective
    found = objective.losses({name: loop.stack.params[name] for name in objective.trained}, slice(0, 3))
    for run in range(3):
        expected = plain_loss(loop.config, outputs[run].detach().double(), batch.targets[run]).item()
        assert found[run].item() == pytest.approx(expected, rel=1e-6)
        assert row["train_loss"][run].item() == pytest.approx(expected, rel=1e-6)
        own = outputs[run].detach().gather(1, batch.targets[run][:, None])[:, 0]
        best = outputs[run].detach().scatter(1, batch.targets[run][:, None], -torch.inf).amax(1)
        assert row["min_margin"][run].item() == pytest.approx(((own - best) / 2).min().item(), rel=1e-5)
