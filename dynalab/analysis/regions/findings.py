"""What is found of the regions around points over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynalab.analysis.base import Frame
from dynalab.analysis.compare.medians import median_interval
from dynalab.analysis.regions.phases import Phase
from dynalab.core.means import OPEN, mean_interval
from dynalab.core.stats import clopper_pearson, quantile

# The phases of Humayun et al. 2024, in their order.
PhaseName = Literal["first_descent", "ascent", "second_descent"]
NAMES: tuple[PhaseName, ...] = ("first_descent", "ascent", "second_descent")
Bounds = tuple[float | None, float | None]
# When something comes, or None, and when the run was seen last.
Passage = tuple[float | None, float]


@dataclass(frozen=True)
class Around:
    """Local complexity around one set of points."""

    # `double_descent` where a first descent, an ascent and a second descent are seen, `ascent_and_descent` without the
    # first, `descent_and_ascent` and `ascent` where no second descent is seen yet, `descent` where it falls alone,
    # `flat` where it changes by less than the share `change`, `cannot_tell` where noise would hide such a change.
    verdict: str
    reason: str  # in words
    first: float  # in the first row
    lowest: float  # in its lowest row
    highest: float  # in its highest row
    last: float  # in the last row
    first_density: float | None  # density of regions in the first row; null where it is not recorded
    last_density: float | None  # in the last row
    first_descent: Phase | None  # from the first rows to the first minimum; null where it is not seen
    ascent: Phase | None  # up to the maximum after it
    second_descent: Phase | None  # from there down
    later: tuple[Phase, ...]  # what follows: an ascent, a descent, and so on
    noise: float  # standard deviation of its noise from row to row, at its highest


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    verdict: str  # that of the training points, or `insufficient_data`
    reason: str  # in words
    source: str | None = None  # `weights` that were kept, or the `probe`
    rows: int = 0  # how many
    first_step: int | None = None  # step of the first of them
    last_step: int | None = None  # step of the last
    memorised_step: int | None = None  # first row whose training accuracy is at the task's level
    generalised_step: int | None = None  # first row whose held-out accuracy is
    train: Around | None = None  # around training points
    test: Around | None = None  # around held-out points
    random: Around | None = None  # around random points, where it was counted there


@dataclass(frozen=True)
class Time:
    """When something happens, over runs."""

    reached: int  # runs in which it is seen
    median_step: (
        float | None
    )  # of all runs, those counting as later in which it is not seen; null beyond the rows
    interval: Bounds  # 95% interval of that; null where the runs leave it open

    @classmethod
    def of(
        cls, steps: Sequence[float | None], last: Sequence[float], within: Sequence[Bounds] | None = None
    ) -> Time:
        """Return it for a step a run, None where it is not seen up to the run's last.

        Where a run tells its step no closer than `within`, the interval is that of both: of the median of the earliest
        ones at its lower end, and of the latest at its upper.
        """
        observed = np.array([step is not None for step in steps], dtype=bool)

        def bounds(own: Sequence[float | None]) -> Bounds:
            time = [end if step is None else step for step, end in zip(own, last, strict=True)]
            return median_interval(np.array(time, float), observed)

        earliest, latest = (steps, steps) if within is None else zip(*within, strict=True)
        interval = bounds(earliest)[0], bounds(latest)[1]
        return cls(int(observed.sum()), quantile(steps, 0.5), interval)


@dataclass(frozen=True)
class Lag:
    """By how many steps something sets in after a landmark."""

    runs: int  # how many have both
    median: float | None  # of the steps; negative: before it; null where it is not known
    interval: Bounds  # 95% interval of that; null with fewer than five runs, or where runs leave it open

    @classmethod
    def between(
        cls, own: Sequence[Passage], landmark: Sequence[Passage], within: Sequence[Bounds] | None = None
    ) -> Lag:
        """Return it of when something sets in and when a landmark is reached, a run each: of all runs.

        Where one of both had not come when the run was seen last, its difference is only known to be larger, or
        smaller. Those of the runs that have both are no sample of all: late ones lack them. `within`: as in `Time.of`.
        """
        pairs = [*zip(own, landmark, strict=True)]
        low, high = _differences(own, landmark), -_differences(landmark, own)
        both = sum(mine[0] is not None and other[0] is not None for mine, other in pairs)
        if not both:
            return cls(0, None, (None, None))
        with np.errstate(invalid="ignore"):
            least, most = float(np.median(low)), float(np.median(high))
        all_known = np.ones(len(low), bool)
        if within is not None:
            first, last = (
                [(ends[place], seen[1]) for ends, seen in zip(within, own, strict=True)] for place in (0, 1)
            )
            low, high = _differences(first, landmark), -_differences(landmark, last)
        ends = median_interval(low, all_known)[0], median_interval(high, all_known)[1]
        low_end, high_end = (end if end is not None and np.isfinite(end) else None for end in ends)
        return cls(both, least if least == most else None, (low_end, high_end))


def _differences(own: Sequence[Passage], landmark: Sequence[Passage]) -> np.ndarray:
    """Return the least that every run's lag can be."""
    return np.array([_least(*mine, *other) for mine, other in zip(own, landmark, strict=True)], float)


def _least(own: float | None, own_last: float, landmark: float | None, _: float) -> float:
    """Return the least that a lag can be."""
    return -np.inf if landmark is None else (own_last if own is None else own) - landmark


@dataclass(frozen=True)
class PhaseSummary:
    """A phase over runs."""

    share: float  # of the runs that have it
    share_interval: Bounds  # 95% interval of that (Clopper and Pearson)
    onset: Time  # when it sets in
    end: Time  # when it ends: of runs in which it is still under way, later than their last row
    change: float | None  # mean change of local complexity, as a share of its value at the onset
    # 95% interval of that (Student); null where half of the runs have the lowest or highest value
    change_interval: Bounds
    after_memorising: Lag  # its onset after `memorised_step`
    after_generalising: Lag  # its onset after `generalised_step`
    # Median ends of the runs' own intervals of its onset; null where it is seen in fewer than half of them
    onset_within: Bounds = OPEN


@dataclass(frozen=True)
class SetSummary:
    """A set of points over runs."""

    points: str  # `train`, `test` or `random`
    runs: int  # how many were judged
    verdicts: Mapping[str, int]  # verdict -> runs
    phases: Mapping[PhaseName, PhaseSummary]  # of each phase
    last_to_first: float | None  # mean over runs of the last value over the first
    # 95% interval of that (Student); null where half of the runs have the lowest or highest value
    last_to_first_interval: Bounds


@dataclass(frozen=True)
class Summary:
    """What holds over the runs that were judged."""

    runs: int  # how many
    sets: tuple[SetSummary, ...]  # around training, held-out and random points
    memorised: Time  # when runs memorise
    generalised: Time  # when they generalise


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    radii: tuple[
        float, ...
    ]  # of the neighbourhoods, the first that of local complexity; empty where not known
    layers: int | None  # of units that are counted
    points: int | None  # of each set
    warnings: tuple[str, ...] = ()
    counted_layers: tuple[int, ...] | None = None  # those that are counted, from 0; null: all, or not known
    # A row a run, row and set of points: local complexity, and the density of regions at each radius.
    curves: Frame = None
    by_layer: Frame = None  # a row a run, row, set of points and layer: local complexity


def summarised(points: str, runs: Sequence[RunFindings]) -> SetSummary | None:
    """Return what holds of a set of points over the runs that were judged on it; None where none was."""
    judged = [
        (run, around) for run in sorted(runs, key=lambda run: run.run) if (around := getattr(run, points))
    ]
    if not judged:
        return None
    verdicts = [around.verdict for _, around in judged]
    ratios = np.array([around.last / around.first for _, around in judged if around.first > 0])
    return SetSummary(
        points,
        len(judged),
        {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        {name: _phase(name, judged) for name in NAMES},
        float(ratios.mean()) if len(ratios) else None,
        mean_interval(np.sort(ratios)),
    )


def _phase(name: PhaseName, judged: Sequence[tuple[RunFindings, Around]]) -> PhaseSummary:
    of: list[tuple[RunFindings, Phase | None]] = [(run, getattr(around, name)) for run, around in judged]
    last = [float(run.last_step or 0) for run, _ in of]
    seen = [(run, phase) for run, phase in of if phase is not None]
    changes = np.array(sorted(phase.after / phase.before - 1 for _, phase in seen if phase.before > 0))
    onsets = [
        (None if phase is None else float(phase.onset_step), _unseen_until(name, around))
        for (_, phase), (_, around) in zip(of, judged, strict=True)
    ]
    within: list[Bounds] = [OPEN if phase is None else phase.onset_interval for _, phase in of]

    def lag(landmark: str) -> Lag:
        reached = [(getattr(run, landmark), end) for (run, _), end in zip(of, last, strict=True)]
        return Lag.between(onsets, reached, within)

    return PhaseSummary(
        len(seen) / len(of),
        clopper_pearson(len(seen), len(of)),
        Time.of([phase.onset_step if phase else None for _, phase in of], last, within),
        Time.of([phase.end_step if phase and phase.ended else None for _, phase in of], last),
        float(changes.mean()) if len(changes) else None,
        mean_interval(changes),
        lag("memorised_step"),
        lag("generalised_step"),
        (quantile([low for low, _ in within], 0.5), quantile([high for _, high in within], 0.5)),
    )


def _unseen_until(name: PhaseName, around: Around) -> float:
    """Return the step that the onset of a phase that is not seen is not before: to where the one before it came."""
    before = [phase for phase in (getattr(around, own) for own in NAMES[: NAMES.index(name)]) if phase]
    return float(before[-1].end_step) if before else 0.0
