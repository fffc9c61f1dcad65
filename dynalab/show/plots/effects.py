"""Effects with their intervals, a row each, about the line of no effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dynalab.core.words import signed
from dynalab.show.plots.labels import name_rows, row_height
from dynalab.show.plots.style import INK, MUTED, Size, new_figure, polish, redrawable

FOUND = "#D55E00"
# How far beyond what is known an open interval is drawn, in parts of the whole width.
OPEN = 0.08
# Width from which on whole numbers say enough.
WHOLE = 20


@redrawable
def effect_rows(
    labels: Sequence[str],
    effects: Sequence[float | None],
    intervals: Sequence[Sequence[float | None] | None],
    *,
    found: Sequence[bool] = (),
    notes: Sequence[str] = (),
    unit: str = "steps",
    way: str = "later",
    size: Size | None = None,
) -> Figure:
    """Draw effects and their intervals.

    Args:
        labels: Name of each row, N of them.
        effects: The estimates; None where there is none.
        intervals: Bounds; a bound of None lies beyond what was seen and ends in an arrow, an interval of None is not
            drawn.
        found: Whether each is called an effect, which colours it.
        notes: Words to the right of each row.
        unit: Of the effects, for the axis.
        way: What a positive one is, `later` or `more`.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    known = [value for value in effects if value is not None]
    known += [bound for one in intervals for bound in one or () if bound is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    margin = OPEN * ((high - low) or 1.0)

    def written(value: float) -> str:
        return signed(value) if high - low >= WHOLE or not value else f"{value:+.3g}"

    figure = new_figure(7.6, row_height(labels, notes, 0.42, size) * max(len(labels), 1) + 0.75, size)
    ax = figure.add_subplot()
    polish(ax, grid="x")
    ax.axvline(0, color=MUTED, linewidth=0.9, zorder=1.5)
    ax.set_xlim(low - 2 * margin, high + 2 * margin)
    ax.set_ylim(len(labels) - 0.45, -0.6)
    for place, (effect, interval) in enumerate(zip(effects, intervals, strict=True)):
        colour = FOUND if place < len(found) and found[place] else MUTED
        if interval is not None:
            _interval(ax, place, interval, (low - margin, high + margin), colour)
        if effect is not None:
            ax.plot([effect], [place], "o", color=colour, markersize=6.5, zorder=4)
            ax.annotate(
                written(effect), (effect, place), (0, 6), textcoords="offset points", ha="center", va="bottom",
                fontsize=7.5, color=INK, zorder=5,
            )  # fmt: skip
        else:
            ax.text(0, place, " no estimate", ha="left", va="center", fontsize=7.5, color=MUTED)
    name_rows(ax, labels, notes)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    ax.set_xlabel(f"{unit} {way} (line: 95% interval)")
    return figure


def _interval(
    ax: Axes, place: int, bounds: Sequence[float | None], ends: tuple[float, float], colour: str
) -> None:
    """Draw an interval; where a bound is open, up to the end of the known with an arrow head."""
    left, right = (end if bound is None else bound for bound, end in zip(bounds, ends, strict=True))
    ax.plot([left, right], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=3)
    for bound, x, marker in ((bounds[0], left, "<"), (bounds[1], right, ">")):
        if bound is None:
            ax.plot([x], [place], marker=marker, color=colour, markersize=5, zorder=3)
        else:
            ax.plot([x, x], np.array([place - 0.11, place + 0.11]), color=colour, linewidth=1.2, zorder=3)
