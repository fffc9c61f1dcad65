"""Several ensembles over each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dynalab.core.words import metric_words
from dynalab.show.plots import thin
from dynalab.show.plots.curves import INTERPOLATED, middle_of, spans_decades
from dynalab.show.plots.labels import footnote, label_ends
from dynalab.show.plots.style import (
    Size,
    ensemble_colours,
    is_log_spaced,
    log_y,
    new_figure,
    polish,
    redrawable,
    run_mark,
    step_axis,
)

# More bands than these would hide each other.
BANDS = 6


@redrawable
def comparison(
    ensembles: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    metric: str = "",
    logarithmic: bool = False,
    log_steps: bool | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw one metric of several ensembles over each other: medians over runs, with quartiles up to six ensembles.

    Args:
        ensembles: Label -> (steps (T,), values (S, T)); every ensemble has steps of its own.
        metric: The metric's name, for the title.
        logarithmic: Logarithmic y, where no value is negative and they span a factor of 30; the label says so.
        log_steps: Logarithmic x; None: where more than half of an ensemble's steps lie in the first tenth.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    rows = max(len(ensembles), 1)
    figure = new_figure(7.6, max(3.2, 0.2 * min(rows, 30) + 1.0), size)
    ax = figure.add_subplot()
    logarithmic = logarithmic and spans_decades([values for _, values in ensembles.values()])
    if log_steps is None:
        log_steps = any(is_log_spaced(steps) for steps, _ in ensembles.values())
    ends, notes = [], []
    colours, own = ensemble_colours(rows), list[int]()
    for place, (label, (steps, values)) in enumerate(ensembles.items()):
        colour = colours[place]
        columns = thin.evenly(len(steps), thin.POINTS)
        x, low, middle, high, interpolated = middle_of(steps, values, columns, logarithmic)
        some = np.isfinite(middle)
        if not some.any():
            continue
        notes += [INTERPOLATED] * interpolated
        if rows <= BANDS and len(values) > 2:
            ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, gid=run_mark(place))
        ax.plot(x, middle, color=colour, linewidth=1.5, gid=run_mark(place))
        own.append(place)
        ends.append((float(middle[some][-1]), label, colour))
    if logarithmic:
        log_y(ax, zeros=any((values == 0).any() for _, values in ensembles.values()))
    polish(ax)
    step_axis(ax, np.concatenate([steps for steps, _ in ensembles.values()] or [np.empty(0)]), log_steps)
    ax.set_ylim(ax.get_ylim())
    if len(ends) <= 30:
        for place, text in zip(own, label_ends(ax, ends), strict=True):
            text.set_gid(run_mark(place))
    else:
        notes.append(f"{len(ends)} ensembles, from dark to light in the order of the table")
    footnote(figure, notes)
    ax.set_title(metric_words(metric))
    return figure
