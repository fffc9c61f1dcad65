"""What is compared of a setting: when its runs reached a landmark, and where a metric ended; a value a run.

Arrays are (n,), the n runs of a setting in the order of their labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dynalab.core.convergence import Convergence, convergence_step
from dynalab.core.runs import Group, Run, Series

# Landmark -> the metric whose level it is.
LEVELS = {"memorised_step": "train_accuracy", "generalised_step": "test_accuracy"}


@dataclass(frozen=True)
class Times:
    """When runs reached a landmark.

    Attributes:
        labels: Of the runs.
        steps: The first recorded step at which each had, shape (n,), infinity where it did not.
        last: Up to where each was watched, shape (n,); infinity for a run that diverged, which never will.
    """

    labels: tuple[str, ...]
    steps: np.ndarray
    last: np.ndarray
    is_metric: ClassVar[bool] = False

    @property
    def reached(self) -> int:
        """How many did."""
        return int(np.isfinite(self.steps).sum())

    def until(self, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (time, observed), shapes (n,): what was known at a step; a run not there yet is censored."""
        time = np.minimum(np.minimum(self.steps, self.last), reach)
        return time, self.steps <= np.minimum(reach, self.last)

    def of(self, labels: Sequence[str]) -> Times:
        """Return some of the runs, in this order."""
        rows = _places(self.labels, labels)
        return Times(tuple(labels), self.steps[rows], self.last[rows])


@dataclass(frozen=True)
class Values:
    """A metric of every run, shape (n,), at one step.

    `lost` more have none, for they diverged or it is infinite; `short` more ended before that step, of which nothing is
    known there.
    """

    labels: tuple[str, ...]
    values: np.ndarray
    lost: int = 0
    short: int = 0
    is_metric: ClassVar[bool] = True

    def of(self, labels: Sequence[str]) -> Values:
        """Return some of the runs, in this order."""
        return Values(tuple(labels), self.values[_places(self.labels, labels)])


def passages(group: Group, rule: Convergence) -> Times:
    """Return when a group's runs first held a level, by the rule of convergence."""
    steps, last = [], []
    for run in group.runs:
        series = run.first(rule.metric)
        at, values = (series.steps, series.values) if series else (np.empty(0), np.empty(0))
        if run.diverged_step is not None:
            at, values = at[at < run.diverged_step], values[at < run.diverged_step]
        found = convergence_step(at, values, rule.threshold, rule.direction, rule.persistence)
        steps.append(math.inf if found is None else float(found))
        # A window of rows that hold has to begin early enough to be seen whole.
        seen = float(at[-rule.persistence]) if len(at) >= rule.persistence else 0.0
        last.append(math.inf if run.diverged_step is not None else seen)
    return Times(_labels(group.runs), np.array(steps), np.array(last))


def landmark(group: Group, metric: str) -> list[int | None]:
    """Return at which row each run's accuracy is first at the task's level; None where it is not, or has none."""
    level = (group.runs[0].config.get("levels") or {}).get(metric) if group.runs else None
    if level is None or metric not in group.columns:
        return [None] * len(group.runs)
    steps = passages(group, Convergence(metric, float(level))).steps
    return [int(step) if math.isfinite(step) else None for step in steps]


def finals(group: Group, metric: str, at: int | None) -> Values:
    """Return a metric of the runs that did not diverge: at a step, or (None) where each of them ends.

    Of a run without a row there it is that of the last row before; a run whose rows end before it has none.
    """
    runs, values, lost, short = [], [], 0, 0
    for run in group.runs:
        series = run.first(metric)
        if run.diverged_step is not None:
            lost += 1
        elif at is not None and ended_before(run, series, at):
            short += 1
        elif series is not None:
            before = series.values if at is None else series.values[series.steps <= at]
            lost += bool(len(before)) and not math.isfinite(before[-1])
            if len(before) and math.isfinite(before[-1]):
                runs.append(run)
                values.append(float(before[-1]))
    return Values(_labels(runs), np.array(values), lost, short)


def ended_before(run: Run, series: Series | None, at: int) -> bool:
    """Return whether a run, or a metric of it, ended so early that a row more would have come by a step."""
    # A metric may have rows that lie farther and farther apart; those of the run say where it ended.
    rows = [(run.grid, 0.5), *([] if series is None else [(series.steps, 1.0)])]
    return any(len(own) > 1 and at - own[-1] >= np.quantile(np.diff(own), most) for own, most in rows)


def shared(one: Times | Values, other: Times | Values) -> list[str]:
    """Return the labels that runs of both have."""
    theirs = set(other.labels)
    return [label for label in one.labels if label in theirs]


def _places(among: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Return where some labels stand among others."""
    place = {label: index for index, label in enumerate(among)}
    return [place[label] for label in labels]


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(run.label for run in runs)
