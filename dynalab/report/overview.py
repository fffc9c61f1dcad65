"""The top of the page: what several ensembles are, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.config.settings import IMPORTED, SETTING, apart, labels
from dynalab.config.typed import flat
from dynalab.core.columns import AVERAGED
from dynalab.core.convergence import DIRECTIONS
from dynalab.core.words import metric_words, number, quartiles
from dynalab.report.blocks import Section
from dynalab.report.gather import JUDGED, Shown
from dynalab.report.sections.contrasts import Contrasts
from dynalab.report.sections.contrasts import blocks as compared
from dynalab.show import plots
from dynalab.show.blocks import Block, Cell, Picture, Table
from dynalab.show.plots.comparison import BANDS
from dynalab.show.plots.landmarks import landmark_words
from dynalab.show.plots.style import ensemble_colours

# Rows of the figure of landmarks.
ROWS = 24
_LONGEST = 28


def name_ensembles(shown: Sequence[Shown]) -> list[str]:
    """Give every ensemble its title, from what tells it apart, and return the keys that do."""
    trees = [flat(item.ensemble.config) for item in shown]
    made = labels(trees, [item.ensemble.id for item in shown])
    for item, label in zip(shown, made, strict=True):
        slug = item.ensemble.path.name.rpartition("-")[0]
        words = f"{item.ensemble.task}: {slug}" if slug not in ("", "default") else item.ensemble.task
        item.title = f"{words} ({label})" if label == item.ensemble.id else label
        if len(shown) == 1:
            item.title = words
    return [*dict.fromkeys(key for own in apart(trees) for key in own)]


def _plain(value: object) -> str:
    return f"[{', '.join(map(_plain, value))}]" if isinstance(value, list) else str(value)


def main_metric(shown: Sequence[Shown], keys: Sequence[str] = ()) -> str | None:
    """Return the metric that ensembles are compared by: the task's own, else the first that all have.

    Where the keys in which they differ are of an average alone, it is that of the averaged weights.
    """
    wanted = [rule.metric for item in shown if (rule := item.ensemble.convergence) is not None]
    if keys and all(key.startswith("average.") for key in keys):
        wanted = [f"{AVERAGED}{name}" for name in [*wanted, *JUDGED]] + wanted
    shared = [name for name in shown[0].values if all(name in item.values for item in shown)]
    return next((name for name in [*wanted, *JUDGED, *shared] if name in shared), None)


def comparison(
    shown: Sequence[Shown], keys: Sequence[str], contrasts: Sequence[Contrasts], ranked: bool = False
) -> Section:
    """Return the section that shows ensembles side by side, two or more, which differ in some keys.

    Where an analysis has `ranked` them, the steps of their landmarks stand there.
    """
    ids, names = [item.ensemble.id for item in shown], [item.title for item in shown]
    if max(map(len, names)) > _LONGEST:
        # Beside a line they have to fit; the table has all keys.
        names = labels([flat(item.ensemble.config) for item in shown], ids, most=1)
    names = [name if len(name) <= _LONGEST else own for name, own in zip(names, ids, strict=True)]
    blocks: list[Block] = [_table(shown, keys)]
    if metric := main_metric(shown, keys):
        # By its values, as its title says, unless it is declared to rise to a bound.
        logarithmic = DIRECTIONS.get(metric) != "up"
        figure = plots.comparison(
            {label: (item.steps[metric], item.values[metric]) for label, item in zip(names, shown, strict=True)},
            metric=metric, logarithmic=logarithmic, log_steps=all(item.log_steps for item in shown),
        )  # fmt: skip
        several = any(len(item.runs) > 2 for item in shown)
        band = ", quartiles as a band" if len(shown) <= BANDS and several else ""
        caption = f"**{metric_words(metric)}** of every ensemble: median over runs{band}."
        alt = f"{metric} of {len(shown)} ensembles over training"
        blocks.append(Picture(name="comparison", figure=figure, caption=caption, alt=alt, runs=ids))
    rows, what = {}, "generalised"
    for label, item in zip(names[:ROWS], shown[:ROWS], strict=True) if not ranked else ():
        landmarks = item.landmarks()
        what = what if "generalised" in landmarks else "generalised or memorised"
        steps = landmarks.get("generalised") or landmarks.get("memorised")
        if steps and any(step is not None for step in steps):
            rows[label] = np.array(steps, dtype=float)
    if len(rows) > 1:
        colours = dict(zip(names, ensemble_colours(len(shown)), strict=True))
        last = max(item.last_step for item in shown)
        first = min(item.first_step for item in shown)
        figure = plots.landmark_steps(rows, first=first, last=last, colours=colours, apart=True)
        part = f" (of the first {ROWS} of {len(shown):,})" if len(shown) > ROWS else ""
        marks = landmark_words(len(steps) for steps in rows.values())
        caption = f"**When runs {what}**, ensemble by ensemble{part}: {marks}."
        alt = f"Steps at which runs {what}"
        own = [
            run.id for label, item in zip(names, shown, strict=True) if label in rows for run in item.finished
        ]
        blocks.append(Picture(name="landmarks", figure=figure, caption=caption, alt=alt, runs=own))
    blocks += compared(contrasts, shown, names)
    return Section("Comparison", "comparison", blocks, lead="" if ranked else "comparison")


def _table(shown: Sequence[Shown], keys: Sequence[str]) -> Table:
    columns = list(keys)[:8]
    names = list(dict.fromkeys(name for item in shown for name in item.landmarks()))
    facts = [item.facts() for item in shown]
    others = list(dict.fromkeys(name for item in facts for name in item))
    header = [
        "ensemble",
        *("name" if key == IMPORTED else key.removeprefix(SETTING) for key in columns),
        "runs",
        "status",
        "steps",
    ]
    header += [f"{name} (median [quartiles], n)" for name in names] + others
    rows = []
    for item, fact, colour in zip(shown, facts, ensemble_colours(len(shown)), strict=True):
        tree = flat(item.ensemble.config)
        status = ", ".join(f"{n} {name}" for name, n in item.statuses().items())
        bad = any(run.status in ("diverged", "failed", "crashed") for run in item.runs)
        own = item.ensemble.id
        row: list[Any] = [Cell(own, swatch=colour, link=f"#{item.anchor}", setting=own)]
        row += [None if tree.get(key) is None else _value(tree[key], bare=key == IMPORTED) for key in columns]
        row += [len(item.runs), Cell(status, tone="bad" if bad else ""), item.last_step]
        row += [_landmark(item.landmarks().get(name)) for name in names]
        rows.append([*row, *(fact.get(name) for name in others)])
    more = f" Keys in which they differ: {len(keys)}, the first 8 are shown." if len(keys) > 8 else ""
    return Table(header, rows, f"{len(shown)} ensembles.{more}")


def _value(value: object, *, bare: bool = False) -> object:
    if isinstance(value, int | float | bool):
        return value
    return _plain(value).strip("[]") if bare else _plain(value)


def _landmark(steps: list[float | None] | None) -> Cell | None:
    spread = quartiles(steps or [])
    if not steps or spread is None:
        return None
    reached = sum(step is not None for step in steps)
    if not reached:
        return Cell(None, f"never, 0 of {len(steps)}", "quiet")
    low, middle, high = map(number, spread)
    sort = spread[1] if np.isfinite(spread[1]) else None
    return Cell(sort, f"{middle} [{low} to {high}], {reached} of {len(steps)}")
