"""Similarities between the weights of all pairs of steps, as maps beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynalab.show.plots.style import INK, Size, is_narrow, new_figure, polish, redrawable

# Labels of steps on an axis of a map.
LABELS = 4


@redrawable
def similarity_maps(
    titles: Sequence[str],
    steps: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    *,
    spreads: Sequence[bool] = (),
    axis: str = "step, on both axes",
    unit: str = "cosine",
    size: Size | None = None,
) -> Figure:
    """Draw maps, two in a row, each with a scale of its own; rows are evenly spaced, whatever their steps.

    Args:
        titles: Of the N maps.
        steps: Steps of the rows of each, (m,).
        values: Cosines between these, (m, m); NaN is left white.
        axis: What rows and columns are.
        unit: What the values are.
        spreads: Whether each is of standard deviations in the place of cosines.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    rows = -(-len(titles) // 2)
    figure = new_figure(7.6 if len(titles) > 1 else 4.2, 3.2 * rows, size, stacked=0.85 * len(titles) / rows)
    columns = 1 if is_narrow(figure) or len(titles) == 1 else 2
    grid = figure.subplots(-(-len(titles) // columns), columns, squeeze=False)
    for place, ax in enumerate(grid.flat):
        if place >= len(titles):
            ax.remove()
            continue
        spread = place < len(spreads) and spreads[place]
        mesh = ax.pcolormesh(
            values[place], cmap="magma_r" if spread else "viridis", vmin=0.0 if spread else _least(values[place]),
            vmax=None if spread else 1.0, rasterized=True, linewidth=0,
        )  # fmt: skip
        ax.set_title(titles[place], fontsize=8.5, color=INK, pad=4)
        polish(ax, grid=None)
        _steps(ax, np.asarray(steps[place]), axis)
        bar = figure.colorbar(mesh, ax=ax, pad=0.02, fraction=0.05)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_label("standard deviation" if spread else unit, fontsize=7.5)
    return figure


def _least(values: np.ndarray) -> float:
    """Return where the colours of cosines begin: below 1, also where all are 1 but for their rounding."""
    known = values[np.isfinite(values)]
    return min(float(known.min()), 0.999) if len(known) else 0.0


def _steps(ax: Axes, steps: np.ndarray, axis: str) -> None:
    """Label both axes with the steps of their rows, the first one on top."""
    at = np.unique(np.linspace(0, len(steps) - 1, LABELS).round().astype(int))
    names = [f"{steps[place]:,}" for place in at]
    ax.set_xticks(at + 0.5, names)
    ax.set_yticks(at + 0.5, names)
    ax.set_xlim(0, len(steps))
    ax.set_ylim(len(steps), 0)
    ax.set_aspect("equal")
    # One label for both: at the left it would be where layout leaves no room, as boxes are made square after it.
    ax.set_xlabel(axis, fontsize=7.5)
