"""Draws of variance components when some cells are empty or censored: the unknown values are drawn as well.

Data augmentation (Tanner and Wong, 1987): given the components, an unknown value is normal given all others, and
above the last step watched where the run is censored; given a full grid, the components are drawn as in `components`.
The two take turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from dynalab.analysis.variance import components as balanced

BURN_IN = 200


@dataclass(frozen=True)
class Draws:
    """What the rounds of augmentation gave."""

    lambdas: np.ndarray  # draws of the expected mean squares, shape (rounds, 2^F)
    sums: np.ndarray  # sums of squares of each completed grid, behind these, shape (rounds, 2^F)
    estimates: np.ndarray  # components by moments of each completed grid, shape (rounds, 2^F)
    means: np.ndarray  # mean of each completed grid, shape (rounds,)


def augment(values: np.ndarray, bounds: np.ndarray, rounds: int, rng: np.random.Generator) -> Draws:
    """Draw components and unknown values in turn, and keep so many rounds.

    Values, one a cell, (n_1, ..., n_F), are NaN where unknown; `bounds` is what these are known to exceed, -inf for an
    empty cell.
    """
    shape = values.shape
    unknown = np.flatnonzero(np.isnan(values.ravel()))
    low = bounds.ravel()[unknown]
    known = values[~np.isnan(values)]
    y = values.ravel().copy()
    y[unknown] = np.where(np.isfinite(low), low + 0.5 * known.std(), known.mean())
    rows = [_rows(shape, mask, unknown) for mask in range(2 ** len(shape))]
    kept_lambdas, kept_sums, kept_estimates, means = [], [], [], []
    for turn in range(BURN_IN + rounds):
        lambdas = balanced.draw(balanced.strata(y.reshape(shape)), 1, rng)[0]
        # With a component below 0 the strata would have no common covariance.
        allowed = np.maximum(balanced.solve(shape, lambdas), 0)
        expected = np.maximum(balanced.expectations(shape, allowed), 1e-12 * max(known.var(), 1e-300))
        centre = float(rng.normal(y.mean(), np.sqrt(expected[0] / y.size)))
        precision = sum(row / size for row, size in zip(rows, expected, strict=True))
        for place, cell in enumerate(unknown):
            own = precision[place, cell]
            mean = y[cell] - precision[place] @ (y - centre) / own
            y[cell] = _above(mean, 1 / np.sqrt(own), low[place], rng)
        if turn >= BURN_IN:
            completed = balanced.strata(y.reshape(shape))
            kept_lambdas.append(balanced.draw(completed, 1, rng)[0])
            kept_sums.append(completed.sums)
            kept_estimates.append(balanced.solve(shape, np.nan_to_num(completed.squares)))
            means.append(float(y.mean()))
    return Draws(np.array(kept_lambdas), np.array(kept_sums), np.array(kept_estimates), np.array(means))


def _rows(shape: tuple[int, ...], mask: int, cells: np.ndarray) -> np.ndarray:
    """Return some rows of the projector onto a stratum, shape (len(cells), N)."""
    rows = np.ones((len(cells), 1))
    places = np.unravel_index(cells, shape)
    for axis, n in enumerate(shape):
        mean = np.full((len(cells), n), 1 / n)
        factor = np.eye(n)[places[axis]] - mean if mask >> axis & 1 else mean
        rows = (rows[:, :, None] * factor[:, None, :]).reshape(len(cells), -1)
    return rows


def _above(mean: float, sd: float, low: float, rng: np.random.Generator) -> float:
    """Draw from a normal distribution above a bound, by the inverse of its upper tail in logarithm."""
    if not np.isfinite(low):
        return float(rng.normal(mean, sd))
    start = (low - mean) / sd
    log_tail = float(special.log_ndtr(-start)) + float(np.log(rng.uniform()))
    return float(max(low, mean - sd * special.ndtri_exp(log_tail)))
