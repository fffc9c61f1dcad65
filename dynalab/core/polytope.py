"""The neighbourhood of a point that regions are counted in: a cross-polytope around it, and how far it reaches.

Its vertices are x + r v_p and x - r v_p, with P orthonormal axes v_p of R^D in a random orientation (Humayun et al.
2023, arXiv 2310.12977). Only the standard library and NumPy.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# The draw of the axes: the same for every run, row and point, so that what changes is the network.
_DRAW = 0x617865


def axes(size: int, count: int) -> np.ndarray:
    """Return P = min(count, size) orthonormal axes of R^size in an orientation of uniform chance, shape (P, size)."""
    return _axes(size, min(count, size)).copy()


@lru_cache(16)
def _axes(size: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(np.random.SeedSequence(_DRAW, spawn_key=(size,)))
    q, r = np.linalg.qr(rng.normal(size=(size, count)))
    # Without the signs the orientation depends on how QR is done (Mezzadri 2007).
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T)


@lru_cache(64)
def reach(size: int, count: int) -> float:
    """Return c_P, the largest |cosine| of a direction with P = min(count, size) random axes of R^size, in expectation.

    A hyperplane at distance d with normal u cuts a cross-polytope of radius r where d < r max_p |u v_p|. The P cosines
    are those of P coordinates of a uniform unit vector g / |g|, g normal; its norm is independent of its direction, so
    c_P = E max_p |g_p| / E |g|, and E max_p |g_p| is the integral over t > 0 of 1 - erf(t / sqrt 2)^P. The usual
    sqrt(2 ln P / D) is a seventh too large at P = 25.
    """
    count = min(count, size)
    # Simpson's rule up to where 1 - erf is below the last digit.
    t = np.linspace(0.0, 12.0, 4001)
    tail = np.array([1.0 - math.erf(x / math.sqrt(2.0)) ** count for x in t])
    weights = np.ones(len(t))
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    largest = float(weights @ tail) * (t[1] - t[0]) / 3.0
    norm = math.sqrt(2.0) * math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2))
    return largest / norm
