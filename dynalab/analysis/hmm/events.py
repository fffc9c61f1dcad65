"""Into which states events of training fall: memorising and generalising, by the levels of the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dynalab.analysis.base import Group, Run, runs_of
from dynalab.analysis.hmm.findings import Course, Findings
from dynalab.core.convergence import convergence_step
from dynalab.core.words import count, listed

# Metric -> what a run does that reaches the task's level of it, and what one does that has not.
EVENTS = {"train_accuracy": ("memorising", "memorises"), "test_accuracy": ("generalising", "generalises")}


def event_words(findings: Findings, groups: Sequence[Group]) -> str:
    """Return into which state memorising and generalising fall, of how many runs; empty where no run does either.

    A run's event is its first row at the level of its task; runs that never get there are counted and said.
    """
    runs = {run.id: run for run in runs_of(groups)}
    pairs = [(runs[course.run], course) for course in findings.states if course.run in runs]
    clauses, never = [], []
    for metric, (event, verb) in EVENTS.items():
        watched = [pair for pair in pairs if metric in pair[0].series and _level(pair[0], metric) is not None]
        found = [_state(run, course, metric) for run, course in watched]
        states = Counter(state for state in found if state is not None).most_common()
        if states:
            (state, n), *others = states
            beside = listed([f"{k} in {m:,}" for k, m in others], 4)
            clauses.append(
                f"{event} falls into state **{state}** in **{n:,} of {count(states_total(states), 'run')}**"
                + (f" ({beside})" if others else "")
            )
            if lost := len(found) - states_total(states):
                never.append(f"{count(lost, 'run')} never {verb if lost == 1 else verb[:-1]}")
    text = "; ".join(filter(None, [", ".join(clauses), listed(never) if never else ""]))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def states_total(states: Sequence[tuple[int, int]]) -> int:
    """Return the number of runs of counted states."""
    return sum(n for _, n in states)


def _level(run: Run, metric: str) -> float | None:
    level = (run.config.get("levels") or {}).get(metric)
    return None if level is None else float(level)


def _state(run: Run, course: Course, metric: str) -> int | None:
    """Return the state of a run in its last row up to the event; None where that never came, or before all rows."""
    series, level = run.series[metric], _level(run, metric)
    assert level is not None
    step = convergence_step(series.steps, series.values, level, "up", 1)
    if step is None:
        return None
    place = int(np.searchsorted(course.steps, step, side="right")) - 1
    return int(course.states[place]) if place >= 0 else None
