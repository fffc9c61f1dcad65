"""Sharpness of runs and of their forks at half the rate, against the thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dynalab.show.plots import thin
from dynalab.show.plots.curves import spans_decades
from dynalab.show.plots.events import ROWS
from dynalab.show.plots.style import CYCLE, INK, MUTED, log_y, new_figure, polish, step_axis, styled


@styled
def halved_rate(labels: Sequence[str], rows: Sequence[Mapping[str, np.ndarray]], at: Sequence[int]) -> Figure:
    """Draw what the sharpness did after the rate was halved, and without.

    Args:
        labels: Names of the S runs; the first six are drawn.
        rows: Of each run `step`, `sharpness` and `threshold` of the fork, and `parent_sharpness`, all (T,); NaN where
            the parent has no row.
        at: Step of the halving of each.
    """
    count = min(len(labels), ROWS)
    figure = new_figure(7.6, 1.25 * count + 0.75)
    recorded = np.concatenate([item["step"] for item in rows[:count]])
    logarithmic = spans_decades([item["sharpness"] for item in rows[:count]])
    for row in range(count):
        ax, item = figure.add_subplot(count, 1, row + 1), rows[row]
        for name, colour in (("parent_sharpness", CYCLE[1]), ("sharpness", CYCLE[0])):
            steps, values = thin.thin(item["step"], item[name])
            some = np.isfinite(values) & (values > 0)
            ax.plot(steps[some], values[some], color=colour, linewidth=1.1)
        ax.plot(
            item["step"],
            item["threshold"],
            color=INK,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
            drawstyle="steps-post",
        )
        ax.axvline(at[row], color=MUTED, linewidth=0.9, zorder=1)
        if logarithmic:
            log_y(ax)
        else:
            ax.set_ylim(bottom=0)
        polish(ax)
        step_axis(ax, recorded, False, "step" if row == count - 1 else "")
        ax.set_title(labels[row], fontsize=8, color=MUTED, pad=3)
    handles = [
        Line2D([], [], color=CYCLE[0], linewidth=1.4, label="fork, half the rate"),
        Line2D([], [], color=CYCLE[1], linewidth=1.4, label="run as it was"),
        Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 2)), label="the fork's threshold"),
        Line2D([], [], color=MUTED, linewidth=0.9, label="rate halved"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=7.5, handlelength=1.6)
    return figure
