"""Hidden progress: what a measure sees of it while accuracy stands on its plateau.

Of a sparse parity measures are columns of the probe `parity` (Barak et al. 2022, arXiv 2207.08799), ratios that are
near 1 as long as nothing tells the relevant coordinates from the others. Of an addition they are columns of the probe
`fourier`: the loss of the key frequencies alone (Nanda et al. 2023, arXiv 2301.05217) or, with another loss than a
cross-entropy, the participation ratio of the first layer's neurons (Gromov 2023, arXiv 2301.02679).

What holds in a run's first row has not been seen to begin, and comes before nothing: such a run has no lead.

As recorded, a frequency counts from the row on in which it is key. `frequencies=last` takes those of the last weights
that were kept, for all weights that were, as Nanda et al. do; it runs the networks anew, so its rows are the steps that
`snapshots.at` keeps, each beside the last accuracy by then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.base import Frame, Group, Keys, Needs, Run, Series, key, runs_of
from dynalab.analysis.progress.findings import Earlier, Findings, RunFindings, Summary
from dynalab.analysis.progress.measures import (
    LOSSES,
    MEASURES,
    RESTRICTED,
    Measure,
    by_last_keys,
    in_words,
    last_keys,
    measures_of,
    with_losses,
)
from dynalab.core.convergence import convergence_step
from dynalab.core.errors import NothingMatched
from dynalab.core.progress import counted
from dynalab.core.stats import Spread, clopper_pearson
from dynalab.core.words import LINES, count, listed, number, spoken, step_phrase
from dynalab.show.blocks import Block, Lines, Panel, Say, Table, run_cell

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 5
ACCURACY = "test_accuracy"


def NEEDS(config: Config | None = None) -> Needs:
    """Return what it reads: a measure that was recorded, or the weights."""
    weights = config is not None and config.frequencies == "last"
    return Needs(
        columns=(ACCURACY,) if weights else (ACCURACY, tuple(MEASURES)),
        record="task=parity 'probes=[weights,gradients,parity]', or task=grokking "
        "'probes=[weights,gradients,fourier]' (frequencies=last: of the weights that are kept)",
        statuses=("done", "diverged"),
        weights=weights,
        network=weights,
    )


TITLE = "Hidden progress"
FIGURES = ("hidden-progress",)


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    fourier: float = key(4.0, "Fourier coefficient that tells the coordinates apart", above=0)
    separation: float = key(2.0, "movement that tells them apart, where there is no coefficient", above=0)
    restricted: float = key(0.1, "restricted loss at which the key frequencies do the task alone", above=0)
    participation: float = key(
        0.25,
        "participation ratio of neurons that are near waves, with no cross-entropy",
        above=0,
        most=1,
    )
    frequencies: str = key(
        "own",
        "key frequencies: those of a row, or of the last weights that were kept",
        one_of=("own", "last"),
    )
    accuracy: float | None = key(
        None,
        "held-out accuracy that is off the plateau; null: .55 of a parity, .9 of an addition",
        above=0,
        most=1,
    )
    persistence: int = key(3, "rows on end that hold a level: one may do so by chance", least=1)


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Find where the measure holds its level and where accuracy leaves the plateau.

    Raises:
        NothingMatched: No run has a measure of its own loss, or key frequencies.
    """
    runs, last = runs_of(groups), config.frequencies == "last"
    found = [by_last_keys(run) if last else (run, last_keys(run)) for run in counted(runs, "runs")]
    runs = [run for run, _ in found]
    measure = RESTRICTED if last else _measure(groups)
    judged_by = MEASURES[measure]
    accuracy = judged_by.accuracy if config.accuracy is None else config.accuracy
    rule = _Rule(
        measure,
        getattr(config, judged_by.key),
        max([accuracy, *map(_guess, runs)]),
        config.persistence,
        thinned=last,
    )
    judged = tuple(replace(_judge(run, rule), key_frequencies=keys) for run, keys in found)
    return Findings(judged, _over_runs(judged, rule), _losses(runs) if last else None)


@dataclass(frozen=True)
class _Rule:
    """What is held against what."""

    measure: str
    level: float
    accuracy: float
    persistence: int
    thinned: bool  # whether the measure's rows are few, and each stands beside the last accuracy by then


def _measure(groups: Sequence[Group]) -> str:
    """Return the first measure that all groups have, else the first that some run has."""
    recorded = [{name for run in group.runs for name in measures_of(run)} for group in groups]
    for names in (set.intersection(*recorded), set.union(*recorded)):
        if chosen := next((name for name in MEASURES if name in names), None):
            return chosen
    raise NothingMatched(
        "no measure that holds for the task's loss was recorded: with another than a cross-entropy (task.loss=mse, "
        "stablemax) it is the participation ratio, which model=gromov, embedding_mlp or onehot_mlp have"
    )


def _losses(runs: Sequence[Run]) -> Frame:
    import pandas as pd

    tables = []
    for run in runs:
        steps = run.series[RESTRICTED].steps
        tables.append(
            pd.DataFrame({"run": run.id, "step": steps, **{n: run.series[n].at(steps) for n in LOSSES}})
        )
    return pd.concat(tables, ignore_index=True)


def _guess(run: Run) -> float:
    """Return the accuracy that a guess among two labels stays below: two standard errors, rounded up; 0 if not known.

    A network that hardly moves is right on the same examples for many rows, so that persistence does not help.
    """
    evaluated, task = (run.config.get(section) or {} for section in ("eval", "task"))
    examples = evaluated.get("size") or task.get("held_out")
    return math.ceil(50 + 100 / math.sqrt(examples)) / 100 if examples else 0.0


def rows_of(run: Run, measure: str, thinned: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, accuracy and measure, each (T,), of the rows that have both; thinned: the last accuracy by then."""
    accuracy, progress = run.first(ACCURACY), run.first(measure)
    if accuracy is None or progress is None:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    if thinned:
        steps = progress.steps[progress.steps >= accuracy.steps[0]]
        by_then = np.searchsorted(accuracy.steps, steps, "right") - 1
        return steps, accuracy.values[by_then], progress.at(steps)
    steps = np.intersect1d(accuracy.steps, progress.steps)
    return steps, accuracy.at(steps), progress.at(steps)


def _judge(run: Run, rule: _Rule) -> RunFindings:
    steps, accuracy, progress = rows_of(run, rule.measure, rule.thinned)
    if len(steps) < rule.persistence:
        why = f"{count(len(steps), 'row')} with both {ACCURACY} and {rule.measure}: a level takes {rule.persistence}"
        return RunFindings(run.id, "insufficient_data", why)
    measure = MEASURES[rule.measure]
    crossed = convergence_step(steps, progress, rule.level, measure.direction, rule.persistence)
    left = convergence_step(steps, accuracy, rule.accuracy, "up", rule.persistence)
    first, later = (math.inf if step is None else step for step in (crossed, left))
    if crossed is left is None:
        return RunFindings(run.id, "on_plateau", f"neither happens by step {int(steps[-1]):,}")
    # A measure that is not defined in the first row, as nothing has moved, does not hold there.
    start = int(steps[0] if rule.thinned else run.series[ACCURACY].steps[0])
    if held := [name for name, step in (("the measure", crossed), ("accuracy", left)) if step == start]:
        why = f"holds from the start, step {start:,}: {listed(held)}"
        return RunFindings(run.id, "from_the_start", why, crossed, left)
    verdict = "together" if first == later else "leads" if first < later else "follows"
    if left is None:
        why = f"accuracy stays on its plateau up to step {int(steps[-1]):,}"
    elif crossed is None:
        stays = "below" if measure.direction == "up" else "above"
        why = f"the measure stays {stays} its level up to step {int(steps[-1]):,}"
    else:
        why = "in one row" if first == later else f"{count(abs(left - crossed), 'step')} apart"
    lead = None if crossed is None or left is None else left - crossed
    return RunFindings(run.id, verdict, why, crossed, left, lead)


def _over_runs(judged: Sequence[RunFindings], rule: _Rule) -> Summary:
    known = [run for run in judged if run.verdict != "insufficient_data"]
    either = [run for run in known if run.verdict in ("leads", "together", "follows")]
    first, total = sum(run.verdict == "leads" for run in either), len(either)
    earlier = (
        Earlier(first, total, first / total, clopper_pearson(first, total))
        if total
        else Earlier(0, 0, None, (None, None))
    )
    # A measure that never gets there is later than accuracy by more than any other.
    leads = [-math.inf if run.progress_step is None else run.lead_steps for run in either]
    return Summary(
        measure=rule.measure,
        level=rule.level,
        accuracy=rule.accuracy,
        persistence=rule.persistence,
        progress_step=Spread.of([run.progress_step for run in known]),
        plateau_end_step=Spread.of([run.plateau_end_step for run in known]),
        lead_steps=Spread.of(leads),
        earlier=earlier,
    )


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary, measure = findings.summary, MEASURES[findings.summary.measure]
    passed, low = f"{measure.label} {measure.passes} {summary.level:g}", f"{summary.accuracy:g}"
    known = [run for run in findings.runs if run.verdict != "insufficient_data"]
    held = f" for {count(summary.persistence, 'row')} on end" if summary.persistence > 1 else ""
    headline = "no run has enough rows to judge by"
    if known:
        crossed = step_phrase([run.progress_step for run in known])
        left = step_phrase([run.plateau_end_step for run in known])
        headline = f"{passed}{held} {crossed}; accuracy above {low} {left}; {_order(summary, known)}"
    yield Say(f"**Hidden progress:** {headline}.", headline=True)
    if figure := _figure(findings, measure, runs_of(groups)):
        yield figure
    with_keys = any(run.key_frequencies for run in findings.runs)
    rows = [
        [
            *(run_cell(run.run), spoken(run.verdict), run.progress_step, run.plateau_end_step),
            *(run.lead_steps, run.reason),
            *([in_words(run.key_frequencies)] if with_keys else []),
        ]
        for run in findings.runs
    ]
    header = ["run", "verdict", passed, f"accuracy above {low}", "lead", "why"]
    yield Table([*header, *(["key frequencies at its end"] if with_keys else [])], rows, "Every run")


def _order(summary: Summary, known: Sequence[RunFindings]) -> str:
    """Return which came first, and in how many runs that cannot be told."""
    earlier, lead = summary.earlier, summary.lead_steps
    started, said = sum(run.verdict == "from_the_start" for run in known), []
    if earlier.total:
        line = (
            f"the first came earlier in **{earlier.runs:,} of {count(earlier.total, 'run')}** that had either"
        )
        by = earlier.total > 1 and lead.median is not None
        said.append(f"{line}, by **{number(lead.median)}** steps at the median" if by else line)
    if started:
        said.append(
            f"in **{started:,} of {count(len(known), 'run')}** one of them holds from the start and leads nothing"
        )
    return "; ".join(said) or "neither happens"


def _figure(findings: Findings, measure: Measure, recorded: Sequence[Run]) -> Lines | None:
    """Return accuracy above the measures, of the runs that the findings are of."""
    summary, judged = findings.summary, {run.run for run in findings.runs}
    runs, losses = [run for run in recorded if run.id in judged], findings.losses
    if losses is not None:
        rows = [losses[losses["run"] == run.id] for run in runs]
        runs = [
            with_losses(run, own["step"].to_numpy(), own[[*LOSSES]].to_numpy())
            for run, own in zip(runs, rows, strict=True)
        ]
    if not any(len(rows_of(run, summary.measure, losses is not None)[0]) for run in runs):
        return None
    panels = [
        Panel(
            title="accuracy on held-out examples",
            curves={"test": _curves(runs, ACCURACY)},
            level=summary.accuracy,
        )
    ]
    for place, drawn in enumerate(measure.panels):
        curves = {label: own for name, label in drawn.curves.items() if (own := _curves(runs, name))}
        if curves:
            title = f"{drawn.title}: {next(iter(curves))}" if len(curves) == 1 else drawn.title
            level = None if place else summary.level
            panels.append(Panel(title=title, curves=curves, logarithmic=drawn.logarithmic, level=level))
    drawn_below = "; ".join(
        panel.title if len(panel.curves) == 1 else f"{panel.title} ({', '.join(panel.curves)})"
        for panel in panels[1:]
    )
    passed = f"{measure.label} {measure.passes} {summary.level:g}"
    spread = f" {LINES}" if len(runs) > 2 else ""
    return Lines(
        name="hidden-progress",
        caption=f"**Hidden progress.** {measure.caption}{spread}",
        alt=f"Accuracy on held-out examples; below it {drawn_below}",
        panels=panels,
        marks={
            passed: summary.progress_step.median,
            f"accuracy above {summary.accuracy:g}": summary.plateau_end_step.median,
        },
        diverged={run.id: run.diverged_step for run in runs if run.diverged_step is not None},
    )


def _curves(runs: Sequence[Run], name: str) -> dict[str, Series]:
    return {run.id: series for run in runs if (series := run.first(name)) is not None}
