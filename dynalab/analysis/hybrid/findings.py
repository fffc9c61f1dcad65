"""What is found of hybrids: full training up to a step, and from there on that of some parts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Frame
from dynalab.core.means import OPEN, Bounds, mean_interval

# Runs from which on equal differences need no spread: a test of signs refuses every other value at 5%.
SIGNS = 6
# Share of a metric below which a mean difference is what adding leaves of differences that cancel.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Hybrid:
    """The hybrid of a run."""

    at_step: int  # step from which on all other weights are held
    # id of the fork's run; that of the run itself where it had ended by then; null where it did not end well
    fork: str | None
    final: Mapping[str, float | None]  # metric -> its value in the last row


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    final: Mapping[str, float | None]  # metric -> its value in the last row of full training
    hybrids: tuple[Hybrid, ...]  # by `at_step`


@dataclass(frozen=True)
class Over:
    """A metric over pairs of a run and its hybrid."""

    runs: int  # pairs in which it is known
    hybrid: float | None  # mean over hybrids
    full: float | None  # mean over the runs themselves
    difference: float | None  # mean of the former less the latter
    # 95% interval of that (Student); null where it is not known, as where half of the runs have the lowest or highest
    interval: Bounds = OPEN

    @classmethod
    def of(cls, hybrid: np.ndarray, full: np.ndarray) -> Over:
        """Return it for values (n,) of pairs, NaN where one is not known."""
        known = np.isfinite(hybrid) & np.isfinite(full)
        if not known.any():
            return cls(0, None, None, None)
        one, other = hybrid[known], full[known]
        gap = one - other
        interval = mean_interval(gap)
        if (gap == gap[0]).all() and len(gap) >= SIGNS:
            interval = (float(gap[0]), float(gap[0]))
        mean = float(gap.mean())
        if abs(mean) < ROUNDING * np.abs(other).max(initial=0.0):
            mean = 0.0
        return cls(len(gap), float(one.mean()), float(other.mean()), mean, interval)


@dataclass(frozen=True)
class Point:
    """The hybrids from one step on, over runs."""

    at_step: int  # step from which on all other weights are held
    # `within` the margin, `worse` by more than it, or `cannot_tell`, as the interval has it
    verdict: str
    metrics: Mapping[str, Over]  # every metric


@dataclass(frozen=True)
class Summary:
    """What the hybrids come to."""

    runs: int  # how many have hybrids
    keep: tuple[str, ...]  # parts that go on being trained
    trained: int  # weights in these
    weights: int  # weights that full training trains
    share: float  # the former over the latter
    metric: str  # what is held against the margin
    margin: float  # by how much it may be worse than in full training
    steps: int  # length of training
    points: tuple[
        Point, ...
    ]  # by `at_step`; one at the end is full training itself, which the verdict leaves out
    # `within`: from `interval[1]` on hybrids are as good as full training; `worse`: not from the latest step either;
    # `cannot_tell`: of the latest step neither is known
    verdict: str
    reason: str  # in words
    step: (
        int | None
    )  # first step from which on the mean difference is within the margin; null where there is none
    # 95% interval of the first step from which on hybrids are as good: after the one, at or before the other; null
    # where it is beyond the steps that were tried
    interval: tuple[int | None, int | None]

    @property
    def latest(self) -> Point:
        """The latest step that is not the end."""
        return next((point for point in reversed(self.points) if point.at_step < self.steps), self.points[-1])


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    forks: tuple[str, ...]  # ids of the forks' ensembles, in the order of their steps
    warnings: tuple[str, ...] = ()
    finals: Frame = None  # a row a run, step and metric: `hybrid` and `full`


def verdict_of(over: Over, runs: int, margin: float, up: bool) -> str:
    """Return whether hybrids are within a margin of full training; of a metric that goes `up`, or down.

    Where some of `runs` have none, as they diverged, they are not.
    """
    low, high = (
        over.interval if up else tuple(None if end is None else -end for end in reversed(over.interval))
    )
    if low is not None and low > -margin and over.runs == runs:
        return "within"
    return "worse" if high is not None and high < -margin else "cannot_tell"


def first_step(
    points: Sequence[Point], metric: str, margin: float, up: bool
) -> tuple[int | None, int | None, int | None]:
    """Return from which step on hybrids are as good: by the means, and both ends of its interval.

    Each end comes from tests in a fixed order, from the latest step back and from the earliest on, of which the first
    that does not refuse ends the row: together they err no more often than one of them, in one of forty each.
    """
    step = low = high = None
    for point in reversed(points):
        gap = point.metrics[metric].difference
        if gap is None or (gap if up else -gap) < -margin:
            break
        step = point.at_step
    for point in reversed(points):
        if point.verdict != "within":
            break
        high = point.at_step
    for point in points:
        if point.verdict != "worse":
            break
        low = point.at_step
    return step, low, high
