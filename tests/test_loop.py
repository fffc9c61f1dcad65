"""The stacked loop against a bare PyTorch loop, and what its rows mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.training.gradients import clip_scale, scaled
from dynalab.training.loop import Loop
from dynalab.training.spikes import BLOCK
from dynalab.training.streams import Streams

SMALL = ["task=grokking", "task.modulus=7", "eval.every=1", "train.steps=12"]


pytestmark = pytest.mark.usefixtures("one_thread")


def make(words: list[str], seeds: list[int]) -> Loop:
    (request,) = read_command([*SMALL, *words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, torch.device("cpu"))


def run(loop: Loop, steps: int) -> dict[str, np.ndarray]:
    rows = [loop.rows()]
    for _ in range(steps):
        loop.update()
        rows.append(loop.rows())
    flat = [{name: value for part in row.values() for name, value in part.items()} for row in rows]
    return {name: torch.stack([row[name] for row in flat]).numpy() for name in flat[0]}


def bare(words: list[str], seed: int, steps: int) -> tuple[list[dict[str, float]], nn.Module]:
    """Train one seed the way everybody writes it: a module, a torch.optim optimizer, a loop."""
    (request,) = read_command([*SMALL, *words]).requests
    config, streams = request.config, Streams.from_seed(seed)
    task = registry.find("task", "grokking").build(config.task)
    with torch.random.fork_rng():
        torch.manual_seed(streams.integer("init"))
        model = registry.find("model", config.model.name).build(config.model, task.spec)
    size = config.train.batch_size
    data = task.data(
        [streams], batch_size=None if size == "full" else size, eval_size=None, device=torch.device("cpu")
    )
    optimizer = registry.find("optimizer", config.optimizer.name).build(
        config.optimizer, list(model.parameters())
    )
    schedule = registry.find("schedule", config.schedule.name)
    factor = schedule.module.build(config.schedule, steps)
    rate = optimizer.param_groups[0]["lr"]
    dtype = getattr(torch, config.train.loss_dtype)

    def loss_on(batch) -> torch.Tensor:
        outputs = model(batch.inputs[0]).to(dtype)
        if config.task.loss == "mse":
            target = nn.functional.one_hot(batch.targets[0], outputs.shape[1]).to(dtype)
            return ((outputs - target) ** 2).mean()
        return nn.functional.cross_entropy(outputs, batch.targets[0])

    rows = []
    for step in range(steps + 1):
        with torch.no_grad():
            (test,) = data.eval_batches("test")
            accuracy = (model(test.inputs[0]).argmax(1) == test.targets[0]).double().mean().item()
            rows.append({"test_loss": loss_on(test).item(), "test_accuracy": accuracy})
        if step == steps:
            break
        loss = loss_on(data.train_batch(step))
        optimizer.zero_grad()
        loss.backward()
        squares = sum(parameter.grad.double().square().sum().item() for parameter in model.parameters())
        if config.train.clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.train.clip)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for group in optimizer.param_groups:
            group["lr"] = rate * factor(step)
        optimizer.step()
        moved = sum(
            ((p - q).double() ** 2).sum().item() for p, q in zip(model.parameters(), before, strict=True)
        )
        rows.append(
            {"batch_loss": loss.item(), "grad_norm": math.sqrt(squares), "update_norm": math.sqrt(moved)}
        )
        merged = rows.pop()
        rows[-1] |= {f"next_{name}": value for name, value in merged.items()}
    return rows, model


WAYS = [
    ["model.width=8"],
    ["model.width=8", "model.activation=relu", "optimizer=adam"],
    ["model.width=8", "optimizer=sgd", "optimizer.nesterov=true", "optimizer.weight_decay=0.01"],
    ["model=gromov", "model.width=8", "task.loss=mse", "train.batch_size=8"],
    ["model=onehot_mlp", "model.hidden=[8]", "train.clip=0.05"],
    ["model=nanda", "model.width=8", "model.heads=2", "model.mlp_width=8", "schedule=warmup"],
    ["model=nanda", "model.width=8", "model.heads=2", "model.mlp_width=8", "model.layer_norm=true"],
    ["model=power", "model.width=8", "model.heads=2", "train.batch_size=5", "schedule=cosine"],
    ["model.width=8", "train.loss_dtype=float64"],
]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_the_stacked_loop_is_the_bare_loop_of_every_seed(words):
    loop = make(words, [3, 0, 5])
    found = run(loop, 12)
    for index, seed in enumerate([3, 0, 5]):
        rows, model = bare(words, seed, 12)
        for step, row in enumerate(rows):
            assert found["test_loss"][step, index] == pytest.approx(row["test_loss"], rel=2e-4, abs=1e-6)
            for name in ("batch_loss", "grad_norm", "update_norm"):
                if f"next_{name}" in row:
                    assert found[name][step + 1, index] == pytest.approx(
                        row[f"next_{name}"], rel=2e-3, abs=1e-6
                    )
        for name, parameter in model.named_parameters():
            # Adam turns the sign of a tiny gradient into a step of the size of the rate.
            close = torch.isclose(loop.stack.params[name][index], parameter, rtol=1e-3, atol=1e-3)
            assert close.double().mean() > 0.98, name


def test_row_zero_has_no_update_and_row_t_belongs_to_the_update_before_it():
    found = run(make([], [0, 1]), 3)
    for name in ("batch_loss", "train_loss_max", "grad_norm", "update_norm", "last_layer_update_norm"):
        assert np.isnan(found[name][0]).all() and np.isfinite(found[name][1:]).all(), name
    # Full batch: the loss of the update t-1 -> t is the training loss of row t-1.
    np.testing.assert_allclose(found["batch_loss"][1:], found["train_loss"][:-1], rtol=1e-5)


def test_the_largest_batch_loss_since_the_last_row_is_kept():
    words = ["train.batch_size=4"]
    every = run(make(words, [0, 1]), 12)["batch_loss"]
    sparse = make([*words, "eval.every=4"], [0, 1])
    found = [sparse.rows()["every-4"]["train_loss_max"]]
    for step in range(1, 13):
        sparse.update()
        if step % 4 == 0:
            found.append(sparse.rows()["every-4"]["train_loss_max"])
    for index in range(3):
        expected = every[1 + 4 * index : 5 + 4 * index].max(0)
        np.testing.assert_array_equal(found[index + 1].numpy(), expected)


def test_the_last_loss_stands_in_a_row_at_which_losses_are_folded():
    """Losses are folded every 64 updates and whenever a checkpoint or a flush settles them."""
    loop = make(["train.batch_size=4", "model.width=4"], [0, 1])
    for step in range(1, 2 * BLOCK + 1):
        loop.update()
        if step == 3:
            loop.settle()
        row = loop.rows()["every-1"]
        assert row["batch_loss"].isfinite().all(), step
        assert torch.equal(row["batch_loss"], row["train_loss_max"]), step


def test_divergence_is_dated_and_stays_in_its_seed():
    def poisoned(loop: Loop, at: int, steps: int) -> dict[str, np.ndarray]:
        rows = []
        for step in range(steps):
            if step == at:
                with torch.no_grad():
                    loop.params[0][1] = math.inf
            loop.update()
            rows.append(loop.rows()["every-1"]["train_loss"])
        return {"train_loss": torch.stack(rows).numpy()}

    loop, twin = make([], [0, 1, 2]), make([], [0, 1, 2])
    found = poisoned(loop, 5, 10)["train_loss"]
    whole = run(twin, 10)["train_loss"][1:]
    assert loop.settle().tolist() == [-1, 6, -1]
    np.testing.assert_array_equal(found[:, [0, 2]], whole[:, [0, 2]])


def test_clipping_is_per_run():
    torch.manual_seed(0)
    gradients = [
        torch.randn(3, 4, 5) * torch.tensor([1.0, 10.0, 0.001]).view(3, 1, 1),
        torch.randn(3, 2) * 0.1,
    ]
    result = scaled(gradients, clip_scale(gradients, 1.0))
    for index in range(3):
        parameters = [nn.Parameter(g[index].clone()) for g in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[index].clone()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for mine, parameter in zip(result, parameters, strict=True):
            torch.testing.assert_close(mine[index], parameter.grad, rtol=1e-5, atol=1e-7)


def test_streams_vary_what_they_name_and_nothing_else():
    (request,) = read_command(SMALL).requests
    streams = [Streams(1, 2, 3, 4), Streams(1, 9, 3, 4), Streams(9, 2, 3, 4), Streams(1, 2, 9, 4)]
    loop = Loop(request.config, streams, 5, torch.device("cpu"))
    weights = loop.params[0].detach()
    batch = loop.data.train_batch(0)
    same_init = [bool(torch.equal(weights[0], weights[i])) for i in range(4)]
    same_split = [bool(torch.equal(batch.inputs[0], batch.inputs[i])) for i in range(4)]
    assert same_init == [True, True, False, True]
    assert same_split == [True, False, True, True]


def test_a_row_and_the_update_after_it_share_one_pass():
    with_rows, without = make([], [0, 1]), make([], [0, 1])
    for _ in range(3):
        row = with_rows.rows()["every-1"]
        separate = without.measuring.evaluate("train")
        assert torch.allclose(row["train_loss"], separate["train_loss"], rtol=1e-6)
        assert torch.equal(row["train_accuracy"], separate["train_accuracy"])
        with_rows.update()
        without.update()
        assert with_rows.updates.gradients._kept is None
    for name, param in with_rows.stack.params.items():
        assert torch.equal(param, without.stack.params[name])


@pytest.mark.parametrize("activation", ["square", "relu"])
def test_two_tables_can_be_differentiated_twice(activation):
    from dynalab.models.nets.two_tables import two_tables

    generator = torch.Generator().manual_seed(0)
    left, right, output = (
        torch.randn(2, n, 4, generator=generator, dtype=torch.float64).requires_grad_() for n in (5, 5, 3)
    )
    pairs = torch.randint(5, (2, 7, 2), generator=generator)

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        return two_tables(*tensors, pairs, activation)

    assert torch.autograd.gradcheck(function, (left, right, output))
    assert torch.autograd.gradgradcheck(function, (left, right, output))


@pytest.mark.parametrize("activation", ["square", "relu"])
def test_two_tables_by_hand_are_those_of_autograd_whatever_the_blocks(activation, monkeypatch):
    from dynalab.models.nets import two_tables
    from dynalab.models.nets.pairs import EmbeddingMLP

    generator = torch.Generator().manual_seed(0)
    network, pairs = EmbeddingMLP(5, 3, 4, activation), torch.randint(5, (2, 7, 2), generator=generator)
    params = {
        name: torch.randn(2, *param.shape, generator=generator, dtype=torch.float64)
        for name, param in network.named_parameters()
    }
    leaves = [tensor.clone().requires_grad_() for tensor in params.values()]
    outputs = two_tables._batched(*leaves, pairs, activation)
    along = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad(outputs, leaves, along)
    for block in (two_tables.BLOCK, 12):
        # Twelve entries are three rows, and seven examples three blocks.
        monkeypatch.setattr(two_tables, "BLOCK", block)
        found, vjp = network.stacked_vjp(params, pairs)
        torch.testing.assert_close(found, outputs.detach())
        assert torch.equal(found, network.stacked_forward(params, pairs))
        torch.testing.assert_close(tuple(vjp(along).values()), wanted)
    outputs, vjp = two_tables._batched_vjp(*params.values(), pairs, activation)
    torch.testing.assert_close(outputs, found)
    torch.testing.assert_close(vjp(along), wanted)
    none, vjp = network.stacked_vjp(params, pairs[:, :0])
    assert none.shape == (2, 0, 3) and not any(x.any() for x in vjp(none).values())


@pytest.mark.parametrize("size", [(3, 7, 4), (2, 33, 59)])
def test_cross_entropy_by_hand_is_that_of_autograd(size):
    from dynalab.tasks import classification

    generator = torch.Generator().manual_seed(0)
    runs, count, classes = size
    logits = 30 * torch.randn(runs, classes, count, generator=generator, dtype=torch.float64).transpose(1, 2)
    targets = torch.randint(classes, (runs, count), generator=generator)
    leaf = logits.contiguous().requires_grad_()
    wanted = classification.cross_entropy(leaf, targets)
    (gradient,) = torch.autograd.grad(wanted.sum(), [leaf])
    losses, found = classification.cross_entropy_and_gradient(logits, targets)
    torch.testing.assert_close(found, gradient)
    assert torch.equal(losses, wanted.detach())
    for one, other in zip(classification.all_at_once(logits, targets), (losses, found), strict=True):
        torch.testing.assert_close(one, other)
    single = logits.float()
    assert torch.equal(
        classification.cross_entropy_and_gradient(single, targets)[0],
        classification.cross_entropy(single, targets),
    )
    for chosen in ([0], [1, 0]):
        part = classification.cross_entropy_and_gradient(single[chosen].mT.contiguous().mT, targets[chosen])
        whole = classification.cross_entropy_and_gradient(single, targets)
        assert all(torch.equal(one, two[chosen]) for one, two in zip(part, whole, strict=True))
    # A label that is certain, to the last digit of its type, has no loss and no gradient.
    sure = torch.zeros(1, classes, 2).transpose(1, 2)
    sure[..., 0] = 200.0
    assert not any(
        part.any() for part in classification.cross_entropy_and_gradient(sure, sure.new_zeros(1, 2).long())
    )


@pytest.mark.parametrize("model", ["nanda", "power", "onehot_mlp"])
def test_a_lone_run_without_exactness_takes_the_plain_network(model):
    (request,) = read_command([*SMALL, f"model={model}", "train.batch_size=8"]).requests
    loops = [
        Loop(request.config, [Streams.from_seed(3)] * width, 12, torch.device("cpu"), exact=False)
        for width in (1, 2)
    ]
    for loop in loops:
        for _ in range(4):
            loop.update()
    assert loops[0].stack.width == 1
    alone, beside = (loop.rows()["every-1"]["train_loss"] for loop in loops)
    torch.testing.assert_close(alone[0], beside[0], rtol=1e-4, atol=1e-6)
