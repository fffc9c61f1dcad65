"""Hidden progress on sparse parities: what a measure sees of it while accuracy stands on its plateau.

Measures are the columns of the probe `parity` (Barak et al. 2022, arXiv 2207.08799), ratios that are near 1 as long as
nothing tells the relevant coordinates from the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, Series, key, runs_of
from dynalab.core.convergence import convergence_step
from dynalab.core.stats import Spread, clopper_pearson
from dynalab.core.words import count, listed, number, spoken, step_phrase
from dynalab.show.blocks import Block, Lines, Panel, Say, Table, run_cell

VERSION = 2
ACCURACY = "test_accuracy"
# The first that was recorded decides: column -> (label, meaning).
MEASURES = {
    "parity_fourier": (
        "Fourier coefficient",
        "the network's Fourier coefficient on the relevant coordinates over that on as many others",
    ),
    "parity_separation": (
        "movement",
        "how far weights of relevant coordinates have moved from initialisation over the others",
    ),
}
NEEDS = Needs(
    columns=(ACCURACY, tuple(MEASURES)),
    record="task=parity 'probes=[weights,gradients,parity]'",
    statuses=("done", "diverged"),
)
TITLE = "Hidden progress"


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    fourier: float = key(4.0, "Fourier coefficient that tells the coordinates apart", above=0)
    separation: float = key(2.0, "movement that tells them apart, where there is no coefficient", above=0)
    accuracy: float = key(0.55, "held-out accuracy that is off the plateau", above=0, most=1)
    persistence: int = key(3, "rows on end that hold a level: one may do so by chance", least=1)


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `leads` where the measure crosses its level before accuracy leaves the plateau, `together` in the same row,
    # `follows` after it; `on_plateau` where neither happens, `insufficient_data` where nothing is known.
    verdict: str
    reason: str  # in words
    progress_step: int | None = None  # where the measure first holds its level; None: it does not
    plateau_end_step: int | None = None  # where accuracy does
    lead_steps: int | None = None  # the second step less the first; None where one of them is not known


@dataclass(frozen=True)
class Earlier:
    """In how many of the runs that had either event the measure was first, and the exact 95% interval of the share."""

    runs: int  # runs in which the measure was first
    total: int  # runs that had either event
    share: float | None  # the first over the second
    interval: tuple[float | None, float | None]  # its exact 95% interval


@dataclass(frozen=True)
class Summary:
    """What holds over the runs that have rows; one in which something does not happen is later than all others."""

    measure: str  # the column
    level: float  # of the measure
    accuracy: float  # the accuracy that is off the plateau; above the key's where few examples are held out
    persistence: int  # rows on end
    progress_step: Spread  # over runs
    plateau_end_step: Spread  # over runs
    lead_steps: Spread  # over runs that had either event
    earlier: Earlier  # how often the measure is first


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Find where the measure holds its level and where accuracy leaves the plateau."""
    runs = runs_of(groups)
    everywhere = (
        name
        for name in MEASURES
        if all(any(run.first(name) is not None for run in group.runs) for group in groups)
    )
    measure = next(chain(everywhere, (name for name in MEASURES if any(name in run.series for run in runs))))
    level = config.fourier if measure == "parity_fourier" else config.separation
    config = replace(config, accuracy=max([config.accuracy, *map(_guess, runs)]))
    judged = tuple(_judge(run, measure, level, config) for run in runs)
    return Findings(judged, _over_runs(judged, measure, level, config))


def _guess(run: Run) -> float:
    """Return the accuracy that a guess among two labels stays below: two standard errors, rounded up; 0 if not known.

    A network that hardly moves is right on the same examples for many rows, so that persistence does not help.
    """
    evaluated, task = (run.config.get(section) or {} for section in ("eval", "task"))
    examples = evaluated.get("size") or task.get("held_out")
    return math.ceil(50 + 100 / math.sqrt(examples)) / 100 if examples else 0.0


def rows_of(run: Run, measure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, accuracy and measure, each (T,), of the rows that have both."""
    accuracy, progress = run.first(ACCURACY), run.first(measure)
    if accuracy is None or progress is None:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    steps = np.intersect1d(accuracy.steps, progress.steps)
    return steps, accuracy.at(steps), progress.at(steps)


def _judge(run: Run, measure: str, level: float, config: Config) -> RunFindings:
    steps, accuracy, progress = rows_of(run, measure)
    if len(steps) < config.persistence:
        why = f"{count(len(steps), 'row')} with both {ACCURACY} and {measure}: a level takes {config.persistence}"
        return RunFindings(run.id, "insufficient_data", why)
    crossed = convergence_step(steps, progress, level, "up", config.persistence)
    left = convergence_step(steps, accuracy, config.accuracy, "up", config.persistence)
    first, later = (math.inf if step is None else step for step in (crossed, left))
    if crossed is left is None:
        return RunFindings(run.id, "on_plateau", f"neither happens by step {int(steps[-1]):,}")
    verdict = "together" if first == later else "leads" if first < later else "follows"
    if left is None:
        why = f"accuracy stays on its plateau up to step {int(steps[-1]):,}"
    elif crossed is None:
        why = f"the measure stays below its level up to step {int(steps[-1]):,}"
    else:
        why = "in one row" if first == later else f"{count(abs(left - crossed), 'step')} apart"
    lead = None if crossed is None or left is None else left - crossed
    return RunFindings(run.id, verdict, why, crossed, left, lead)


def _over_runs(judged: Sequence[RunFindings], measure: str, level: float, config: Config) -> Summary:
    known = [run for run in judged if run.verdict != "insufficient_data"]
    either = [run for run in known if run.verdict != "on_plateau"]
    first, total = sum(run.verdict == "leads" for run in either), len(either)
    earlier = (
        Earlier(first, total, first / total, clopper_pearson(first, total))
        if total
        else Earlier(0, 0, None, (None, None))
    )
    # A measure that never gets there is later than accuracy by more than any other.
    leads = [-math.inf if run.progress_step is None else run.lead_steps for run in either]
    return Summary(
        measure=measure,
        level=level,
        accuracy=config.accuracy,
        persistence=config.persistence,
        progress_step=Spread.of([run.progress_step for run in known]),
        plateau_end_step=Spread.of([run.plateau_end_step for run in known]),
        lead_steps=Spread.of(leads),
        earlier=earlier,
    )


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary = findings.summary
    label, low = MEASURES[summary.measure][0], f"{summary.accuracy:g}"
    known = [run for run in findings.runs if run.verdict != "insufficient_data"]
    held = f" for {count(summary.persistence, 'row')} on end" if summary.persistence > 1 else ""
    headline = "no run has enough rows to judge by"
    if known:
        crossed = step_phrase([run.progress_step for run in known])
        left = step_phrase([run.plateau_end_step for run in known])
        headline = f"{label} above {summary.level:g}{held} {crossed}; accuracy above {low} {left}; {_earlier(summary)}"
    yield Say(f"**Hidden progress:** {headline}.", headline=True)
    if figure := _figure(findings, runs_of(groups)):
        yield figure
    rows = [
        [
            *(run_cell(run.run), spoken(run.verdict), run.progress_step, run.plateau_end_step),
            *(run.lead_steps, run.reason),
        ]
        for run in findings.runs
    ]
    header = ["run", "verdict", f"{label} above {summary.level:g}", f"accuracy above {low}", "lead", "why"]
    yield Table(header, rows, "Every run")


def _earlier(summary: Summary) -> str:
    earlier, lead = summary.earlier, summary.lead_steps
    if not earlier.total:
        return "neither happens"
    of = f"**{earlier.runs:,} of {count(earlier.total, 'run')}** that had either"
    if lead.median is None or earlier.total < 2:
        return f"the first came earlier in {of}"
    return f"the first came earlier in {of}, by **{number(lead.median)}** steps at the median"


def _figure(findings: Findings, recorded: Sequence[Run]) -> Lines | None:
    """Return accuracy above the measures, of the runs that the findings are of."""
    summary, judged = findings.summary, {run.run for run in findings.runs}
    runs = [run for run in recorded if run.id in judged]
    columns = [name for name in MEASURES if any(len(rows_of(run, name)[0]) for run in runs)]
    if summary.measure not in columns:
        return None
    labels = [MEASURES[name][0] for name in columns]
    measures = {label: _curves(runs, name) for label, name in zip(labels, columns, strict=True)}
    spread = " Line: median over runs; band: quartiles; thin lines: single runs." if len(runs) > 2 else ""
    title = f"relevant against other coordinates{f': {labels[0]}' if len(labels) == 1 else ''}"
    return Lines(
        name="hidden-progress",
        caption=f"**Hidden progress.** Below: {listed([MEASURES[name][1] for name in columns])}; each a ratio that is "
        f"near 1 as long as nothing tells the coordinates apart.{spread}",
        alt=f"Accuracy, and {listed(labels)} of relevant against other coordinates",
        panels=[
            Panel(
                title="accuracy on held-out examples",
                curves={"test": _curves(runs, ACCURACY)},
                level=summary.accuracy,
            ),
            Panel(title=title, curves=measures, logarithmic=True, level=summary.level),
        ],
        marks={
            f"{MEASURES[summary.measure][0]} above {summary.level:g}": summary.progress_step.median,
            f"accuracy above {summary.accuracy:g}": summary.plateau_end_step.median,
        },
        diverged={run.id: run.diverged_step for run in runs if run.diverged_step is not None},
    )


def _curves(runs: Sequence[Run], name: str) -> dict[str, Series]:
    return {run.id: series for run in runs if (series := run.first(name)) is not None}
