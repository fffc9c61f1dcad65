"""What is found of slices of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynalab.analysis.base import Frame
from dynalab.core.means import Mean
from dynalab.core.stats import quantile

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Line:
    """The loss of a run along one axis."""

    axis: int  # 1 or 2
    norm: float  # length of the axis' direction, in norms of the weights
    # Length of the stretch around the weights on which the loss stays at or below the level, in norms of the weights;
    # null where the line does not tell.
    width: float | None
    open: bool  # whether that stretch reaches an end of the line, so that it is at least so wide
    convex: float | None  # share of the line's points at which it is convex; null where a loss is not finite
    barrier: float | None = None  # towards another run: height of the loss over the line between both ends


@dataclass(frozen=True)
class Plane:
    """The loss of a run on a plane."""

    below: float  # share of its points with a loss at or below the level
    convex: float | None  # share of its inner points at which it is convex; null where a loss is not finite
    lowest: float  # lowest loss in the plane


@dataclass(frozen=True)
class Trajectory:
    """How much of a trajectory its principal plane has: shares of variance along one and along two directions."""

    rows: int  # how many rows the trajectory has
    centred: tuple[float | None, ...]  # of the rows less their mean
    uncentred: tuple[float | None, ...]  # of the rows less the last one
    # What is expected of a random walk with steps of the same lengths: near .61 and .76 with many equal ones.
    centred_null: tuple[float | None, ...]
    uncentred_null: tuple[float | None, ...]  # likewise, near .81 and .90


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    verdict: str  # `measured`; `insufficient_data` where its loss at the weights is not finite
    reason: str  # in words
    loss: float | None = None  # at the weights
    level: float | None = None  # loss up to which a point counts as low
    lambda_max: float | None = (
        None  # largest eigenvalue of the Hessian at the weights; null where not measured
    )
    lambda_min: float | None = None  # least one
    lines: tuple[Line, ...] = ()  # along the axes
    plane: Plane | None = None  # null where none was asked for
    trajectory: Trajectory | None = None  # of the plane of the path


@dataclass(frozen=True)
class Widths:
    """The widths of lines along one axis over runs."""

    axis: int  # 1 or 2
    runs: int  # how many have one
    open: int  # how many of them are open: at least so wide
    median: float | None  # in norms of the weights; null where half of them are open
    quartiles: Bounds  # likewise


@dataclass(frozen=True)
class Summary:
    """What holds over runs."""

    step: int  # step of the weights
    split: str  # what the loss is of
    examples: int  # of how many examples of a run
    plane: str  # the key: which directions
    statistics: str  # `refreshed` at every point, `held`, or `none` where the network has none
    runs: int  # how many were measured
    widths: tuple[Widths, ...]  # of the lines along each axis
    below: Mean  # `plane.below`
    convex: Mean  # `plane.convex`
    lambda_max: Mean  # of the runs
    lambda_min: Mean  # of the runs
    ratio: Mean  # |lambda_min| / lambda_max
    # Of the lines from every run to the next one: pairs of runs share these, so the interval is over runs
    # (`mean_over_pairs`; null of fewer than five), and `runs` are the pairs.
    barrier: Mean
    centred: Mean  # share of two directions of the trajectories, centred
    centred_null: Mean  # a random walk's
    uncentred: Mean  # likewise, not centred
    uncentred_null: Mean  # a random walk's


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    warnings: tuple[str, ...] = ()
    # A row a run, axis and point of a line: where it is, in units of the axis, and the loss.
    lines: Frame = None
    planes: Frame = None  # a row a run and point of its plane: where it is along both axes, and the loss
    # A row a run and row of its trajectory, or end of a line to another run: its step and where it is in the plane.
    points: Frame = None


def widths_of(axis: int, runs: Sequence[RunFindings]) -> Widths:
    """Return the widths along an axis; an open one counts as wider than all others."""
    lines = [line for run in runs for line in run.lines if line.axis == axis and line.width is not None]
    values = [None if line.open else line.width for line in lines]
    low, middle, high = (quantile(values, share) if values else None for share in (0.25, 0.5, 0.75))
    return Widths(axis, len(lines), sum(line.open for line in lines), middle, (low, high))
