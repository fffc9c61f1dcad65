"""What pictures of a plane beside each other share: their places, a scale of colours and its bar, crosses over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dynalab.show.plots.style import INK, Decades, Size, is_narrow, new_figure, polish

# In a row.
COLUMNS = 3


def places(
    titles: Sequence[str], heights: Mapping[int, float], size: Size | None
) -> tuple[Figure, list[Axes], int]:
    """Return a figure, the axes of its pictures with their titles, and how many stand in a row.

    Args:
        titles: Of the pictures.
        heights: Number of pictures in a row -> height of a row in inches, of 1, 2 and `COLUMNS`.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    natural = heights[columns] * rows
    figure = new_figure(7.6 if columns > 1 else 6.0, natural, size, stacked=2.5 * len(titles) / natural)
    columns = 1 if is_narrow(figure) else columns
    grid = list(figure.subplots(-(-len(titles) // columns), columns, squeeze=False).flat)
    for ax in grid[len(titles) :]:
        ax.remove()
    for ax, title in zip(grid, titles, strict=False):
        ax.set_title(title, fontsize=8.5, color=INK, pad=4)
        polish(ax, grid=None)
    return figure, grid[: len(titles)], columns


def number_scale(values: np.ndarray, logarithmic: bool, decades: float = np.inf) -> Normalize:
    """Return what colours go by: where it is asked for, and all values are positive and span a decade, logarithms.

    These span so many decades at most, down from the largest value.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if logarithmic and 0 < 10 * low < high:
        return LogNorm(max(low, high / 10**decades), high)
    return Normalize(low, high if high > low else low + 1.0)


def bar(figure: Figure, drawn: ScalarMappable, axes: Sequence[Axes], columns: int, unit: str) -> Colorbar:
    """Draw the bar of the colours that pictures have in common."""
    made = figure.colorbar(
        drawn, ax=axes, pad=0.02, fraction=0.05, shrink=0.9 if len(axes) <= columns else 0.6
    )
    made.ax.tick_params(labelsize=7, length=2)
    if isinstance(drawn.norm, LogNorm):
        made.ax.yaxis.set_major_formatter(Decades())
        made.ax.yaxis.set_minor_formatter(NullFormatter())
    made.set_label(unit, fontsize=7.5)
    return made


def crosses(ax: Axes, points: np.ndarray) -> None:
    """Draw crosses over a picture, at points (n, 2)."""
    x, y = np.asarray(points).reshape(-1, 2).T
    ax.plot(x, y, "x", color="white", markersize=6, markeredgewidth=2.4)
    ax.plot(x, y, "x", color=INK, markersize=5, markeredgewidth=1.1)
