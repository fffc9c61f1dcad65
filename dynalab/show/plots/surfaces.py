"""Numbers over planes, as colours with contour lines: pictures beside each other, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from dynalab.show.plots.style import INK, Size, decade, is_narrow, new_figure, polish, style

# In a row.
COLUMNS = 3
# Contour lines of a picture, about.
CONTOURS = 10
# Colours by logarithm span so many decades at most, down from the largest value.
DECADES = 8


@style()
def surface_pictures(
    titles: Sequence[str],
    places: Sequence[tuple[np.ndarray, np.ndarray]],
    values: Sequence[np.ndarray],
    *,
    levels: Sequence[float | None] = (),
    paths: Sequence[np.ndarray] = (),
    points: Sequence[np.ndarray] = (),
    axes: tuple[str, str] = ("", ""),
    unit: str = "",
    logarithmic: bool = False,
    size: Size | None = None,
) -> Figure:
    """Draw pictures of a number over a plane on one scale of colours, three in a row.

    Args:
        titles: Of the N pictures.
        places: Where the points of each are along both axes, (n,) and (m,).
        values: Of each, shape (n, m); what is not finite is left white.
        levels: Value at which a thick line runs in each; None: nowhere.
        paths: A way over each, shape (k, 2): dots, joined, the last one a star.
        points: Crosses over each, shape (k, 2).
        axes: What the axes are.
        unit: What the values are.
        logarithmic: Whether colours go by their logarithm, where all are positive and span a decade.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    columns = min(COLUMNS, len(titles))
    height = {1: 5.0, 2: 3.5, COLUMNS: 2.6}[columns]
    figure = new_figure(7.6 if columns > 1 else 6.0, height * -(-len(titles) // columns), size)
    columns = 1 if is_narrow(figure) else columns
    rows = -(-len(titles) // columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    scale = _scale(np.concatenate([np.ravel(item) for item in values]), logarithmic)
    lines = _contours(scale)
    colours = matplotlib.colormaps["viridis"]
    drawn: list[Axes] = []
    for place, ax in enumerate(grid.flat):
        if place >= len(titles):
            ax.remove()
            continue
        x, y = places[place]
        shown = np.where(np.isfinite(values[place]), values[place], np.nan).T
        mesh = ax.pcolormesh(x, y, shown, cmap=colours, norm=scale, shading="nearest", rasterized=True)
        inside = [line for line in lines if np.nanmin(shown) < line < np.nanmax(shown)]
        if inside and min(shown.shape) > 1:
            ax.contour(x, y, shown, levels=inside, colors="white", linewidths=0.5, alpha=0.7)
        level = levels[place] if place < len(levels) else None
        if level is not None and min(shown.shape) > 1 and np.nanmin(shown) < level < np.nanmax(shown):
            ax.contour(x, y, shown, levels=[level], colors=INK, linewidths=1.3)
        _over(
            ax, paths[place] if place < len(paths) else None, points[place] if place < len(points) else None
        )
        ax.set_title(titles[place], fontsize=8.5, color=INK, pad=4)
        polish(ax, grid=None)
        if place // columns == rows - 1 or place + columns >= len(titles):
            ax.set_xlabel(axes[0], fontsize=7.5)
        if place % columns == 0:
            ax.set_ylabel(axes[1], fontsize=7.5)
        drawn.append(ax)
    bar = figure.colorbar(mesh, ax=drawn, pad=0.02, fraction=0.05, shrink=0.9 if rows == 1 else 0.6)
    bar.ax.tick_params(labelsize=7, length=2)
    if isinstance(scale, LogNorm):
        bar.ax.yaxis.set_major_formatter(FuncFormatter(decade))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label(unit, fontsize=7.5)
    return figure


def _over(ax: Axes, path: np.ndarray | None, points: np.ndarray | None) -> None:
    """Draw what is over a picture."""
    if path is not None and len(path):
        x, y = np.asarray(path).T
        for colour, width in (("white", 2.2), (INK, 1.0)):
            ax.plot(x, y, color=colour, linewidth=width, marker="o", markersize=1.5 + width)
        ax.plot(x[-1], y[-1], "*", color="white", markeredgecolor=INK, markersize=9, markeredgewidth=0.8)
    if points is not None and len(points):
        x, y = np.asarray(points).T
        ax.plot(x, y, "x", color="white", markersize=6, markeredgewidth=2.4)
        ax.plot(x, y, "x", color=INK, markersize=5, markeredgewidth=1.1)


def _scale(values: np.ndarray, logarithmic: bool) -> Normalize:
    """Return what colours go by."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if logarithmic and 0 < 10 * low < high:
        return LogNorm(max(low, high / 10**DECADES), high)
    return Normalize(low, high if high > low else low + 1.0)


def _contours(scale: Normalize) -> list[float]:
    """Return the values of contour lines, evenly by colour."""
    low, high = float(scale.vmin or 0.0), float(scale.vmax or 0.0)
    if isinstance(scale, LogNorm):
        return np.geomspace(low, high, CONTOURS + 2)[1:-1].tolist()
    return np.linspace(low, high, CONTOURS + 2)[1:-1].tolist()
