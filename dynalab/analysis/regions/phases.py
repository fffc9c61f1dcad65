"""The phases of a curve: stretches on which it falls or rises by more than its noise.

Of local complexity over training they are known as first descent, ascent and second descent (Humayun et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FEWEST = 8  # rows below which no phase can be told
# Rows that are neighbours err alike: noise is seen between means of windows, of two rows more for each so many.
ROWS_PER_SIDE = 40
# How many times the noise seen between windows of 1, 3, 5 and more rows the range of their means exceeds in 5% of the
# cases at most: by simulation of noise of 10% and 30% whose neighbouring rows correlate by .7, the worst up to there.
# The fewer rows a window has, the less of their common noise is seen between windows.
WIDTHS = (13.3, 10.5, 9.0, 8.2)
# Units that one row has to count: curves of fewer are noise of a few steps' height, of which rows see too little.
COUNTED = 8
# And between rows up to so far apart, where there are so many for each.
LAGS, ROWS_PER_LAG = 4, 20
# Rows so far apart, where there are so many for each, and neighbours tell by how much the noise of these correlates,
# up to this: a walk at random has no noise around anything.
FAR, ROWS_PER_FAR, ALIKE = 16, 12, 0.95


@dataclass(frozen=True)
class Phase:
    """A stretch on which the curve falls or rises."""

    onset_step: int  # step of the row that it goes out from, the extreme before it
    # Steps between which the curve cannot be told from that extreme by its noise, that of neighbouring rows alike.
    onset_interval: tuple[int, int]
    end_step: int  # step of the row that it comes to
    end_interval: tuple[int, int]  # likewise
    before: float  # the curve at its onset
    after: float  # the curve at its end
    ended: bool  # whether the curve turned again; otherwise the end is that of the rows, and may come later


@dataclass(frozen=True)
class Curve:
    """What the phases of a curve are.

    Attributes:
        phases: In their order, falling and rising in turn.
        noise: Standard deviation of its noise from row to row, at the largest value.
        least: The least share of the largest value by which a fall could have been told from that noise.
        few: Whether no row counts `COUNTED` units, so that no phase can be told.
    """

    phases: tuple[Phase, ...]
    noise: float
    least: float
    few: bool


def phases_of(steps: np.ndarray, values: np.ndarray, change: float, points: int | None = None) -> Curve:
    """Return the phases of a curve, shape (T,), of means of counts over so many points.

    A fall or rise counts if it is a share `change` of the higher of its ends, and more than the range that the noise
    seen between windows would have; both of moving means. Noise is that of the roots: counts vary more where they are
    larger. Where the points are not known and some rows are 0, the smallest of the others is taken for one count.
    """
    half = len(values) // ROWS_PER_SIDE
    means = _means(np.maximum(values, 0.0), 2 * half + 1)
    scaled = np.sqrt(means)
    least = WIDTHS[min(half, len(WIDTHS) - 1)] * _spread(means, 2 * half + 1)
    few = _few(values, points)
    turns = [] if few else _extremes(values, means, _turns(scaled, change, least), half)
    roots = np.sqrt(np.maximum(values, 0.0))
    noise = _noise(roots, range(1, 1 + min(max(len(roots) // ROWS_PER_LAG, 1), LAGS)))
    whole = max(noise, _autocorrelated(roots))
    about = [_about(steps, roots, row, whole) for row in turns]
    legs = [
        Phase(
            int(steps[a]),
            about[place],
            int(steps[b]),
            about[place + 1],
            float(values[a]),
            float(values[b]),
            place + 2 < len(turns),
        )
        for place, (a, b) in enumerate(pairwise(turns))
    ]
    top = float(scaled.max(initial=0.0))
    hidden = 1.0 - max(1.0 - least / top, 0.0) ** 2 if top else 0.0
    return Curve(tuple(legs), 2.0 * float(roots.max(initial=0.0)) * noise, hidden, few)


def _few(values: np.ndarray, points: int | None) -> bool:
    top, above = float(values.max(initial=0.0)), values[values > 0]
    if points is not None:
        return counts_few(top, points)
    return len(above) < len(values) and top < (COUNTED - 0.5) * float(above.min(initial=np.inf))


def counts_few(highest: float, points: int | None) -> bool:
    """Return whether the row whose mean over so many points is highest counts fewer units than `COUNTED`."""
    return points is not None and highest * points < COUNTED - 0.5


def _means(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of the window around each row, as far as there are rows."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _bends(values: np.ndarray, lag: int) -> np.ndarray:
    """Return the sizes of second differences, those of noise alone where the curve is straight or bends slowly."""
    return np.abs(values[2 * lag :] - 2 * values[lag:-lag] + values[: -2 * lag])


def _noise(values: np.ndarray, lags: Iterable[int]) -> float:
    """Return the standard deviation of the noise: the largest over lags, since rows that are neighbours may err alike.

    From second differences, which are those of the noise alone where the curve is straight or bends slowly.
    """
    return max((_deviation(bends) for lag in lags if len(bends := _bends(values, lag))), default=0.0)


def _autocorrelated(values: np.ndarray) -> float:
    """Return the standard deviation of the noise, that of a row correlating with that of the row before.

    The second differences of a first-order autoregression with correlation r are 2 (1 - r^h) (3 - r^h) times its
    variance at lag h, so that those at two lags tell r. Larger lags alone would take a curve that bends for noise.
    """
    far = min(max(len(values) // ROWS_PER_FAR, 2), FAR)
    if len(values) <= 2 * far:
        return 0.0
    near, wide = (_deviation(_bends(values, lag)) for lag in (1, far))
    r = np.linspace(0.0, ALIKE, 96)
    seen, at_far = ((1 - r**lag) * (3 - r**lag) / 3 for lag in (1, far))
    return near / math.sqrt(np.interp((wide / near) ** 2, at_far / seen, seen)) if near else 0.0


def _spread(means: np.ndarray, window: int) -> float:
    """Return the standard deviation of the roots of means, from window to window."""
    bends, levels = _bends(means, window), means[window:-window]
    some = levels > 0
    # Divided by the slope of the root, so that a straight stretch of the curve itself adds nothing.
    return _deviation(bends[some] / (2.0 * np.sqrt(levels[some]))) if some.any() else 0.0


def _deviation(bends: np.ndarray) -> float:
    return float(1.4826 * np.median(bends) / math.sqrt(6.0))


def _turns(values: np.ndarray, change: float, least: float) -> list[int]:
    """Return the rows of the extremes between which a curve, given by its roots, moves enough."""
    share = math.sqrt(1.0 - change)

    def far(high: float, low: float) -> bool:
        return low <= share * high and high - low >= least and high > low

    turns: list[int] = []
    top = bottom = 0  # rows of the largest and smallest value since the last turn
    way = 0  # of the phase under way: 1 up, -1 down, 0 none yet
    for row, value in enumerate(values):
        if value > values[top]:
            top = row
        if value < values[bottom]:
            bottom = row
        if way >= 0 and far(values[top], value):
            turns.append(top)
            way, bottom, top = -1, row, row
        elif way <= 0 and far(value, values[bottom]):
            turns.append(bottom)
            way, bottom, top = 1, row, row
    if way:
        turns.append(top if way > 0 else bottom)
    return turns


def _extremes(values: np.ndarray, means: np.ndarray, turns: Sequence[int], half: int) -> list[int]:
    """Return the rows of the extremes, each at most `half` rows from that of the means and not past midway."""
    found = []
    ends = [0, *((a + b) // 2 + 1 for a, b in pairwise(turns)), len(values)]
    sign = 1.0 if turns and means[turns[0]] > means[turns[1]] else -1.0
    for row, low, high in zip(turns, ends, ends[1:], strict=False):
        first = max(row - half, low)
        found.append(first + int(np.argmax(sign * values[first : min(row + half + 1, high)])))
        sign = -sign
    return found


def _about(steps: np.ndarray, values: np.ndarray, row: int, noise: float) -> tuple[int, int]:
    """Return the steps around an extreme in between which the curve cannot be told from it.

    They end at the first rows that are farther from it than the range which the noise of as many rows would have in 5%
    of the cases at most: the extreme is the row whose noise is the largest of those that are alike, and not typical.
    """
    from scipy.special import ndtri

    near = np.abs(values - values[row]) <= 2.0 * float(ndtri(0.5 + 0.5 * 0.95 ** (1 / len(values)))) * noise
    low = high = row
    while low > 0 and (near[low] or low == row):
        low -= 1
    while high < len(values) - 1 and (near[high] or high == row):
        high += 1
    return int(steps[low]), int(steps[high])
