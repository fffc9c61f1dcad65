"""Which state every run is in at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from dynalab.core.words import metric_words
from dynalab.show.plots import thin
from dynalab.show.plots.fit import place
from dynalab.show.plots.labels import by_row, fitting
from dynalab.show.plots.style import (
    INK,
    ON_LIGHT,
    Size,
    is_log_spaced,
    new_figure,
    polish,
    redrawable,
    run_mark,
    state_colours,
    step_axis,
    text_on,
)

# Runs whose names and markers can still be told apart.
NAMED = 40
MARKED = 120
_MARKERS = ("o", "D", "s", "^")


def common_grid(
    steps: Sequence[np.ndarray], states: Sequence[np.ndarray], most: int = thin.POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Put runs, of ascending steps and states (T,), on one grid: a state lasts until the run's next recorded step.

    Returns the grid (G,) and the states on it (S, G), NaN before a run's first and after its last step.
    """
    every = np.unique(np.concatenate([np.asarray(item) for item in steps] or [np.empty(0)]))
    grid = every[thin.evenly(len(every), most)]
    table = np.full((len(steps), len(grid)), np.nan)
    for row, (own, state) in enumerate(zip(steps, states, strict=True)):
        own = np.asarray(own)
        if not len(own):
            continue
        place = np.searchsorted(own, grid, side="right") - 1
        inside = (place >= 0) & (grid <= own[-1])
        table[row, inside] = np.asarray(state, dtype=float)[place[inside]]
    return grid, table


@redrawable
def state_raster(
    steps: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    labels: Sequence[str],
    n_states: int,
    *,
    order_by: np.ndarray | None = None,
    landmarks: Mapping[str, np.ndarray] | None = None,
    log_steps: bool | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw a row a run, coloured by its state over the steps.

    Args:
        steps: Steps of every run, S arrays of shape (T,); runs may differ in length and grid.
        states: States at them, integers from 0, S arrays of shape (T,).
        labels: Names of the S runs.
        n_states: K.
        order_by: What the runs are sorted by, the smallest on top and NaN (never) at the bottom, shape (S,).
        landmarks: Label -> step of each run, NaN for none, shape (S,); drawn as markers.
        log_steps: Logarithmic x; None: where more than half of the steps lie in the first tenth. The label says so.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    n_runs = len(steps)
    # NaN is sorted last.
    order = np.arange(n_runs) if order_by is None else np.argsort(order_by, kind="stable")
    grid, table = common_grid([steps[i] for i in order], [states[i] for i in order])
    colours = state_colours(n_states)
    figure = new_figure(7.6, float(np.clip(0.16 * n_runs, 0.7, 4.6)) + 1.0, size)
    ax = figure.add_subplot()
    # A cell lasts until the next recorded step, so the last row of all needs none, unless it is the only one.
    edges = grid.astype(float) if len(grid) > 1 else np.array([0.0, 1.0]) + (grid[0] if len(grid) else 0)
    ax.pcolormesh(
        edges, np.arange(n_runs + 1), np.ma.masked_invalid(table[:, : len(edges) - 1]),
        cmap=matplotlib.colors.ListedColormap(colours), vmin=-0.5, vmax=n_states - 0.5, rasterized=True,
    )  # fmt: skip
    for row, run in enumerate(order):
        # Nothing is seen of it until the run is lit up.
        ax.add_patch(
            Rectangle((edges[0], row), edges[-1] - edges[0], 1, fill=False, linewidth=0, gid=run_mark(run))
        )
    if 1 < n_runs <= NAMED:
        ax.hlines(np.arange(1, n_runs), edges[0], edges[-1], color="white", linewidth=0.9)
    logged = is_log_spaced(grid) if log_steps is None else log_steps
    polish(ax, grid=None)
    step_axis(ax, edges, logged)
    ax.set_ylim(n_runs, 0)
    ax.spines["left"].set_visible(False)
    if n_runs <= NAMED:
        ax.set_yticks(np.arange(n_runs) + 0.5, [labels[i] for i in order])
        ax.tick_params(axis="y", length=0, labelsize=7)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{n_runs:,} runs")
    named = _draw_landmarks(ax, {k: np.asarray(v)[order] for k, v in (landmarks or {}).items()}, n_runs)
    keys = [Patch(facecolor=colour, label=f"{k}") for k, colour in enumerate(colours)]
    columns = fitting([str(item.get_label()) for item in [*keys, *named]], 14, figure.get_figwidth())
    figure.legend(
        handles=by_row([*keys, *named], columns), loc="outside upper left", ncols=columns, fontsize=7.5,
        handlelength=1.1, handleheight=1.1, columnspacing=1.1, handletextpad=0.5, title="state",
        title_fontsize=7.5, alignment="left",
    )  # fmt: skip
    return figure


def _draw_landmarks(ax: Axes, landmarks: Mapping[str, np.ndarray], n_runs: int) -> list:
    handles = []
    size = 16.0 if n_runs <= NAMED else 6.0 if n_runs <= MARKED else 1.2
    for (label, steps), marker in zip(landmarks.items(), _MARKERS, strict=False):
        some = np.isfinite(steps)
        if some.any():
            handles.append(
                ax.scatter(
                    steps[some], np.flatnonzero(some) + 0.5, s=size, marker=marker, facecolor="white", edgecolor=INK,
                    linewidth=0.7 if n_runs <= MARKED else 0.2, zorder=3, label=label, rasterized=n_runs > MARKED,
                    clip_on=False,
                )
            )  # fmt: skip
    return handles


@redrawable
def state_profiles(
    means: np.ndarray, metrics: Sequence[str], *, unit: str = "z", title: str = "", size: Size | None = None
) -> Figure:
    """Draw the mean of every metric in every state as a heat map, symmetric about zero.

    Args:
        means: Shape (K, M); NaN for a state without rows.
        metrics: Names of the M metrics.
        unit: What the numbers are in.
        title: Above the map.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    n_states, n_metrics = means.shape
    # Names that are many stand below each other where there is little room.
    turned = size is not None and size[0] < 0.42 * n_metrics + 1.6
    high = 0.95 + 0.2 * n_metrics if turned else 1.35 + 0.34 * n_states
    figure = new_figure(min(1.6 + 0.54 * n_metrics, 9.5), high, size)
    ax = figure.add_subplot()
    names, numbers = [metric_words(name) for name in metrics], [f"{k}" for k in range(n_states)]
    shown = means.T if turned else means
    finite = np.abs(means[np.isfinite(means)])
    limit = float(finite.max()) if len(finite) and finite.max() > 0 else 1.0
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(shown), cmap="RdBu_r", vmin=-limit, vmax=limit, edgecolor="white", linewidth=0.8
    )
    cells: list[Text] = []
    if n_states * n_metrics <= 240:
        digits = 1 if limit >= 1 else 2 if limit >= 0.1 else 3
        for (row, column), value in np.ndenumerate(shown):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.65 * limit else ON_LIGHT
                text = f"{round(float(value), digits) + 0.0:.{digits}f}"
                at = column + 0.5, row + 0.5
                cells.append(ax.text(*at, text, ha="center", va="center", fontsize=6.5, color=colour))
    ax.set_ylim(len(shown), 0)
    polish(ax, grid=None)
    rows, columns = np.arange(len(shown)) + 0.5, np.arange(shown.shape[1]) + 0.5
    if turned:
        ax.set_yticks(rows, names)
        ax.set_xticks(columns, numbers)
    else:
        ax.set_xticks(columns, names, rotation=35, ha="right", rotation_mode="anchor")
        ax.set_yticks(rows, numbers)
    of_states = ax.xaxis if turned else ax.yaxis
    for tick, colour in zip(of_states.get_ticklabels(), state_colours(n_states), strict=True):
        tick.set_bbox({"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.3"})
        tick.set_color(text_on(colour))
    of_states.set_label_text("state")
    of_states.labelpad = 3 if turned else 8
    ax.tick_params(length=0)
    ax.tick_params(axis="x" if turned else "y", pad=8)
    place(ax, lambda: _in_cells(ax, cells, shown.shape))
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(mesh, ax=ax, pad=0.015, aspect=max(8, 4 * len(shown)), fraction=0.04)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, width=0.5, labelsize=7)
    bar.set_label(unit, fontsize=7.5)
    ax.set_title(title)
    return figure


def _in_cells(ax: Axes, words: Sequence[Text], shape: tuple[int, ...]) -> None:
    """Show the numbers in the cells of a map, unless they are wider or higher than these."""
    box = ax.get_window_extent()
    for text in words:
        text.set_visible(True)
    sizes = [text.get_window_extent() for text in words]
    fits = all(one.width < box.width / shape[1] and one.height < box.height / shape[0] for one in sizes)
    for text in words:
        text.set_visible(fits)
