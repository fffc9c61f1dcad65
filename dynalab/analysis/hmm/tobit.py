"""Least squares for times of which some are only known to be later: the censored normal regression of Tobin (1958).

In the parameters beta / sigma and 1 / sigma the log-likelihood is concave (Olsen, 1978), so Newton's method finds its
maximum from anywhere. Without censoring the coefficients are those of least squares.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import special

RIDGE = 1e-8
STEPS = 60


def fit(x: np.ndarray, y: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    """Return coefficients (Q,) and the standard deviation of the noise.

    Of times y (S,) on covariates x (S, Q), the intercept among them; `observed` is False where a time is only known to
    be later.
    """
    ordinary = np.linalg.lstsq(x, y, rcond=1e-10)[0]
    spread = float(np.sqrt(((y - x @ ordinary) ** 2).mean()))
    if observed.all() or spread == 0:
        return ordinary, spread
    scale = max(spread, 1e-12 * float(np.abs(y).max()))
    # Unknowns: gamma = beta / sigma and h = 1 / sigma, for y in units of its spread.
    unit = y / scale
    design = np.column_stack([-x, unit])
    current = np.concatenate([ordinary / scale, [1.0]])
    value = _objective(design, observed, current)
    for _ in range(STEPS):
        gradient, curvature = _derivatives(design, observed, current)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6:
            trial = current + size * step
            found = _objective(design, observed, trial)
            if found >= value:
                break
            size /= 2
        if size <= 1e-6:
            break
        gain, current, value = found - value, trial, found
        if gain < 1e-10:
            break
    return current[:-1] / current[-1] * scale, float(scale / current[-1])


def _objective(design: np.ndarray, observed: np.ndarray, at: np.ndarray) -> float:
    if at[-1] <= 0:
        return -np.inf
    z = design @ at
    events = np.log(at[-1]) - 0.5 * z[observed] ** 2
    return float(events.sum() + special.log_ndtr(-z[~observed]).sum() - 0.5 * RIDGE * (at**2).sum())


def _derivatives(design: np.ndarray, observed: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient and the negative Hessian of the objective."""
    z = design @ at
    late = ~observed
    # The normal hazard, phi(z) / (1 - Phi(z)), through logarithms so that it does not overflow.
    hazard = np.exp(-0.5 * z[late] ** 2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(-z[late]))
    slope = np.where(observed, -z, 0.0)
    slope[late] = -hazard
    bend = np.ones(len(z))
    bend[late] = hazard * (hazard - z[late])
    gradient = design.T @ slope - RIDGE * at
    curvature = (design * bend[:, None]).T @ design + RIDGE * np.eye(len(at))
    gradient[-1] += observed.sum() / at[-1]
    curvature[-1, -1] += observed.sum() / at[-1] ** 2
    return gradient, curvature


def log_likelihood(x: np.ndarray, y: np.ndarray, observed: np.ndarray) -> float:
    """Return the largest log-likelihood, less what the times alone add to it; infinity where nothing is left over."""
    beta, sigma = fit(x, y, observed)
    if sigma <= 1e-12 * float(np.abs(y).max()):
        return np.inf
    z = (y - x @ beta) / sigma
    events = -0.5 * z[observed] ** 2 - np.log(sigma)
    return float(events.sum() + special.log_ndtr(-z[~observed]).sum())


def explained(covariates: Iterable[np.ndarray], y: np.ndarray, observed: np.ndarray) -> list[float]:
    """Return the share that each set of covariates (S, Q) explains: 1 - exp(-2 gain / S) in the log-likelihood.

    The gain is over the intercept alone, which the covariates leave out, so of times that are all known it is R2 of
    least squares; of others every run counts, those that are only known to be later as well (Magee, 1990, The American
    Statistician 44). None where the times do not differ, so that there is nothing to explain.
    """
    one = np.ones((len(y), 1))
    alone = log_likelihood(one, y, observed)
    if not np.isfinite(alone):
        return []
    gains = (log_likelihood(np.column_stack([one, x]), y, observed) - alone for x in covariates)
    return [float(-np.expm1(-2 * max(gain, 0.0) / len(y))) for gain in gains]
