"""Slices of the loss: directions by their rules, a quadratic bowl as it is, statistics of every point."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from groups import NETWORKS, of_networks

from dynalab.analysis import landscape
from dynalab.analysis.command import findings_of
from dynalab.analysis.landscape import axes as ways
from dynalab.analysis.landscape.findings import Widths
from dynalab.analysis.landscape.measure import _levels
from dynalab.analysis.landscape.slices import (
    Axis,
    convex_line,
    convex_plane,
    grid,
    line_losses,
    plane_losses,
    stretch,
)
from dynalab.config.registry import find
from dynalab.core.means import Mean
from dynalab.errors import ConfigError, NothingMatched
from dynalab.show.blocks import Lines, Say, Surfaces
from dynalab.show.plots import draw

STEPS = np.arange(0, 41, 10)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def group():
    return of_networks(STEPS, 3, *NETWORKS)


def found(group, **keys):
    part = find("analysis", "landscape")
    return findings_of([group], part, landscape.Config(**{"points": 5, **keys}))


def test_a_bowl_comes_back_exactly():
    rng = np.random.default_rng(0)
    centre = {"a": torch.tensor(rng.normal(size=(2, 3, 2))), "b": torch.tensor(rng.normal(size=(2, 4)))}
    roots = torch.tensor(rng.normal(size=(2, 10, 10)))
    bowls = torch.einsum("sij,skj->sik", roots, roots)

    def flat(state):
        return torch.cat([state["a"].flatten(1), state["b"]], dim=1)

    def losses(state):
        away = flat(state) - flat(centre)
        return 0.5 * torch.einsum("si,sij,sj->s", away, bowls, away) + 3.0

    ways_ = [{name: torch.tensor(rng.normal(size=x.shape)) for name, x in centre.items()} for _ in range(2)]
    first, second = (Axis(way, np.array([-1.0, -3.0]), np.array([1.0, 0.5])) for way in ways_)
    u, v = (flat(way) for way in ways_)

    def form(one, other):
        return torch.einsum("si,sij,sj->s", one, bowls, other).numpy()[:, None, None]

    x, y = first.places(7)[:, :, None], second.places(7)[:, None]
    told = 3 + 0.5 * (form(u, u) * x**2 + form(v, v) * y**2) + form(u, v) * x * y
    np.testing.assert_allclose(plane_losses(losses, centre, first, second, 7, 2), told, rtol=1e-12)
    np.testing.assert_allclose(
        line_losses(losses, centre, first, 7), (3 + 0.5 * form(u, u) * x**2)[..., 0], rtol=1e-12
    )
    assert [convex_plane(values) for values in told] == [1.0, 1.0]
    assert [convex_line(values[:, 3]) for values in told] == [1.0, 1.0]
    saddle = np.add.outer(grid(9) ** 2, -(grid(9) ** 2))
    assert convex_plane(saddle) == 0.0 and convex_line(saddle[4]) == 0.0 and convex_line(saddle[:, 4]) == 1.0
    # Eigenvalues are the bowl's own.
    top, low, (vector,) = ways.extremes(lambda own: losses({**centre, **own}), centre, 1)
    values = torch.linalg.eigvalsh(bowls)
    np.testing.assert_allclose([top, low], values[:, [-1, 0]].T.numpy(), rtol=1e-8, atol=1e-8)
    product = torch.einsum("sij,sj->si", bowls, flat(vector))
    np.testing.assert_allclose(product, values[:, -1:] * flat(vector), atol=1e-6)


def test_a_bowl_comes_back_along_eigenvectors_and_between_runs():
    rng = np.random.default_rng(1)
    weights = torch.tensor(rng.normal(size=(3, 6)))
    roots = torch.tensor(rng.normal(size=(6, 6)))
    bowl = roots @ roots.T

    def losses(state):
        return 0.5 * torch.einsum("si,ij,sj->s", state["w"], bowl, state["w"])

    def at(first, second, n):
        x, y = first.places(n)[:, :, None, None], second.places(n)[:, None, :, None]
        u, v, w = (
            tensor.numpy()[:, None, None] for tensor in (first.direction["w"], second.direction["w"], weights)
        )
        points = w + x * u + y * v
        return 0.5 * np.einsum("sabi,ij,sabj->sab", points, bowl.numpy(), points)

    state = {"w": weights}
    _, _, vectors = ways.extremes(losses, state, 2)
    along_vectors = ways.eigen_axes(vectors, weights.norm(dim=1).numpy(), 1.0)
    between = ways.run_axes(state, 2)
    for first, second in (along_vectors, between):
        values = plane_losses(losses, state, first, second, 7)
        np.testing.assert_allclose(values, at(first, second, 7), rtol=1e-10)
        assert [convex_plane(own) for own in values] == [1.0] * 3
    # Along an eigenvector the bowl bends by its eigenvalue, in norms of the weights, and the two do not mix.
    top = torch.linalg.eigvalsh(bowl)[-1].item()
    line = line_losses(losses, state, along_vectors[0], 7)
    step = np.diff(along_vectors[0].places(7), axis=1)[:, :1]
    np.testing.assert_allclose(
        np.diff(line, 2, axis=1) / step**2,
        (top * weights.norm(dim=1)[:, None] ** 2).expand(3, 5).numpy(),
        rtol=1e-6,
    )
    # The way between two runs ends at the other run.
    ends = line_losses(losses, state, Axis(between[0].direction, np.zeros(3), np.ones(3)), 3)[:, -1]
    np.testing.assert_allclose(ends, losses({"w": weights.roll(-1, 0)}).numpy(), rtol=1e-12)


def test_random_directions_are_normalised_by_filter(group):
    stack = group.stack(40)
    for own in stack.params.values():
        # Units of very different norms.
        own.mul_(torch.linspace(1, 3, own.shape[1]).reshape(1, -1, *[1] * (own.ndim - 2)))

    def axis(vectors, runs=group.runs, draw=0):
        return ways.random_axis(stack, runs, draw, vectors, 1.0).direction

    held = axis("hold")
    for name, own in stack.params.items():
        if own.ndim > 2:
            # Unit by unit, not as a whole and not to the root of the size.
            assert torch.allclose(held[name].norm(dim=2), own.norm(dim=2), rtol=1e-4)
            assert held[name].norm(dim=2).std() > 0.1
        else:
            assert name not in held
            assert torch.equal(axis("weights")[name], own)
            # A vector is normalised once, as one: not entry by entry, which would leave only signs to chance.
            drawn = axis("random")[name]
            assert torch.allclose(drawn.norm(dim=1), own.norm(dim=1), rtol=1e-4)
            assert not torch.allclose(drawn.abs(), own.abs(), rtol=0.1)
    # A run has its own direction, whatever runs stand beside it.
    assert not torch.allclose(
        held["layers.0.weight"][0] / held["layers.0.weight"][1], torch.ones(1), rtol=0.1
    )
    assert not torch.equal(axis("hold", draw=1)["layers.0.weight"], held["layers.0.weight"])


def test_a_stretch_ends_where_the_loss_passes_the_level():
    at = grid(5) * 2
    one = stretch(at, np.array([9.0, 1.0, 0.0, 2.0, 4.0]), 3.0)
    assert one is not None and not one.open and one.width == pytest.approx(1 + 2 / 8 + 1 + 0.5)
    assert stretch(at, np.array([9.0, 1.0, 5.0, 2.0, 4.0]), 3.0) is None
    wide = stretch(at, np.array([1.0, 1.0, 0.0, np.inf, 4.0]), 3.0)
    assert wide is not None and wide.open and wide.width == 2.0


def test_the_plane_of_a_path_holds_it_and_its_null_is_a_walks(group):
    findings = found(group, plane="path", curvature=False)
    (own, *_) = findings.runs
    # These paths lie in a plane: all of the variance, and the row at the middle is where it says.
    assert own.trajectory.centred[1] == pytest.approx(1.0) and own.trajectory.rows == len(STEPS)
    assert own.trajectory.centred_null[1] < 0.9
    stack = group.stack(40)
    axes, _, points = ways.path_axes(group, 40, stack, np.ones(3))
    steps, at = points[0]
    # Every run's row that is furthest along an axis is above 0.
    assert all((np.abs(rows).max(0) == rows.max(0)).all() for _, rows in points)
    assert steps.tolist() == STEPS.tolist() and at[-1] == pytest.approx([0, 0], abs=1e-12)
    there = {name: stack.params[name][0] + at[2, 0] * axes[0].direction[name][0] + at[2, 1] * axes[1].direction[name][0]
             for name in stack.params}  # fmt: skip
    for name, tensor in there.items():
        np.testing.assert_allclose(tensor, group.runs[0].weights.at(20)[name], atol=1e-4)
    walk = np.minimum.outer(np.arange(200.0), np.arange(200.0))
    assert ways._first_two(ways._centred(walk)) == pytest.approx([0.61, 0.76], abs=0.01)
    assert ways._first_two(ways._from_last(walk)) == pytest.approx([0.81, 0.90], abs=0.01)


def test_between_runs_the_ends_are_the_runs(group):
    findings = found(group, plane="runs", split="test", curvature=False)
    stack = group.stack(40)
    axes = ways.run_axes(stack.params, 2)
    lines = findings.lines[(findings.lines["run"] == group.runs[0].id) & (findings.lines["axis"] == 1)]
    other = stack.losses({name: x.roll(-1, 0) for name, x in stack.params.items()}, stack.examples("test"))
    assert lines[np.isclose(lines["at"], 1)]["loss"].item() == pytest.approx(float(other[0]), rel=1e-5)
    assert findings.runs[0].lines[0].barrier is not None and findings.summary.barrier.runs == 3
    third = {name: stack.params[name] + axes[1].direction[name] for name in stack.params}
    share = ways.part_along({n: x.roll(-2, 0) - x for n, x in stack.params.items()}, axes[0].direction)
    for name, x in third.items():
        back = x + ways.along(share, x) * axes[0].direction[name]
        assert torch.allclose(back, stack.params[name].roll(-2, 0), atol=1e-5)


def test_statistics_are_refreshed_at_every_point_unless_they_are_to_be_held():
    normed = of_networks(STEPS, 2, *NETWORKS, "model.norm=batch")
    fresh, stale = (
        found(normed, statistics=how, dimensions=1, curvature=how == "refresh") for how in ("refresh", "hold")
    )
    assert (fresh.summary.statistics, stale.summary.statistics) == ("refreshed", "held")
    assert not np.allclose(fresh.lines["loss"], stale.lines["loss"], rtol=0.01)
    # Layers under a norm may be scaled without any effect: a direction without curvature of the refreshed loss.
    stack = normed.stack(40)
    own = {name: stack.params[name] for name in stack.trained}
    scaled = {name: 1.3 * x if name == "layers.0.weight" else x for name, x in own.items()}
    examples = stack.examples("train")
    losses = [stack.losses(params, examples, training=True) for params in (own, scaled)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)
    held = stack.losses(scaled, examples) / stack.losses(own, examples)
    assert ((held - 1).abs() > 1e-4).all()
    mean = "norms.0.running_mean"
    assert torch.equal(stack.buffers[mean], normed.stack(40).buffers[mean])
    assert fresh.planes is None and fresh.summary.below.runs == 0


def test_what_is_drawn_and_said(group):
    for plane in landscape.PLANES:
        findings = found(group, plane=plane)
        blocks = list(landscape.show(findings, [group]))
        surfaces, lines = (next(b for b in blocks if isinstance(b, kind)) for kind in (Surfaces, Lines))
        assert len(surfaces.surfaces) == 3 and len(lines.panels) == 2
        assert len(draw(surfaces).axes) == 4 and draw(lines).axes[-1].get_xlabel() == lines.axis
        values = surfaces.surfaces[0].values
        table = findings.planes[findings.planes["run"] == group.runs[0].id]
        assert values[1, 3] == table["loss"].to_numpy()[1 * 5 + 3]
        words = " ".join(block.text for block in blocks if isinstance(block, Say))
        assert "random walk" in words if plane == "path" else "random walk" not in words
        assert "Hessian" in words


def test_what_cannot_be_measured_is_said_in_a_line(group):
    with pytest.raises(NothingMatched, match=r"no weights of step 25 were kept: there are those of steps"):
        found(group, at=25)
    with pytest.raises(NothingMatched, match=r"2 steps up to step 10, and the plane of a path takes 3"):
        found(group, at=10, plane="path")
    with pytest.raises(
        NothingMatched, match=r"plane=runs: a plane through runs takes 3 of them.*dimensions=1"
    ):
        found(replace(group, runs=group.runs[:2]), plane="runs")
    with pytest.raises(ConfigError, match=r"plane=filter: expected"):
        landscape.Config(plane="filter")
    shifted = replace(group.runs[0], weights=replace(group.runs[0].weights, kept=lambda: (5,)))
    with pytest.raises(NothingMatched, match="no step has weights of all 3 runs"):
        found(replace(group, runs=(shifted, *group.runs[1:])))
    broken = replace(
        group.runs[0].weights,
        read=lambda step: {n: x * np.nan for n, x in group.runs[0].weights.at(step).items()},
    )
    findings = found(replace(group, runs=(replace(group.runs[0], weights=broken), *group.runs[1:])))
    assert [run.verdict for run in findings.runs] == ["insufficient_data", "measured", "measured"]


def test_what_is_said_of_few_runs_and_of_flat_losses(group):
    two = found(replace(group, runs=group.runs[:2]), plane="runs", dimensions=1, curvature=False).summary
    assert two.barrier.runs == 1 and two.barrier.interval == (None, None)  # there and back is one pair
    one = found(replace(group, runs=group.runs[:1]), dimensions=1, points=3)
    words = " ".join(block.text for block in landscape.show(one, []) if isinstance(block, Say))
    assert "median" not in words and "means" not in words and "half of the runs" not in words
    # A ratio that one of three runs has is said to be of that one, and is no sign of few negative directions.
    flat = replace(
        one.summary, lambda_max=Mean(3, 0.1, (-0.2, 0.4)), lambda_min=Mean(3, -0.1, (-0.4, 0.2)),
        ratio=Mean(1, 1.0, (None, None)), below=Mean(3, 0.02, (-0.01, 0.05)),
    )  # fmt: skip
    blocks = list(landscape.show(replace(one, summary=flat), []))
    words = " ".join(block.text for block in blocks if isinstance(block, Say))
    assert (
        "(means); they are 0 in 2 of 3 runs: the least is 1 of the largest in size in the other 1 run."
        in words
    )
    (low,) = (row for row in blocks[2].rows if row[0] == "share of the plane that is low")
    assert low[-1] == "0, 0.05"
    wide = replace(flat, widths=(Widths(1, 3, 1, 1.06, (0.988, None)),))
    table = list(landscape.show(replace(one, summary=wide), []))[2]
    assert table.rows[0][-1] == "0.988 to beyond the line (quartiles)"
    none = replace(one.summary, lambda_max=Mean(3, 0.0, (None, None)), lambda_min=Mean(3, 0.0, (None, None)),
                   ratio=Mean(0, None, (None, None)))  # fmt: skip
    words = " ".join(b.text for b in landscape.show(replace(one, summary=none), []) if isinstance(b, Say))
    assert words.endswith("least eigenvalue of the Hessian at the weights are 0 in all 3 runs.")


@pytest.mark.parametrize(("step", "level"), [(0, 4.0), (40, 2.1)])
def test_the_level_goes_by_the_first_row_unless_that_is_looked_at(step, level):
    rows = SimpleNamespace(steps=[0, 10], values=[3.0, 2.5])
    runs = (SimpleNamespace(first=lambda name: rows if name == "train_loss" else None),)
    place = SimpleNamespace(step=step, group=SimpleNamespace(runs=runs))
    assert _levels(place, np.array([2.0]), landscape.Config()) == pytest.approx([level])
