"""The butterfly effect: from which step on training, moved a little, ends where it would have ended anyway.

At some steps all runs are forked with their weights moved a little (`edit=perturb`) and go on with the same data. Early
in training the smallest move leads to another basin, later it does not (Frankle et al. 2020, arXiv 1912.05671, with
other batches; with one move of the weights, Altıntaş et al. 2025, arXiv 2506.13234). Fork and run are compared at their
ends: the norm between their weights and between what they compute, on how many held-out examples they differ, and the
barrier of loss and errors on the line between them, running statistics estimated anew at every point. They are
connected where the barrier is within a threshold: .02 of the share of errors, as Frankle et al. have it.

From some tried step on all later forks of a run stay connected; that step has an interval over runs, and a run whose
last fork does not counts as later. It is held against when runs memorise and generalise, and (`hmm=`) pass the
boundaries of hidden states: whether it comes before, and, by permutation of the runs, whether it is nearer to the
boundary of its own run than to those of others. Beside the numbers stand those between two seeds.

A fork that is not moved is its run to the bit: the control has 0 everywhere. The forks are ordinary ensembles: called
again it trains nothing, and what was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key
from dynalab.analysis.butterfly.findings import (
    CANNOT_TELL,
    NAMES,
    Apart,
    Findings,
    Fork,
    Mean,
    Point,
    RunFindings,
    Summary,
)
from dynalab.analysis.butterfly.landmarks import against
from dynalab.analysis.butterfly.measure import Ends, ends_of
from dynalab.analysis.butterfly.summary import show
from dynalab.analysis.compare.samples import LEVELS, landmark
from dynalab.analysis.regions.findings import Time
from dynalab.config.keys import Stored
from dynalab.core import waves
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.forks import parent_and_step
from dynalab.core.means import mean_over_pairs
from dynalab.core.words import listed
from dynalab.edits.perturb import KINDS

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "explore", "show"]

VERSION = 3
TITLE = "Butterfly effect"
FIGURES = ("butterfly-*",)
LEAD = "butterfly-accuracy-barrier"
NEEDS = Needs(optional=tuple(LEVELS.values()), record="checkpoint.keep=all", network=True)
CONTROL = "control"
# Largest barriers of runs that are connected, where none is given: of errors, and of the loss of a first row.
OF_ERRORS, OF_LOSS = 0.02, 0.02


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    at: list[int] | None = key(
        None, "steps at which weights are moved; null: the first, and as many as forks says", least=0
    )
    forks: int = key(
        7, "how many steps, log-spaced up to half of training, beside the first", least=1, most=100
    )
    kind: str = key("gaussian", "what is moved, as of edit=perturb", one_of=KINDS)
    scale: float = key(1e-3, "by how much, in standard deviations at the initialisation", above=0)
    draw: int = key(0, "another one is another draw")
    threshold: float | None = key(
        None, "barrier up to which ends are connected; null: .02 of errors, else of the first loss", above=0
    )
    measure: str = key(
        "auto",
        "barrier that is held against it; auto: of errors where there are some",
        one_of=("auto", "loss", "errors"),
    )
    points: int = key(11, "points of the line, both ends among them", least=3)
    examples: int = key(1000, "examples of each split at most", least=1)
    control: bool = key(True, "whether one fork of each run is not moved")
    hmm: str | None = key(
        None,
        "id of an hmm analysis of these runs, or @last: boundaries of its states are landmarks",
        stored="hmm",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at == []:
            raise ConfigError("at=[]: name steps of the runs, or null for some of them")


def explore(
    groups: Sequence[Group], config: Config
) -> Generator[Sequence[waves.Fork], Mapping[str, Sequence[Group]], Findings]:
    """Move every run at each step, and compare the ends.

    Raises:
        ConfigError: The runs have no such step, or `hmm` is of other runs.
        NothingMatched: No weights of their ends were kept, or no fork ended well.
    """
    (group,) = groups
    length = max(int(run.grid[-1]) for run in group.runs)
    runs = tuple(run for run in group.runs if run.grid[-1] == length)
    group = replace(group, runs=runs)
    for run in runs:
        if length not in run.weights.steps:
            raise run.weights.missing(length)
    if isinstance(config.hmm, Stored) and not {run.id for run in runs} & {
        own.run for own in config.hmm.findings.states
    }:
        raise ConfigError(f"hmm={config.hmm}: expected an analysis of these runs, of {group.id}")
    left = [run.label for run in groups[0].runs if run not in runs]
    warnings = [f"left out, of fewer than {length:,} steps: {listed(left)}"] if left else []
    steps = _steps(config, runs[0], length)
    ids = tuple(run.id for run in runs)
    moved = {
        "edit": "perturb",
        "edit.kind": config.kind,
        "edit.scale": config.scale,
        "edit.seed": config.draw,
    }
    asked = [waves.Fork(str(step), ids, step, moved, length) for step in steps]
    if config.control:
        asked.append(waves.Fork(CONTROL, ids, steps[len(steps) // 2], {"edit": None}, length))
    made = yield asked
    shares = [float(share) for share in np.linspace(0, 1, config.points)]
    ends = {
        item.name: _compared(group, made.get(item.name, ()), length, shares, config.examples, _words(item))
        for item in asked
    }
    if not any(own for name, own in ends.items() if name != CONTROL):
        raise NothingMatched(f"{group.id}: no fork ended well")
    known = [apart for own in ends.values() for apart, _, _ in own.values()]
    errors = any(apart.accuracy_barrier is not None for apart in known)
    if config.measure == "errors" and not errors:
        raise ConfigError("measure=errors: the task has no accuracy; measure=loss has a barrier")
    measure = "barrier" if config.measure == "loss" or not errors else "accuracy_barrier"
    threshold = config.threshold or (OF_ERRORS if measure != "barrier" else OF_LOSS * _first_loss(runs))
    landmarks = _landmarks(group, config.hmm)
    found = tuple(
        _of_run(run, steps, ends, (measure, threshold), {name: own[i] for name, own in landmarks.items()})
        for i, run in enumerate(runs)
    )
    told = [run for run in found if run.verdict != CANNOT_TELL]
    warnings += [line for own in made.values() for item in own for line in item.warnings]
    forks = [item.id for name in ends for item in made.get(name, ())]
    control = [
        value
        for apart, _, _ in ends.get(CONTROL, {}).values()
        for name in NAMES
        if (value := getattr(apart, name)) is not None
    ]
    summary = Summary(
        len(runs),
        length,
        config.kind,
        config.scale,
        measure,
        threshold,
        tuple(Point.of([run.forks[place] for run in found]) for place in range(len(steps))),
        Time.of([run.connected_step for run in told], [float(steps[-1])] * len(told)),
        against(found, [*landmarks], length),
        _between(group, length, shares, config.examples),
        max(control) if control else None,
    )
    if summary.control:
        warnings.append(f"forks that were not moved differ from their runs, by up to {summary.control:.2g}")
    table = _table(steps, ends, shares, runs)
    return Findings(found, summary, tuple(dict.fromkeys(forks)), tuple(dict.fromkeys(warnings)), paths=table)


# Of a run's label: how far it is from its fork, the fork's id, and what is measured on the way.
Compared = Mapping[str, tuple[Apart, str, Mapping[str, np.ndarray]]]


def _words(item: waves.Fork) -> str:
    return "control" if item.name == CONTROL else f"forks from step {item.name}"


def _compared(
    group: Group, forks: Sequence[Group], step: int, shares: Sequence[float], most: int, what: str
) -> Compared:
    """Return the runs that have a fork with an end, by label."""
    found: dict[str, tuple[Apart, str, Mapping[str, np.ndarray]]] = {}
    for own in forks:
        ended = {run.label: run for run in own.runs if step in run.weights.steps}
        pairs = [run for run in group.runs if run.label in ended]
        if not pairs:
            continue
        others = tuple(ended[run.label] for run in pairs)
        ends: Ends = ends_of(
            replace(group, runs=tuple(pairs)), replace(own, runs=others), step, shares, most, what
        )
        for place, (run, fork) in enumerate(zip(pairs, others, strict=True)):
            found[run.label] = (
                ends.apart[place],
                fork.id,
                {name: values[place] for name, values in ends.paths.items()},
            )
    return found


def _between(group: Group, step: int, shares: Sequence[float], most: int) -> dict[Any, Mean]:
    """Return how far every run is from the next one."""
    runs = sorted(group.runs, key=lambda run: run.id)
    pairs = len(runs) if len(runs) > 2 else len(runs) - 1  # there and back is one pair
    firsts, turned = (tuple(own[:pairs]) for own in (runs, runs[1:] + runs[:1]))
    apart: Sequence[Apart] = ()
    if pairs:
        ends = ends_of(
            replace(group, runs=firsts), replace(group, runs=turned), step, shares, most, "two seeds"
        )
        apart = ends.apart
    between = [(one.id, other.id, item) for one, other, item in zip(firsts, turned, apart, strict=True)]
    return {
        name: Mean(
            *mean_over_pairs(
                (one, other, value)
                for one, other, item in between
                if (value := getattr(item, name)) is not None
            )
        )
        for name in NAMES
    }


def _steps(config: Config, run: Run, length: int) -> list[int]:
    """Return the steps at which weights are moved, ascending."""
    parent = run.config.get("parent")
    first = parent_and_step(str(parent))[1] if parent else 0
    if config.at is not None:
        for step in config.at:
            if not first <= step < length:
                raise ConfigError(
                    f"at={step}: expected steps of these runs, from {first:,} to {length - 1:,}"
                )
        return sorted(set(config.at))
    gone = np.geomspace(1, max((length - first) / 2, 1), config.forks).round().astype(int)
    return sorted({first, *(step for step in (first + gone).tolist() if step < length)})


def _first_loss(runs: Sequence[Run]) -> float:
    series = [run.first("train_loss") for run in runs]
    first = [float(own.values[0]) for own in series if own is not None]
    return float(np.median(first)) if first else 1.0


def _landmarks(group: Group, hmm: str | None) -> dict[str, list[int | None]]:
    """Return landmark -> when each run reaches it; those that no run has are left out."""
    found = {name: landmark(group, metric) for name, metric in LEVELS.items()}
    if isinstance(hmm, Stored):
        courses = {course.run: course for course in hmm.findings.states}
        for name, place in (("first_boundary", 0), ("last_boundary", -1)):
            found[name] = []
            for run in group.runs:
                course = courses.get(run.id)
                changes = (
                    [] if course is None else (np.flatnonzero(np.diff(np.array(course.states))) + 1).tolist()
                )
                found[name].append(int(course.steps[changes[place]]) if course and changes else None)
    return {name: steps for name, steps in found.items() if any(step is not None for step in steps)}


def _of_run(
    run: Run,
    steps: Sequence[int],
    ends: Mapping[str, Compared],
    held: tuple[str, float],
    landmarks: Mapping[str, int | None],
) -> RunFindings:
    forks = []
    for step in steps:
        apart, name, _ = ends[str(step)].get(run.label, (Apart(), None, {}))
        value = getattr(apart, held[0])
        forks.append(Fork(step, name, None if value is None else value <= held[1], apart))
    connected: int | None = None
    for fork in reversed(forks):
        if not fork.connected:
            break
        connected = fork.at_step
    last = forks[-1].connected
    verdict = CANNOT_TELL if last is None else "connected" if last else "apart"
    return RunFindings(run.id, verdict, connected, dict(landmarks), tuple(forks))


def _table(
    steps: Sequence[int], ends: Mapping[str, Compared], shares: Sequence[float], runs: Sequence[Run]
) -> Any:
    import pandas as pd

    tables = [
        pd.DataFrame({"run": run.id, "at_step": step, "share": shares, **ends[str(step)][run.label][2]})
        for run in runs
        for step in steps
        if run.label in ends[str(step)]
    ]
    return pd.concat(tables, ignore_index=True) if tables else None
