"""Two settings beside each other: by how much the runs of one are later, or higher, than those of the other.

Every p is that of a permutation test, which is exact where the runs are exchangeable; every interval holds what the
same test, or Welch's, does not refuse. Runs of the same seed are compared with each other where there are enough of
them: labels are then exchanged within a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from dynalab.analysis.compare.permutation import Flips, PermutationTest, Splits
from dynalab.analysis.compare.samples import Times, Values, shared
from dynalab.core.means import OPEN, ROUNDING, Bounds, mean_interval, welch_interval
from dynalab.core.stats import ratio_interval
from dynalab.core.survival import LEVEL, crossing, differences, gehan_scores

# The share of the runs of the larger setting whose seeds both have, from which on runs are compared seed by seed; and
# how far the least p of so many seeds must be below the level, among all pairs. Neither looks at the runs' values: to
# choose by how much alike the runs of a seed are made 7.0% of null pairs significant at 5% (8 and 10 seeds).
SHARE = 0.8
ROOM = 5


@dataclass(frozen=True)
class Gap:
    """What lies between two settings, the second against the first.

    Attributes:
        estimate: By how much a run of the second is later or higher; None where it is not known.
        interval: 95% interval of it.
        ratio: How many times as late or high.
        ratio_interval: 95% interval of it.
        p: Two-sided.
        log_rank_p: Of times, that of the log-rank test, which weighs late events as much as early ones.
        least_p: The least that these numbers of runs could give.
        paired: Whether runs of the same seed were compared.
        runs: How many of the first and of the second.
    """

    estimate: float | None
    interval: Bounds
    ratio: float | None
    ratio_interval: Bounds
    p: float
    least_p: float
    paired: bool
    runs: tuple[int, int]
    log_rank_p: float | None = None


def between_times(one: Times, other: Times, n_pairs: int = 1) -> Gap:
    """Compare when runs of two settings reached a landmark, those that never did included.

    The test is Gehan's (1965), Wilcoxon's in censored data, by permutation; the estimate is the shift at which it sees
    no difference (Hodges and Lehmann, 1963), the median of the differences of runs where all are known, and the
    interval the shifts that it does not refuse; of the ratio likewise, on logarithms. Beyond the step up to which both
    settings were watched nothing is compared. `n_pairs` are compared in all.
    """
    seeds = paired_labels(one, other, n_pairs)
    one, other = (one.of(seeds), other.of(seeds)) if seeds else (one, other)
    time, observed = together(one, other)
    n, m = len(one.labels), len(other.labels)
    test = Flips(n) if seeds else Splits(n, m)
    p, critical = test.p_and_critical(gehan_scores(time, observed))
    estimate, interval = _shift(time, observed, test, critical)
    ratio: float | None = None
    ratio_interval = OPEN
    if time.min() > 0:
        logs, ends = _shift(np.log(time), observed, test, critical)
        ratio = None if logs is None else math.exp(logs)
        low, high = (None if end is None else math.exp(end) for end in ends)
        ratio_interval = low, high
    log_rank, _ = test.p_and_critical(_log_rank_scores(time, observed))
    return Gap(estimate, interval, ratio, ratio_interval, p, test.least_p, bool(seeds), (n, m), log_rank)


def together(one: Times, other: Times) -> tuple[np.ndarray, np.ndarray]:
    """Return (time, observed) of the runs of two settings, (n + m,), up to where both were watched."""
    # A run that diverged is watched for ever: it never gets there.
    ends = [item.last[np.isfinite(item.last)] for item in (one, other)]
    reach = min((float(end.max()) for end in ends if len(end)), default=0.0)
    times = [item.until(reach) for item in (one, other)]
    time, observed = (np.concatenate([item[part] for item in times]) for part in (0, 1))
    return time, observed


def _log_rank_scores(time: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the scores of the log-rank test: events less those that were to be expected (Nelson and Aalen)."""
    moments = np.unique(time[observed])
    events = (observed & (time == moments[:, None])).sum(axis=1)
    risk = (time >= moments[:, None]).sum(axis=1)
    expected = ((time >= moments[:, None]) * (events / np.maximum(risk, 1))[:, None]).sum(axis=0)
    return np.asarray(expected - observed)


def between_values(one: Values, other: Values, n_pairs: int = 1, sign: int | None = None) -> Gap:
    """Compare the means of a metric over the runs of two settings.

    Welch's t statistic by permutation (Janssen, 1997: right for unequal variances too), and Welch's interval; of runs
    of the same seed that of the mean of their differences. The ratio is that of the means where all values are
    positive, its interval from those of the two (Zou and Donner, 2008).

    Where runs are lost the others are no sample of all: these count as worse than any value, by `sign` (1: less is
    better), and ranks are compared instead (Lachin, 1999), as those of steps are. Nothing is told without a sign.
    """
    if one.lost or other.lost:
        return _with_lost(one, other, sign)
    seeds = paired_labels(one, other, n_pairs)
    one, other = (one.of(seeds), other.of(seeds)) if seeds else (one, other)
    x, y = one.values, other.values
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return Gap(None, OPEN, None, OPEN, 1.0, 1.0, bool(seeds), (n, m))
    test = Flips(n) if seeds else Splits(n, m)
    ratio, ratio_interval = _ratio(x, y)
    interval = mean_interval(y - x) if seeds else welch_interval([y, x])
    estimate = float(y.mean() - x.mean())
    return Gap(
        estimate, interval, ratio, ratio_interval, test.p_of_means(x, y), test.least_p, bool(seeds), (n, m)
    )


def _with_lost(one: Values, other: Values, sign: int | None) -> Gap:
    """Compare a metric by ranks, the runs that are lost last; a shift beyond all differences of values is open."""
    n, m = (len(item.values) + item.lost for item in (one, other))
    known = np.concatenate([one.values, other.values])
    if sign is None or min(n, m) < 2 or not len(known):
        return Gap(None, OPEN, None, OPEN, 1.0, 1.0, False, (n, m))
    span = float(np.ptp(known) or np.abs(known).max() or 1.0)
    worst = float((sign * known).max()) + 4 * span
    time = np.concatenate(
        [part for item in (one, other) for part in (sign * item.values, np.full(item.lost, worst))]
    )
    observed, test = time < worst, Splits(n, m)
    p, critical = test.p_and_critical(gehan_scores(time, observed))
    estimate, ends = _shift(time, observed, test, critical)
    estimate, low, high = (
        None if end is None or abs(end) > span else sign * end for end in (estimate, *ends[::sign])
    )
    return Gap(estimate, (low, high), None, OPEN, p, test.least_p, False, (n, m))


def paired_labels(one: Times | Values, other: Times | Values, n_pairs: int = 1) -> list[str]:
    """Return the runs that are compared seed by seed; none where their seeds are too few.

    Of n seeds no p is below 2^(1-n), so among many pairs more are needed (8 seeds of one pair, 10 of three).
    """
    both = shared(one, other)
    most = max(len(one.labels), len(other.labels))
    return both if seed_by_seed(len(both), n_pairs) and len(both) >= SHARE * most else []


def seed_by_seed(seeds: int, n_pairs: int) -> bool:
    """Return whether so many shared seeds are enough to compare runs seed by seed."""
    return n_pairs * 2.0 ** (1 - seeds) * ROOM <= LEVEL


def _shift(
    time: np.ndarray, observed: np.ndarray, test: PermutationTest, critical: float
) -> tuple[float | None, Bounds]:
    """Return by how much the second setting is later: where the test sees no difference, and what it does not refuse.

    The times of the second, censored ones too, are moved earlier. The statistic falls in steps, at the differences of
    two times: it is asked between these.
    """
    n = test.n
    steps = differences(time[n:], time[:n])
    # Differences that should be equal differ in the last digit, on logarithms above all.
    size = max(float(np.abs(time).max()), 1e-300)
    steps = steps[np.append(True, np.diff(steps) > ROUNDING * size * 100)]
    width = max(float(np.ptp(steps)), size) or 1.0
    between = np.concatenate([[steps[0] - width], (steps[1:] + steps[:-1]) / 2, [steps[-1] + width]])
    late = np.arange(len(time)) >= n

    @cache
    def standardised(place: int) -> float:
        scores = gehan_scores(np.where(late, time - between[place], time), observed)
        value, spread = test.statistic(scores)
        return value / spread if spread > 0 else 0.0

    left, right = crossing(standardised, steps, 0.0, False), crossing(standardised, steps, 0.0, True)
    estimate = None if left is None or right is None else (left + right) / 2
    return estimate, (
        crossing(standardised, steps, critical, False),
        crossing(standardised, steps, -critical, True),
    )


def _ratio(x: np.ndarray, y: np.ndarray) -> tuple[float | None, Bounds]:
    """Return the ratio of the mean of y to that of x, and its interval from those of the two; None below 0."""
    if min(x.min(), y.min()) <= 0:
        return None, OPEN
    ratio = float(y.mean() / x.mean())
    bounds = mean_interval(x), mean_interval(y)
    if any(low is None or low <= 0 for low, _ in bounds):
        return ratio, OPEN
    return ratio, ratio_interval((float(x.mean()), float(y.mean())), bounds)
