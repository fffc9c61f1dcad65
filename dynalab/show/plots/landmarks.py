"""When it happened: one dot a run, and the runs in which it never did, apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dynalab.core.stats import quartiles
from dynalab.show.plots.labels import name_rows, row_height
from dynalab.show.plots.style import (
    CYCLE,
    INK,
    LOG_SCALE,
    MUTED,
    Size,
    new_figure,
    polish,
    redrawable,
    run_mark,
    step_span,
)

BINS = 90
# More runs than these are bars, fewer than those have no quartiles.
DOTS, QUARTILES = 60, 4


@redrawable
def landmark_steps(
    rows: Mapping[str, np.ndarray],
    *,
    first: float = 0.0,
    last: float | None = None,
    logarithmic: bool | None = None,
    colours: Mapping[str, str] | None = None,
    apart: bool = False,
    size: Size | None = None,
) -> Figure:
    """Draw the step of each run for one or more landmarks (or ensembles), with median and quartiles.

    A run that never got there counts as later than all others: it is shown to the right of the axis, and a median
    or quartile that falls among such runs is not drawn.

    Args:
        rows: Label -> step of each run, NaN for never, shape (S,).
        first: The first step that was recorded.
        last: The last step of training.
        logarithmic: Logarithmic x, which the label says; None: where the latest step is more than 8 times the earliest.
        colours: Label -> colour.
        apart: Whether each row is of runs of its own: a page numbers them through all rows.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    names = list(rows)
    every = np.concatenate([np.asarray(item, dtype=float) for item in rows.values()] or [np.empty(0)])
    found = every[np.isfinite(every)]
    last = float(last if last is not None else found.max() if len(found) else 1.0)
    notes = [_note(np.asarray(item, dtype=float), last) for item in rows.values()]
    figure = new_figure(7.6, row_height(names, notes, 0.62, size) * max(len(names), 1) + 0.75, size)
    ax = figure.add_subplot()
    polish(ax, grid="x")
    if logarithmic is None:
        logarithmic = bool(len(found) and found.min() > 0 and found.max() / found.min() > 8)
    start, end = step_span(np.array([first, last, *found]))
    if logarithmic:
        ax.set_xscale("log")
        ax.set_xlim(max(float(found[found > 0].min()) * 0.7, 0.5), end * 1.05)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.02 * (end - start)
        ax.set_xlim(start - margin, end + margin)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_ylim(len(names) - 0.42, -0.62)
    shades = []
    for place, name in enumerate(names):
        colour = (colours or {}).get(name) or CYCLE[place % len(CYCLE)]
        whole = np.isfinite(np.asarray(rows[name], dtype=float)).all()
        shades.append(colour if whole else INK)
        before = sum(len(rows[other]) for other in names[:place]) if apart else 0
        _row(ax, place, np.asarray(rows[name], dtype=float), colour, end, before)
    name_rows(ax, names, notes, shades)
    ax.set_xlabel(f"step ({LOG_SCALE})" if logarithmic else "step")
    return figure


def _note(steps: np.ndarray, end: float) -> str:
    """Return how many runs got there, and how many did not by the end."""
    never = int((~np.isfinite(steps)).sum())
    return f"{len(steps) - never:,} of {len(steps):,}" + (f"\nnot by {end:,.0f}: {never:,}" if never else "")


def landmark_words(sizes: Iterable[int]) -> str:
    """Return what the marks of rows of so many runs are, for the caption: `a dot a run, with median and quartiles`."""
    some = list(sizes)
    dots = {size <= DOTS for size in some}
    marks = " or ".join(["a dot a run"] * (True in dots) + ["bars of how many runs"] * (False in dots))
    below = {size >= QUARTILES for size in some}
    where = f" below ({QUARTILES} runs or more)" if len(below) > 1 else " below"
    return marks + (f", with median and quartiles{where}" if True in below else "")


def _row(ax: Axes, place: int, steps: np.ndarray, colour: str, end: float, before: int) -> None:
    # What is not finite is last.
    runs = np.argsort(steps, kind="stable")[: int(np.isfinite(steps).sum())]
    some = steps[runs]
    scale = ax.xaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_xlim()))
    if len(some):
        index = np.clip(((scale.transform(some) - low) / (high - low) * BINS).astype(int), 0, BINS - 1)
        tallest = int(np.bincount(index).max())
        if len(steps) <= DOTS:
            level = np.concatenate([np.arange(n) for n in np.bincount(index)[np.unique(index)]])
            gap = min(0.085, 0.6 / tallest)
            ax.scatter(
                some,
                place - gap * level,
                s=15,
                color=colour,
                alpha=0.85,
                linewidth=0,
                zorder=3,
                gid=run_mark(*(before + runs)),
            )
        else:
            count = np.bincount(index, minlength=BINS)
            edges = scale.inverted().transform(np.linspace(low, high, BINS + 1))
            ax.bar(
                edges[:-1], -0.55 * count / tallest, width=np.diff(edges), bottom=place + 0.04, align="edge",
                color=colour, alpha=0.8, linewidth=0, zorder=3,
            )  # fmt: skip
    if len(steps) >= QUARTILES:
        never_got = [None] * (len(steps) - len(some))
        first, middle, third = quartiles([*some.tolist(), *never_got])
        y = place + 0.17
        if first is not None:
            ax.plot(
                [first, end if third is None else min(third, end)], [y, y], color=INK, linewidth=1.2, zorder=4
            )
        if middle is not None:
            ax.plot([middle], [y], marker="|", markersize=7, markeredgewidth=1.6, color=INK, zorder=5)
    never = len(steps) - len(some)
    if never:
        ax.plot(
            [1.0], [place], marker=">", markersize=5, color=colour, transform=ax.get_yaxis_transform(),
            clip_on=False, zorder=6, markeredgecolor=MUTED, markeredgewidth=0.5,
        )  # fmt: skip
