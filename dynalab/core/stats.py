"""Medians and quartiles over runs, of values and of steps of which some never came; what a first passage does not say.

The one way that terminal, page and JSON take them: `quantile`. What a probe records of the weights or margins of one
run is the lower of two middle values, as published, and says so.

Only the standard library: the command line uses it when it starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Ranks that should be whole differ by less.
ROUNDING = 1e-9


def quantile(values: Iterable[float | None], share: float) -> float | None:
    """Return the value below which a share (above 0) of the runs is; the median is midway between two middle values.

    Hyndman and Fan's (1996) second definition, NumPy's `averaged_inverted_cdf`: where the share is of a whole number of
    runs, the middle between the last of these and the next; else the value of one run. A run that never got there,
    None or infinity, counts as later, or larger, than all others: where the next is such a one there is no middle, and
    the step stands by which the share was there; where all beyond are, or there are no runs, it is None.
    """
    ordered = sorted(math.inf if value is None else float(value) for value in values)
    if not ordered:
        return None
    rank = share * len(ordered)
    value = ordered[max(math.ceil(rank - ROUNDING) - 1, 0)]
    after = ordered[min(math.floor(rank + ROUNDING), len(ordered) - 1)]
    if not math.isfinite(value):
        return None
    return (value + after) / 2 if math.isfinite(after) else value


def quartiles(values: Iterable[float | None]) -> tuple[float | None, float | None, float | None]:
    """Return lower quartile, median and upper quartile as `quantile` has them."""
    some = list(values)
    return quantile(some, 0.25), quantile(some, 0.5), quantile(some, 0.75)


@dataclass(frozen=True)
class Spread:
    """Where a value lies over runs; None where a quartile falls among runs in which it is not known, or never came."""

    runs: int  # how many runs
    reached: int  # in how many of them it is known
    median: float | None  # the median
    quartiles: tuple[float | None, float | None]  # the lower and the upper one

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return it for one value a run; None is later, or larger, than all others."""
        low, middle, high = quartiles(values)
        reached = sum(value is not None and math.isfinite(value) for value in values)
        return cls(len(values), reached, middle, (low, high))


def clopper_pearson(count: int, total: int, tail: float = 0.025) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson, 1934): it never errs more often than twice the tail.

    Wilson's (1927) errs in one of eight ensembles of 24 runs where the share is .995.
    """
    from scipy.special import betaincinv

    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    return low, float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values for which the chance of any false one is held (Holm, 1979), in the order of the given ones."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, ps[place] * (len(ps) - rank)))
        adjusted[place] = highest
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the share of false discoveries among several (Benjamini and Hochberg, 1995)."""
    order = sorted(range(len(ps)), key=lambda place: ps[place], reverse=True)
    adjusted, lowest = [0.0] * len(ps), 1.0
    for behind, place in enumerate(order):
        lowest = min(lowest, ps[place] * len(ps) / (len(ps) - behind))
        adjusted[place] = lowest
    return adjusted


def ratio_interval(values: Sequence[float], bounds: Sequence[Any]) -> tuple[float, float]:
    """Return the interval of the ratio of the second of two positive values to the first, from their own intervals.

    Newcombe's way for logarithms (Zou and Donner, 2008): what is known of each is kept on its side.
    """
    one, other = map(math.log, values)
    (low, high), (least, most) = (map(math.log, ends) for ends in bounds)
    down, up = math.hypot(other - least, high - one), math.hypot(most - other, one - low)
    return math.exp(other - one - down), math.exp(other - one + up)


def passage(steps: Sequence[float | None]) -> str:
    """Return what `quartiles` does of a first passage in words: `at step 300 (quartiles 200 to never)`."""
    low, middle, high = (None if step is None else f"{step:,.0f}" for step in steps)
    if low is None:
        return "in fewer than a quarter of the runs"
    if middle is None:
        return f"by step {low} in a quarter of the runs, not in half of them"
    return f"at step {middle} (quartiles {low} to {'never' if high is None else high})"


def fallen(summaries: Iterable[Mapping[str, Any]], landmark: str, metric: str, level: float | None) -> int:
    """Return how many runs reached a level and are below it in their last row; 0 where it is not known.

    A landmark, the key of a first passage in the `summary` of a run, does not say where the run is at the end.
    """
    reached = [summary for summary in summaries if summary.get(landmark) is not None]
    last = [(summary.get("final") or {}).get(metric) for summary in reached]
    return 0 if level is None else sum(value < level for value in last if value is not None)


# The number of pairs grows with the square.
MOST_POINTS = 150


def theil_sen(steps: np.ndarray, values: np.ndarray, noise: float = 0.0) -> tuple[float, float]:
    """Return the Theil-Sen slope of values (N,) over steps (N,), and its standard error under white noise.

    At most 150 of the points are taken, evenly; of `noise`, its standard deviation, at least what float64 resolves of a
    constant series. No two steps are equal.
    """
    import numpy as np

    steps, values = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(steps) > MOST_POINTS:
        chosen = np.unique(np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int))
        steps, values = steps[chosen], values[chosen]
    i, j = np.triu_indices(len(steps), 1)
    tilt = float(np.median((values[j] - values[i]) / (steps[j] - steps[i])))
    return tilt, float(max(noise, 1e-12) * np.sqrt(12 / len(steps)) / np.ptp(steps))


def noise_of(values: np.ndarray) -> float:
    """Return the standard deviation of a series' row-to-row noise, from the median of its absolute differences."""
    import numpy as np

    change = np.diff(values)
    change = change[np.isfinite(change)]
    return float(1.4826 * np.median(np.abs(change - np.median(change))) / np.sqrt(2)) if len(change) else 0.0
