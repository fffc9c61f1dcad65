"""Small multiples: every metric in a panel of its own, coloured by its group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from dynalab.core.words import metric_words
from dynalab.show.plots.curves import draw_runs, spans_decades
from dynalab.show.plots.fit import wrapped
from dynalab.show.plots.labels import footnote
from dynalab.show.plots.style import (
    CYCLE,
    MUTED,
    PAGE,
    Size,
    is_log_spaced,
    new_figure,
    polish,
    redrawable,
    step_axis,
)

COLUMNS = 4
# Inches of a row of panels, and of a line of words.
PANEL, LINE = 1.32, 0.14
# Thin lines in a panel of this size; more would be a smear.
MOST = 30
POINTS = 200


@redrawable
def metric_panels(
    steps: Mapping[str, np.ndarray],
    metrics: Mapping[str, np.ndarray],
    *,
    groups: Mapping[str, str] | None = None,
    log_steps: bool | None = None,
    diverged: np.ndarray | None = None,
    columns: int | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw a grid of panels, one a metric.

    Values are on a logarithmic axis, which says so, where none is negative and they span a factor of 30.

    Args:
        steps: Metric -> recorded steps, shape (T,); metrics may be on different grids.
        metrics: Metric -> values, shape (S, T); NaN where a run has none.
        groups: Metric -> name of its group, which decides its colour.
        log_steps: Logarithmic x; None: where more than half of a metric's steps lie in the first tenth.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,).
        columns: Panels in a row; None: as many as there is room for, four on a page.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    names = list(metrics)
    group_of = {name: (groups or {}).get(name, "") for name in names}
    order = list(dict.fromkeys(group_of.values()))
    colours = {group: CYCLE[index % len(CYCLE)] for index, group in enumerate(order)}
    if columns is None:
        columns = max(round(COLUMNS * size[0] / PAGE), 1) if size else COLUMNS
    rows = max(-(-len(names) // columns), 1)
    head, foot = 0.32 if len(order) > 1 else 0.1, 0.44
    # Fixed margins: the constrained layout of dozens of axes takes seconds.
    figure = new_figure(PAGE, rows * PANEL + head + foot, size, fixed=True)
    left, right = (inches / figure.get_figwidth() for inches in (0.47, 0.152))
    notes, titles = list[str](), list[Text]()
    for index, name in enumerate(names):
        ax = figure.add_subplot(rows, columns, index + 1)
        values, grid = metrics[name], steps[name]
        some = bool(np.isfinite(values).any())
        logarithmic = some and spans_decades([values])
        if some:
            notes += draw_runs(
                ax, grid, values, colours[group_of[name]], diverged=diverged, logarithmic=logarithmic, width=1.2,
                most=MOST, points=POINTS,
            ).notes  # fmt: skip
        else:
            ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", color=MUTED, fontsize=7)
            ax.set_yticks([])
        if not logarithmic:
            ax.locator_params(axis="y", nbins=4)
        polish(ax)
        logged = is_log_spaced(grid) if log_steps is None else log_steps
        bottom = index + columns >= len(names)
        # A logarithmic one is labelled in every row: each panel's steps are its own.
        step_axis(ax, grid, logged, "step" if bottom or logged else "", narrow=True)
        ax.yaxis.get_offset_text().set_fontsize(6.5)
        ax.tick_params(which="both", labelsize=6.5)
        ax.xaxis.label.set_fontsize(7)
        # A line break of an imported name would leave the figure.
        title = " ".join(metric_words(name).split())
        titles.append(ax.set_title(title, fontsize=8, color=colours[group_of[name]], pad=4))
    figure.subplots_adjust(left=left, right=1 - right, wspace=0.36)
    for ax, text in zip(figure.axes, titles, strict=True):
        wrapped(text, 1.12 * ax.get_window_extent().width)
    foot += 0.12 * footnote(figure, notes)
    # The groups' names in their colours, in as many lines as they need.
    places = _places([group or "other" for group in order], figure.get_figwidth() - 0.6)
    head += LINE * places[-1][1] if len(order) > 1 else 0.0
    more = LINE * max((text.get_text().count("\n") for text in titles), default=0)
    height = rows * (PANEL + more) + head + foot - 0.09
    height = height if size is None or size[1] is None else size[1]
    figure.set_figheight(height)
    figure.subplots_adjust(
        top=1 - (head + 0.14 + more) / height, bottom=foot / height, hspace=0.62 + more * 1.62 / PANEL
    )
    for (group, colour), (across, row) in zip(colours.items(), places, strict=True) if len(order) > 1 else ():
        at = left + across / figure.get_figwidth(), 1 - (0.1 + LINE * row) / height
        figure.text(*at, group or "other", color=colour, fontsize=8, weight="bold", va="top")
    return figure


def _places(names: Sequence[str], width: float) -> list[tuple[float, int]]:
    """Return where names in a line that breaks at a width begin, in inches, and their rows."""
    places, across, row = [(0.0, 0)], 0.0, 0
    for name in names:
        long = 0.16 + 0.078 * len(name)
        if across and across + long > width:
            across, row = 0.0, row + 1
        places.append((across, row))
        across += long
    return places[1:] or places
