"""What is found of the directions of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Frame
from dynalab.analysis.directions.path import Measure
from dynalab.core.means import mean_interval


@dataclass(frozen=True)
class Against:
    """A number of a path beside what is expected of a random walk; null where it is not defined."""

    value: float | None = None  # as measured
    null: float | None = (
        None  # of a random walk with the same start and steps of the same lengths, in expectation
    )
    excess: float | None = None  # the first less the second

    @classmethod
    def of(cls, value: float, null: float) -> Against:
        """Return it for two numbers, of which NaN is not defined."""
        one, other, gap = (float(x) if math.isfinite(x) else None for x in (value, null, value - null))
        return cls(one, other, gap)


@dataclass(frozen=True)
class Part:
    """What is found of a part of a run's weights."""

    part: str  # name of the layer or kind of parameter; empty: of all weights
    weights: int | None  # how many; null where the probe alone was read
    path_length: float  # sum of the distances of consecutive rows; the random walk has the same
    # `directional_similarity`, the mean cosine of all pairs of rows; `relative_similarity`, that of their differences
    # from the first; `principal_share` of the variance along the first centred component; in degrees `update_angle`,
    # the mean between consecutive updates, `apex_angle`, the mean between two rows as seen from the first, and
    # `origin_angle`, between first and last as seen from the origin; `displacement` of the last from the first;
    # `tortuosity`, the length of the path over it.
    measures: Mapping[Measure, Against]

    @classmethod
    def of(
        cls,
        part: str,
        weights: int | None,
        length: float,
        values: Mapping[Measure, float],
        nulls: Mapping[Measure, float],
    ) -> Part:
        """Return what is found of a part from its measures and those of the random walk; NaN is not defined."""
        return cls(part, weights, length, {name: Against.of(values[name], nulls[name]) for name in values})


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `measured`; `still` where its weights never move, so that they have no direction; `insufficient_data` with fewer
    # than three rows.
    verdict: str
    reason: str  # in words
    source: str | None = None  # `weights` that were kept, or the `probe`
    rows: int = 0  # how many
    first_step: int | None = None  # step of the first of them
    last_step: int | None = None  # step of the last
    whole: Part | None = None  # all weights
    kinds: tuple[Part, ...] = ()  # kinds of parameters; of layers there is a table


@dataclass(frozen=True)
class Over:
    """A number over runs."""

    runs: int  # in how many it is defined
    value: float | None  # its mean
    null: float | None  # mean of the random walk's
    excess: float | None  # mean of the difference
    # 95% interval of that (Student); null where half of the runs have the lowest or highest value
    interval: tuple[float | None, float | None]

    @classmethod
    def of(cls, items: Sequence[Against]) -> Over:
        """Return it for one a run, in any order."""
        known = sorted(
            (item.excess, item.value, item.null)
            for item in items
            if item.excess is not None and item.value is not None and item.null is not None
        )
        if not known:
            return cls(0, None, None, None, (None, None))
        excess, value, null = np.array(known).T
        return cls(
            len(known), float(value.mean()), float(null.mean()), float(excess.mean()), mean_interval(excess)
        )


@dataclass(frozen=True)
class PartSummary:
    """A part over runs, as in `runs[].whole`."""

    part: str  # name of the layer or kind of parameter; empty: of all weights
    weights: int | None  # how many
    measures: Mapping[Measure, Over]  # those of `runs[].whole`

    @classmethod
    def of(cls, parts: Sequence[Part]) -> PartSummary:
        """Return what is found of one part in several runs."""
        names = parts[0].measures
        overs = {name: Over.of([part.measures[name] for part in parts]) for name in names}
        return cls(parts[0].part, parts[0].weights, overs)


@dataclass(frozen=True)
class Summary:
    """What holds over the runs whose weights move."""

    runs: int  # how many
    whole: PartSummary | None  # all weights; null where no run was measured
    layers: tuple[PartSummary, ...]  # the modules that own parameters, in the network's order
    kinds: tuple[PartSummary, ...]  # kinds of parameters


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    warnings: tuple[str, ...] = ()
    # A row a run and row of its weights: both similarities up to there with those of the random walk, length of the
    # path and displacement.
    curves: Frame = None
    # A row a run and pair of rows: their cosine, and that of their differences from the first.
    maps: Frame = None
    layers: Frame = None  # what `whole` is, of every layer of every run
