"""Sharpness of runs and of their forks at half the rate, against the thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from dynalab.show.plots import thin
from dynalab.show.plots.curves import spans_decades
from dynalab.show.plots.events import ROWS
from dynalab.show.plots.labels import key, keys
from dynalab.show.plots.style import (
    CYCLE,
    DASHED,
    INK,
    MUTED,
    Size,
    log_y,
    new_figure,
    polish,
    redrawable,
    run_axes,
    run_mark,
    step_axis,
)


@redrawable
def halved_rate(
    labels: Sequence[str],
    rows: Sequence[Mapping[str, np.ndarray]],
    at: Sequence[int],
    *,
    size: Size | None = None,
) -> Figure:
    """Draw what the sharpness did after the rate was halved, and without.

    Args:
        labels: Names of the S runs; the first six are drawn.
        rows: Of each run `step`, `sharpness` and `threshold` of the fork, and `parent_sharpness`, all (T,); NaN where
            the parent has no row.
        at: Step of the halving of each.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    labels, rows = labels[:ROWS], rows[:ROWS]
    figure = new_figure(7.6, 1.25 * len(labels) + 0.75, size)
    recorded = np.concatenate([item["step"] for item in rows])
    logarithmic = spans_decades([item["sharpness"] for item in rows])
    for row, ax, label in run_axes(figure, labels):
        item = rows[row]
        ax.set_gid(run_mark(row))
        for name, colour in (("parent_sharpness", CYCLE[1]), ("sharpness", CYCLE[0])):
            steps, values = thin.thin(item["step"], item[name])
            some = np.isfinite(values) & (values > 0)
            ax.plot(steps[some], values[some], color=colour, linewidth=1.1)
        limit = item["threshold"]
        ax.plot(item["step"], limit, color=INK, linewidth=0.9, linestyle=DASHED, drawstyle="steps-post")
        ax.axvline(at[row], color=MUTED, linewidth=0.9, zorder=1)
        if logarithmic:
            log_y(ax)
        else:
            ax.set_ylim(bottom=0)
        polish(ax)
        step_axis(ax, recorded, False, label)
    handles = [key(CYCLE[0], "fork, half the rate"), key(CYCLE[1], "run as it was")]
    handles += [key(INK, "the fork's threshold", 0.9, linestyle=DASHED), key(MUTED, "rate halved", 0.9)]
    keys(figure, handles, 4)
    return figure
