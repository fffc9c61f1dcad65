"""Polygons of a plane, coloured by a number or a class: pictures beside each other, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize, to_rgba
from matplotlib.figure import Figure

from dynalab.show.plots import pictures
from dynalab.show.plots.style import INK, Size, redrawable

# Polygons up to which outlines hide nothing; those of more are the fainter.
OUTLINED = 1000


@redrawable
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
    figure, drawn, columns = pictures.places(titles, {1: 5.2, 2: 3.6, pictures.COLUMNS: 2.7}, size)
    colours, scale = _colours(np.concatenate(values), classes, logarithmic)
    # All pictures have outlines, or none: they would seem to differ.
    most = max(map(len, polygons))
    outline = to_rgba(INK, min(1.0, OUTLINED / most))
    for place, ax in enumerate(drawn):
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
            pictures.crosses(ax, points[place])
        corners = np.concatenate(polygons[place])
        low, high = corners.min(0), corners.max(0)
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(low[1], high[1])
        ax.set_aspect("equal")
    bar = pictures.bar(figure, own, drawn, columns, unit)
    if classes:
        n = int(colours.N)
        bar.set_ticks(np.arange(0, n, -(-n // 20)).tolist())
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
    return matplotlib.colormaps["viridis"], pictures.number_scale(values, logarithmic)
