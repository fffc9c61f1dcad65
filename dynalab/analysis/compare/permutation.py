"""Permutation tests of two settings: labels are exchanged between their runs, or within the seeds of both."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from math import comb

import numpy as np

from dynalab.analysis.compare import tails
from dynalab.core.means import ROUNDING
from dynalab.core.survival import DRAWS, TIE, critical_size, few, permutation_sd, splits

# Draws beyond what was seen below which their share says little.
FEW = 20


class PermutationTest(ABC):
    """A permutation test of n runs of one setting and m of another, in this order.

    Two-sided: of two permutations whose statistics differ in sign alone one is enough. All are there where these are
    few enough; else as many are drawn from those that were not observed, and the observed one is counted with them, so
    that no p is below 1 over their number (Phipson and Smyth, 2010).
    """

    n: int  # runs of the first
    exact: bool  # whether all permutations are there, of two with the same size of the statistic one
    least_p: float  # the least that these numbers of runs could give

    @abstractmethod
    def sums(self, scores: np.ndarray) -> np.ndarray:
        """Return the statistics of all permutations, (B,)."""

    @abstractmethod
    def statistic(self, scores: np.ndarray) -> tuple[float, float]:
        """Return the statistic, and its standard deviation under permutation."""

    def p_and_critical(self, scores: np.ndarray) -> tuple[float, float]:
        """Return the p of scores, (n + m,), and the size in standard deviations from which on it is at most .05."""
        value, spread = self.statistic(scores)
        if spread <= 0:
            return 1.0, math.inf
        sizes = np.sort(np.abs(self.sums(scores)))
        p = self._p(value, sizes, scores)
        return p, critical_size(sizes, self.exact) / spread

    @abstractmethod
    def p_of_means(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the p of the difference of means, in units of its own error in every permutation."""

    @abstractmethod
    def tail(self, scores: np.ndarray, total: float) -> float | None:
        """Return the chance of a statistic of at least a positive total, where it can be computed."""

    def _p(self, value: float, drawn: np.ndarray, scores: np.ndarray) -> float:
        """Return the share of permutations beyond a value; where draws are too few to tell, the tails of the scores."""
        sizes = np.abs(drawn)
        # Sums that should be equal, and above all those that should be 0, differ by rounding.
        beyond = int((sizes >= abs(value) * (1 - TIE) - ROUNDING * sizes.max()).sum())
        if self.exact:
            return beyond / len(drawn)
        p = (1 + beyond) / (1 + len(drawn))
        if beyond >= FEW:
            return p
        value, spread = self.statistic(scores)
        ends = [self.tail(signed, abs(value)) for signed in (scores, -scores)]
        # At the end of all permutations there is no saddle; the normal law's tail is longer than what is left there.
        beyond_all = math.erfc(abs(value) / spread / math.sqrt(2)) if spread > 0 else 1.0
        tail = beyond_all if None in ends else sum(end or 0.0 for end in ends)
        return min(p, max(tail, self.least_p))


class Splits(PermutationTest):
    """Runs are exchanged between two settings."""

    def __init__(self, n: int, m: int) -> None:
        self.n, self.m = n, m
        self.least_p = (2 if n == m else 1) / comb(n + m, m)
        self.exact = few(comb(n + m, m), n + m)

    @property
    def members(self) -> np.ndarray:
        """Who is in the second setting, (B, n + m); of thousands of runs it is large, and seldom asked for."""
        members, exact = splits(self.n + self.m, self.m)
        # Of equal sizes the first run stays in the first setting: the others are the same with the settings exchanged.
        return members[len(members) // 2 :] if exact and self.n == self.m else members

    def sums(self, scores: np.ndarray) -> np.ndarray:
        """Return the statistics of all permutations."""
        return np.asarray(self.members @ (scores - scores.mean()))

    def statistic(self, scores: np.ndarray) -> tuple[float, float]:
        """Return the sum of the second's centred scores, and its standard deviation."""
        centred = scores - scores.mean()
        return float(centred[self.n :].sum()), permutation_sd(scores, self.m)

    def p_of_means(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the p of Welch's t."""
        # In units of the spread and about the mean: nothing is lost to rounding, and what is equal stays equal.
        every = np.concatenate([x, y])
        every = every - every.mean()
        size = np.abs(every).max()
        if size <= ROUNDING * max(np.abs(x).max(), np.abs(y).max()):
            return 1.0
        every = every / size
        own = np.zeros((1, self.n + self.m))
        own[0, self.n :] = 1
        return self._p(float(self._welch(own, every)[0]), self._welch(self.members, every), every)

    def tail(self, scores: np.ndarray, total: float) -> float | None:
        """Return the chance that so many of the scores have such a sum."""
        return tails.split(scores - scores.mean(), self.m, total)

    def _welch(self, members: np.ndarray, values: np.ndarray) -> np.ndarray:
        n, m = self.n, self.m
        theirs, squares = members @ values, members @ values**2
        rest, other_squares = values.sum() - theirs, (values**2).sum() - squares
        errors = (squares - theirs**2 / m) / (m * (m - 1)) + (other_squares - rest**2 / n) / (n * (n - 1))
        return np.asarray(_over(theirs / m - rest / n, errors))


class Flips(PermutationTest):
    """Runs are exchanged between two settings within their seed."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.signs, self.exact = _flips(n)
        self.least_p = 2.0 ** (1 - n)

    def _differences(self, scores: np.ndarray) -> np.ndarray:
        return scores[self.n :] - scores[: self.n]

    def sums(self, scores: np.ndarray) -> np.ndarray:
        """Return the statistics of all permutations."""
        return np.asarray(self.signs @ self._differences(scores))

    def statistic(self, scores: np.ndarray) -> tuple[float, float]:
        """Return the sum of the differences, and its standard deviation."""
        differences = self._differences(scores)
        return float(differences.sum()), float(np.sqrt((differences**2).sum()))

    def p_of_means(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the p of Student's t of the differences."""
        differences = y - x
        size = np.abs(differences).max()
        if size <= ROUNDING * max(np.abs(x).max(), np.abs(y).max()):
            return 1.0
        differences = differences / size
        total = float((differences**2).sum())

        def student_t(sums: np.ndarray) -> np.ndarray:
            return np.asarray(_over(sums, total - sums**2 / self.n))

        return self._p(
            float(student_t(np.array([differences.sum()]))[0]),
            student_t(self.signs @ differences),
            np.concatenate([x, y]),
        )

    def tail(self, scores: np.ndarray, total: float) -> float | None:
        """Return the chance that the differences, with signs by lot, have such a sum."""
        return tails.flipped(self._differences(scores), total)


def _over(difference: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return differences over the roots of their errors, where an error of 0 is the least that can be told."""
    return difference / np.sqrt(np.maximum(errors, ROUNDING))


@lru_cache(maxsize=8)
def _flips(n: int) -> tuple[np.ndarray, bool]:
    """Return signs of n differences, (B, n), the last always positive: all ways or drawn ones."""
    ways = 2 ** (n - 1)
    if few(ways, n):
        return 1.0 - 2 * (np.arange(ways)[:, None] >> np.arange(n) & 1), True
    signs = np.random.default_rng(0).choice([1.0, -1.0], (DRAWS, n))
    signs *= signs[:, -1:]
    return signs[(signs < 0).any(axis=1)], False
