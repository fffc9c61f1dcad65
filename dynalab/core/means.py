"""Means over runs, or over pairs that share runs, and what two of them differ by, with 95% intervals.

Student's interval, Welch's and the jackknife's take the runs that were drawn to show how runs vary. Shares, accuracies,
barriers and counts have ends that many runs are at: what lies away from these is then in few, and the intervals miss
too often. Nothing that was seen says how far away the rest can be, so there is none (`heaped`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Bounds = tuple[float | None, float | None]
OPEN: Bounds = (None, None)

# Runs below which there is no interval over pairs.
LEAST = 4
# Differences below this share of the values are rounding.
ROUNDING = 1e-12


def heaped(values: np.ndarray) -> bool:
    """Return whether half of the values (n,), two or more, are equal to the lowest or the highest.

    95% intervals of the mean then miss too often: Student's, of 20 values of which 93% are 0 on average, in 19%.
    """
    if len(values) < 2:
        return False
    rounding = ROUNDING * float(np.abs(values).max())
    most = max(int((np.abs(values - end) <= rounding).sum()) for end in (values.min(), values.max()))
    return most > 1 and 2 * most >= len(values)


def mean_interval(values: np.ndarray) -> Bounds:
    """Return Student's 95% interval of the mean of values (n,).

    None is given of fewer than two, where they do not vary, or where half of them are at an end (`heaped`).
    """
    return welch_interval([values])


def welch_interval(samples: Sequence[np.ndarray]) -> Bounds:
    """Return Welch's 95% interval of the first mean less the second, if there is one; Student's of one alone.

    None is given where a sample has fewer than two values, or half of its own at an end (`heaped`): also where it is
    beside one that varies more, for how much it varies is not known.
    """
    from scipy.special import stdtrit

    if any(len(values) < 2 or heaped(values) for values in samples):
        return OPEN
    estimate = float(samples[0].mean() - (samples[1].mean() if len(samples) > 1 else 0.0))
    errors = [float(values.var(ddof=1)) / len(values) for values in samples]
    freedom = sum(errors) ** 2 / sum(e**2 / (len(v) - 1) for e, v in zip(errors, samples, strict=True))
    reach = float(stdtrit(freedom, 0.975)) * math.sqrt(sum(errors))
    return estimate - reach, estimate + reach


def mean_over(values: Iterable[float | None]) -> tuple[int, float | None, Bounds]:
    """Return in how many runs a number is known, its mean there, None where in none, and its interval.

    Of one a run, in any order, None or not finite where it is not known. The interval is `mean_interval`'s.
    """
    known = np.array([value for value in values if value is not None], float)
    known = np.sort(known[np.isfinite(known)])
    if not len(known):
        return 0, None, OPEN
    return len(known), float(known.mean()), mean_interval(known)


def mean_over_pairs(items: Iterable[tuple[str, str, float]]) -> tuple[int, float | None, Bounds]:
    """Return how many pairs of runs have a number, its mean, None of none, and the jackknife's 95% interval over runs.

    Pairs that share runs are not independent: of pairs of every run and the next one Student's interval misses in 15%
    to 25%, of all pairs in half. The jackknife's is too wide for the former, and right for the latter. Pairs that
    share no run are as many values. There is no interval of fewer than four runs, where leaving one out leaves no
    pair, or where half of the pairs are at an end (`heaped`).

    Args:
        items: The ids of both and the number, in any order.
    """
    from scipy.special import stdtrit

    known = sorted(items)
    if not known:
        return 0, None, OPEN
    values = np.array([value for *_, value in known])
    mean, runs = float(values.mean()), sorted({run for one, other, _ in known for run in (one, other)})
    if len(runs) == 2 * len(known):
        return mean_over(values)
    parts = [values[[run not in (one, other) for one, other, _ in known]] for run in runs]
    n = len(runs)
    if n < LEAST or heaped(values) or not all(map(len, parts)):
        return len(known), mean, OPEN
    left = np.array([part.mean() for part in parts])
    error = math.sqrt((n - 1) / n * float(np.square(left - left.mean()).sum()))
    reach = float(stdtrit(n - 1, 0.975)) * error
    return len(known), mean, (mean - reach, mean + reach)


@dataclass(frozen=True)
class Mean:
    """A number over runs."""

    runs: int  # in how many it is known
    value: float | None  # its mean
    # 95% interval of that (Student); null where it is not known, or half of the runs have the lowest or highest value
    interval: Bounds = OPEN

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Mean:
        """Return it as `mean_over` does."""
        return cls(*mean_over(values))
