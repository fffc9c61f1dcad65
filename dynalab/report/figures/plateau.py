"""Hidden progress: an accuracy that stands still, and on the same steps a measure that already moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dynalab.report.figures.curves import draw_panel
from dynalab.report.figures.style import CYCLE, INK, MUTED, footnote, marks, new_figure, styled


@styled
def hidden_progress(
    steps: np.ndarray,
    accuracy: np.ndarray,
    progress: Mapping[str, np.ndarray],
    *,
    leaves: float,
    level: float,
    marked: Mapping[str, float | None] | None = None,
    diverged: np.ndarray | None = None,
    log_steps: bool = False,
) -> Figure:
    """Draw accuracy above and measures of progress below, over the same steps.

    Args:
        steps: Recorded steps, shape (T,).
        accuracy: Shape (S, T).
        progress: Label -> values, shape (S, T): ratios that are near 1 until there is progress.
        leaves: Accuracy above which a run has left the plateau; a horizontal line.
        level: Value above which there is progress; a horizontal line.
        marked: Label -> step that a vertical line marks through both panels.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,).
        log_steps: Logarithmic x.
    """
    figure = new_figure(7.6, 4.9)
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.25])
    notes = draw_panel(
        above, steps, {"test": accuracy}, title="accuracy on held-out examples", diverged=diverged,
        log_steps=log_steps, marked=marked,
    )  # fmt: skip
    # Several lines are labelled at their ends, one in the title.
    only = f": {next(iter(progress))}" if len(progress) == 1 else ""
    notes += draw_panel(
        below, steps, progress, title=f"relevant against other coordinates{only}", logarithmic=True, diverged=diverged,
        log_steps=log_steps, colours=dict(zip(progress, (CYCLE[2], CYCLE[3]), strict=False)),
    )  # fmt: skip
    above.set_xlabel("")
    for ax, value in ((above, leaves), (below, level)):
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.95 * value), max(high, 1.05 * value))
        ax.axhline(value, color=INK, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1.8)
        ax.annotate(
            f"{value:g}", (0.0, value), (3, 1.5), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=7, color=MUTED, va="bottom",
        )  # fmt: skip
    # The labels stand above the upper panel.
    marks(below, {" " * index: step for index, step in enumerate((marked or {}).values())})
    footnote(figure, notes)
    return figure
