"""Least squares for times of which some are only known to be later: the censored normal regression of Tobin (1958).

In the parameters beta / sigma and 1 / sigma the log-likelihood is concave (Olsen, 1978), so Newton's method finds its
maximum from anywhere. Without censoring the coefficients are those of least squares.
"""

from __future__ import annotations

import numpy as np
from scipy import special

RIDGE = 1e-8
STEPS = 60
# Squares of residuals below this share of those of the times are rounding.
ROUNDING = 1e-20


def fit(x: np.ndarray, y: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    """Return coefficients (Q,) and the standard deviation of the noise.

    Args:
        x: Covariates, the intercept among them, shape (S, Q).
        y: Times, shape (S,).
        observed: False where the time is only known to be later, shape (S,).
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


def predictive_r2(x: np.ndarray, y: np.ndarray, observed: np.ndarray) -> tuple[float | None, float | None]:
    """Return R2 in sample and with every run left out in turn, over the runs whose time is known.

    Left out, a run is compared with the prediction of the others against the others' own mean (fitted likewise), so
    the second falls below 0 where the covariates predict worse than no covariates at all.
    """
    known = np.flatnonzero(observed)
    if len(known) < 3:
        return None, None
    one = np.ones((len(y), 1))

    def lost(design: np.ndarray) -> tuple[float, float]:
        beta, _ = fit(design, y, observed)
        inside = float(((y - design @ beta)[known] ** 2).sum())
        outside = 0.0
        for i in known:
            keep = np.arange(len(y)) != i
            beta, _ = fit(design[keep], y[keep], observed[keep])
            outside += float(y[i] - design[i] @ beta) ** 2
        return inside, outside

    model, mean = lost(np.column_stack([one, x])), lost(one)
    if mean[0] <= ROUNDING * float((y**2).sum()):
        # All converge at one step: nothing is left to explain.
        return None, None
    return 1 - model[0] / mean[0], 1 - model[1] / mean[1]
