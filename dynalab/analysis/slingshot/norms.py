"""The cycle of a norm around spikes: growth before, a plateau after (Thilak et al. 2022, arXiv 2206.04817).

The slope of the log norm is taken over a window before the onset and over one that begins when the loss has come half
of its way down. Growth that slows down by itself (a norm that saturates) is carried on into the second window, so that
it is no plateau; neither is a norm that falls faster than it grew, as under weight decay. Measured on runs with
slingshots: after/before mostly below .1, above .5 for 2 of 49.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Return what the norm did around each spike.

    What one spike's rows cannot tell is decided by the spikes of the run together.

    Args:
        steps: Recorded steps, shape (T,).
        values: log10 of the loss, shape (T,).
        norm: The norm, shape (T,), positive.
        spikes: The spikes of this series.
        window: Steps of a window where no other spike is near; it has 40 rows at least.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.log(np.asarray(norm, dtype=np.float64))
    usable = np.isfinite(height)
    if usable.sum() < 10:
        return [_NOTHING for _ in spikes]
    long, short = (_around(steps, values, height, spikes, window, share) for share in AFTER)
    # A plateau may be short against the distance of two spikes; steady growth is steady in either window.
    return short if len(spikes) > 1 and _agreed(short) and not _agreed(long) else long


def _agreed(found: Sequence[Cycle]) -> bool:
    return 2 * sum(item.verdict is True for item in found) > len(found)


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
    spacing = float(np.median(np.diff(steps)))
    unit = max(window, ROWS * spacing)
    found = []
    for place, spike in enumerate(spikes):
        onset = float(steps[spike.onset])
        calm = _half_way(values, spike)
        former = float(steps[_half_way(values, spikes[place - 1])]) if place else float(steps[0])
        following = float(steps[spikes[place + 1].onset]) if place + 1 < len(spikes) else float(steps[-1])
        gap = min(
            onset - float(steps[spikes[place - 1].onset]) if place else np.inf,
            following - onset if place + 1 < len(spikes) else np.inf,
        )
        known = np.isfinite(gap)
        length = min(max(unit, BEFORE * gap), 0.5 * gap) if known else unit
        first = (steps >= max(onset - length, former)) & (steps <= onset) & usable
        length = share * gap if known else unit
        start = float(steps[calm]) + 0.1 * length
        second = (steps >= start) & (steps <= min(start + length, following)) & usable
        found.append(_cycle(steps, height, first, second, noise))
    return _pooled(found)


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


def _pooled(found: list[Cycle]) -> list[Cycle]:
    """Decide what single spikes leave open by the medians over all."""
    told = [item for item in found if np.isfinite(item.before) and np.isfinite(item.after)]
    if not told:
        return found
    expected = float(np.median([item.expected for item in told]))
    after = float(np.median([item.after for item in told]))
    error = float(np.median([item.error for item in told])) * 1.25 / np.sqrt(len(told))
    clear = expected > 2 * error and PLATEAU * expected - after > 2 * error
    agreed = clear and len(told) >= 3
    settled = []
    for item in found:
        verdict = item.verdict if item.verdict is not None else bool(agreed) if len(told) >= 3 else None
        settled.append(Cycle(item.before, item.after, item.expected, item.error, item.growth, verdict))
    return settled
