"""An ensemble's part of the page: curves, metrics, analyses, its runs, and what was run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dynalab.core.forks import parent_and_step
from dynalab.core.stats import fallen, quantile
from dynalab.core.words import LINES, count, listed, number, quartiles, rounded, step_phrase
from dynalab.curvature.bins import columns_of
from dynalab.probes.curvature import ABOUT
from dynalab.report import choice, fork, provenance
from dynalab.report.blocks import Section
from dynalab.report.gather import (
    ACCURACIES,
    AVERAGE,
    JUDGED,
    LANDMARK_METRICS,
    LANDMARKS,
    LOSSES,
    Shown,
    group_of,
)
from dynalab.show import plots
from dynalab.show.blocks import Block, Cell, Number, Picture, Raster, Say, Table
from dynalab.show.plots.landmarks import landmark_words
from dynalab.show.plots.states import common_grid
from dynalab.store.runfile import FINAL

MAIN = (*LOSSES.values(), *ACCURACIES.values())


def section(
    shown: Shown,
    analyses: Sequence[Section],
    home: Path,
    states: Raster | None = None,
    beside: Sequence[Section] = (),
) -> Section:
    """Return the part of the page on one ensemble, with the sections of its analyses, for a report's folder.

    Where an analysis says in which state the runs are when, that is a ribbon under the curves. What others say of it
    `beside` settings that are not on the page stands below all that is its own.
    """
    parts = [
        fork.section(shown),
        *analyses,
        Section("Training", f"{shown.anchor}-curves", _curves(shown, states), lead=_lead(analyses)),
        Section("Metrics", f"{shown.anchor}-metrics", _metrics(shown), folded=True),
        *beside,
        replace(choice.others(shown.anchor, shown.ensemble, shown.results, shown.others), folded=True),
        Section("Runs", f"{shown.anchor}-runs", [run_table(shown)]),
        provenance.section(shown, home),
    ]
    # What is odd about its runs stands at the top of the page.
    return Section(shown.title, shown.anchor, (), [part for part in parts if part.blocks])


def _lead(analyses: Sequence[Section]) -> str:
    """Return the figure of the curves, unless an analysis has one that answers its question."""
    return "" if any(section.lead for section in analyses) else "curves"


def numbers(shown: Shown) -> list[Number]:
    """Return what is written large of one ensemble: when runs passed their landmarks, and where they ended."""
    made = []
    for name, steps in reversed(shown.landmarks().items()):
        reached = sum(step is not None for step in steps)
        spread = quartiles(steps)
        about = f"{reached} of {count(len(steps), 'run')}" if len(steps) > 1 else ""
        if len(steps) > 2 and spread is not None and np.isfinite(spread).all():
            about = f"quartiles {number(spread[0])} to {number(spread[2])}, {about}"
        middle = number(spread[1]) if spread is not None and reached else "never"
        if reached and middle == "never":
            # A median that lies beyond the end is not never: some runs got there.
            first = number(min(step for step in steps if step is not None))
            made.append(
                Number(f"{reached} of {len(steps)}", name, f"fewer than half, the first at step {first}")
            )
            continue
        value = middle if middle == "never" else f"step {middle}"
        made.append(Number(value, f"{name}{', median' * (len(steps) > 1 and reached > 0)}", about))
    for name in JUDGED:
        ends = [(run.summary or {}).get("final") or {} for run in shown.finished]
        values = [float(end[name]) for end in ends if end.get(name) is not None]
        if values:
            low, middle, high = (
                number(rounded(x)) for x in (min(values), quantile(values, 0.5), max(values))
            )
            about = f"lowest {low}, highest {high}, {count(len(values), 'run')}" if low < high else ""
            about = about or (f"in all {len(values):,} runs" if len(values) > 1 else "")
            made.append(
                Number(middle, f"final {name.replace('_', ' ')}{', median' * (len(values) > 1)}", about)
            )
            break
    return [*made, *(Number(str(value), fact) for fact, value in shown.facts().items())][:5]


def summary(shown: Shown) -> list[str]:
    """Return what a researcher reads first of an ensemble, in sentences; those of its analyses follow."""
    config = shown.ensemble.config
    chosen = [config.get(key) for key in ("model", "optimizer")]
    made = ", ".join(str(part["name"]) for part in chosen if isinstance(part, dict) and part.get("name"))
    part = f" (of {shown.total} stored)" if len(shown.runs) < shown.total else ""
    statuses = shown.statuses()
    how = ", ".join(f"{n} {name}" for name, n in statuses.items())
    if list(statuses) == ["done"]:
        how = "all done"
    seeded = any(run.seed is not None for run in shown.runs)
    seeds = f", seed{'s' * (len(shown.runs) > 1)} {provenance.seeds_of(shown.runs)}" if seeded else ""
    what = listed(shown.ensemble.names, 4) if shown.ensemble.names else shown.ensemble.task
    lengths = [run.steps for run in shown.runs if run.status != "diverged"] or [shown.last_step]
    least = min(lengths)
    length = count(shown.last_step, "step")
    if least < shown.last_step:
        length = f"{least:,} to {length}"
    lines = [
        f"**{count(len(shown.runs), 'run')}** of **{what}**{f' ({made})' if made else ''}{part}: "
        f"{how}, {length}{seeds}."
    ]
    if parent := shown.ensemble.parent:
        reference, step = parent_and_step(parent)
        lines.append(f"A fork of **{reference}** from step {step:,} on.")
    if least < shown.last_step:
        lines.append(f"The runs differ in length: beyond step {least:,} medians and bands are of fewer runs.")
    if shown.first_step > 0:
        lines.append(f"Nothing was recorded before step {shown.first_step:,}.")
    if shown.fewer:
        drawn, of = max((len(shown.steps[name]), n) for name, n in shown.fewer.items() if name in shown.steps)
        lines.append(f"Figures show {drawn:,} of {of:,} recorded steps: each row at the nearest of them.")
    levels = config.get("levels") or {}
    for name, steps in shown.landmarks().items():
        metric, level, lost = LANDMARK_METRICS[name], "", ""
        if levels.get(metric):
            level = f" ({metric.replace('_', ' ')} at least {number(levels[metric])})"
        summaries = [run.summary or {} for run in shown.finished]
        if fell := fallen(summaries, LANDMARKS[name], metric, levels.get(metric)):
            lost = f"; **{fell:,}** of them {'is' if fell == 1 else 'are'} below it again at the end"
        lines.append(f"{name.capitalize()}{level} {step_phrase(steps)}{lost}.")
    if len(shown.finished) < len(shown.runs):
        waiting = [run.label for run in shown.runs if run.summary is None]
        lines.append(f"Without a summary yet, and not counted in these medians: {listed(waiting)}.")
    return lines + troubles(shown)


def troubles(shown: Shown) -> list[str]:
    """Return sentences that name the runs that diverged, failed or are not done."""
    lines = []
    if diverged := [run for run in shown.runs if run.diverged_step is not None]:
        # The label of an import may be a number.
        named = [
            f"{'run ' * run.label.isdecimal()}{run.label} at step {run.diverged_step:,}" for run in diverged
        ]
        lines.append(f"**Diverged:** {listed(named)}; their rows from there on are left out.")
    for status in ("failed", "crashed", "partial", "running", "planned"):
        if named := [f"{run.label} (step {run.steps:,})" for run in shown.runs if run.status == status]:
            lines.append(f"**{status.capitalize()}:** {listed(named)}.")
    return lines


def _main_grid(shown: Shown) -> np.ndarray:
    """Return the steps of the first of the losses and accuracies that was recorded; none where none was."""
    return next((shown.steps[name] for name in MAIN if name in shown.steps), np.empty(0))


def _curves(shown: Shown, states: Raster | None = None) -> list[Block]:
    blocks: list[Block] = [] if shown.values else [Say("Nothing has been recorded yet.")]
    runs = [run.id for run in shown.runs]
    grid = _main_grid(shown)
    sides = [
        {
            label: shown.values[metric]
            for label, metric in metrics.items()
            if metric in shown.values and np.array_equal(shown.steps[metric], grid)
        }
        for metrics in (LOSSES, ACCURACIES)
    ]
    medians, shares = shown.medians(), _shares(states)
    if len(grid):
        figure = plots.training_curves(
            grid, *sides, log_steps=shown.log_steps, diverged=shown.diverged,
            marked=medians if len(shown.runs) > 0 else None, states=shares,
        )  # fmt: skip
        caption = f"**Loss and accuracy.** {LINES if len(shown.runs) > 2 else ''}"
        if any(AVERAGE in side for side in sides):
            caption += " Averaged: of the averaged weights, on the test set."
        if marked := [name for name, step in medians.items() if step is not None]:
            median = "median " if len(shown.runs) > 1 else ""
            caption += f" Dashed: {median}step at which runs {' and '.join(marked)}."
        if shares is not None:
            caption += " Ribbon under the axes: the share of runs in each state."
        if np.isfinite(shown.diverged).any():
            caption += " Crosses: where a run diverged."
        names = [
            f"{label} {name}"
            for side, name in zip(sides, ("loss", "accuracy"), strict=True)
            for label in side
        ]
        alt = f"Curves of {listed(names)} over training"
        blocks.append(Picture(name="curves", figure=figure, caption=caption, alt=alt, runs=runs))
    rows = {name: np.array(steps, dtype=float) for name, steps in shown.landmarks().items()}
    if converged := shown.convergence():
        rows["converged"] = np.array(list(converged[0].values()), dtype=float)
    if len(shown.runs) > 1 and any(np.isfinite(steps).any() for steps in rows.values()):
        figure = plots.landmark_steps(rows, first=shown.first_step, last=shown.last_step)
        marks = landmark_words(len(steps) for steps in rows.values())
        caption = (
            f"**When it happened.** {marks[0].upper()}{marks[1:]}; runs in which it did not happen by the end count as "
            "later than all others."
        )
        alt = f"Steps at which runs {listed(list(rows))}"
        ended = [run.id for run in shown.finished]
        if converged and [*converged[0]] != ended:
            ended = []
        blocks.append(Picture(name="landmarks", figure=figure, caption=caption, alt=alt, runs=ended))
    return blocks


def _shares(states: Raster | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return steps (T,) and the share of runs, of those that have a row there, in each state (T, K)."""
    if states is None or not states.runs or states.n_states == 1:
        return None
    steps, table = common_grid(states.steps, states.states)
    there = np.isfinite(table).sum(axis=0)
    counts = np.stack([(table == k).sum(axis=0) for k in range(states.n_states)], axis=1)
    return steps, counts / np.maximum(there, 1)[:, None]


def _metrics(shown: Shown) -> list[Block]:
    # A map of its own shows the shares of eigenvalues; what they are of never changes.
    shares = {*columns_of(list(shown.ensemble.metrics)), *ABOUT}
    grid = _main_grid(shown)
    names = [
        name
        for name in shown.values
        if name not in shares and not (name in MAIN and np.array_equal(shown.steps[name], grid))
    ]
    order = ["accuracy", "loss", "norms", "weights", "curvature", "numerics", "other"]
    names.sort(key=lambda name: order.index(group_of(name)))
    if not names:
        return []
    figure = plots.metric_panels(
        {name: shown.steps[name] for name in names},
        {name: shown.values[name] for name in names},
        groups={name: group_of(name) for name in names},
        log_steps=shown.log_steps,
        diverged=shown.diverged,
    )
    empty = [name for name in shown.ensemble.metrics if name not in shown.values and name not in shares]
    missing = f" Recorded but without a value: {listed(empty)}." if empty else ""
    what = "Everything else that was recorded" if len(grid) else "What was recorded"
    caption = f"**{what}.** {LINES if len(shown.runs) > 2 else ''}{missing}"
    alt = f"Panels of {count(len(names), 'metric')} over training"
    runs = [run.id for run in shown.runs]
    return [Picture(name="metrics", figure=figure, caption=caption, alt=alt, runs=runs)]


def run_table(shown: Shown) -> Table:
    """Return the table of runs: what became of each and when."""
    landmarks, converged = shown.landmarks(), shown.convergence()
    last_rows = [(run.summary or {}).get("final") or {} for run in shown.runs]
    finals = [metric for metric in MAIN if any(final.get(metric) is not None for final in last_rows)]
    seeded = any(run.seed is not None for run in shown.runs)
    header = ["run", *(["seed"] if seeded else []), "status", "steps", *landmarks]
    header += ["converged"] if converged else []
    header += [f"final {metric.replace('_', ' ')}" for metric in finals]
    rows = []
    for run, final in zip(shown.runs, last_rows, strict=True):
        summary = run.summary or {}
        status = run.status if run.diverged_step is None else f"diverged at {run.diverged_step:,}"
        row: list[Any] = [Cell(run.id, run.label, tone="whole" if len(run.label) <= 30 else "", run=run.id)]
        row += [run.seed] if seeded else []
        row.append(Cell(status, tone="bad" if run.status in ("diverged", "failed", "crashed") else ""))
        behind = run.steps < run.requested_steps and run.status not in FINAL
        row.append(Cell(run.steps, f"{run.steps:,} of {run.requested_steps:,}" if behind else ""))
        last = run.steps if run.diverged_step is None else run.diverged_step
        row += [_when(summary.get(LANDMARKS[name]), last, run.summary is not None) for name in landmarks]
        if converged:
            row.append(_when(converged[0].get(run.id), last, run.id in converged[0]))
        rows.append([*row, *(final.get(metric) for metric in finals)])
    note = ""
    if converged and (rule := converged[1].data.get("convergence_rule")):
        sign = "at least" if rule["direction"] == "up" else "at most"
        note = (
            f"Converged: {rule['metric']} {sign} {number(rule['threshold'])} for {count(rule['persistence'], 'row')} "
            f"on end ({converged[1].kind}-{converged[1].id}). "
        )
    return Table(header, rows, f"Every run. {note}A click on a head sorts.")


def _when(step: Any, last: int, known: bool) -> Cell:
    """Return a landmark's cell: its step, or the step that it did not come by."""
    return Cell(step, f"not by {last:,}" if step is None and known else "")
