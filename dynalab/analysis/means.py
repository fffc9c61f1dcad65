"""A number over runs, or over pairs that share runs: its mean with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.compare.pairs import OPEN, Bounds, mean_interval

# Runs below which there is no interval over pairs.
LEAST = 4


def mean_over(values: Iterable[float | None]) -> tuple[int, float | None, Bounds]:
    """Return in how many runs a number is known, its mean there, None where in none, and Student's 95% interval.

    Of one a run, in any order, None or not finite where it is not known. There is no interval where runs do not vary,
    or half of them are at an end (`heaped`).
    """
    known = np.array([value for value in values if value is not None], float)
    known = np.sort(known[np.isfinite(known)])
    if not len(known):
        return 0, None, OPEN
    return len(known), float(known.mean()), OPEN if heaped(known) else mean_interval(known)


def heaped(values: np.ndarray) -> bool:
    """Return whether half of the values (n,), two or more, are equal to the lowest or the highest.

    Barriers and shares have ends, at which many runs can be. What lies away from these is then in few, and 95%
    intervals of the mean miss too often: Student's, of 20 values of which 93% are 0 on average, in 19%.
    """
    most = max(int((values == end).sum()) for end in (values.min(), values.max()))
    return most > 1 and 2 * most >= len(values)


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
