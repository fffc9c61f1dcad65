"""Panels of curves under each other: an accuracy that stands still, and a measure that already moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from dynalab.show.plots.curves import draw_panel
from dynalab.show.plots.labels import footnote, marks
from dynalab.show.plots.style import CYCLE, SPLITS, Size, is_log_spaced, new_figure, redrawable


@dataclass(frozen=True)
class LinePanel:
    """One of several panels."""

    title: str  # above it
    steps: np.ndarray  # recorded steps, shape (T,)
    # Label -> values, shape (S, T); `train` and `test` have colours of their own.
    series: Mapping[str, np.ndarray]
    logarithmic: bool = False  # whether y is, where the values allow it
    level: float | None = None  # where a dotted line runs across, or None
    # Label -> (steps, values) of a dashed curve in its colour.
    dashed: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@redrawable
def line_panels(
    panels: Sequence[LinePanel],
    *,
    marked: Mapping[str, float | None] | None = None,
    diverged: np.ndarray | None = None,
    log_steps: bool | None = None,
    axis: str = "",
    size: Size | None = None,
) -> Figure:
    """Draw panels of curves under each other.

    Args:
        panels: From above.
        marked: Label -> step that a vertical line marks through all panels.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,).
        log_steps: Logarithmic x; None: where more than half of the steps lie in the first tenth.
        axis: What the curves are over, where it is not steps; then a median goes only where all runs do.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    figure = new_figure(7.6, 2.2 + 2.7 * (len(panels) - 1), size, stacked=0.7)
    heights = [1, *[1.25] * (len(panels) - 1)]
    axes = list(figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).flat)
    notes: list[str] = []
    # A label has one colour in all panels.
    labels = dict.fromkeys(label for panel in panels for label in panel.series if label not in SPLITS)
    colours = {**SPLITS, **dict(zip(labels, islice(cycle(CYCLE), len(SPLITS), None), strict=False))}
    for ax, panel in zip(axes, panels, strict=True):
        logged = not axis and (is_log_spaced(panel.steps) if log_steps is None else log_steps)
        # The labels of what is marked stand above the uppermost panel.
        notes += draw_panel(
            ax, panel.steps, panel.series, title=panel.title, logarithmic=panel.logarithmic, diverged=diverged,
            log_steps=logged, colours=colours, marked=marked if ax is axes[0] else None, level=panel.level,
            dashed=panel.dashed, together=bool(axis),
        )  # fmt: skip
        if axis:
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.xaxis.set_major_locator(MaxNLocator(7))
            ax.set_xlim(float(panel.steps.min(initial=0.0)), float(panel.steps.max(initial=0.0)))
            ax.set_xlabel(axis)
            ax.set_label("")
        if ax is not axes[-1]:
            ax.set_xlabel("")
    for ax in axes[1:]:
        marks(ax, marked or {}, named=False)
    footnote(figure, notes)
    return figure


@redrawable
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
    size: Size | None = None,
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
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    only = f": {next(iter(progress))}" if len(progress) == 1 else ""
    return line_panels(
        [
            LinePanel("accuracy on held-out examples", steps, {"test": accuracy}, level=leaves),
            # Several lines are labelled at their ends, one in the title.
            LinePanel(f"relevant against other coordinates{only}", steps, progress, True, level),
        ],
        marked=marked,
        diverged=diverged,
        log_steps=log_steps,
        size=size,
    )
