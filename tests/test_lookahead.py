"""Lookahead, parameter groups and accumulation: against plain references, closed forms, and through a resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stored import assert_same, bits, only_ensemble

from dynalab import train
from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.optim.base import grouped
from dynalab.optim.lines import padded
from dynalab.optim.updates import fuse, make_step
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

BASE = ["task=grokking", "task.modulus=7", "model.width=8", "eval.every=1", "train.steps=23"]


pytestmark = pytest.mark.usefixtures("one_thread")


def loop_of(words: list[str], seeds: list[int]) -> Loop:
    (request,) = read_command([*BASE, *words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, torch.device("cpu"))


@pytest.mark.parametrize("inner", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("inner_state", ["keep", "reset", "pullback"])
def test_it_is_the_plain_algorithm_of_every_seed_to_the_bit(inner, inner_state):
    """The reference moves one seed's parameters by torch's optimizer and the five lines of the paper."""
    words = ["optimizer=lookahead", f"optimizer.inner={inner}", "optimizer.k=4", "optimizer.alpha=0.3"]
    words += [f"optimizer.inner_state={inner_state}"] + (["optimizer.momentum=0.9"] if inner == "sgd" else [])
    loop = loop_of(words, [0, 1, 2])
    config = loop.config.optimizer.inner_config()
    copies = [[padded(param[s]).requires_grad_() for param in loop.params] for s in range(3)]
    plain = [registry.find("optimizer", inner).build(config, own) for own in copies]
    for optimizer in plain:
        fuse(optimizer)
    slow = [[param.detach().clone() for param in own] for own in copies]
    cached: list[dict] = [{}, {}, {}]
    for step in range(1, 24):
        _, _, gradients = loop.updates.gradients.of(loop.step)
        loop.update()
        for s in range(3):
            for param, gradient in zip(copies[s], gradients, strict=True):
                param.grad = gradient[s].clone()
            make_step(plain[s])
            if step % 4:
                continue
            for place, (param, phi) in enumerate(zip(copies[s], slow[s], strict=True)):
                with torch.no_grad():
                    phi.add_(param - phi, alpha=0.3)
                    param.copy_(phi)
                state = plain[s].state[param]
                if inner_state == "reset":
                    state.clear()
                if inner_state == "pullback":
                    for name, moment in state.items():
                        if getattr(moment, "shape", None) == param.shape:
                            before = cached[s].setdefault((place, name), torch.zeros_like(moment))
                            moment.copy_(before + 0.3 * (moment - before))
                            before.copy_(moment)
        for s in range(3):
            for param, mine, phi in zip(copies[s], loop.params, slow[s], strict=True):
                assert torch.equal(param, mine[s]), step
                assert torch.equal(phi, loop.updates.optimizer.slow[mine][s]), step


def test_slow_weights_are_what_is_evaluated_and_kept():
    loop = loop_of(["optimizer=lookahead", "optimizer.k=5"], [0, 1])
    first = loop.rows()["every-1"]
    rows = []
    for _ in range(10):
        loop.update()
        rows.append(loop.rows()["every-1"])
    for row in rows[:4]:
        assert torch.equal(row["test_loss"], first["test_loss"])
        assert torch.equal(row["l2"], first["l2"])
    assert not torch.equal(rows[4]["test_loss"], first["test_loss"])
    kept = loop.snapshot(2)
    for name, param in loop.stack.params.items():
        assert torch.equal(kept[name], loop.updates.optimizer.slow[param])


def test_the_stationary_variance_is_the_closed_form():
    """Noisy quadratic a (x - c)^2 / 2, c ~ N(0, s^2): Zhang et al. 2019, proposition 2."""
    rate, curvature, noise, k, alpha = 0.5, 1.0, 1.0, 5, 0.5
    q = 1 - rate * curvature
    sgd = rate**2 * curvature**2 * noise**2 / (1 - q**2)
    a, b = alpha**2 * (1 - q ** (2 * k)), 2 * alpha * (1 - alpha) * (1 - q**k)
    expected = a / (a + b) * sgd
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(20_000, 1, 1, requires_grad=True)
    part = registry.find("optimizer", "lookahead")
    optimizer = part.build(part.config_class(inner="sgd", lr=rate, k=k, alpha=alpha), [x])
    found = []
    for step in range(1, 301):
        x.grad = curvature * (x.detach() - noise * torch.randn(x.shape, generator=generator))
        optimizer.step()
        if step > 100 and step % k == 0:
            found.append(optimizer.slow[x].var().item())
    assert np.mean(found) == pytest.approx(expected, rel=0.03)
    assert sgd == pytest.approx(1 / 3) and expected == pytest.approx(0.113, abs=1e-3)


@pytest.mark.parametrize("inner_state", ["keep", "reset", "pullback"])
def test_resume_in_the_middle_of_a_cycle_is_exact(inner_state, tmp_path):
    words = ["task=grokking", "task.modulus=7", "model.width=8", "optimizer=lookahead", "optimizer.k=7"]
    words += [f"optimizer.inner_state={inner_state}", "launcher=inline", "seed=0..2"]
    for steps in (10, 25, 40):
        train([*words, f"train.steps={steps}"], outputs=tmp_path / "pieces")
    train([*words, "train.steps=40"], outputs=tmp_path / "whole")
    one, other = bits(only_ensemble(tmp_path / "pieces")), bits(only_ensemble(tmp_path / "whole"))
    assert_same(one, other, one)
    (ensemble,) = train([*words, "train.steps=40"], outputs=tmp_path / "whole")
    weights = ensemble.model(1, 40).state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_inner_optimizer_is_the_tasks_own_unless_named():
    (request,) = read_command(["task=grokking", "optimizer=lookahead"]).requests
    optimizer = request.config.optimizer
    assert (optimizer.inner, optimizer.lr, optimizer.weight_decay) == ("adamw", 3e-3, 1.0)
    (request,) = read_command(["task=grokking", "optimizer=lookahead", "optimizer.inner=sgd"]).requests
    assert (request.config.optimizer.lr, request.config.optimizer.momentum) == (0.3, 0.9)


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.inner=lookahead"],
        ["optimizer.inner=adamv"],
        ["optimizer.k=0"],
        ["optimizer.alpha=0"],
        ["optimizer.inner_state=halve"],
        ["optimizer.inner=adamw", "optimizer.momentum=0.9"],
        ["optimizer.inner=sgd", "optimizer.lr=-1"],
    ],
)
def test_what_cannot_be_is_named(words):
    with pytest.raises(ConfigError, match="optimizer"):
        read_command(["task=grokking", "optimizer=lookahead", *words])


def test_decay_can_leave_biases_and_norms_alone():
    matrix, bias = torch.ones(3, 4, 5), torch.ones(3, 4)
    assert grouped([matrix, bias], "all") == [matrix, bias]
    for name in ("sgd", "adam", "adamw"):
        part = registry.find("optimizer", name)
        params = [matrix.clone().requires_grad_(), bias.clone().requires_grad_()]
        optimizer = part.build(part.config_class(lr=0.1, weight_decay=0.5, decay="matrices"), params)
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
        assert (params[0] < 1).all() and (params[1] == 1).all(), name


def test_accumulated_batches_are_one_large_batch():
    """Two halves of an epoch of 20 examples are its full batch."""
    words = ["optimizer=sgd", "optimizer.momentum=0"]
    halves = loop_of(
        [*words, "train.batch_size=10", "train.accumulate=2", "task.train_fraction=0.41"], [0, 1]
    )
    assert halves.data.train_batch(0).size == 10
    whole = loop_of([*words, "task.train_fraction=0.41"], [0, 1])
    for _ in range(5):
        halves.update()
        whole.update()
    for name, param in whole.stack.params.items():
        torch.testing.assert_close(halves.stack.params[name], param, rtol=1e-4, atol=1e-5)
    mine, theirs = (loop.rows()["every-1"]["batch_loss"] for loop in (halves, whole))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
