"""Spikes of a loss: excursions above its own recent level, with onset, peak and end.

Everything is done on the decimal logarithm of the loss, at the steps that were recorded. A row's level is the median of
the rows before it, over a long and a short window, the lower of the two (the loss falls by decades between two spikes,
and the long median lags behind). A spike rises `rise` decades above that level; measured slingshots rise 5.9 to 11. Its
onset is the first row of the rise more than half a decade up, its end the first row after the peak within one decade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.core.runs import Run, Series
from dynalab.core.stats import noise_of

# A run is fitted when its accuracy has been 1 for so many steps.
FITTED = 100
# Rows this many steps (and rows) around a spike belong to one event: slingshots bounce.
MERGE_STEPS = 100
QUIET_ROWS = 20
ONSET, END = 0.5, 1.0


@dataclass(frozen=True)
class Spike:
    """One excursion; all places are rows of the series."""

    onset: int  # first row of the rise
    peak: int  # row of the largest loss
    end: int | None  # first row within a decade of the level before; None where the series ends before
    level: float  # log10 of the loss before
    decades: float  # height of the peak above the level


def largest_loss(run: Run) -> Series | None:
    """Return the largest training loss known at each of its rows; short spikes between two rows stand only there."""
    loss, largest = run.first("train_loss"), run.first("train_loss_max")
    if loss is None or largest is None:
        return loss
    return Series(loss.steps, np.fmax(loss.values, largest.at(loss.steps)))


def until_it_ends(loss: Series, last: float) -> tuple[Series, bool]:
    """Return a loss, of two rows at least, up to where it is no longer finite, and whether it ended so.

    A series leaves NaN out: it ended in NaN where the run's `last` row is beyond the next one that was due.
    """
    missing = last - loss.steps[-1] >= np.median(np.diff(loss.steps))
    bad = np.flatnonzero(~np.isfinite(loss.values))
    end = int(bad[0]) if len(bad) else len(loss)
    return Series(loss.steps[:end], loss.values[:end]), bool(len(bad) or missing)


def fitted_from(loss: Series, accuracy: Series | None) -> float | None:
    """Return the step from which spikes count: 100 steps after the run has fitted its training data.

    With accuracies: the first row after 100 steps of accuracy 1. Without (or where it is never 1, as with wrong
    labels): from 100 steps after the first time that the median of five rows is a twentieth of the loss at the
    beginning or .05, at once where the series begins so low. None where it is never reached.
    """
    if accuracy is not None:
        wrong = accuracy.steps[accuracy.values < 1.0]
        for began in accuracy.steps[accuracy.values >= 1.0]:
            later = wrong[wrong >= began]
            if not len(later) or later[0] - began >= FITTED:
                return float(began + FITTED)
    values = loss.values
    if len(loss) < 5:
        return None
    level = np.array([np.median(values[max(row - 4, 0) : row + 1]) for row in range(len(loss))])
    low = np.flatnonzero(level <= max(0.05, 0.05 * values[0]))
    if not len(low):
        return None
    if low[0] == 0:
        return float(loss.steps[0])
    # Steps, but no more rows than a spike's level needs: a series may count rows.
    spacing = float(np.median(np.diff(loss.steps)))
    return float(loss.steps[low[0]] + min(FITTED, 40 * spacing))


def log_loss(loss: np.ndarray) -> np.ndarray:
    """Return log10 of a loss (T,), what is 0 taken as the smallest positive value that was recorded.

    A float32 cross-entropy is 0 below 2^-23 an example, so the recorded minimum is where the scale ends.
    """
    loss = np.asarray(loss, dtype=np.float64)
    some = loss[np.isfinite(loss) & (loss > 0)]
    floor = float(some.min()) if len(some) else 1.0
    return np.log10(np.clip(loss, floor, None))


def levels(steps: np.ndarray, values: np.ndarray, window: float) -> np.ndarray:
    """Return the level before every row of a log10 loss (T,), shape (T,); NaN where fewer than three rows come before.

    The long window, in steps, has 40 rows at least, the short one a fifth of its rows, five at least.
    """
    gap = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    long = max(round(window / gap), 40)
    short = max(long // 5, 5)
    return np.fmin(_medians_before(values, short), _medians_before(values, long))


def _medians_before(values: np.ndarray, rows: int) -> np.ndarray:
    """Return the median of the `rows` values before each (as many as there are), NaN where fewer than three are."""
    result = np.full(len(values), np.nan)
    for row in range(3, min(rows, len(values))):
        result[row] = np.median(values[:row])
    if len(values) > rows:
        windows = np.lib.stride_tricks.sliding_window_view(values[:-1], rows)
        # At most some forty values of a window: a median needs no more, and long windows would take their time.
        result[rows:] = np.median(windows[:, :: max(rows // 40, 1)], axis=1)
    return result


def find_spikes(
    steps: np.ndarray, loss: np.ndarray, *, armed_from: float = 0.0, window: float = 200.0, rise: float = 2.0
) -> list[Spike]:
    """Return the spikes of a finite loss (T,) in their order.

    Those that rise before `armed_from` are training that has not settled, and do not count. The rise is in decades:
    twice the measurement noise is allowed for, and it is six times the noise at least.
    """
    if len(steps) < 5:
        return []
    values = log_loss(loss)
    level = levels(steps, values, window)
    settled = values[steps >= armed_from]
    noise = noise_of(settled) if len(settled) > 5 else 0.0
    least = max(rise - 2 * noise, 6 * noise, 0.5 * rise)
    spikes: list[Spike] = []
    row = int(np.searchsorted(steps, armed_from))
    while row < len(values):
        if not values[row] - level[row] >= least:
            row += 1
            continue
        spike = _grow(steps, values, level, row, noise)
        spikes = _joined(spikes, spike, steps, values)
        row = (spike.end if spike.end is not None else len(values)) + 1
    return spikes


def _grow(steps: np.ndarray, values: np.ndarray, level: np.ndarray, row: int, noise: float) -> Spike:
    """Follow one excursion from the row that gave it away to its onset and its end."""
    base = float(level[row])
    onset = row
    while onset > 0 and values[onset - 1] >= base + max(ONSET, 2 * noise):
        onset -= 1
    peak, end = row, None
    for place in range(row + 1, len(values)):
        if values[place] > values[peak]:
            # Far above where it had fallen to, and long after: the next spike, not this one's peak.
            if _is_next(steps, values, peak, place):
                end = peak + int(np.argmin(values[peak:place]))
                break
            peak = place
        elif values[place] < base + max(END, 2 * noise):
            end = place
            break
        elif values[place] - level[place] >= 2.0 and _is_next(steps, values, peak, place):
            end = peak + int(np.argmin(values[peak:place]))
            break
    return Spike(onset, peak, end, base, float(values[peak] - base))


def _is_next(steps: np.ndarray, values: np.ndarray, peak: int, place: int) -> bool:
    """Whether a rise at `place` is a spike of its own after one that peaked and did not come down all the way."""
    since = values[peak:place]
    apart = steps[place] - steps[peak] >= MERGE_STEPS and place - peak >= QUIET_ROWS
    return bool(apart and len(since) and values[place] - since.min() >= 2.0)


def _joined(spikes: list[Spike], spike: Spike, steps: np.ndarray, values: np.ndarray) -> list[Spike]:
    """Add a spike to those before it, as a part of the last one where that has not had its rest yet."""
    if not spikes:
        return [spike]
    *earlier, last = spikes
    near = steps[spike.onset] - steps[last.peak] < MERGE_STEPS
    quiet = int((values[last.end : spike.onset] < last.level + END).sum())
    if last.end is None or not near or quiet >= QUIET_ROWS:
        return [*spikes, spike]
    peak = spike.peak if values[spike.peak] > values[last.peak] else last.peak
    return [*earlier, Spike(last.onset, peak, spike.end, last.level, float(values[peak] - last.level))]


def period_of(onsets: Sequence[int]) -> tuple[float | None, float | None]:
    """Return the median distance of onsets in steps (from two on), and its coefficient of variation (from three on)."""
    gaps = np.diff(np.asarray(onsets, dtype=float))
    if not len(gaps):
        return None, None
    return float(np.median(gaps)), float(gaps.std(ddof=1) / gaps.mean()) if len(gaps) > 1 else None
