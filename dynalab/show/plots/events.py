"""What detectors found, on the curves that they looked at: a row a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dynalab.show.plots import thin
from dynalab.show.plots.curves import positive, spans_decades
from dynalab.show.plots.labels import key, keys
from dynalab.show.plots.style import (
    CYCLE,
    DASHED,
    INK,
    Size,
    log_y,
    new_figure,
    polish,
    redrawable,
    run_axes,
    run_mark,
    step_axis,
    step_span,
)

# Rows of one figure; the caption says how many runs there are.
ROWS = 6
LEFT, RIGHT = CYCLE[0], CYCLE[1]
# Light enough to lie behind lines.
SHADES = {
    "slingshot": "#f5c86e",
    "spike_without_norm_cycle": "#d9d2ea",
    "inflation": "#f6e3dc",
    "edge_spike": "#bfe3d6",
    "bn_wd_period": "#bcd9ee",
    "norm_jump": "#bcd9ee",
    "edge": "#bfe3d6",
}
OTHER = "#dfe2e8"

Curve = tuple[np.ndarray, np.ndarray]


@redrawable
def events_over_curves(
    labels: Sequence[str],
    left: Sequence[Curve],
    right: Sequence[Curve] | None,
    spans: Sequence[Sequence[tuple[float, float, str]]],
    *,
    names: tuple[str, str],
    dashed: Sequence[Curve] | None = None,
    dashed_name: str = "",
    marked: Sequence[Mapping[str, float | None]] | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw a quantity of every run, another on an axis to the right, and shade what was found.

    Args:
        labels: Names of the S runs; the first six are drawn.
        left: (steps, values) of each run; on a logarithmic axis, which its label says, where those that are drawn are
            not negative and span a factor of 30.
        right: The same for the axis to the right, or None.
        spans: (begin, end, kind) of the events of each run.
        names: What is on the left and on the right.
        dashed: A dashed line on the left axis of each run (a threshold), or None.
        dashed_name: What that is.
        marked: Label -> step that a vertical line marks, for each run.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    labels = labels[:ROWS]
    figure = new_figure(7.6, 1.25 * len(labels) + 0.75, size)
    recorded = np.concatenate([steps for steps, _ in left[:ROWS]] or [np.empty(0)])
    start, last = step_span(recorded)
    scales = [spans_decades([values for _, values in side[:ROWS]]) for side in (left, right or ())]
    kinds: dict[str, None] = {}
    for row, ax, label in run_axes(figure, labels):
        ax.set_gid(run_mark(row))
        for begin, end, kind in spans[row]:
            # An event of one row would be a hair.
            end = min(max(end, begin + 0.004 * (last - start)), last)
            ax.axvspan(begin, end, color=SHADES.get(kind, OTHER), linewidth=0, zorder=0)
            kinds[kind] = None
        _line(ax, left[row], LEFT, scales[0])
        if dashed is not None and len(dashed[row][0]):
            ax.plot(*dashed[row], color=INK, linewidth=0.9, linestyle=DASHED, zorder=2)
        if right is not None and len(right[row][0]):
            twin = ax.twinx()
            twin.set_gid(run_mark(row))
            _line(twin, right[row], RIGHT, scales[1])
            polish(twin, grid=None)
            twin.tick_params(axis="y", labelcolor=RIGHT)
            twin.spines["right"].set_visible(False)
            if twin.get_yscale() == "linear":
                twin.locator_params(axis="y", nbins=4)
        for step in (marked[row] if marked else {}).values():
            if step is not None:
                ax.axvline(step, color=INK, linewidth=0.9, zorder=2.5)
        polish(ax)
        ax.tick_params(axis="y", labelcolor=LEFT)
        step_axis(ax, recorded, False, label)
    handles = [key(LEFT, names[0])]
    if right is not None:
        handles.append(key(RIGHT, f"{names[1]} (right)"))
    if dashed is not None:
        handles.append(key(INK, dashed_name, 0.9, linestyle=DASHED))
    if marked and any(step is not None for item in marked[:ROWS] for step in item.values()):
        handles.append(key(INK, " / ".join(dict.fromkeys(name for item in marked for name in item)), 0.9))
    shades = [Patch(facecolor=SHADES.get(kind, OTHER), label=kind.replace("_", " ")) for kind in kinds]
    keys(figure, [*handles, *shades], 6)
    return figure


def _line(ax: Axes, curve: Curve, colour: str, logarithmic: bool) -> None:
    steps, values = (np.asarray(column) for column in curve)
    x, y = thin.thin(steps, positive(values) if logarithmic else values)
    some = np.isfinite(y)
    ax.plot(x[some], y[some], color=colour, linewidth=1.1, zorder=2)
    if logarithmic:
        log_y(ax, zeros=bool((values == 0).any()))
