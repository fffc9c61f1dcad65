"""The phases of a curve: stretches on which it falls or rises by more than its noise.

Of local complexity over training they are known as first descent, ascent and second descent (Humayun et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FEWEST = 8  # rows below which no phase can be told
# By how much the range of n rows of white noise is exceeded at least, so that few rows whose noise is known badly raise
# no more than 5% of false alarms; by simulation.
SLACK = 4.0
# Rows that are neighbours err alike: noise is seen between rows up to so far apart, where there are so many for each.
LAGS, ROWS_PER_LAG = 4, 20


@dataclass(frozen=True)
class Phase:
    """A stretch on which the curve falls or rises."""

    onset_step: int  # step of the row that it goes out from, the extreme before it
    # Steps between which the curve cannot be told from that extreme by its noise from row to row.
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
    """

    phases: tuple[Phase, ...]
    noise: float
    least: float


def width(n: int) -> float:
    """Return how many standard deviations of white noise the range of n rows exceeds in fewer than 5% of the cases."""
    return 2.0 * math.sqrt(2.0 * math.log(max(n, 2))) * (1.0 + SLACK / n) + SLACK / math.sqrt(n)


def phases_of(steps: np.ndarray, values: np.ndarray, change: float) -> Curve:
    """Return the phases of a curve, shape (T,).

    A fall or rise counts if it is a share `change` of the higher of its ends, and more than the range that noise of the
    size that is seen from row to row would have. Noise is that of the roots: counts vary more where they are larger.
    """
    roots = np.sqrt(np.maximum(values, 0.0))
    noise = _noise(roots)
    least = noise * width(len(values))
    turns = _turns(roots, change, least)
    about = [_about(steps, roots, row, noise) for row in turns]
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
    top = float(roots.max(initial=0.0))
    hidden = 1.0 - max(1.0 - least / top, 0.0) ** 2 if top else 0.0
    return Curve(tuple(legs), 2.0 * top * noise, hidden)


def _noise(values: np.ndarray) -> float:
    """Return the standard deviation of the noise: the largest over lags, since rows that are neighbours may err alike.

    From second differences, which are those of the noise alone where the curve is straight or bends slowly.
    """
    lags = range(1, 1 + min(max(len(values) // ROWS_PER_LAG, 1), LAGS))
    bends = [np.abs(values[2 * lag :] - 2 * values[lag:-lag] + values[: -2 * lag]) for lag in lags]
    return (
        max(float(1.4826 * np.median(bend) / math.sqrt(6.0)) for bend in bends if len(bend))
        if bends[0].size
        else 0.0
    )


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


def _about(steps: np.ndarray, values: np.ndarray, row: int, noise: float) -> tuple[int, int]:
    """Return the steps around an extreme in between which the curve is within twice the noise of a difference of it.

    They end at the first rows that are not.
    """
    near = np.abs(values - values[row]) <= 2.0 * math.sqrt(2.0) * noise
    low = high = row
    while low > 0 and (near[low] or low == row):
        low -= 1
    while high < len(values) - 1 and (near[high] or high == row):
        high += 1
    return int(steps[low]), int(steps[high])
