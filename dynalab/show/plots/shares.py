"""Where a spread comes from: shares with their intervals, and the value of every cell by each factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from dynalab.show.plots.style import (
    CYCLE,
    INK,
    MUTED,
    Size,
    is_narrow,
    new_figure,
    polish,
    redrawable,
    run_mark,
)

# More dots than this in a column are drawn fainter.
MANY = 40


@redrawable
def variance_shares(
    sources: Sequence[str],
    shares: np.ndarray,
    intervals: np.ndarray,
    *,
    factors: Sequence[str] = (),
    levels: Sequence[np.ndarray] = (),
    values: np.ndarray | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw the share of each source in a variance and, beside it, the values by the levels of every factor.

    Args:
        sources: Names of the Q sources.
        shares: Share of each, shape (Q,).
        intervals: Their intervals, shape (Q, 2).
        factors: Names of the F factors.
        levels: For each factor, the level of every run, shape (S,).
        values: Value of every run, NaN where unknown, shape (S,).
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    panels = len(factors) if values is not None else 0
    figure = new_figure(7.6, max(2.1, 0.42 * len(sources) + 0.9), size, stacked=1.0 + bool(panels))
    if is_narrow(figure) and panels:
        rows = figure.add_gridspec(2, 1)
        below = rows[1].subgridspec(1, panels)
        grid = [rows[0], *(below[place] for place in range(panels))]
    else:
        columns = figure.add_gridspec(1, 1 + panels, width_ratios=[1.7, *([1.0] * panels)])
        grid = [columns[place] for place in range(1 + panels)]
    ax = figure.add_subplot(grid[0])
    polish(ax, grid="x")
    for place, (share, (low, high)) in enumerate(zip(shares, intervals, strict=True)):
        colour = CYCLE[place % len(CYCLE)] if place < len(factors) or not factors else MUTED
        ax.barh(place, share, height=0.56, color=colour, alpha=0.85, linewidth=0)
        ax.plot([low, high], [place, place], color=INK, linewidth=1.4, solid_capstyle="butt")
        # At the bar's end, above the line of the interval.
        ax.text(share + 0.012, place - 0.15, f"{share:.0%}", va="center", fontsize=7.5, color=INK)
    ax.set_yticks(range(len(sources)), sources)
    ax.set_ylim(len(sources) - 0.5, -0.6)
    ax.set_xlim(0, 1.16)
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("share of the variance (line: 95% interval)")
    ax.tick_params(axis="y", length=0)
    shared = None
    for place in range(panels):
        assert values is not None
        side = figure.add_subplot(grid[1 + place], sharey=shared)
        shared = shared or side
        _column(side, levels[place], values, CYCLE[place % len(CYCLE)])
        side.set_xlabel(f"seed of {factors[place]}")
        if place:
            side.tick_params(labelleft=False)
        else:
            side.set_ylabel("convergence step")
            side.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def _column(ax: Axes, levels: np.ndarray, values: np.ndarray, colour: str) -> None:
    """Draw the values at every level of one factor as dots, and their mean as a dash."""
    polish(ax)
    names = np.unique(levels)
    place = np.searchsorted(names, levels)
    faint = 0.35 if len(values) > MANY * len(names) else 0.6
    known = np.flatnonzero(np.isfinite(values))
    ax.plot(
        place[known], values[known], ".", color=colour, alpha=faint, markersize=4, gid=run_mark(*known)
    )  # fmt: skip
    for at in range(len(names)):
        own = values[place == at]
        if np.isfinite(own).any():
            mean = float(np.nanmean(own))
            ax.plot([at - 0.32, at + 0.32], [mean, mean], color=INK, linewidth=1.4)
    shown = range(len(names)) if len(names) <= 10 else range(0, len(names), -(-len(names) // 8))
    ax.set_xticks(list(shown), [str(names[i]) for i in shown])
    ax.set_xlim(-0.6, len(names) - 0.4)
