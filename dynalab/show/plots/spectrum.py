"""The spectral density of the Hessian over time: a map a run, eigenvalues up, steps to the right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from dynalab.curvature.bins import place
from dynalab.show.plots.events import Curve
from dynalab.show.plots.labels import key, keys
from dynalab.show.plots.style import (
    CYCLE,
    DASHED,
    INK,
    Decades,
    Size,
    decade,
    new_figure,
    polish,
    redrawable,
    run_axes,
    run_mark,
    step_axis,
)

ROWS = 4
# Shares below this are what a normal distribution leaves far from its node.
FAINT = 1e-6


@redrawable
def spectral_density(
    labels: Sequence[str],
    steps: Sequence[np.ndarray],
    shares: Sequence[np.ndarray],
    edges: np.ndarray,
    *,
    largest: Sequence[Curve] | None = None,
    threshold: Sequence[Curve] | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw how the eigenvalues are spread, row by row.

    Args:
        labels: Names of the S runs; the first four are drawn.
        steps: Steps of each run's rows, (T,).
        shares: Share of the eigenvalues in each bin, (T, B), of each run.
        edges: Edges of the bins, shape (B + 1,); the axis is logarithmic on either side of the bin around 0.
        largest: (steps, values) of each run's largest eigenvalue, a line on the map, or None.
        threshold: (steps, values) of what it is compared with, dashed, or None.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    labels = labels[:ROWS]
    figure = new_figure(7.6, 1.9 * len(labels) + 0.7, size)
    recorded = np.concatenate([_bounds(item) for item in steps[:ROWS]])
    low, high = _span(shares[:ROWS], edges, [*(largest or ()), *(threshold or ())])
    mesh = None
    for row, ax, label in run_axes(figure, labels):
        ax.set_gid(run_mark(row))
        values = np.where(shares[row] > FAINT, shares[row], np.nan).T
        mesh = ax.pcolormesh(
            _bounds(steps[row]), np.arange(len(edges)), values, norm=LogNorm(FAINT, 1.0), cmap="viridis_r",
            rasterized=True, linewidth=0,
        )  # fmt: skip
        if largest is not None and len(largest[row][0]):
            ax.plot(largest[row][0], place(largest[row][1], edges), color=CYCLE[1], linewidth=1.2)
        if threshold is not None and len(threshold[row][0]):
            at, limit = threshold[row]
            ax.plot(at, place(limit, edges), color=INK, linewidth=0.9, linestyle=DASHED)
        polish(ax, grid=None)
        step_axis(ax, recorded, False, label)
        _eigenvalues(ax, edges, low, high)
    if mesh is not None:
        bar = figure.colorbar(mesh, ax=figure.axes, pad=0.015, fraction=0.03, aspect=22 * len(labels))
        bar.ax.yaxis.set_major_formatter(Decades())
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_label("share of the eigenvalues in a bin", fontsize=7.5)
    handles = [] if largest is None else [key(CYCLE[1], "largest eigenvalue")]
    handles += [] if threshold is None else [key(INK, "threshold", 0.9, linestyle=DASHED)]
    if handles:
        keys(figure, handles, 2)
    return figure


def _bounds(steps: np.ndarray) -> np.ndarray:
    """Return where the columns of rows at steps (T,) begin and end, (T + 1,): halfway between rows."""
    steps = np.asarray(steps, dtype=float)
    if len(steps) == 1:
        return np.array([steps[0], steps[0] + 1.0])
    middles = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([steps[:1], middles, [steps[-1] + (steps[-1] - steps[-2]) / 2]])


def _span(shares: Sequence[np.ndarray], edges: np.ndarray, curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the part of the axis, in bins, that holds everything that is drawn."""
    held = np.flatnonzero(np.any([(item > FAINT).any(axis=0) for item in shares], axis=0))
    places = [held[0], held[-1] + 1.0] if len(held) else [0.0, float(len(edges) - 1)]
    for _, values in curves:
        if np.isfinite(values).any():
            places += [float(place(bound, edges)) for bound in (np.nanmin(values), np.nanmax(values))]
    return max(min(places) - 0.5, 0.0), min(max(places) + 0.5, len(edges) - 1.0)


def _eigenvalues(ax: Axes, edges: np.ndarray, low: float, high: float) -> None:
    """Make y an axis of eigenvalues: decades of both signs, and 0."""
    least, most = edges[len(edges) // 2], edges[-1]
    powers = 10.0 ** np.arange(np.ceil(np.log10(least) - 1e-9), np.floor(np.log10(most) + 1e-9) + 1)
    powers = powers[powers >= least * (1 - 1e-9)]
    each = max(int(np.ceil(2 * len(powers) / 10)), 1)
    # From the largest down, so that the ends are labelled.
    powers = powers[::-1][::each][::-1]
    if len(powers) > 1 and powers[0] <= 1.01 * least:
        # Its label would run into that of 0.
        powers = powers[1:]
    ticks = np.concatenate([-powers[::-1], [0.0], powers])
    places = place(ticks, edges)
    inside = (places >= low) & (places <= high)
    ax.set_yticks(places[inside])
    few = len(powers) > 0 and powers[0] >= 1e-3 and powers[-1] <= 1e4
    ax.set_yticklabels(
        [("\u2212" if tick < 0 else "") + decade(abs(tick), plain=few) for tick in ticks[inside]]
    )
    ax.set_ylim(low, high)
    ax.set_ylabel("eigenvalue", fontsize=7.5)
