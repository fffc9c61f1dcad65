"""Curves over training: median and quartiles over runs, with the single runs behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynalab.report.figures import thin
from dynalab.report.figures.style import (
    CYCLE,
    INK,
    SPLITS,
    footnote,
    is_log_spaced,
    label_ends,
    log_y,
    marks,
    new_figure,
    polish,
    step_axis,
    styled,
)

# A logarithmic axis shows less than this range worse than a linear one.
LEAST_RATIO = 30.0


def draw_runs(
    ax: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    colour: str,
    *,
    diverged: np.ndarray | None = None,
    width: float = 1.6,
    most: int = thin.SINGLES,
    points: int = thin.POINTS,
) -> tuple[float, int]:
    """Draw the runs of one metric.

    Args:
        ax: Where.
        steps: Shape (T,).
        values: Shape (S, T).
        colour: Of all of it.
        diverged: Step of divergence of each run, NaN for none, shape (S,).
        width: Of the median's line.
        most: How many single runs are drawn.
        points: How many points a line has at most.

    Returns:
        The value at the right end of the main line, and how many single runs were drawn.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    chosen = thin.singles(values, diverged, most)
    alone = len(values) <= 2
    drawn = 0
    for row in chosen:
        x, y = thin.thin(steps, values[row], points)
        some = np.isfinite(y)
        drawn += int(some.sum())
        lonely = some.sum() == 1
        ax.plot(
            x[some], y[some], color=colour, linewidth=width if alone else 0.5, alpha=1.0 if alone else 0.3,
            marker="o" if lonely else None, markersize=3, zorder=2 if alone else 1,
        )  # fmt: skip
        if diverged is not None and np.isfinite(diverged[row]) and some.any():
            ax.plot(x[some][-1], y[some][-1], "x", color=INK, markersize=4.5, markeredgewidth=1.1, zorder=4)
    if drawn > thin.DENSE:
        ax.set_rasterization_zorder(1.5)
    columns = thin.evenly(len(steps), points)
    low, middle, high = thin.quantiles(values[:, columns])
    if not alone:
        x = steps[columns]
        some = np.isfinite(middle)
        ax.fill_between(x[some], low[some], high[some], color=colour, alpha=0.22, linewidth=0, zorder=2)
        ax.plot(x[some], middle[some], color=colour, linewidth=width, zorder=3)
    ends = middle[np.isfinite(middle)]
    return (float(ends[-1]) if len(ends) else np.nan), len(chosen)


def positive(values: np.ndarray) -> np.ndarray:
    """Return values with NaN for what a logarithmic axis cannot show."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def spans_decades(values: Sequence[np.ndarray]) -> bool:
    """Return whether values are positive (zeros apart) and span enough for a logarithmic axis."""
    flat = np.concatenate([np.ravel(item) for item in values]) if len(values) else np.empty(0)
    flat = flat[np.isfinite(flat)]
    if not len(flat) or flat.min() < 0 or not (flat > 0).any():
        return False
    some = flat[flat > 0]
    # Of logarithms: the ratio itself may overflow.
    return bool(np.log10(some.max()) - np.log10(some.min()) >= np.log10(LEAST_RATIO))


def draw_panel(
    ax: Axes,
    steps: np.ndarray,
    series: Mapping[str, np.ndarray],
    *,
    title: str = "",
    logarithmic: bool = False,
    log_steps: bool = False,
    colours: Mapping[str, str] | None = None,
    diverged: np.ndarray | None = None,
    marked: Mapping[str, float | None] | None = None,
) -> list[str]:
    """Draw one panel of labelled metrics on the same steps and return what a reader must be told of it.

    Args:
        ax: Where.
        steps: Shape (T,).
        series: Label -> values (S, T).
        title: Above the panel.
        logarithmic: Whether y is, where the values allow it.
        log_steps: Whether x is.
        colours: Label -> colour; `train` and `test` have theirs.
        diverged: Step of divergence of each run, NaN for none, shape (S,).
        marked: Label -> step to be marked, or None.
    """
    notes = []
    logarithmic = logarithmic and spans_decades(list(series.values()))
    ends, runs, count = [], 0, 0
    for index, (label, values) in enumerate(series.items()):
        colour = (colours or {}).get(label) or SPLITS.get(label) or CYCLE[index % len(CYCLE)]
        if logarithmic:
            zeros = int((values == 0).sum())
            if zeros:
                notes.append(f"{label}: {zeros:,} values of exactly 0 cannot be shown on a logarithmic axis")
            values = positive(values)
        end, runs = draw_runs(ax, steps, values, colour, diverged=diverged)
        count = len(values)
        ends.append((end, label, colour))
    if runs < count:
        notes.append(
            f"{runs} of {count:,} runs drawn as thin lines, chosen evenly; median and band are of all"
        )
    if logarithmic:
        log_y(ax)
    above = steps[steps > 0]
    polish(ax)
    step_axis(
        ax, float(above.min()) if len(above) else 1.0, float(steps.max()) if len(steps) else 1.0, log_steps
    )
    ax.set_ylim(ax.get_ylim())
    if len(ends) > 1:
        label_ends(ax, ends)
    rows = marks(ax, marked or {})
    ax.set_title(title, pad=7 + 9 * rows if rows else 7)
    return notes


@styled
def curves(
    steps: np.ndarray,
    series: Mapping[str, np.ndarray],
    *,
    title: str = "",
    logarithmic: bool = False,
    log_steps: bool | None = None,
    diverged: np.ndarray | None = None,
    marked: Mapping[str, float | None] | None = None,
) -> Figure:
    """Draw metrics over training: the median over runs, the quartiles as a band, single runs as thin lines.

    Args:
        steps: Recorded steps, shape (T,).
        series: Label -> values, shape (S, T); NaN where a run has none. One or two runs are drawn as they are.
        title: Above the panel.
        logarithmic: Logarithmic y, where the values allow it.
        log_steps: Logarithmic x; None decides by the grid of the steps.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,); marked by crosses.
        marked: Label -> step that a vertical line marks.
    """
    return _panels(
        steps, [(title, dict(series), logarithmic)], log_steps=log_steps, diverged=diverged, marked=marked
    )


@styled
def training_curves(
    steps: np.ndarray,
    losses: Mapping[str, np.ndarray],
    accuracies: Mapping[str, np.ndarray],
    *,
    log_steps: bool | None = None,
    diverged: np.ndarray | None = None,
    marked: Mapping[str, float | None] | None = None,
) -> Figure:
    """Draw losses (logarithmic) and accuracies side by side; a side without metrics is left out.

    Args:
        steps: Recorded steps, shape (T,).
        losses: Label (`train`, `test`) -> values, shape (S, T).
        accuracies: Label -> values, shape (S, T).
        log_steps: Logarithmic x; None decides by the grid of the steps.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,).
        marked: Label -> step that a vertical line marks.
    """
    panels = [("loss", dict(losses), True), ("accuracy", dict(accuracies), False)]
    return _panels(
        steps, [item for item in panels if item[1]], log_steps=log_steps, diverged=diverged, marked=marked
    )


def _panels(
    steps: np.ndarray,
    panels: list[tuple[str, dict[str, np.ndarray], bool]],
    *,
    log_steps: bool | None,
    diverged: np.ndarray | None,
    marked: Mapping[str, float | None] | None,
) -> Figure:
    figure = new_figure(7.6 if len(panels) > 1 else 5.0, 2.9)
    logged = is_log_spaced(steps) if log_steps is None else log_steps
    notes: list[str] = []
    for index, (title, series, logarithmic) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), index + 1)
        notes += draw_panel(
            ax, steps, series, title=title, logarithmic=logarithmic, log_steps=logged, diverged=diverged,
            marked=marked,
        )  # fmt: skip
    footnote(figure, list(dict.fromkeys(notes)))
    return figure
