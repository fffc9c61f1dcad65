"""Polygons of a plane, coloured by a number or a class: pictures beside each other, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from dynalab.show.plots.style import INK, Size, decade, is_narrow, new_figure, polish, style

# In a row.
COLUMNS = 3
# Polygons up to which outlines hide nothing; those of more are the fainter.
OUTLINED = 1000


@style()
def polygon_pictures(
    titles: Sequence[str],
    polygons: Sequence[Sequence[np.ndarray]],
    values: Sequence[np.ndarray],
    *,
    boundaries: Sequence[np.ndarray] = (),
    points: Sequence[np.ndarray] = (),
    unit: str = "",
    classes: bool = False,
    logarithmic: bool = False,
    size: Size | None = None,
) -> Figure:
    """Draw pictures of polygons on one scale of colours, three in a row.

    Args:
        titles: Of the N pictures.
        polygons: Of each the corners of its polygons, (n, 2) each.
        values: Of each, one a polygon, shape (K,); integers from 0 where they are classes.
        boundaries: Lines over each, ends of their pieces, shape (n, 2, 2).
        points: Crosses over each, shape (m, 2).
        unit: What the values are.
        classes: Whether they are classes.
        logarithmic: Whether colours go by their logarithm, where all are positive and span a decade.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    columns = min(COLUMNS, len(titles))
    height = {1: 5.2, 2: 3.6, COLUMNS: 2.7}[columns]
    figure = new_figure(7.6 if columns > 1 else 6.0, height * -(-len(titles) // columns), size)
    columns = 1 if is_narrow(figure) else columns
    rows = -(-len(titles) // columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    colours, scale = _colours(np.concatenate(values), classes, logarithmic)
    drawn: list[Axes] = []
    # All pictures have outlines, or none: they would seem to differ.
    most = max(map(len, polygons))
    outline = to_rgba(INK, min(1.0, OUTLINED / most))
    for place, ax in enumerate(grid.flat):
        if place >= len(titles):
            ax.remove()
            continue
        # Hard edges: blurred ones take four times the room on a page, and browsers blur when they scale.
        own = PolyCollection(
            polygons[place], array=np.asarray(values[place], float), cmap=colours, norm=scale,
            edgecolors=outline, linewidths=0.1, antialiaseds=False, rasterized=True,
        )  # fmt: skip
        ax.add_collection(own, autolim=False)
        pieces = list(boundaries[place]) if place < len(boundaries) else []
        for colour, width in (("white", 2.2), (INK, 1.1)):
            lines = LineCollection(pieces, colors=colour, linewidths=width, rasterized=True)
            ax.add_collection(lines, autolim=False)
        if place < len(points):
            x, y = np.asarray(points[place]).reshape(-1, 2).T
            ax.plot(x, y, "x", color="white", markersize=6, markeredgewidth=2.4)
            ax.plot(x, y, "x", color=INK, markersize=5, markeredgewidth=1.1)
        ax.set_title(titles[place], fontsize=8.5, color=INK, pad=4)
        polish(ax, grid=None)
        corners = np.concatenate(polygons[place])
        low, high = corners.min(0), corners.max(0)
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(low[1], high[1])
        ax.set_aspect("equal")
        drawn.append(ax)
    bar = figure.colorbar(own, ax=drawn, pad=0.02, fraction=0.05, shrink=0.9 if rows == 1 else 0.6)
    bar.ax.tick_params(labelsize=7, length=2)
    if isinstance(scale, LogNorm):
        bar.ax.yaxis.set_major_formatter(FuncFormatter(decade))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    if classes:
        n = int(colours.N)
        bar.set_ticks(np.arange(0, n, -(-n // 20)).tolist())
    bar.set_label(unit, fontsize=7.5)
    return figure


def _colours(
    values: np.ndarray, classes: bool, logarithmic: bool
) -> tuple[matplotlib.colors.Colormap, Normalize]:
    """Return colours for values, and the scale that they go by."""
    if classes:
        n = int(values.max(initial=0)) + 1
        base = matplotlib.colormaps["tab10" if n <= 10 else "tab20" if n <= 20 else "turbo"]
        named = [base(k) if n <= 20 else base(k / (n - 1)) for k in range(n)]
        return ListedColormap(named), BoundaryNorm(np.arange(n + 1) - 0.5, n)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if logarithmic and 0 < 10 * low < high:
        return matplotlib.colormaps["viridis"], LogNorm(low, high)
    return matplotlib.colormaps["viridis"], Normalize(low, high if high > low else low + 1.0)
