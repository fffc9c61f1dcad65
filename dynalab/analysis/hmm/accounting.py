"""The published regression of the convergence step on the share of training in each state, and what it is worth.

Hu et al. (2023, section 2.4) regress the convergence step on P_k, the share of a run's rows in state k, and call a
state a detour that some runs do without and whose coefficient is positive. Two things stand against it. The shares
sum to 1, so with an intercept the coefficients, and their signs, are known only up to a common constant. And time
before convergence is spent in the states before convergence, so the shares add up to the answer: R2 is near 1 on
random paths too. How near is measured here: every run keeps its convergence step and gets the mixture of early states
of another run. For the same reason the F-test of the regression has no p-value here: it is below .05 in every ensemble
whose runs walk one way, each at its own speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.hmm.findings import PublishedModel
from dynalab.analysis.hmm.visits import shares

DRAWS = 199


@dataclass(frozen=True)
class Published:
    """What the published regression says, and median and 95% quantile of R2 by accounting alone.

    Coefficients (K,) are without an intercept (minimum-norm least squares), R2 is in sample, and a state is optional
    (K,) where some run converges without it.
    """

    coefficients: np.ndarray
    r2: float
    optional: np.ndarray
    null_median: float
    null_high: float

    @property
    def detours(self) -> list[int]:
        """The states that the published rule calls detours: optional, and of positive coefficient."""
        return [int(k) for k in np.flatnonzero(self.optional & (self.coefficients > 0))]

    def plain(self) -> PublishedModel:
        """As the result has it."""
        return PublishedModel(
            coefficients=self.coefficients.tolist(),
            r2=self.r2,
            accounting_r2=self.null_median,
            accounting_r2_95=self.null_high,
            detours=self.detours,
        )


def published(
    paths: Sequence[np.ndarray],
    early: Sequence[np.ndarray],
    time: np.ndarray,
    observed: np.ndarray,
    n_states: int,
    seed: int = 0,
) -> Published:
    """Carry out the published regression, and its null by accounting.

    Of states of every row and those before convergence, shapes (T,), and of convergence steps, or the last step of a
    run that never converged (as published), shape (S,).
    """
    whole, mixture = shares(paths, n_states), shares(early, n_states)
    until = np.array([len(a) / max(len(b), 1) for a, b in zip(early, paths, strict=True)])
    rest = whole - until[:, None] * mixture
    rng = np.random.default_rng(seed)
    null = []
    for _ in range(DRAWS):
        other = mixture[rng.permutation(len(time))]
        null.append(explained(until[:, None] * other + rest, time))
    visited = whole > 0
    return Published(
        np.linalg.lstsq(whole, time, rcond=None)[0],
        explained(whole, time),
        np.logical_and((observed[:, None] & ~visited).any(axis=0), visited.any(axis=0)),
        float(np.median(null)),
        float(np.quantile(null, 0.95)),
    )


def explained(x: np.ndarray, y: np.ndarray) -> float:
    """Return R2 of least squares with an intercept, of y (S,) on covariates (S, Q) of any rank."""
    design = np.column_stack([np.ones(len(y)), x])
    total = float(((y - y.mean()) ** 2).sum())
    if total == 0:
        return 0.0
    left = y - design @ np.linalg.lstsq(design, y, rcond=1e-10)[0]
    return 1 - float((left**2).sum()) / total
