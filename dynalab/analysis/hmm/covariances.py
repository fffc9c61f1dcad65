"""Noise covariances of four forms, each the maximum of its penalised likelihood above a floor.

Given the penalised scatter C_k and its weight n_k of every state, the covariance maximises

    - 1/2 (n_k log|Sigma_k| + tr(Sigma_k^-1 C_k))

under the constraint that no eigenvalue lies below the floor. For `full`, `tied` and `diag` that is C_k / n_k (summed
over states for `tied`) with its eigenvalues raised to the floor, so the floor holds in every M-step and EM stays
monotone. For `lowrank`, Sigma = L L^T + diag(psi), it is found by iteration.
"""

from __future__ import annotations

import numpy as np

# Iterations of the low-rank form inside one M-step; the next one begins anew, and keeps what was better before.
INNER = 10
# Eigenvalues of a symmetric matrix are known to this share of the largest.
RESOLVED = 1e-15
# Above this share of their sum they are far from that, and an inverse needs no eigenvalues.
CLEAR = 1e-9


def above(covariances: np.ndarray, floor: float | np.ndarray) -> bool:
    """Whether every eigenvalue of symmetric matrices (..., M, M) is above a floor, of all or of each (...).

    A matrix less the floor has a Cholesky factor then, and to try costs a tenth of the eigenvalues.
    """
    less = covariances.copy()
    np.einsum("...ii->...i", less)[...] -= np.asarray(floor)[..., None]
    try:
        np.linalg.cholesky(less)
    except np.linalg.LinAlgError:
        return False
    return True


def raise_floor(covariances: np.ndarray, floor: float, diagonal: bool) -> np.ndarray:
    """The covariances (..., M, M) nearest in likelihood whose eigenvalues are at least `floor`."""
    size = covariances.shape[-1]
    if diagonal:
        values = np.maximum(np.diagonal(covariances, axis1=-2, axis2=-1), floor)
        return np.asarray(values[..., None] * np.eye(size))
    covariances = (covariances + np.swapaxes(covariances, -1, -2)) / 2
    if above(covariances, floor):
        return covariances
    values, vectors = np.linalg.eigh(covariances)
    low = values[..., 0] < floor
    if not low.any():
        return covariances
    raised = (vectors * np.maximum(values, floor)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return np.where(low[..., None, None], raised, covariances)


def _gain(covariance: np.ndarray, mean_scatter: np.ndarray) -> float:
    """The objective per unit of weight, up to a constant factor; -inf where it is not a number."""
    sign, log_det = np.linalg.slogdet(covariance)
    if sign <= 0:
        return -np.inf
    value = -(log_det + np.trace(np.linalg.solve(covariance, mean_scatter)))
    return float(value) if np.isfinite(value) else -np.inf


def low_rank(mean_scatter: np.ndarray, rank: int, floor: float, before: np.ndarray | None) -> np.ndarray:
    """Factors plus a diagonal, of the mean scatter C / n (M, M); no worse than `before`.

    Alternates the closed maximum over the factors given the diagonal (Lawley, 1940: the leading eigenvectors of the
    scatter in units of the diagonal) with the diagonal that leaves the variances matched, and keeps the best. The floor
    is of the diagonal, hence of every eigenvalue; with `rank` = M nothing is left to approximate and the full form
    results.
    """
    size = len(mean_scatter)
    if rank >= size:
        return raise_floor(mean_scatter, floor, False)
    variances = np.maximum(np.diagonal(mean_scatter), floor)
    diagonal = np.maximum(variances / 2, floor)
    best, gain = (before, _gain(before, mean_scatter)) if before is not None else (None, -np.inf)
    for _ in range(INNER):
        root = np.sqrt(diagonal)
        values, vectors = np.linalg.eigh(mean_scatter / np.outer(root, root))
        strength = np.sqrt(np.maximum(values[-rank:] - 1, 0))
        loadings = root[:, None] * vectors[:, -rank:] * strength
        found = loadings @ loadings.T + np.diag(diagonal)
        value = _gain(found, mean_scatter)
        if value > gain:
            best, gain = found, value
        diagonal = np.maximum(variances - (loadings**2).sum(axis=1), np.maximum(floor, 1e-6 * variances))
    return np.diag(variances) if best is None else best


def maximise(
    scatter: np.ndarray, totals: np.ndarray, form: str, floor: float, rank: int, before: np.ndarray | None
) -> np.ndarray:
    """Covariances (K, M, M) of a form, of penalised scatter (K, M, M) and its positive weight (K,).

    `before`: those of the iteration before, or None.
    """
    if form == "tied":
        pooled = raise_floor(scatter.sum(axis=0) / totals.sum(), floor, False)
        return np.repeat(pooled[None], len(scatter), axis=0)
    means = scatter / totals[:, None, None]
    if form == "lowrank":
        earlier = [None] * len(means) if before is None else before
        return np.array([low_rank(mean, rank, floor, one) for mean, one in zip(means, earlier, strict=True)])
    return raise_floor(means, floor, form == "diag")


def common(covariances: np.ndarray) -> np.ndarray:
    """The covariance (M, M) that those of the states (K, M, M) have in common: their harmonic mean.

    Eigenvalues are kept within what double precision resolves beside the largest, so that a covariance with outliers
    in one direction (its inverse is not positive any more) still has a mean with others.
    """
    return _inverse(_inverse(covariances).mean(axis=0))


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """Inverses of symmetric matrices (..., M, M) with eigenvalues kept within what is resolved beside the largest."""
    if above(matrices, CLEAR * np.trace(matrices, axis1=-2, axis2=-1)):
        return np.linalg.inv(matrices)
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(values, RESOLVED * values[..., -1:])
    return np.asarray((vectors / values[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def parameter_count(n_states: int, size: int, form: str, rank: int) -> int:
    """Free parameters of the noise covariances of K states; rotations of the factors are not counted."""
    full = size * (size + 1) // 2
    rank = min(rank, size)
    each = {
        "full": full,
        "tied": full,
        "diag": size,
        "lowrank": min(size * rank - rank * (rank - 1) // 2 + size, full),
    }[form]
    return each if form == "tied" else n_states * each
