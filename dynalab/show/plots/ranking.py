"""Settings against each other: a row a setting, or the values of a key along the axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from dynalab.core.words import number
from dynalab.show.plots import fit
from dynalab.show.plots.labels import footnote, keys, name_rows, row_height
from dynalab.show.plots.style import (
    CYCLE,
    INK,
    LOG_SCALE,
    MUTED,
    Size,
    new_figure,
    polish,
    redrawable,
    run_mark,
)


class _Rows(MaxNLocator):
    """Round ticks that are no finer than the rows that steps are of, which lie `grain` apart."""

    def __init__(self, grain: float) -> None:
        super().__init__("auto", steps=[1, 2, 2.5, 5, 10])
        self._grain = grain

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the ticks of a range."""
        ticks = np.asarray(super().tick_values(vmin, vmax))
        return (
            ticks
            if len(ticks) < 2 or ticks[1] - ticks[0] >= self._grain
            else np.arange(np.ceil(vmin / self._grain) * self._grain, vmax + self._grain / 2, self._grain)
        )


Values = Sequence[Sequence[float | None]]
Bounds = Sequence[Sequence[float | None]]
# Factor that values span from which on their axis is logarithmic.
WIDE = 8


@redrawable
def ranking(
    labels: Sequence[str],
    values: Values,
    estimates: Sequence[float | None],
    intervals: Bounds,
    *,
    notes: Sequence[str] = (),
    axis: str = "step",
    last: float | None = None,
    grain: float | None = None,
    size: Size | None = None,
) -> Figure:
    """Draw settings in their order: a dot a run, the estimate as a bar across, its interval as a line below.

    A run in which the value never came stands beyond the right end; a bound that is open ends in an arrow head.

    Args:
        labels: Name of each setting, N of them, the first on top.
        values: Of every run of each; None: it never came.
        estimates: Of each setting; None where there is none.
        intervals: Bounds of each; None where one lies beyond what was seen, both where there is no interval.
        notes: Words to the right of each row.
        axis: What the values are.
        last: Up to where steps were watched; None of values that are no steps.
        grain: Distance of the rows that steps are of: no tick is between two; None of other values.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    figure = new_figure(7.6, row_height(labels, notes, 0.42, size) * max(len(labels), 1) + 0.8, size)
    ax = figure.add_subplot()
    polish(ax, grid="x")
    logarithmic = _scale(ax, "x", values, intervals, last, grain=grain)
    left, right = ax.get_xlim()
    ax.set_ylim(len(labels) - 0.42, -0.62)
    dots = _numbers(values)
    for place, row in enumerate(values):
        colour, own = CYCLE[0], run_mark(sum(map(len, values)) + place)
        known = [value for value in row if value is not None]
        ax.scatter(
            known, place - 0.1 - _stacked(known, left, right), s=14, color=colour, alpha=0.6, linewidth=0, zorder=3,
            gid=run_mark(*dots[place]),
        )  # fmt: skip
        low, high = (
            end if bound is None else bound
            for bound, end in zip(intervals[place], (left, right), strict=True)
        )
        told = sum(bound is not None for bound in intervals[place])
        if told == 2 or (told and estimates[place] is not None):
            ax.plot([low, high], [place + 0.14] * 2, color=INK, linewidth=1.2, zorder=4, gid=own)
            for bound, x, marker in ((intervals[place][0], low, "<"), (intervals[place][1], high, ">")):
                if bound is None:
                    ax.plot([x], [place + 0.14], marker=marker, markersize=4, color=INK, clip_on=False, zorder=4,
                            gid=own)  # fmt: skip
        if (estimate := estimates[place]) is not None:
            ax.plot([estimate], [place + 0.14], marker="|", markersize=8, markeredgewidth=1.8, color=INK, zorder=5,
                    gid=own)  # fmt: skip
        if len(known) < len(row):
            ax.plot([1.0], [place - 0.1], marker=">", markersize=5, color=colour, clip_on=False, zorder=6,
                    transform=ax.get_yaxis_transform(), markeredgecolor=MUTED, markeredgewidth=0.5,
                    gid=own)  # fmt: skip
    for place, words in enumerate(name_rows(ax, labels, notes)):
        for text in words:
            text.set_gid(run_mark(sum(map(len, values)) + place))
    ax.set_xlabel(f"{axis} ({LOG_SCALE})" if logarithmic else axis)
    return figure


def _numbers(values: Values) -> list[list[int]]:
    """Return the numbers of the dots of each row: runs are numbered through all rows, those without a dot as well."""
    made, first = [], 0
    for row in values:
        made.append([first + place for place, value in enumerate(row) if value is not None])
        first += len(row)
    return made


def _level(values: Sequence[float], low: float, high: float) -> np.ndarray:
    """Return how many dots before it lie in each one's place, (n,), on an axis from `low` to `high`."""
    places = np.round((np.asarray(values, dtype=float) - low) / ((high - low) or 1.0) * 120).astype(int)
    level = np.zeros(len(places))
    for one in np.unique(places):
        same = np.flatnonzero(places == one)
        level[same] = np.arange(len(same))
    return level


def _stacked(values: Sequence[float], left: float, right: float) -> np.ndarray:
    """Return how far above the row each dot lies, (n,): those in one place stand on each other."""
    level = _level(values, left, right)
    return level * min(0.14, 0.42 / max(float(level.max(initial=0.0)), 1.0))


def _beside(values: Sequence[float], low: float, high: float) -> np.ndarray:
    """Return how many widths from the middle each dot lies, (n,): those in one place stand beside each other."""
    level = _level(values, low, high)
    return np.where(level % 2, 1, -1) * np.ceil(level / 2)


@redrawable
def response(
    at: Sequence[float],
    values: Values,
    estimates: Sequence[float | None],
    intervals: Bounds,
    *,
    key: str = "",
    axis: str = "step",
    best: tuple[float, float] | None = None,
    last: float | None = None,
    grain: float | None = None,
    band: tuple[float, float, float] | None = None,
    beside: str = "",
    size: Size | None = None,
) -> Figure:
    """Draw values over those of a key: a dot a run, estimates as a line, their intervals as bars.

    Args:
        at: Values of the key, N of them, ascending.
        values: Of every run at each; None: it never came, and stands above the upper end.
        estimates: At each; None where there is none.
        intervals: Bounds at each; None where one lies beyond what was seen.
        key: The key's name.
        axis: What the values are.
        best: Range of the key's values that the best is not told apart from, shaded.
        last: Up to where steps were watched; None of values that are no steps.
        grain: Distance of the rows that steps are of: no tick is between two; None of other values.
        band: Lower end, middle and upper end of what all are held against, across; None: there is none.
        beside: What the band is.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    figure = new_figure(5.2, 3.2, size)
    ax = figure.add_subplot()
    polish(ax)
    logarithmic = _scale(ax, "y", [*values, band or ()], intervals, last, grain=grain)
    bottom, top = ax.get_ylim()
    if band is not None:
        low, middle, high = band
        ax.axhspan(low, high, color=CYCLE[1], alpha=0.15, linewidth=0)
        ax.axhline(middle, color=CYCLE[1], linewidth=1.2, linestyle="--", label=beside)
        keys(figure, ax.get_lines(), 1)
    x, labels, spaced = _places(at)
    if best is not None:
        inside = [place for value, place in zip(at, x, strict=True) if best[0] <= value <= best[1]]
        reach = 0.35 * min(np.diff(x).min(), 1.0) if len(x) > 1 else 0.35
        ax.axvspan(min(inside) - reach, max(inside) + reach, color=CYCLE[2], alpha=0.12, linewidth=0)
    never: list[Text] = []
    width = 0.012 * float(np.ptp(x) or 1.0)
    for place, row, dots in zip(x, values, _numbers(values), strict=True):
        known = [value for value in row if value is not None]
        ax.scatter(
            place + _beside(known, bottom, top) * width, known, s=12, color=CYCLE[0], alpha=0.5, linewidth=0, zorder=3,
            gid=run_mark(*dots),
        )  # fmt: skip
        if len(known) < len(row):
            ax.plot([place], [1.0], marker="^", markersize=5, color=CYCLE[0], clip_on=False, zorder=6,
                    transform=ax.get_xaxis_transform(), markeredgecolor=MUTED, markeredgewidth=0.5)  # fmt: skip
            never.append(
                ax.annotate(
                    f"{len(known)} of {len(row)}", (place, 1.0), (0, 5), xycoords=ax.get_xaxis_transform(),
                    textcoords="offset points", ha="center", fontsize=7, color=INK,
                )
            )  # fmt: skip
    for setting, (place, bounds) in enumerate(zip(x, intervals, strict=True), sum(map(len, values))):
        if bounds[0] is not None or bounds[1] is not None:
            low, high = (
                end if bound is None else bound for bound, end in zip(bounds, (bottom, top), strict=True)
            )
            ax.plot([place] * 2, [low, high], color=INK, linewidth=1.2, zorder=4, gid=run_mark(setting))
    if never:
        fit.place(ax, lambda: fit.apart(never))
        footnote(figure, ["arrow heads: runs that never did; above them how many did, of how many"])
    line = [np.nan if value is None else value for value in estimates]
    ax.plot(x, line, color=INK, linewidth=1.2, marker="_", markersize=9, markeredgewidth=1.8, zorder=5)
    ax.set_xticks(x, labels)
    ax.set_xlabel(f"{key} ({LOG_SCALE})" if spaced else key)
    ax.set_ylabel(f"{axis} ({LOG_SCALE})" if logarithmic else axis)
    return figure


@redrawable
def effect(
    at: Sequence[str],
    lines: Sequence[str],
    estimates: Sequence[Sequence[float | None]],
    intervals: Sequence[Bounds],
    *,
    key: str = "",
    axis: str = "step",
    ratios: bool = False,
    size: Size | None = None,
) -> Figure:
    """Draw what one key does at each value of another: lines that are not parallel are an interaction.

    Args:
        at: The N values of the key along the axis.
        lines: The M values of the other key.
        estimates: M by N of them; None where there is none.
        intervals: Bounds of each; None where one lies beyond what was seen. With a lower bound and no estimate an arrow
            points there.
        key: Name of the key along the axis.
        axis: What the values are.
        ratios: Whether an effect is a factor: on a logarithmic axis lines are then parallel without an interaction.
        size: Width and height in inches; None: what it takes on a page 7.6 inches wide.
    """
    figure = new_figure(5.2, 3.2, size)
    ax = figure.add_subplot()
    polish(ax)
    logarithmic = _scale(ax, "y", estimates, [bounds for row in intervals for bounds in row], None, ratios)
    bottom, top = ax.get_ylim()
    if any(high is None and low is not None for row in intervals for low, high in row):
        # Room for what lies beyond.
        top = top * (top / bottom) ** 0.15 if logarithmic else top + 0.15 * (top - bottom)
        ax.set_ylim(bottom, top)
    handles = []
    for place, (label, row, around) in enumerate(zip(lines, estimates, intervals, strict=True)):
        # Beside each other, so that bars do not hide bars.
        x = np.arange(len(at)) + 0.06 * (place - (len(lines) - 1) / 2)
        colour = CYCLE[place % len(CYCLE)]
        known = [np.nan if value is None else value for value in row]
        handles += ax.plot(
            x, known, color=colour, linewidth=1.3, marker="o", markersize=4, label=label, zorder=4
        )
        for where, value, bounds in zip(x, row, around, strict=True):
            if bounds[0] is not None or bounds[1] is not None:
                low, high = (
                    end if one is None else one for one, end in zip(bounds, (bottom, top), strict=True)
                )
                ax.plot([where] * 2, [low, high], color=colour, linewidth=1.0, alpha=0.8, zorder=3)
            if value is None and bounds[0] is not None:
                ax.plot(where, top, marker="^", markersize=5, color=colour, clip_on=False, zorder=6)
    ax.set_xticks(range(len(at)), at)
    ax.set_xlim(-0.4, len(at) - 0.6)
    ax.set_xlabel(key)
    ax.set_ylabel(f"{axis} ({LOG_SCALE})" if logarithmic else axis)
    keys(figure, handles, 4)
    return figure


def _places(at: Sequence[float]) -> tuple[np.ndarray, list[str], bool]:
    """Return where values of a key lie along the axis, their labels, and whether by logarithm."""
    numbers = np.asarray(at, dtype=float)
    positive = numbers[numbers > 0]
    spaced = len(positive) > 1 and positive.max() / positive.min() > WIDE and not (numbers < 0).any()
    if not spaced:
        return numbers, [f"{value:g}" for value in at], False
    # 0 stands a decade before the least.
    x = np.log10(np.where(numbers > 0, numbers, positive.min() / 10))
    return x, [f"{value:g}" for value in at], True


def _scale(
    ax: Axes,
    name: str,
    values: Values,
    intervals: Bounds,
    last: float | None,
    ratios: bool | None = None,
    grain: float | None = None,
) -> bool:
    """Set the axis of the values; return whether it is logarithmic: where they are wide apart, or as `ratios` says."""
    known = [value for row in values for value in row if value is not None]
    known += [bound for bounds in intervals for bound in bounds if bound is not None]
    known += [] if last is None else [last]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    logarithmic = low > 0 and (high / low > WIDE if ratios is None else ratios)
    limits = getattr(ax, f"set_{name}lim")
    which: Axis = getattr(ax, f"{name}axis")
    if logarithmic:
        getattr(ax, f"set_{name}scale")("log")
        limits(low * 0.8, high * 1.1)
        subs = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0)
        which.set_major_locator(LogLocator(subs=subs) if high / low > WIDE else MaxNLocator(5))
        which.set_minor_formatter(NullFormatter())
        which.set_minor_locator(NullLocator())
    else:
        begin = 0.0 if last is not None and low < high / 2 else low
        margin = 0.04 * ((high - begin) or abs(high) or 1.0)
        limits(begin - margin, high + margin)
        if grain:
            which.set_major_locator(_Rows(grain))
    which.set_major_formatter(FuncFormatter(lambda value, _: number(float(value))))
    return logarithmic
