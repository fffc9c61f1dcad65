"""What is found of the partition of slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Frame
from dynalab.core.means import LEAST, OPEN, Bounds, mean_interval


@dataclass(frozen=True)
class Row:
    """The partition of a run's slice with the weights of a step."""

    step: int  # the step
    regions: int  # how many regions the slice has
    near: int  # how many of them have their centre near the decision boundary
    near_area: float  # share of the slice's area that is theirs
    # How many times as many regions there are for an area near the decision boundary as away from it; null where all
    # or none are near.
    near_density: float | None
    norm: float  # mean over the area of the Frobenius norm of the slopes along the slice, output/input


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    verdict: str  # `measured`, or `insufficient_data` where no step has a partition
    reason: str  # in words
    examples: tuple[int, ...] = ()  # places of the three training examples that the slice goes through
    points: tuple[tuple[float, float], ...] = ()  # where they are in the slice
    half: float | None = None  # half of a side of the slice, in units of the inputs
    rows: tuple[Row, ...] = ()  # of every step that was looked at


@dataclass(frozen=True)
class Over:
    """A positive number over runs."""

    runs: int  # in how many it is defined
    value: float | None  # its geometric mean
    # 95% interval of that (Student, of logarithms); null where half of the runs have the lowest or highest value, one
    # is 0, or it is defined in fewer than five runs and not in all: which these are is not by chance
    interval: Bounds

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Over:
        """Return it for one a run, in any order."""
        known = np.array(sorted(value for value in values if value is not None))
        if not len(known) or known[0] <= 0:
            return cls(len(known), 0.0 if len(known) else None, OPEN)
        logs = np.log(known)
        few = len(known) < min(LEAST, len(values))
        low, high = (None if end is None else math.exp(end) for end in (OPEN if few else mean_interval(logs)))
        return cls(len(known), math.exp(float(logs.mean())), (low, high))


@dataclass(frozen=True)
class StepSummary:
    """What holds at a step over the runs that have it."""

    step: int  # the step
    regions: Over  # how many regions the slice has
    near_density: Over  # `near_density` of the runs
    norm: Over  # `norm` of the runs


@dataclass(frozen=True)
class Summary:
    """What holds over runs."""

    near: float  # the key: share of a side up to which a region is near the decision boundary
    steps: tuple[StepSummary, ...]  # those that some run has


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    warnings: tuple[str, ...] = ()
    # Of the first run that was measured: a row a polygon of every step, with its class, norm, distance of its centre
    # from the decision boundary, and area.
    regions: Frame = None
    polygons: Frame = None  # a row a corner of these, counter-clockwise, in the coordinates of the slice
    boundary: Frame = None  # a row a piece of the decision boundary, from (x, y) to (to_x, to_y)
