"""Curves over training: median and quartiles over runs, with the single runs behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dynalab.core.words import count
from dynalab.show.plots import thin
from dynalab.show.plots.labels import by_row, footnote, label_ends, marks
from dynalab.show.plots.style import (
    CYCLE,
    DASHED,
    INK,
    MUTED,
    SPLITS,
    Size,
    is_log_spaced,
    is_narrow,
    log_y,
    new_figure,
    polish,
    redrawable,
    run_mark,
    state_colours,
    step_axis,
)

# A logarithmic axis shows less than this range worse than a linear one.
LEAST_RATIO = 30.0
INTERPOLATED = (
    "not every run has a row at every step: between two of its rows a run's value is interpolated for median and band, "
    "before its first and after its last it does not count"
)


@dataclass(frozen=True)
class Drawn:
    """What became of the runs of one metric."""

    end: float  # value at the right end of the main line, NaN where there is none
    singles: int  # how many runs are thin lines
    runs: int  # how many runs there are
    interpolated: bool  # whether median and band take values between the rows of some runs

    @property
    def notes(self) -> list[str]:
        """What a reader must be told."""
        fewer = f"{self.singles} of {self.runs:,} runs drawn as thin lines, chosen evenly; median and band are of all"
        return [fewer] * (self.singles < self.runs) + [INTERPOLATED] * self.interpolated


def draw_runs(
    ax: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    colour: str,
    *,
    diverged: np.ndarray | None = None,
    logarithmic: bool = False,
    together: bool = False,
    width: float = 1.6,
    most: int = thin.SINGLES,
    points: int = thin.POINTS,
) -> Drawn:
    """Draw the runs (S, T) of one metric in a colour; `most` of them as thin lines, `points` of a line at most.

    What a logarithmic y cannot show is left out of the lines, not of the median, whose line has the width; `together`
    it and the band are drawn only where all runs are.
    """
    columns = thin.evenly(len(steps), points)
    x, low, middle, high, interpolated = middle_of(steps, values, columns, logarithmic, together)
    if logarithmic:
        log_y(ax, zeros=bool((values == 0).any()))
        values = positive(values)
    values = np.where(np.isfinite(values), values, np.nan)
    chosen, alone, drawn = thin.singles(values, diverged, most), len(values) <= 2, 0
    for row in chosen:
        some = np.isfinite(values[row])
        at, y = thin.thin(steps[some], values[row, some], points)
        drawn += len(at)
        ax.plot(
            at, y, color=colour, linewidth=width if alone else 0.5, alpha=1.0 if alone else 0.3,
            marker="o" if len(at) == 1 else None, markersize=3, zorder=2 if alone else 1, gid=run_mark(row),
        )  # fmt: skip
        if diverged is not None and np.isfinite(diverged[row]) and len(at):
            ax.plot(at[-1], y[-1], "x", color=INK, markersize=4.5, markeredgewidth=1.1, zorder=4)
    if drawn > thin.DENSE:
        ax.set_rasterization_zorder(1.5)
    if not alone:
        ax.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0, zorder=2)
        ax.plot(x, middle, color=colour, linewidth=width, zorder=3)
    end = next((float(value) for value in middle[::-1] if np.isfinite(value)), np.nan)
    return Drawn(end, len(chosen), len(values), interpolated and not alone)


def middle_of(
    steps: np.ndarray, values: np.ndarray, columns: np.ndarray, logarithmic: bool, together: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return what a median's line and a band of quartiles go through, NaN where they break.

    Of ascending steps (T,) and values (S, T), at some columns (C,): steps, lower quartile, median and upper quartile,
    (C,) or more, and whether some value of a run was interpolated. What is not above 0 is off a logarithmic axis, and
    a band that reaches there runs off it. `together` they go only where all runs do that have a value at all.
    """
    runs = thin.on_columns(steps, values, columns)
    if together:
        known = np.isfinite(runs)
        runs[:, ~known[known.any(axis=1)].all(axis=0)] = np.nan
    rows = values[:, columns]
    # At a step at which no run has a row, nothing is said of any run.
    interpolated = bool((np.isfinite(runs) & np.isnan(rows) & np.isfinite(rows).any(axis=0)).any())
    low, middle, high = thin.quantiles(runs)
    if logarithmic:
        above = values[np.isfinite(values) & (values > 0)]
        low = np.where(low > 0, low, above.min(initial=np.inf))
        low, middle, high = np.where(high > 0, low, np.nan), positive(middle), positive(high)
    # A step without any value breaks nothing where a run goes on behind it: that one was interpolated.
    some = np.isfinite(runs).any(axis=0)
    at = thin.breaks(runs[:, some])
    x = steps[columns][some]
    low, middle, high = (np.insert(line[some], at, np.nan) for line in (low, middle, high))
    return np.insert(x.astype(float), at, x[at]), low, middle, high, interpolated


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
    level: float | None = None,
    dashed: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    together: bool = False,
) -> list[str]:
    """Draw one panel of labelled metrics (S, T) on the same steps and return what a reader must be told of it.

    `train` and `test` have colours of their own; y is logarithmic where the values allow it. A dotted line runs across
    at a level; dashed are label -> (steps, values) of a curve in the label's colour; `together` as `draw_runs` says.
    """
    notes, ends = [], []
    shades = dict(colours or {})
    logarithmic = logarithmic and spans_decades(list(series.values()))
    for index, (label, values) in enumerate(series.items()):
        colour = shades.setdefault(label, SPLITS.get(label) or CYCLE[index % len(CYCLE)])
        if logarithmic and (zeros := int((values == 0).sum())):
            notes.append(
                f"{label}: {count(zeros, 'value')} of exactly 0 cannot be shown on a logarithmic axis"
            )
        drawn = draw_runs(
            ax, steps, values, colour, diverged=diverged, logarithmic=logarithmic, together=together
        )
        notes += drawn.notes
        ends.append((drawn.end, label, colour))
    polish(ax)
    step_axis(ax, steps, log_steps)
    # The limits are settled before labels are placed by them.
    low, high = ax.get_ylim()
    for label, (at, limits) in (dashed or {}).items():
        ax.plot(at, limits, color=shades.get(label, INK), linewidth=0.9, linestyle=DASHED, zorder=2.5)
        high = max(high, 1.05 * float(np.median(limits))) if len(limits) else high
    if level is not None:
        low, high = min(low, 0.95 * level), max(high, 1.05 * level)
        ax.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1.8)
        ax.annotate(
            f"{level:g}", (0.0, level), (3, 1.5), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=7, color=MUTED, va="bottom",
        )  # fmt: skip
    ax.set_ylim(low, high)
    if len(ends) > 1:
        label_ends(ax, ends)
    ax.set_title(title)
    marks(ax, marked or {})
    return notes


@redrawable
def curves(
    steps: np.ndarray,
    series: Mapping[str, np.ndarray],
    *,
    title: str = "",
    logarithmic: bool = False,
    log_steps: bool | None = None,
    diverged: np.ndarray | None = None,
    marked: Mapping[str, float | None] | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw metrics over training: the median over runs, the quartiles as a band, single runs as thin lines.

    Where an axis is logarithmic, its label says so.

    Args:
        steps: Recorded steps, shape (T,).
        series: Label -> values, shape (S, T); NaN where a run has none: between two of its rows it is interpolated for
            median and band, and said. One or two runs are drawn as they are.
        title: Above the panel.
        logarithmic: Logarithmic y, where no value is negative and they span a factor of 30.
        log_steps: Logarithmic x; None: where more than half of the steps lie in the first tenth.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,); marked by crosses.
        marked: Label -> step that a vertical line marks.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    return _panels(steps, [(title, series, logarithmic)], log_steps, diverged, marked, size)


@redrawable
def training_curves(
    steps: np.ndarray,
    losses: Mapping[str, np.ndarray],
    accuracies: Mapping[str, np.ndarray],
    *,
    log_steps: bool | None = None,
    diverged: np.ndarray | None = None,
    marked: Mapping[str, float | None] | None = None,
    states: tuple[np.ndarray, np.ndarray] | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw losses (logarithmic) and accuracies side by side; a side without metrics is left out.

    Args:
        steps: Recorded steps, shape (T,).
        losses: Label (`train`, `test`) -> values, shape (S, T).
        accuracies: Label -> values, shape (S, T).
        log_steps: Logarithmic x; None: where more than half of the steps lie in the first tenth.
        diverged: Step at which each run diverged, NaN for those that did not, shape (S,).
        marked: Label -> step that a vertical line marks.
        states: Steps (T,) and the share of runs in each state at these (T, K), a ribbon under every axis.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    panels = [("loss", losses, True), ("accuracy", accuracies, False)]
    figure = _panels(steps, [panel for panel in panels if panel[1]], log_steps, diverged, marked, size)
    if states is not None and len(states[0]) > 1:
        for ax in figure.axes:
            state_ribbon(ax, *states)
        state_keys(figure, states[1].shape[1])
    return figure


def _panels(
    steps: np.ndarray,
    panels: Sequence[tuple[str, Mapping[str, np.ndarray], bool]],
    log_steps: bool | None,
    diverged: np.ndarray | None,
    marked: Mapping[str, float | None] | None,
    size: Size | None,
) -> Figure:
    figure = new_figure(7.6 if len(panels) > 1 else 5.0, 2.9, size, stacked=0.75 * max(len(panels), 1))
    logged = is_log_spaced(steps) if log_steps is None else log_steps
    notes: list[str] = []
    for index, (title, series, logarithmic) in enumerate(panels):
        rows, columns = (len(panels), 1) if is_narrow(figure) else (1, len(panels))
        ax = figure.add_subplot(rows, columns, index + 1)
        notes += draw_panel(
            ax, steps, series, title=title, logarithmic=logarithmic, log_steps=logged, diverged=diverged,
            marked=marked,
        )  # fmt: skip
    footnote(figure, notes)
    return figure


def state_ribbon(ax: Axes, steps: np.ndarray, shares: np.ndarray) -> None:
    """Draw the share of runs in each state (T, K) over steps (T,) as a ribbon between an axis and its labels."""
    ribbon = ax.inset_axes((0.0, -0.075, 1.0, 0.06), sharex=ax)
    columns = thin.evenly(len(steps), thin.POINTS)
    x, parts = steps[columns].astype(float), shares[columns]
    top = np.cumsum(parts, axis=1)
    for k, colour in enumerate(state_colours(parts.shape[1])):
        ribbon.fill_between(x, top[:, k] - parts[:, k], top[:, k], step="post", color=colour, linewidth=0)
    ribbon.set_ylim(0, 1)
    ribbon.axis("off")
    ax.tick_params(axis="x", pad=15, length=0)


def state_keys(figure: Figure, n_states: int) -> None:
    """Write which colour is which state under a figure."""
    keys = [Patch(facecolor=colour, label=f"{k}") for k, colour in enumerate(state_colours(n_states))]
    columns = min(n_states, 12)
    figure.legend(
        handles=by_row(keys, columns), loc="outside lower left", ncols=columns, fontsize=7.5, handlelength=1.1,
        handleheight=1.1, columnspacing=1.1, handletextpad=0.5, title="share of runs in state", title_fontsize=7.5,
        alignment="left",
    )  # fmt: skip
