"""Times of which some are only known to be later than the last look: quantiles, rank tests, shifts.

A run that never converged is right-censored at the last row of the metric that is watched. Nothing here assumes a
distribution of the times; p-values come from permuting the labels of runs, which is exact when runs are exchangeable.

Arrays: `time` (S,) and `observed` (S,) bool; where `observed` is False the event is later than `time`. `strata` (S,)
are the ensembles of the runs: runs are compared, and labels exchanged, within an ensemble only, so that what differs
between ensembles is no difference of the labels. None is one ensemble.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, reduce
from itertools import chain, combinations
from math import comb, inf, prod
from typing import Any

import numpy as np

DRAWS = 9999
# Numbers that are drawn at once; all permutations are gone through while their labels are no more.
ENTRIES = 1 << 22
LEVEL = 0.05
# Two-sided 95% point of the normal distribution.
Z95 = 1.959963984540054
# Products of shares that should be equal differ by less.
ROUNDING = 1e-12
# Slack for comparing sums of scores that should be equal.
TIE = 1e-9


def censored_times(
    convergence: Sequence[Mapping[str, Any]], last: np.ndarray | Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (time, observed), both (S,), of rows `{run, step, censored, last}`.

    A censored one has been watched up to its `last`; of rows without it (of older results) up to the argument's.
    """
    observed = np.array([not row["censored"] for row in convergence], dtype=bool)
    pairs = zip(convergence, last, strict=True)
    time = [row.get("last", end) if row["step"] is None else row["step"] for row, end in pairs]
    return np.array(time, dtype=np.float64), observed


def quantile(time: np.ndarray, observed: np.ndarray, share: float) -> float | None:
    """Return a quantile of the event time; None where censoring leaves it unknown.

    The inverse of Kaplan and Meier's (1958) estimate; where it stays at the share from one event to the next, the
    middle between the two. Without censoring, `core.stats.quantile`.
    """
    if not len(time):
        return None
    (found,) = quantiles(time, observed, share, np.ones((1, len(time))))
    return float(found) if np.isfinite(found) else None


def quantiles(time: np.ndarray, observed: np.ndarray, share: float, weights: np.ndarray) -> np.ndarray:
    """Return a quantile of each of B weighted samples, shape (B,); infinity where censoring leaves it unknown.

    `weights` (B, S) says how often each run is in each sample.
    """
    # A censoring at the same step as an event is later than it: the run was still watched there.
    order = np.lexsort((~observed, time))
    w = weights[:, order]
    risk = np.cumsum(w[:, ::-1], axis=1)[:, ::-1]
    alive = np.cumprod(1 - w * observed[order] / np.maximum(risk, 1), axis=1)
    ordered = time[order]
    reached, passed = alive <= 1 - share + ROUNDING, alive < 1 - share - ROUNDING
    first = np.where(reached.any(axis=1), ordered[reached.argmax(axis=1)], np.inf)
    return np.where(passed.any(axis=1), (first + ordered[passed.argmax(axis=1)]) / 2, first)


def strata_of(runs: Iterable[str]) -> np.ndarray:
    """Return the number of each run's ensemble, shape (S,), from run ids `<ensemble>/<label>`."""
    ensembles = [run.partition("/")[0] if "/" in run else "" for run in runs]
    return np.unique(ensembles, return_inverse=True)[1] if ensembles else np.zeros(0, dtype=np.int64)


def mixed(labels: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return which runs are in an ensemble whose runs bear different labels, bool of shape (S,)."""
    found = np.zeros(len(labels), dtype=bool)
    for one in np.unique(strata):
        found |= (strata == one) & (len(np.unique(labels[strata == one])) > 1)
    return found


def gehan_scores(time: np.ndarray, observed: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
    """Return for every run how many are certainly earlier, less how many are certainly later (Gehan, 1965).

    Wilcoxon's rank test in censored data; sums to 0 in every ensemble. Positive is late.
    """
    scores = np.zeros(len(time))
    for rows in _each(strata, len(time)):
        scores[rows] = _gehan_scores(time[rows], observed[rows])
    return scores


def _gehan_scores(time: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the scores within one ensemble; a run that is censored when another's event comes is later than it."""
    every, events, censored = (np.sort(some) for some in (time, time[observed], time[~observed]))
    earlier = np.searchsorted(events, time)
    earlier += np.where(observed, 0, np.searchsorted(events, time, side="right") - earlier)
    later = len(time) - np.searchsorted(every, time, side="right")
    later += np.searchsorted(censored, time, side="right") - np.searchsorted(censored, time)
    return np.asarray(earlier - np.where(observed, later, 0), dtype=np.float64)


def few(ways: int, n: int) -> bool:
    """Return whether all ways to label n runs are few enough to go through: then a test is exact."""
    return ways <= DRAWS or ways * n <= ENTRIES


def permutation_sums(scores: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, bool]:
    """Return the centred sums of `size` of the scores under permutation, and whether they are all there are.

    The last ones are those observed.
    """
    members, exact = splits(len(scores), size, seed)
    return np.asarray(members @ (scores - scores.mean())), exact


def splits(n: int, size: int, seed: int = 0) -> tuple[np.ndarray, bool]:
    """Return which `size` of n runs bear a label, (B, n) of 0 and 1, and whether these are all ways.

    Observed it is the last that bear it. Where all ways are too many, `DRAWS` of them are drawn, and of these left out
    what was observed (the first, too, where they are as many: the difference is as large), which is counted with them,
    so that no p is below 1 over their number (Phipson and Smyth, 2010).
    """
    exact = few(comb(n, size), n)
    return _every_split(n, size) if exact else _drawn_splits(n, size, seed, DRAWS), exact


@lru_cache(maxsize=8)
def _every_split(n: int, size: int) -> np.ndarray:
    ways = comb(n, size)
    places = np.fromiter(chain.from_iterable(combinations(range(n), size)), np.int64, ways * size)
    members = np.zeros((ways, n))
    np.put_along_axis(members, places.reshape(ways, size), 1.0, axis=1)
    return members


@lru_cache(maxsize=8)
def _drawn_splits(n: int, size: int, seed: int, draws: int) -> np.ndarray:
    members, rng = np.zeros((draws, n)), np.random.default_rng(seed)
    # Row after row, so a part at a time gives the same: of thousands of runs all places would take as much again.
    for some in np.array_split(members, -(-draws * n // ENTRIES)):
        places = rng.permuted(np.broadcast_to(np.arange(n), some.shape), axis=1)[:, :size]
        np.put_along_axis(some, places, 1.0, axis=1)
    observed = members[:, n - size :].all(axis=1)
    if n == 2 * size:
        observed |= members[:, :size].all(axis=1)
    return members[~observed]


def permutation_p(observed_sum: float, sums: np.ndarray, exact: bool) -> float:
    """Return the two-sided p-value of a centred sum among permuted ones."""
    beyond = int((np.abs(sums) >= abs(observed_sum) - TIE * max(1.0, abs(observed_sum))).sum())
    return beyond / len(sums) if exact else (1 + beyond) / (1 + len(sums))


def critical_size(sizes: np.ndarray, exact: bool) -> float:
    """Return the size from which on a p is at most .05, infinity where none is: of sizes (B,), ascending.

    In the middle between two sizes.
    """
    most = int(LEVEL * len(sizes) if exact else LEVEL * (1 + len(sizes)) - 1)
    # The least size that no more than so many reach; equal ones are reached together.
    place = len(sizes) - most
    if most and sizes[place - 1] > sizes[place] * (1 - TIE):
        place = int(np.searchsorted(sizes, sizes[place] * (1 + TIE), side="right"))
    return float(sizes[place] + sizes[place - 1]) / 2 if place < len(sizes) else inf


def two_sample(
    time: np.ndarray,
    observed: np.ndarray,
    group: np.ndarray,
    seed: int,
    strata: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Compare the runs in a group with the others.

    Returns Gehan's statistic (positive: the group is later), its two-sided permutation p-value, and the size that a
    standardised statistic must have to reach 5%.
    """
    scores = gehan_scores(time, observed, strata)
    statistic = float(scores[group].sum())
    sums, exact = _sums(scores, group, strata, seed)
    spread = _spread(scores, group, strata)
    critical = critical_size(np.sort(np.abs(sums)), exact) / spread if spread > 0 else Z95
    return statistic, permutation_p(statistic, sums, exact), critical


def _sums(
    scores: np.ndarray, group: np.ndarray, strata: np.ndarray | None, seed: int
) -> tuple[np.ndarray, bool]:
    """Return `permutation_sums` of the group: those of the ensembles, added up."""
    together = _ensembles(group, strata)
    ordered = [np.concatenate([scores[rows & ~group], scores[rows & group]]) for rows in together]
    parts = [
        permutation_sums(some, int(group[rows].sum()), seed)
        for some, rows in zip(ordered, together, strict=True)
    ]
    if len(parts) < 2:
        return parts[0] if parts else (np.zeros(1), True)
    if all(exact for _, exact in parts) and few(prod(len(part) for part, _ in parts), sum(map(len, ordered))):
        return reduce(np.add.outer, [part for part, _ in parts]).ravel(), True
    rng = np.random.default_rng(seed)
    return np.sum([rng.choice(part, DRAWS) for part, _ in parts], axis=0), False


def _ensembles(group: np.ndarray, strata: np.ndarray | None) -> list[np.ndarray]:
    """The runs of each ensemble that has some in the group and some not, bool of shape (S,)."""
    return [rows for rows in _each(strata, len(group)) if 0 < group[rows].sum() < rows.sum()]


def _each(strata: np.ndarray | None, n: int) -> list[np.ndarray]:
    """The runs of each ensemble, bool of shape (S,)."""
    return [np.ones(n, bool)] if strata is None else [strata == one for one in np.unique(strata)]


def _spread(scores: np.ndarray, group: np.ndarray, strata: np.ndarray | None) -> float:
    """Standard deviation of the group's sum under permutation within ensembles."""
    parts = [permutation_sd(scores[rows], int(group[rows].sum())) for rows in _ensembles(group, strata)]
    return float(np.hypot.reduce(parts)) if parts else 0.0


def permutation_sd(scores: np.ndarray, size: int) -> float:
    """Return the standard deviation of the sum of `size` scores under permutation, in closed form."""
    n = len(scores)
    if n < 2:
        return 0.0
    return float(np.sqrt(size * (n - size) / (n * (n - 1)) * ((scores - scores.mean()) ** 2).sum()))


def shift(
    time: np.ndarray,
    observed: np.ndarray,
    group: np.ndarray,
    critical: float = Z95,
    strata: np.ndarray | None = None,
) -> tuple[float | None, list[float | None]]:
    """Return by how much a group is later, with an interval: the shifts that the rank test does not refuse.

    The group's times, censored ones too, are moved earlier until it no longer differs from the others (Hodges and
    Lehmann, 1963); the interval holds the shifts at which the standardised statistic is within `critical`. None where
    censoring, or a test that can refuse nothing, leaves a bound open.
    """
    together = _ensembles(group, strata)
    if len(together) == 1 and together[0].all():
        strata = None
    # The statistic falls in steps, at the differences of two times: it is asked between these.
    if not together:
        return None, [None, None]
    steps = np.unique(
        np.concatenate([differences(time[rows & group], time[rows & ~group]) for rows in together])
    )
    between = np.concatenate([[steps[0] - 1.0], (steps[1:] + steps[:-1]) / 2, [steps[-1] + 1.0]])

    @cache
    def standardised(place: int) -> float:
        scores = gehan_scores(np.where(group, time - between[place], time), observed, strata)
        spread = _spread(scores, group, strata)
        return float(scores[group].sum()) / spread if spread > 0 else 0.0

    def passed(level: float, above: bool) -> float | None:
        return crossing(standardised, steps, level, above)

    left, right = passed(0.0, False), passed(0.0, True)
    estimate = None if left is None or right is None else (left + right) / 2
    return estimate, [passed(critical, False), passed(-critical, True)]


def differences(late: np.ndarray, early: np.ndarray) -> np.ndarray:
    """Return the different values of late times, (n,), less early ones, (m,), ascending."""
    return np.unique(np.subtract.outer(np.unique(late), np.unique(early)))


def crossing(
    statistic: Callable[[int], float], steps: Sequence[float] | np.ndarray, level: float, above: bool
) -> float | None:
    """Return where a statistic that falls in steps passes a level; None where it does not.

    Args:
        statistic: Place among N + 1 -> its value: before the first of the N steps, between them, behind the last.
        steps: Where it falls, ascending.
        level: The level.
        above: Whether it is passed from the right, where the statistic stays at it.
    """

    def before(place: int) -> bool:
        value = statistic(place)
        return value > level or (above and value == level)

    # No shift that could have been seen is on both sides of it: so few or so censored runs leave it open.
    if not before(0) or before(len(steps)):
        return None
    return float(steps[bisect_left(range(len(steps)), True, key=lambda place: not before(place)) - 1])


def time_dependent_p(
    time: np.ndarray, observed: np.ndarray, entry: np.ndarray, strata: np.ndarray | None = None
) -> float:
    """Return the one-sided p-value that runs converge more slowly once they have entered a state.

    The log-rank test with a covariate that depends on time (Mantel and Byar, 1974), which is the score test of Cox's
    model: at every convergence, the runs still at risk that have entered (at `entry`, infinity for never) against those
    that have not yet. Plain comparisons of those who ever entered with the others favour long runs, which have more
    time to enter ("immortal time"); this one does not.
    """
    from scipy import special

    fewer = variance = 0.0
    for rows in _each(strata, len(time)):
        moments, events = np.unique(time[observed & rows], return_counts=True)
        risk = rows & (time >= moments[:, None])
        entered = risk & (entry < moments[:, None])
        rest, share = risk.sum(axis=1), entered.sum(axis=1) / np.maximum(risk.sum(axis=1), 1)
        event = (entered & observed & (time == moments[:, None])).sum(axis=1)
        fewer += float((events * share - event).sum())
        tied = (rest - events) / np.maximum(rest - 1, 1)
        variance += float((events * share * (1 - share) * tied).sum())
    return float(special.ndtr(-fewer / np.sqrt(variance))) if variance > 0 else 1.0


def several_samples(
    time: np.ndarray,
    observed: np.ndarray,
    groups: np.ndarray,
    seed: int,
    entry: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> tuple[float, float | None]:
    """Compare several groups of runs, numbered 0 to G - 1.

    Returns the permutation p-value of Gehan's scores (Kruskal and Wallis' statistic of them), and the p-value of the
    log-rank test by its asymptotic law (None where it has none), which counts a run as at risk from its `entry` on,
    when its group was settled.
    """
    from statsmodels.duration.survfunc import survdiff

    scores = gehan_scores(time, observed, strata)
    members = np.eye(int(groups.max()) + 1)[groups]
    ensembles = _each(strata, len(time))
    dealt = [[int(some) for some in members[rows].sum(axis=0)] for rows in ensembles]
    exact = few(prod(_multinomial(sizes) for sizes in dealt), len(time))
    if exact:
        parts = [_every_sum(scores[None, rows], sizes) for rows, sizes in zip(ensembles, dealt, strict=True)]
        sums = reduce(lambda a, b: (a[:, None] + b).reshape(-1, members.shape[1]), parts)
    else:
        rng = np.random.default_rng(seed)
        drawn = np.tile(scores, (DRAWS, 1))
        for rows in ensembles:
            drawn[:, rows] = rng.permuted(drawn[:, rows], axis=1)
        sums = drawn @ members

    def statistic(sums: np.ndarray) -> np.ndarray:
        return np.asarray((sums**2 / members.sum(axis=0)).sum(axis=-1))

    beyond = int((statistic(sums) >= float(statistic(scores @ members)) * (1 - TIE) - TIE).sum())
    p = beyond / len(sums) if exact else (1 + beyond) / (1 + len(sums))
    entry = np.full(len(time), time.min() - 1) if entry is None else entry
    if strata is not None:
        # One ensemble after the other: no run of one is at risk at an event of another.
        after = strata * (time.max() - entry.min() + 1)
        time, entry = time + after, entry + after
    try:
        with np.errstate(all="ignore"):
            log_rank = float(survdiff(time, observed.astype(int), groups, entry=entry)[1])
    except (np.linalg.LinAlgError, ValueError):
        return p, None
    return p, log_rank if np.isfinite(log_rank) else None


def _multinomial(sizes: Sequence[int]) -> int:
    """Return in how many ways runs can be dealt out to groups of these sizes."""
    return prod(comb(sum(sizes[place:]), size) for place, size in enumerate(sizes))


def _every_sum(scores: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return what groups of these sizes sum to, (A x B, G), in all B ways to deal out A sets of scores, (A, n)."""
    first, *others = sizes
    if not others:
        return scores.sum(axis=1, keepdims=True)
    members, _ = splits(scores.shape[1], first)
    n = sum(others)
    rest = np.nonzero(members == 0)[1].reshape(len(members), n)
    left = scores[:, rest].reshape(len(scores) * len(rest), n)
    rests, own = _every_sum(left, others), (scores @ members.T).ravel()
    return np.column_stack([np.repeat(own, len(rests) // len(own)), rests])
