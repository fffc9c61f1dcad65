"""Whether one of n values is unlike the others: how far it lies from them, and how often chance lies as far.

A rank among n is never below 1/n, so a law has to be assumed: that all values are of one whose tails are no longer than
the longer of Student's with 4 degrees of freedom and the exponential one. Where all are positive their logarithms are
asked as well, by the normal law, and both have to agree: so all may be lognormal as well, of any width. Where only what
lies below is asked, as of log-likelihoods, values may fall by the square of what is itself lognormal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

LEAST = 5  # values below which nothing is said
FREEDOM = 4
# Standard deviation of the logarithm of what runs of one law differ by: in 120 sets of 20 runs with a lognormal time
# constant, of 0.2, some run was called odd in 5% (in 23% of 60 by the two other laws).
WIDTH = 0.25
# Deviations that a law is drawn with; no p is below one in so many.
DRAWS = 200_000
# Of so many values one may hide others.
HIDING = 5
# Spreads below this share of the values, and distances that differ by less, are equal.
ROUNDING = 1e-9


def unlike(
    values: np.ndarray, others: np.ndarray | None = None, *, below: bool = False, resolution: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each of some values is from the others, and how often chance is as far, both (n,).

    A value is standardised by the others, which it cannot stretch. One of five may hide another: the farthest is left
    out and the rest asked again (Rosner, 1983), at twice the p; who lies beyond one that is told by this is told too.

    Args:
        values: The values, (n,); those that are not finite are left out.
        others: What each counts as where another is asked, (n,); None: the same.
        below: Whether only what lies below the others is of interest, as of log-likelihoods: a third law is then among
            those with the longest tails, the squares of lognormal deviations.
        resolution: The least difference that can be seen: others that vary by less are taken to vary by as much.

    Returns:
        Distances from the mean of the others, in standard deviations of a further value; and p. NaN where a value is
        left out, or fewer than five are known.
    """
    others = values if others is None else others
    known = np.isfinite(values) & np.isfinite(others)
    distance, p = np.full((2, len(values)), np.nan)
    if known.sum() < LEAST:
        return distance, p
    own, among = values[known], others[known]
    distance[known], p[known] = _unlike(own, among, _long_tails, below, resolution)
    if not below and min(own.min(), among.min()) > 0:
        least = resolution / float(np.median(among))
        p[known] = np.maximum(p[known], _unlike(np.log(own), np.log(among), _normal_tails, below, least)[1])
    return distance, p


def _unlike(
    values: np.ndarray,
    others: np.ndarray,
    chance: Callable[[np.ndarray, int, bool], np.ndarray],
    below: bool,
    resolution: float,
) -> tuple[np.ndarray, np.ndarray]:
    least = max(resolution, ROUNDING * float(np.abs(others).max()), 1e-300)
    left = np.arange(len(values))
    p, distance = np.ones((2, len(values)))
    outside: list[int] = []
    for stage in range(max(1, len(values) // HIDING)):
        if len(left) < LEAST:
            break
        far = _standardised(values[left], others[left], least)
        far = -far if below else np.abs(far)
        first = int(np.argmax(far))
        outside.append(int(left[first]))
        if not stage:
            distance[left], p[left] = far, np.minimum(chance(far, len(far), below), 1.0)
        else:
            # Who is only seen once others are left out is as far as it is then.
            distance[left[first]] = far[first]
            p[outside] = np.minimum(p[outside], 2 * chance(far[first : first + 1], len(far), below))
        left = np.delete(left, first)
    return distance, p


def _standardised(values: np.ndarray, others: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return values, (..., n), less the mean of the others, in units of how far a further one of these would be."""
    n = values.shape[-1]
    centre = others.mean(axis=-1, keepdims=True)
    values, others = values - centre, others - centre
    mean = -others / (n - 1)
    squares = (others**2).sum(axis=-1, keepdims=True) - others**2 - (n - 1) * mean**2
    spread = np.sqrt(np.maximum(squares, 0.0) / (n - 2))
    return np.asarray((values - mean) / np.maximum(spread, least) / np.sqrt(n / (n - 1)))


def _normal_tails(far: np.ndarray, n: int, below: bool) -> np.ndarray:
    """Return the chance of distances as large among n normal values: Student's t."""
    from scipy.special import stdtr

    return np.asarray(stdtr(n - 2, -far) * (1 if below else 2))


def _long_tails(far: np.ndarray, n: int, below: bool) -> np.ndarray:
    """Return the chance of distances as large among n values of the laws with the longest tails.

    From 64 values on the law is that of as many or up to a 32nd fewer, whose tails are hardly longer.
    """
    law = _law(n - n % (1 << max(n.bit_length() - 6, 0)), below)
    beyond = len(law) - np.searchsorted(law, far * (1 - ROUNDING))
    return np.asarray((1 + beyond) / (1 + len(law)))


@lru_cache(maxsize=256)
def _law(n: int, below: bool) -> np.ndarray:
    """Return distances of n values of one law, ascending: at every share the largest of those of the laws."""
    rng = np.random.default_rng(0)
    size = (max(DRAWS // n, 100), n)
    drawn = []
    laws = [rng.standard_t(FREEDOM, size), -rng.exponential(size=size)]
    if below:
        # A likelihood falls by about the square of what a run differs by, as a time constant.
        laws.append(-(np.expm1(WIDTH * rng.normal(size=size)) ** 2))
    for values in laws:
        far = _standardised(values, values, 1e-300).ravel()
        drawn.append(np.sort(-far if below else np.abs(far)))
    return np.maximum.reduce(drawn)
