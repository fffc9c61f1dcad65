"""Losses on paths between weights, and barriers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dynalab
from dynalab.networks.paths import along, barriers, bezier, line, measured, state_of

WORDS = ["task=digits", "task.n_train=60", "task.n_test=40", "train.batch_size=20"]
WORDS += ["train.steps=30", "eval.every=30", "launcher=inline", "snapshots.at=[0,30]", "seed=0..2"]
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("paths") / "outputs"
    own = {
        "normed": ["model.hidden=[8]", "model.norm=batch", "optimizer.lr=0.5"],
        "plain": ["model.hidden=[8]"],
        "frozen": ["model=si_mlp", "model.width=8"],
    }
    made = {name: dynalab.train([*WORDS, *words], outputs=outputs)[0] for name, words in own.items()}
    return {name: ensemble.group(("done",)) for name, ensemble in made.items()}


def rolled(state, by=1):
    return {name: tensor.roll(-by, 0) for name, tensor in state.items()}


def test_the_ends_of_a_path_are_what_was_recorded(groups):
    group = groups["plain"]
    first, last = group.stack(0), group.stack(30)
    found = along(last, line(state_of(first), state_of(last)), SHARES, last.examples("test"))
    assert {*found} == {"loss", "accuracy"}
    for name, values in found.items():
        rows = [[run.series[f"test_{name}"].values[row] for row in (0, -1)] for run in group.runs]
        assert values[:, [0, -1]].tolist() == rows


def test_a_convex_loss_has_no_barrier(groups):
    stack = groups["plain"].stack(30)
    own, state = stack.examples("train"), state_of(stack)
    # In the weights of its last layer alone the loss is convex.
    other = {name: x.roll(-1, 0) if name.startswith("layers.1") else x for name, x in state.items()}
    straight = along(stack, line(state, other), SHARES, own)["loss"]
    assert (straight[:, 2] < straight[:, [0, -1]].mean(1)).all()
    assert barriers(straight, SHARES).tolist() == [0, 0, 0]
    halfway = {name: (state[name] + other[name]) / 2 for name in state}
    bent = along(stack, bezier(state, halfway, other), SHARES, own)["loss"]
    # A bend on the line gives the line, and one at 0 a curve that meets both ends.
    np.testing.assert_allclose(bent, straight, rtol=1e-4)
    curve = bezier(state, {name: 0 * tensor for name, tensor in state.items()}, other)
    assert all(torch.equal(curve(0.0)[name], state[name]) for name in state)
    assert all(torch.equal(curve(1.0)[name], other[name]) for name in state)
    assert all(torch.allclose(curve(0.5)[name], (state[name] + other[name]) / 4) for name in state)


def test_statistics_are_those_of_the_point_and_not_of_an_end(groups):
    stack = groups["normed"].stack(30)
    train, state = stack.examples("train"), state_of(stack)
    path = line(state, rolled(state))
    fresh = along(stack, path, SHARES, train, train)["loss"]
    stale = along(stack, path, SHARES, train)["loss"]
    # At the middle they are those that a pass with its weights and all training examples in one batch gives.
    middle = {name: tensor for name, tensor in path(0.5).items() if "running" not in name}
    whole = torch.cat([batch.inputs for batch in train.batches], dim=1)
    hidden = (
        torch.einsum("shd,snd->snh", middle["layers.0.weight"], whole.flatten(2))
        + middle["layers.0.bias"][:, None]
    )
    told = stack.refresh_statistics(middle, train)
    np.testing.assert_allclose(told["norms.0.running_mean"], hidden.mean(1), atol=1e-5)
    assert fresh[:, 2].tolist() == stack.losses(middle, train, told).tolist()
    # Means of both ends' statistics, which published code took, are none of the middle's, nor are another piece's.
    assert (abs(stale[:, 2] / fresh[:, 2] - 1) > 0.005).all()
    # A path that goes nowhere has no barrier, to the bit.
    assert barriers(along(stack, line(state, state), SHARES, train, train)["loss"], SHARES).tolist() == [
        0,
        0,
        0,
    ]


def test_a_frozen_head_goes_along_with_the_weights(groups):
    stack = groups["frozen"].stack(30)
    train, state = stack.examples("train"), state_of(stack)
    other = rolled(state)
    assert "head.weight" in state and "head.weight" not in stack.params
    # With all of another run's weights, head included, a run does on its examples what that run does there.
    ends = along(stack, line(state, other), (0.0, 1.0), train, train)["loss"]
    without = measured(stack, {k: v for k, v in other.items() if "head" not in k}, train, train)[
        "loss"
    ].numpy()
    assert (ends[:, 1] < without - 1).all()


def test_a_barrier_is_the_height_over_the_line_between_the_ends():
    losses = np.array([[1.0, 2.0, 3.0], [0.0, 2.5, 3.0], [1.0, 0.0, 1.0], [1.0, np.inf, 1.0], [np.nan, 1, 1]])
    assert barriers(losses, (0, 0.5, 1)).tolist()[:3] == [0.0, 1.0, 0.0]
    assert np.isnan(barriers(losses, (0, 0.5, 1))[3:]).all()
    assert barriers(np.array([[0.0, 1.0, 4.0]]), (0, 0.25, 1)).tolist() == [0.0]
    # A line whose points are rounded has none, either.
    shares = np.linspace(0, 1, 11)
    lines = np.array([[0.03, 0.07], [0.9, 0.1], [1 / 3, 0.2]]) @ np.stack([1 - shares, shares])
    assert barriers(lines, shares.tolist()).tolist() == [0.0, 0.0, 0.0]
    assert barriers(lines + 1e-9 * (shares == 0.5), shares.tolist()) == pytest.approx([1e-9] * 3, rel=1e-5)
