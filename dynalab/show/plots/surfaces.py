"""Numbers over planes, as colours with contour lines: pictures beside each other, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from dynalab.show.plots import pictures
from dynalab.show.plots.style import INK, Size, redrawable

# Contour lines of a picture, about.
CONTOURS = 10
# Colours by logarithm span so many decades at most, down from the largest value.
DECADES = 8


@redrawable
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
    figure, drawn, columns = pictures.places(titles, {1: 5.0, 2: 3.5, pictures.COLUMNS: 2.6}, size)
    scale = pictures.number_scale(np.concatenate([np.ravel(item) for item in values]), logarithmic, DECADES)
    lines = _contours(scale)
    colours = matplotlib.colormaps["viridis"]
    for place, ax in enumerate(drawn):
        x, y = places[place]
        shown = np.where(np.isfinite(values[place]), values[place], np.nan).T
        mesh = ax.pcolormesh(x, y, shown, cmap=colours, norm=scale, shading="nearest", rasterized=True)
        inside = [line for line in lines if np.nanmin(shown) < line < np.nanmax(shown)]
        if inside and min(shown.shape) > 1:
            ax.contour(x, y, shown, levels=inside, colors="white", linewidths=0.5, alpha=0.7)
        level = levels[place] if place < len(levels) else None
        if level is not None and min(shown.shape) > 1 and np.nanmin(shown) < level < np.nanmax(shown):
            # On a light line, for it runs over the darkest colours.
            for colour, width in (("white", 2.6), (INK, 1.3)):
                ax.contour(x, y, shown, levels=[level], colors=colour, linewidths=width)
        if place < len(paths) and len(paths[place]):
            _path(ax, paths[place])
        if place < len(points) and len(points[place]):
            pictures.crosses(ax, points[place])
        # Of every column the lowest.
        if place + columns >= len(titles):
            ax.set_xlabel(axes[0], fontsize=7.5)
        if place % columns == 0:
            ax.set_ylabel(axes[1], fontsize=7.5)
    pictures.bar(figure, mesh, drawn, columns, unit)
    return figure


def _path(ax: Axes, path: np.ndarray) -> None:
    """Draw a way over a picture, (k, 2)."""
    x, y = np.asarray(path).T
    for colour, width in (("white", 2.2), (INK, 1.0)):
        ax.plot(x, y, color=colour, linewidth=width, marker="o", markersize=1.5 + width)
    ax.plot(x[-1], y[-1], "*", color="white", markeredgecolor=INK, markersize=9, markeredgewidth=0.8)


def _contours(scale: Normalize) -> list[float]:
    """Return the values of contour lines, evenly by colour."""
    low, high = float(scale.vmin or 0.0), float(scale.vmax or 0.0)
    if isinstance(scale, LogNorm):
        return np.geomspace(low, high, CONTOURS + 2)[1:-1].tolist()
    return np.linspace(low, high, CONTOURS + 2)[1:-1].tolist()
