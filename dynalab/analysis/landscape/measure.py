"""The losses of a group's runs on lines and planes through their weights of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.landscape import axes as ways
from dynalab.analysis.landscape.slices import Axis, dot, line_losses, plane_losses
from dynalab.analysis.learnt import LEAST
from dynalab.core.errors import NothingMatched
from dynalab.core.machine import cores
from dynalab.core.words import count

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.analysis.landscape import Config
    from dynalab.networks.stacked import Examples, Stacked

    State = Mapping[str, Tensor]

# Rows of a trajectory that make a plane.
FEWEST = 3
# Where no level is given: this share of the way from the loss at the weights to that of the first row.
LEVEL = 0.1


@dataclass(frozen=True)
class Place:
    """The networks of a group at the weights of a step."""

    group: Group
    step: int
    stack: Stacked
    state: State
    examples: Examples
    training: Examples | None  # what statistics are estimated on; None: they are held, or there are none
    norms: np.ndarray  # of the trained weights, (S,)

    def losses(self, state: State) -> Tensor:
        """Return the losses at a state, (S,)."""
        import torch

        from dynalab.networks.paths import at

        params, buffers = at(self.stack, state, self.training)
        with torch.no_grad():
            return self.stack.losses(params, self.examples, buffers)

    @property
    def workers(self) -> int:
        """How many threads may measure at once."""
        return cores() if self.stack.reentrant else 1


@dataclass(frozen=True)
class Slices:
    """What is measured of a group's runs.

    Attributes:
        place: The networks.
        centre: Losses at the weights, (S,).
        levels: Losses up to which a point counts as low, (S,).
        axes: One or two.
        lines: Losses along each, (S, n) each.
        planes: Losses on the plane of both, (S, m, m); None with one axis.
        shares: Of every run's trajectory, where the plane is its own.
        points: Of every run what is drawn on its plane, steps (k,) and places (k, 2); none where nothing is.
        top: Largest eigenvalues, (S,); None where they are not measured.
        low: Least ones.
    """

    place: Place
    centre: np.ndarray
    levels: np.ndarray
    axes: Sequence[Axis]
    lines: Sequence[np.ndarray]
    planes: np.ndarray | None
    shares: Sequence[ways.Shares]
    points: Sequence[tuple[np.ndarray, np.ndarray]]
    top: np.ndarray | None
    low: np.ndarray | None


def slices_of(group: Group, config: Config) -> Slices:
    """Measure a group's runs; raises as `analyse` does."""
    place = _place(group, config)
    top, low, vectors = _curvature(place, config)
    axes, shares, points = _axes(place, config, vectors)
    centre = place.losses(place.state).cpu().numpy()
    n = 4 * (config.points // 2) + 1
    lines = [line_losses(place.losses, place.state, axis, n) for axis in axes]
    planes = None
    if len(axes) == 2:
        planes = plane_losses(place.losses, place.state, axes[0], axes[1], config.points, place.workers)
    levels = _levels(place, centre, config)
    return Slices(place, centre, levels, axes, lines, planes, shares, points, top, low)


def _place(group: Group, config: Config) -> Place:
    from dynalab.networks.paths import held, state_of
    from dynalab.networks.statistics import statistics_of

    if config.plane == "runs" and len(group.runs) < 1 + config.dimensions:
        what = "a line between runs" if config.dimensions == 1 else "a plane through runs"
        few = "; dimensions=1 takes two" if config.dimensions == 2 else ""
        raise NothingMatched(
            f"plane=runs: {what} takes {1 + config.dimensions} of them, {group.id} has {len(group.runs)}{few}"
        )
    step = last_step(group) if config.at is None else config.at
    stack = group.stack(step)
    examples = held(stack.examples(config.split, config.examples))
    training = None
    if config.statistics == "refresh" and statistics_of(stack.buffers):
        training = examples if config.split == "train" else held(stack.examples("train", config.examples))
    own = {name: stack.params[name] for name in stack.trained}
    return Place(group, step, stack, state_of(stack), examples, training, np.sqrt(dot(own, own)))


def last_step(group: Group) -> int:
    """Return the last step at which weights of every run were kept.

    Raises:
        NothingMatched: There is none.
    """
    if not group.kept:
        raise NothingMatched(
            f"{group.id}: no step has weights of all {count(len(group.runs), 'run')}; name runs that share one, or "
            "dynalab train ... snapshots.at=log keeps them"
        )
    return group.kept[-1]


def _curvature(
    place: Place, config: Config
) -> tuple[np.ndarray | None, np.ndarray | None, list[dict[str, Tensor]]]:
    """Return extreme eigenvalues (S,), where they are asked for, and eigenvectors, where slices go along them."""
    from dynalab.networks.paths import at

    if not config.curvature and config.plane != "eigen":
        return None, None, []
    stack = place.stack
    _, buffers = at(stack, place.state, place.training)
    params = {name: stack.params[name] for name in stack.trained}
    losses = partial(
        stack.losses, examples=place.examples, buffers=buffers, training=place.training is not None
    )
    return ways.extremes(lambda own: losses(own), params, 2 if config.plane == "eigen" else 1)


def _axes(
    place: Place, config: Config, vectors: list[dict[str, Tensor]]
) -> tuple[list[Axis], list[ways.Shares], list[tuple[np.ndarray, np.ndarray]]]:
    """Return the axes, shares of the trajectories' variance, and points that are drawn on the planes."""
    group, n = place.group, config.dimensions
    if config.plane == "random":
        draws = range(2 * config.draw, 2 * config.draw + n)
        return (
            [ways.random_axis(place.stack, group.runs, draw, config.biases, config.span) for draw in draws],
            [],
            [],
        )
    if config.plane == "eigen":
        return ways.eigen_axes(vectors, place.norms, config.span)[:n], [], []
    if config.plane == "runs":
        found = ways.run_axes(place.state, n)
        return found, [], _corners(place, found)
    for run in group.runs:
        rows = sum(step <= place.step for step in run.weights.grid)
        if rows < FEWEST:
            raise NothingMatched(
                f"{run.id}: weights were kept at {count(rows, 'step')} up to step {place.step:,}, and the plane of a "
                f"path takes {FEWEST}: dynalab train ... snapshots.at=log"
            )
    found, shares, points = ways.path_axes(group, place.step, place.stack, place.norms)
    return found[:n], shares, points


def _corners(place: Place, found: Sequence[Axis]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return where the runs that planes go through are: each its own at 0, the next one, the one after that."""
    at = [np.zeros(len(place.norms)), np.ones(len(place.norms))]
    corners = [np.stack([at[0], at[0]], 1), np.stack([at[1], at[0]], 1)]
    if len(found) == 2:
        third = {name: x.roll(-2, 0) - x for name, x in place.state.items()}
        corners.append(np.stack([ways.part_along(third, found[0].direction), at[1]], 1))
    steps = np.full(len(corners), place.step)
    return [(steps, np.stack([corner[row] for corner in corners])) for row in range(len(place.norms))]


def _levels(place: Place, centre: np.ndarray, config: Config) -> np.ndarray:
    """Return the loss up to which a point is low, of every run, (S,)."""
    if config.level is not None:
        return np.full(len(centre), config.level)
    first = [run.first(f"{config.split}_loss") for run in place.group.runs]
    # At the first row itself the two differ by their examples alone.
    begun = np.array(
        [np.nan if series is None or series.steps[0] == place.step else series.values[0] for series in first]
    )
    # Where a run has hardly come down, or that is not known: twice its loss.
    return np.where(centre <= (1 - LEAST) * begun, centre + LEVEL * (begun - centre), 2 * centre)
