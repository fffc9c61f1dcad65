"""How rare a sum of scores is under permutation where draws are too few to tell: saddlepoint approximations.

Among a thousand pairs of settings a p has to be told apart from .05 / 1,000. Where nearly no draw of ten thousand comes
up to what was seen, the tail is computed (Lugannani and Rice, 1980; Robinson, 1982; Skovgaard, 1987).
"""

from __future__ import annotations

import math

import numpy as np

_MOST_STEPS = 60
_CLOSE = 1e-10


def flipped(differences: np.ndarray, total: float) -> float | None:
    """Return the chance that differences, (n,), with signs of their own by lot have a sum of at least a positive total.

    None where it is the largest that there is, or near it.
    """
    t = 0.0
    for _ in range(_MOST_STEPS):
        tanh = np.tanh(t * differences)
        gap, slope = total - float(differences @ tanh), float(differences**2 @ (1 - tanh**2))
        if slope <= 0 or not math.isfinite(t):
            return None
        t += gap / slope
        if abs(gap) <= _CLOSE * total:
            break
    else:
        return None
    with np.errstate(over="ignore"):
        # log cosh, which does not overflow.
        size = np.abs(t * differences)
        cumulant = float((size + np.log1p(np.exp(-2 * size)) - math.log(2)).sum())
    return _tail(t, t * total - cumulant, slope)


def split(scores: np.ndarray, size: int, total: float) -> float | None:
    """Return the chance that `size` of some centred scores, (N,), drawn by lot have a sum of at least a positive total.

    None where it is the largest that there is, or near it.
    """
    share, aim = size / len(scores), np.array([total, float(size)])
    point = np.zeros(2)
    both = np.stack([scores, np.ones(len(scores))])
    for _ in range(_MOST_STEPS):
        odds = point @ both + math.log(share / (1 - share))
        chance = np.exp(-np.logaddexp(0.0, -odds))
        gap = aim - both @ chance
        curve = (both * (chance * (1 - chance))) @ both.T
        determinant = float(np.linalg.det(curve))
        if not np.isfinite(point).all() or determinant <= 1e-12 * float(np.abs(curve).max()) ** 2:
            return None
        point = point + np.linalg.solve(curve, gap)
        if np.abs(gap).max() <= _CLOSE * max(total, size):
            break
    else:
        return None
    cumulant = float((np.logaddexp(0.0, odds) + math.log(1 - share)).sum())
    distance = float(point @ aim) - cumulant
    return _tail(float(point[0]), distance, determinant / (len(scores) * share * (1 - share)))


def _tail(t: float, distance: float, curve: float) -> float | None:
    """Return Lugannani and Rice's tail from a saddlepoint; None where it is none."""
    from scipy.special import ndtr

    if t <= 0 or distance <= 0 or curve <= 0:
        return None
    w, v = math.sqrt(2 * distance), t * math.sqrt(curve)
    p = float(ndtr(-w)) + math.exp(-distance) / math.sqrt(2 * math.pi) * (1 / v - 1 / w)
    return p if 0 < p < 1 else None
