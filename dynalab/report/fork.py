"""A fork beside its parent: what was changed, both in one picture, and how far apart the same runs end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml

from dynalab.core.errors import DynalabError
from dynalab.core.forks import parent_and_step
from dynalab.core.runs import Run, Series
from dynalab.core.words import count, listed, metric_words, number, rounded
from dynalab.report.blocks import Section
from dynalab.report.gather import ACCURACIES, JUDGED, LOSSES, Shown
from dynalab.show.blocks import Block, Lines, Number, Panel, Say, Table
from dynalab.show.page import settled
from dynalab.store.find import select
from dynalab.store.reader import Ensemble

_STATUSES = ("done", "diverged", "partial", "running")


def section(shown: Shown) -> Section:
    """Return the part of a fork's page about its parent; without blocks where it is none."""
    blocks = list(_blocks(shown)) if shown.ensemble.parent else []
    return Section("Beside its parent", f"{shown.anchor}-fork", blocks, lead="fork")


def answers(part: Section) -> list[str]:
    """Return the sentences that a page on a fork alone begins with, from an ensemble's part of the page."""
    return [block.text for block in _leading(part) if isinstance(block, Say) and block.headline]


def numbers(part: Section) -> list[Number]:
    """Return what such a page writes large before all else."""
    return [block for block in _leading(part) if isinstance(block, Number)]


def _leading(part: Section) -> Iterator[Block]:
    return (block for section in part.sections if section.lead == "fork" for block in section.blocks)


def _blocks(shown: Shown) -> list[Block]:
    reference, step = parent_and_step(str(shown.ensemble.parent))
    first = (
        f"Up to step {step:,} these runs are those of {reference}, to the bit; from there on "
        f"{_changes(shown.ensemble)}."
    )
    outputs = shown.ensemble.path.parent.parent
    names = tuple(dict.fromkeys([*LOSSES.values(), *ACCURACIES.values()]))
    try:
        ((parent, _),) = select(outputs, [reference], None, Ensemble)
        groups = [item.group(_STATUSES, None, names) for item in (parent, shown.ensemble)]
    except DynalabError:
        return [Say(f"{first} The parent is not in this outputs folder.", headline=True)]
    labels = [run.label for run in shown.runs]
    before, after = ([run for run in group.runs if run.label in labels] for group in groups)
    metrics = [name for name in names if any(name in run.series for run in after)]
    figure = Lines(
        name="fork",
        caption=f"**The fork beside its parent.** The same {count(len(labels), 'run')}; dashed: where they part.",
        alt="Losses and accuracies of a fork and of its parent over the same steps",
        panels=[
            Panel(
                title=metric_words(name),
                curves={"parent": _curves(before, name), "fork": _curves(after, name)},
                logarithmic=name.endswith("loss"),
            )
            # What they are judged by is on the first screen.
            for name in sorted(metrics, key=lambda name: (*JUDGED, name).index(name))
            if name.startswith(("test", "average_test")) or name == "train_loss"
        ],
        marks={f"fork at step {step:,}": float(step)},
        diverged={run.id: run.diverged_step for run in (*before, *after) if run.diverged_step is not None},
    )
    rows = [row for name in metrics if (row := _row(name, before, after, step))]
    header = ["metric", "runs", "at step", "fork above", "median difference", "lowest", "highest"]
    table = Table(header, rows, "The fork less its parent, run by run, in the last row that both have")
    judged = next((row for name in JUDGED for row in rows if row[0] == metric_words(name)), None)
    ends: list[Block] = [_difference(judged), Say(_ends(judged), headline=True)] if judged else []
    return [
        Say(first, headline=True),
        *ends,
        settled(figure, str, shown.log_steps),
        *([table] if rows else []),
    ]


def _difference(row: Sequence[Any]) -> Number:
    metric, runs, *_, middle, low, high = row
    name, spread = f"{metric} less the parent's", f"{low} to {high}, {count(runs, 'run')}"
    return Number(middle, f"{name}, median" if runs > 1 else name, spread if runs > 1 else "")


def _ends(row: Sequence[Any]) -> str:
    """Return a row of the table as a sentence."""
    metric, runs, at, above, middle, low, high = row
    spread = f"in the median {middle} ({low} to {high})" if runs > 1 else middle
    return f"At step {at} **{metric}** less that of the parent, run by run, is **{spread}**; it is above 0 in {above}."


def _changes(ensemble: Ensemble) -> str:
    """Return what is otherwise in a fork, by the words that made it."""
    try:
        words = yaml.safe_load(ensemble.paths.overrides.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return "they are as its configuration says"
    words = [str(word) for word in words or () if not str(word).startswith(("parent=", "train.steps="))]
    return f"they train with {listed([f'`{word}`' for word in words])}" if words else "nothing is otherwise"


def _curves(runs: Sequence[Run], name: str) -> dict[str, Series]:
    return {run.id: run.series[name] for run in runs if name in run.series}


def _row(name: str, before: Sequence[Run], after: Sequence[Run], step: int) -> list[Any] | None:
    """Return a row of the table, where runs have rows after the step."""
    parents = {run.label: run for run in before}
    differences, at = [], []
    for run in after:
        other = parents.get(run.label)
        if other is None or name not in run.series or name not in other.series:
            continue
        common = np.intersect1d(run.series[name].steps, other.series[name].steps)
        values = run.series[name].at(common) - other.series[name].at(common)
        kept = np.flatnonzero(np.isfinite(values) & (common > step))
        if len(kept):
            differences.append(float(values[kept[-1]]))
            at.append(int(common[kept[-1]]))
    if not differences:
        return None
    span = f"{min(at):,}" if min(at) == max(at) else f"{min(at):,} to {max(at):,}"
    above = f"{sum(value > 0 for value in differences)} of {len(differences)}"
    middle = [float(np.median(differences)), min(differences), max(differences)]
    return [
        metric_words(name),
        len(differences),
        span,
        above,
        *(number(rounded(value)) for value in middle),
    ]
