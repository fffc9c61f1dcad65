"""Runs that are unlike the others of their setting, by any landmark or metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from dynalab.analysis.compare.findings import Odd
from dynalab.analysis.compare.measures import Measure, end_of
from dynalab.analysis.compare.samples import Times, Values
from dynalab.core.outliers import LEAST, unlike
from dynalab.core.runs import Group
from dynalab.core.stats import holm
from dynalab.core.words import count

LEVEL = 0.05


def odd_runs(groups: Sequence[Group], samples: Sequence[Measure], at: int | None = None) -> list[Odd]:
    """Return for every run of every setting how far it is from the others of the setting, and how surely.

    By each landmark and metric a run is asked whether it is unlike the others (`core.outliers`); one of them counts, at
    p times their number. Of a run that never reached a landmark the step up to which it was watched counts, which is
    nearer than it can have been. Where a metric stands follows from which landmarks were reached by then, at step `at`
    (None: at the end): it is asked of the runs that reached the same ones, the most common.
    """
    sights = [_resolution(sample) for sample in samples]
    return [
        row for place, group in enumerate(groups) for row in _of_setting(group, place, samples, sights, at)
    ]


def _of_setting(
    group: Group, place: int, samples: Sequence[Measure], sights: Sequence[float], at: int | None
) -> Iterator[Odd]:
    labels = [run.label for run in group.runs]
    alike = _alike([sample.of[place] for sample in samples], labels, at)
    asked = [
        unlike(*_aligned(sample, place, labels, sight, alike), resolution=sight)
        for sample, sight in zip(samples, sights, strict=True)
    ]
    distance, p = (np.array([item[part] for item in asked]) for part in (0, 1))
    known = np.isfinite(p)
    p = np.where(known, np.minimum(p * known.sum(axis=0), 1.0), math.inf)
    # The first that tells by itself, landmarks before metrics; where none does, the one that tells most.
    tells = p * len(labels) < LEVEL
    by = np.where(tells.any(axis=0), np.argmax(tells, axis=0), np.argmin(p, axis=0))
    own, of = p[by, np.arange(len(labels))], np.isfinite(p).any(axis=0)
    adjusted = np.full(len(labels), math.nan)
    adjusted[of] = holm(own[of].tolist())
    known_of = [_known(sample, place, labels) for sample in samples]
    others = ~(adjusted < LEVEL)
    for run, m in enumerate(by):
        if not of[run]:
            yield Odd(group.id, group.runs[run].id, None, None, None, reason=_reason(len(labels)))
            continue
        values = known_of[m]
        value = float(values[run]) if math.isfinite(values[run]) else None
        values = values[others & (np.arange(len(labels)) != run) & np.isfinite(values)]
        yield Odd(
            group.id,
            group.runs[run].id,
            float(distance[m, run]),
            float(own[run]),
            float(adjusted[run]),
            of=samples[m].name,
            value=value,
            others=(float(values.min()), float(values.max())) if len(values) else None,
        )


def _reason(runs: int) -> str:
    if runs < LEAST:
        return f"{count(runs, 'run')} are too few" if runs > 1 else "1 run is too few"
    return "too few of the runs reached a landmark or have a last value"


def _known(sample: Measure, place: int, labels: Sequence[str]) -> np.ndarray:
    """Return the step or value of every run of a setting, (n,); infinity where it never came, NaN without a value."""
    item = sample.of[place]
    values = item.steps if isinstance(item, Times) else item.values
    by_label = dict(zip(item.labels, values, strict=True))
    return np.array([by_label.get(label, math.nan) for label in labels])


def _alike(of: Sequence[Times | Values], labels: Sequence[str], at: int | None) -> np.ndarray:
    """Return the runs that had reached the landmarks that most had reached, (n,) bool."""
    end = math.inf if at is None else at
    reached = [np.isfinite(item.steps) & (item.steps <= end) for item in of if isinstance(item, Times)]
    if not reached:
        return np.ones(len(labels), dtype=bool)
    came = [tuple(row) for row in np.column_stack(reached).tolist()]
    most = Counter(came).most_common(1)[0][0]
    return np.array([one == most for one in came])


def _aligned(
    sample: Measure, place: int, labels: Sequence[str], sight: float, alike: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (values, others), both (n,): what each run is held to be, and what it counts as where another is asked.

    A run that never came is as late as it was watched; among the others it counts as late as the earliest were early,
    on the other side of their median. Where half of the runs or more never came, or one was not watched up to the
    median, nothing is known. A share that is right is held to be the share that is wrong, which has a logarithm.
    """
    values = _known(sample, place, labels)
    item = sample.of[place]
    if not isinstance(item, Times):
        values = np.where(alike, values, math.nan)
        if sample.name.endswith("accuracy") and (values[np.isfinite(values)] <= 1).all():
            # One example more: none may be wrong.
            values = 1 - values + sight
        return values, values
    end = end_of(item)
    bound = np.minimum(item.last, end)
    came = np.isfinite(item.steps)
    # Who was not watched up to the median of those that came says nothing.
    middle = float(np.median(item.steps[came])) if came.any() else math.inf
    late = ~came & (bound >= middle)
    if late.sum() * 2 >= came.sum() + late.sum():
        nothing = np.full(len(labels), math.nan)
        return nothing, nothing
    values = np.where(came, item.steps, np.where(late, bound, math.nan))
    middle = float(np.median(values[came | late]))
    mirrored = 2 * middle - np.sort(item.steps[came])[: late.sum()]
    others = values.copy()
    others[late] = np.maximum(bound[late], mirrored)
    return values, others


def _resolution(sample: Measure) -> float:
    """Return the least difference between two values of any setting: less cannot be seen."""
    every = np.concatenate([item.steps if isinstance(item, Times) else item.values for item in sample.of])
    gaps = np.diff(np.unique(every[np.isfinite(every)]))
    return float(gaps.min()) if len(gaps) else 0.0
