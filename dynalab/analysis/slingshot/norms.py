"""The cycle of a norm around spikes: growth before, a plateau after (Thilak et al. 2022, arXiv 2206.04817).

The slope of the log norm is taken over a window before the onset and over one that begins when the loss has come half
of its way down. Growth that slows down by itself (a norm that saturates) is carried on into the second window, so that
it is no plateau; neither is a norm that falls faster than it grew, as under weight decay. Measured on runs with
slingshots: after/before mostly below .1, above .5 for 2 of 49.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.slingshot.spikes import Spike
from dynalab.core.stats import noise_of, theil_sen

# After/before below which the norm counts as standing still.
PLATEAU = 0.5
# Share of the distance to the next spike that the windows before and after have, and rows that they have at least.
BEFORE, AFTER, ROWS = 0.35, (0.25, 0.12), 40


@dataclass(frozen=True)
class Cycle:
    """What the norm did around one spike; slopes are of its natural logarithm, a step."""

    before: float  # slope before the onset; NaN where there are too few rows
    after: float  # slope after
    expected: float  # slope after if growth had gone on as it was slowing down before
    error: float  # standard error of `after - PLATEAU * expected`
    growth: float  # change of the log norm over the window before
    verdict: bool | None  # True for growth and plateau, False for not, None where the rows cannot tell

    @property
    def ratio(self) -> float | None:
        """After over before, None where there is no growth before."""
        return self.after / self.before if self.before > 0 and np.isfinite(self.after) else None


def cycles(
    steps: np.ndarray, values: np.ndarray, norm: np.ndarray, spikes: Sequence[Spike], window: float = 200.0
) -> list[Cycle]:
    """Return what the norm (T,), positive, did around each spike of a log10 loss (T,).

    What one spike's rows cannot tell is decided by the spikes of the run together. The window, in steps, is that where
    no other spike is near; it has 40 rows at least.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.log(np.asarray(norm, dtype=np.float64))
    usable = np.isfinite(height)
    if usable.sum() < 10:
        return [_NOTHING] * len(spikes)
    long, short = (_around(steps, values, height, spikes, window, share) for share in AFTER)
    # A plateau may be short against the distance of two spikes; steady growth is steady in either window.
    return short if len(spikes) > 1 and _agreed(short) and not _agreed(long) else long


def _agreed(around: Sequence[Cycle]) -> bool:
    return 2 * sum(cycle.verdict is True for cycle in around) > len(around)


def _around(
    steps: np.ndarray,
    values: np.ndarray,
    height: np.ndarray,
    spikes: Sequence[Spike],
    window: float,
    share: float,
) -> list[Cycle]:
    """Return the cycles of a log norm (T,), the window after a spike being a share of the distance to the next."""
    usable = np.isfinite(height)
    noise = noise_of(height[usable])
    unit = max(window, ROWS * float(np.median(np.diff(steps))))
    onsets = [float(steps[spike.onset]) for spike in spikes]
    calms = [float(steps[_half_way(values, spike)]) for spike in spikes]
    gaps = [np.inf, *np.diff(onsets).tolist(), np.inf]
    around = []
    for place, (onset, calm) in enumerate(zip(onsets, calms, strict=True)):
        former = calms[place - 1] if place else float(steps[0])
        following = onsets[place + 1] if place + 1 < len(spikes) else float(steps[-1])
        gap = min(gaps[place : place + 2])
        known = np.isfinite(gap)
        length = min(max(unit, BEFORE * gap), 0.5 * gap) if known else unit
        first = (steps >= max(onset - length, former)) & (steps <= onset) & usable
        length = share * gap if known else unit
        start = calm + 0.1 * length
        second = (steps >= start) & (steps <= min(start + length, following)) & usable
        around.append(_cycle(steps, height, first, second, noise))
    return _pooled(around)


_NOTHING = Cycle(np.nan, np.nan, np.nan, np.nan, np.nan, None)


def _half_way(values: np.ndarray, spike: Spike) -> int:
    """Return the row at which the loss has come down half of the decades for good, or the last of the spike."""
    end = len(values) - 1 if spike.end is None else spike.end
    high = np.flatnonzero(values[spike.peak : end + 1] > spike.level + 0.5 * spike.decades)
    return min(spike.peak + (int(high[-1]) + 1 if len(high) else 0), len(values) - 1)


def _cycle(
    steps: np.ndarray, height: np.ndarray, first: np.ndarray, second: np.ndarray, noise: float
) -> Cycle:
    if first.sum() < 4 or second.sum() < 4:
        return _NOTHING
    before, error = theil_sen(steps[first], height[first], noise)
    after, error_after = theil_sen(steps[second], height[second], noise)
    expected = before
    rows = np.flatnonzero(first)
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    if min(map(len, halves)) >= 4:
        (early, _), (late, error_late) = (theil_sen(steps[half], height[half], noise) for half in halves)
        if early > late > 3 * error_late:
            # Growth that slows down geometrically, carried on from the middle of the first window.
            distance = (steps[second].mean() - steps[first].mean()) / np.ptp(steps[first])
            expected = before * (late / early) ** (2 * distance)
    total = float(np.hypot(error_after, PLATEAU * error))
    growth = before * float(np.ptp(steps[first]))
    apart = after - PLATEAU * expected
    verdict: bool | None = None
    if before <= 0 and -before > 2 * error:
        verdict = False
    elif after < -expected - 2 * float(np.hypot(error_after, error)):
        # It falls faster than it grew: weight decay, not a plateau.
        verdict = False
    elif before > 3 * error and abs(apart) > 2 * total:
        verdict = bool(apart < 0)
    return Cycle(before, after, expected, total, growth, verdict)


def _pooled(around: list[Cycle]) -> list[Cycle]:
    """Decide what single spikes leave open by the medians over all, of three or more."""
    known = [cycle for cycle in around if np.isfinite(cycle.before) and np.isfinite(cycle.after)]
    if len(known) < 3:
        return around
    expected, after, error = np.median([(item.expected, item.after, item.error) for item in known], axis=0)
    error = error * 1.25 / np.sqrt(len(known))
    clear = bool(expected > 2 * error and PLATEAU * expected - after > 2 * error)
    return [replace(cycle, verdict=clear) if cycle.verdict is None else cycle for cycle in around]
