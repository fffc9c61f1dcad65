"""Times of which some are only known to be later than the last look: quantiles, rank tests, shifts.

A run that never converged is right-censored at its last recorded step. Nothing here assumes a distribution of the
times; p-values come from permuting the labels of runs, which is exact when runs are exchangeable.

Arrays: `time` (S,) and `observed` (S,) bool; where `observed` is False the event is later than `time`.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from scipy import special

DRAWS = 9999
# Two-sided 95% point of the normal distribution.
Z95 = 1.959963984540054
# Products of shares that should be equal differ by less.
ROUNDING = 1e-12
# Slack for comparing sums of scores that should be equal.
TIE = 1e-9


def censored_times(
    convergence: list[dict[str, Any]], last: np.ndarray | list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (time, observed) of `{run, step, censored}` rows; censored runs have their last recorded step."""
    observed = np.array([not row["censored"] for row in convergence], dtype=bool)
    time = np.array(
        [float(end) if row["step"] is None else float(row["step"]) for row, end in zip(convergence, last, strict=True)]
    )  # fmt: skip
    return time, observed


def quantile(time: np.ndarray, observed: np.ndarray, share: float) -> float | None:
    """Return a quantile of the event time; None where censoring leaves it unknown.

    Without censoring the linear interpolation of NumPy; with it the inverse of Kaplan and Meier's (1958) estimate.
    """
    if not len(time):
        return None
    if observed.all():
        return float(np.quantile(time, share))
    if not observed.any():
        return None
    from statsmodels.duration.survfunc import SurvfuncRight

    # A censoring at the same step as an event is later than it: the run was still watched there.
    curve = SurvfuncRight(time, observed.astype(int))
    alive, moments = np.asarray(curve.surv_prob), np.asarray(curve.surv_times)
    below = np.flatnonzero(alive < 1 - share - ROUNDING)
    if not len(below):
        return None
    last = float(moments[below[0]])
    # Where the curve lies on the share itself, any step of that stretch is a quantile: the middle is taken.
    level = np.flatnonzero(np.abs(alive - (1 - share)) <= ROUNDING)
    return (float(moments[level[0]]) + last) / 2 if len(level) else last


def gehan_scores(time: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return for every run how many are certainly earlier, less how many are certainly later (Gehan, 1965).

    Wilcoxon's rank test in censored data; sums to 0. Positive is late.
    """
    before = observed[:, None] & (
        (time[:, None] < time[None]) | ((time[:, None] == time[None]) & ~observed[None])
    )
    return np.asarray(before.sum(axis=0) - before.sum(axis=1), dtype=np.float64)


def permutation_sums(scores: np.ndarray, size: int, seed: int, draws: int = DRAWS) -> tuple[np.ndarray, bool]:
    """Return the sums of `size` of the scores under permutation, centred; all of them where there are few.

    Returns:
        The sums, and whether they are all there are (then the test is exact).
    """
    centred = scores - scores.mean()
    n = len(scores)
    if comb(n, size) <= draws:
        places = np.array(list(combinations(range(n), size)), dtype=np.int64).reshape(-1, size)
        return centred[places].sum(axis=1), True
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(centred, (draws, n)), axis=1)
    return shuffled[:, :size].sum(axis=1), False


def permutation_p(observed_sum: float, sums: np.ndarray, exact: bool) -> float:
    """Return the two-sided p-value of a centred sum among permuted ones."""
    beyond = int((np.abs(sums) >= abs(observed_sum) - TIE * max(1.0, abs(observed_sum))).sum())
    return beyond / len(sums) if exact else (1 + beyond) / (1 + len(sums))


def two_sample(
    time: np.ndarray, observed: np.ndarray, group: np.ndarray, seed: int, draws: int = DRAWS
) -> tuple[float, float, float]:
    """Compare the runs in a group with the others.

    Returns:
        Gehan's statistic (positive: the group is later), its two-sided permutation p-value, and the size that a
        standardised statistic must have to reach 5%.
    """
    scores = gehan_scores(time, observed)
    size = int(group.sum())
    statistic = float((scores - scores.mean())[group].sum())
    sums, exact = permutation_sums(scores, size, seed, draws)
    spread = permutation_sd(scores, size)
    critical = float(np.quantile(np.abs(sums), 0.95)) / spread if spread > 0 else Z95
    return statistic, permutation_p(statistic, sums, exact), critical


def permutation_sd(scores: np.ndarray, size: int) -> float:
    """Return the standard deviation of the sum of `size` scores under permutation, in closed form."""
    n = len(scores)
    if n < 2:
        return 0.0
    return float(np.sqrt(size * (n - size) / (n * (n - 1)) * ((scores - scores.mean()) ** 2).sum()))


def shift(
    time: np.ndarray, observed: np.ndarray, group: np.ndarray, critical: float = Z95
) -> tuple[float | None, list[float | None]]:
    """Return by how much a group is later, with an interval: the shifts that the rank test does not refuse.

    The group's times, censored ones too, are moved earlier until it no longer differs from the others (Hodges and
    Lehmann, 1963); the interval holds the shifts at which the standardised statistic is within `critical`.

    Args:
        time: Times, shape (S,).
        observed: Whether each is an event, shape (S,).
        group: The runs that are moved, bool of shape (S,).
        critical: Two-sided critical value.

    Returns:
        The estimate and its interval; None where censoring leaves a bound open.
    """
    reach = 2.0 * (float(time.max() - time.min()) + 1.0)

    def standardised(by: float) -> float:
        scores = gehan_scores(np.where(group, time - by, time), observed)
        spread = permutation_sd(scores, int(group.sum()))
        return float((scores - scores.mean())[group].sum()) / spread if spread > 0 else 0.0

    def crossing(level: float, above: bool) -> float | None:
        """Where the statistic, which falls with the shift, passes a level; from the right for `above`."""
        low, high = -reach, reach
        if standardised(low) < level or standardised(high) > level:
            return None
        for _ in range(60):
            middle = (low + high) / 2
            value = standardised(middle)
            if value > level or (above and value == level):
                low = middle
            else:
                high = middle
            if high - low < 1e-6 * reach:
                break
        return (low + high) / 2

    left, right = crossing(0.0, False), crossing(0.0, True)
    estimate = None if left is None or right is None else (left + right) / 2
    return estimate, [crossing(critical, False), crossing(-critical, True)]


def time_dependent_p(time: np.ndarray, observed: np.ndarray, entry: np.ndarray) -> float:
    """Return the one-sided p-value that runs converge more slowly once they have entered a state.

    The log-rank test with a covariate that depends on time (Mantel and Byar, 1974), which is the score test of Cox's
    model: at every convergence, the runs still at risk that have entered against those that have not yet. Plain
    comparisons of those who ever entered with the others favour long runs, which have more time to enter ("immortal
    time"); this one does not.

    Args:
        time: Times, shape (S,).
        observed: Whether each is an event, shape (S,).
        entry: When each run entered, infinity for never, shape (S,).
    """
    fewer = variance = 0.0
    for moment in np.unique(time[observed]):
        risk = time >= moment
        entered = risk & (entry < moment)
        events = int((observed & (time == moment)).sum())
        share = entered.sum() / risk.sum()
        fewer += events * share - float((observed & (time == moment) & entered).sum())
        rest = int(risk.sum())
        tied = (rest - events) / (rest - 1) if rest > 1 else 0.0
        variance += events * share * (1 - share) * tied
    return float(special.ndtr(-fewer / np.sqrt(variance))) if variance > 0 else 1.0


def several_samples(
    time: np.ndarray, observed: np.ndarray, groups: np.ndarray, seed: int, draws: int = DRAWS
) -> tuple[float, float | None]:
    """Compare several groups of runs.

    Returns:
        The permutation p-value of Gehan's scores (Kruskal and Wallis' statistic of them), and the p-value of the
        log-rank test by its asymptotic law (None where it has none).
    """
    scores = gehan_scores(time, observed)
    scores = scores - scores.mean()
    members = np.eye(int(groups.max()) + 1)[groups]
    sizes = members.sum(axis=0)

    def statistic(rows: np.ndarray) -> np.ndarray:
        return np.asarray(((rows @ members) ** 2 / sizes).sum(axis=-1))

    rng = np.random.default_rng(seed)
    found = float(statistic(scores))
    permuted = statistic(rng.permuted(np.broadcast_to(scores, (draws, len(scores))), axis=1))
    p = (1 + int((permuted >= found * (1 - TIE) - TIE).sum())) / (1 + draws)
    return p, _log_rank(time, observed, groups)


def _log_rank(time: np.ndarray, observed: np.ndarray, groups: np.ndarray) -> float | None:
    from statsmodels.duration.survfunc import survdiff

    try:
        with np.errstate(all="ignore"):
            p = float(survdiff(time, observed.astype(int), groups)[1])
    except (np.linalg.LinAlgError, ValueError):
        return None
    return p if np.isfinite(p) else None
