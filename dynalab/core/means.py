"""Means over runs, or over pairs that share runs, and what two of them differ by, with 95% intervals.

Student's interval, Welch's and that of pairs take the runs that were drawn to show how runs vary. Shares, accuracies,
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

# Runs below which there is no interval over pairs: of fewer it says next to nothing, and misses in up to 9%.
LEAST = 5
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


def intervals_words(found: Iterable[tuple[int, Bounds]]) -> str:
    """Return what a caption says of 95% intervals of means over so many runs each: why some have none."""
    missing = [runs for runs, interval in found if runs and interval == OPEN]
    why = ["half of the runs have the lowest or highest value"] if any(runs > 1 for runs in missing) else []
    why += ["there is one run"] if 1 in missing else []
    return f"95% intervals{', none where ' if why else ''}{' or '.join(why)}"


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


def pairs_interval(ends: np.ndarray, values: np.ndarray, likeness: bool = False) -> Bounds:
    """Return the 95% interval, over runs, of the mean of a number of pairs of runs.

    Pairs that share runs are not independent: of pairs of every run and the next one Student's interval misses in 15%
    to 25%, of all pairs in half. The jackknife's over runs (Arvesen 1969) is too wide for the former. Of all pairs it
    sees what each run adds, the first projection of Hoeffding (1948), and not what a pair has beyond its runs. Of two
    kinds of runs, half of each, that is all there is: whichever runs were drawn, the mean is near its largest, and the
    jackknife, which then finds next to no error, misses in up to 30%. So an error is

    - not below that of as many pairs that share no run, for what pairs share makes them vary together;
    - larger to the side of pairs that are alike by t^2 d / n, d the deviation of what pairs have beyond their runs: the
      mean is curved, and runs that are more of the one kind or more of the other are nearer to each other.

    Of all pairs the interval is a quarter wider than the jackknife's alone, and misses in at most 7%. None is given of
    fewer than `LEAST` runs, where leaving one out leaves no pair, or where half of the pairs are at an end (`heaped`).
    It is of kinds of runs that were seen: one that has a tenth of all runs has none of ten in a third of the cases.

    Args:
        ends: Two runs that are not one, of every pair: numbers from 0 on that are all there, shape (E, 2).
        values: The number of every pair, shape (E,), finite.
        likeness: Whether it is the larger the more two runs are alike; else it is a distance.
    """
    from scipy.special import stdtrit

    pairs, n = len(values), int(ends.max(initial=-1)) + 1
    if n < LEAST or heaped(values):
        return OPEN
    counts = pairs - np.bincount(ends.ravel())
    if not counts.all():
        return OPEN
    mean = float(values.mean())
    left = -np.bincount(ends.ravel(), np.repeat(values - mean, 2)) / counts
    variance = (n - 1) / n * float(np.square(left - left.mean()).sum())
    spread = float(values.var(ddof=1))
    beyond = math.sqrt(max(spread - variance * n / 2, 0.0)) * pairs / math.comb(n, 2)
    t = float(stdtrit(n - 1, 0.975))
    least, reach = t * math.sqrt(spread / pairs), t * math.sqrt(variance)
    near, far = max(reach + t**2 * beyond / n, least), max(reach, least)
    return (mean - far, mean + near) if likeness else (mean - near, mean + far)


def mean_over_pairs(
    items: Iterable[tuple[str, str, float]], likeness: bool = False
) -> tuple[int, float | None, Bounds]:
    """Return how many pairs of runs have a number, its mean, None of none, and `pairs_interval` of it.

    Pairs that share no run are as many values, also of a run and itself at another step.

    Args:
        items: The ids of both and the number, in any order.
        likeness: Whether it is the larger the more two runs are alike; else it is a distance.
    """
    known = sorted(items)
    if not known:
        return 0, None, OPEN
    values = np.array([value for *_, value in known])
    runs, ends = np.unique([both for *both, _ in known], return_inverse=True)
    if len(runs) == sum(len(set(both)) for *both, _ in known):
        return mean_over(values)
    return len(known), float(values.mean()), pairs_interval(ends.reshape(-1, 2), values, likeness)


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
