"""Estimates with their intervals against the regions where they have to lie, a row each on an axis of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dynalab.core.words import number
from dynalab.show.plots.labels import name_rows, row_height
from dynalab.show.plots.style import CYCLE, MUTED, Size, is_narrow, new_figure, polish, redrawable

INSIDE, OUTSIDE = CYCLE[2], CYCLE[1]
# Where an interval lies -> its colour, and the mark of its estimate, which tells the same without colour.
COLOURS = {"inside": INSIDE, "outside": OUTSIDE, "open": MUTED}
_MARKS = {"inside": "o", "outside": "X", "open": "D"}
# From this ratio of the largest to the least on, an axis of what is above 0 is logarithmic.
WIDE = 50.0
# Beyond what is known, in parts of the width.
MARGIN = 0.12

Bounds = Sequence[float | None]


@redrawable
def estimates_in_regions(
    labels: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[Bounds | None],
    regions: Sequence[Bounds],
    *,
    notes: Sequence[str] = (),
    places: Sequence[str] = (),
    axes: Sequence[str] = (),
    size: Size | None = None,
) -> Figure:
    """Draw estimates, their intervals, and the regions behind them.

    Args:
        labels: Name of each row, N of them.
        values: The estimates.
        intervals: Bounds; one of None lies beyond what was seen and ends in an arrow, an interval of None is not drawn.
        regions: Likewise; a bound of None is none.
        notes: Words to the right of each row.
        places: `inside`, `outside` or `open`, how each row looks; none: as its interval lies in its region.
        axes: What the values of each row are, under its axis.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    each = 0.78 if any(axes) else 0.62
    figure = new_figure(7.6, row_height(labels, notes, each, size) * max(len(labels), 1) + 0.3, size)
    grid = figure.add_gridspec(len(labels), 1)
    for place, label in enumerate(labels):
        ax = figure.add_subplot(grid[place])
        _row(ax, values[place], intervals[place], regions[place], places[place] if places else None)
        if is_narrow(figure):
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.set_title(": ".join([label, *notes[place : place + 1]]), fontsize=8, pad=4)
        else:
            name_rows(ax, [label], notes[place : place + 1])
        if axes:
            ax.set_xlabel(axes[place], fontsize=7, color=MUTED, labelpad=1)
    return figure


def _row(ax: Axes, value: float, interval: Bounds | None, region: Bounds, place: str | None) -> None:
    known = [end for end in (value, *(interval or ()), *region) if end is not None]
    low, high = min(known), max(known)
    # A region from 0 on has no place on a logarithmic axis: its bound is the axis' end there.
    above = [end for end in known if end > 0]
    measured = [end for end in (value, *(interval or ())) if end is not None]
    logarithmic = low >= 0 and min(measured) > 0 and max(above) > WIDE * min(above)
    if logarithmic:
        low, high = math.log10(min(above)), math.log10(max(above))
    margin = MARGIN * ((high - low) or abs(high) or 1.0)
    ends = low - margin, high + margin
    left, right = (10 ** ends[0], 10 ** ends[1]) if logarithmic else ends
    polish(ax, grid="x")
    ax.set_xscale("log" if logarithmic else "linear")
    ax.set_xlim(left, right)
    ax.set_ylim(-0.6, 0.6)
    ax.tick_params(axis="x", labelsize=7.5)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: number(float(f"{tick:.6g}"))))
    if not logarithmic:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    least, most = (end if bound is None else bound for bound, end in zip(region, (left, right), strict=True))
    least = max(least, left) if logarithmic else least
    ax.axvspan(least, most, color=INSIDE, alpha=0.14, linewidth=0)
    colour = COLOURS[place or "open"]
    if interval is not None:
        first, last = (
            end if bound is None else bound for bound, end in zip(interval, (left, right), strict=True)
        )
        if place is None:
            beyond = last < least or first > most
            place = "inside" if least <= first and last <= most else "outside" if beyond else "open"
            colour = COLOURS[place]
        ax.plot([first, last], [0, 0], color=colour, linewidth=2.0, solid_capstyle="butt", zorder=3)
        for bound, x, marker in ((interval[0], first, "<"), (interval[1], last, ">")):
            if bound is None:
                ax.plot([x], [0], marker=marker, color=colour, markersize=5, zorder=3)
            else:
                ax.plot([x, x], [-0.16, 0.16], color=colour, linewidth=1.2, zorder=3)
    mark, hollow = _MARKS[place or "open"], place in (None, "open")
    face = "white" if hollow else colour
    ax.plot([value], [0], mark, color=colour, markerfacecolor=face, markersize=6, zorder=4)
