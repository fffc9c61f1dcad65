"""Emissions of the HMM: densities, penalised maximisation, priors and parameter counts.

One linear-Gaussian form serves both emissions (`frames` says how): y ~ N(W_k u, Sigma_k). The penalty is the
log of a matrix-normal and an inverse-Wishart kernel,

    - 1/2 tr(Sigma_k^-1 W_k R W_k^T)  -  1/2 (w log|Sigma_k| + tr(Sigma_k^-1 D)),     R, D diagonal,

whose joint maximum with the weighted likelihood is closed (Bishop, PRML, 2006, sections 2.3.6 and 3.3): W_k
does not depend on Sigma_k, and Sigma_k = (residual scatter + W_k R W_k^T + D) / (n_k + w); `covariances` does the
same for covariances of other forms.

States may besides share what they know of the noise: each Sigma_k has an inverse-Wishart prior of c pseudo-frames
around a common covariance S, which is itself at its maximum, the harmonic mean of the Sigma_k,

    c/2 sum_k (log|S| - log|Sigma_k| - tr(Sigma_k^-1 S)).

c = 0 gives each state a covariance of its own, a large c the same to all; between the two every state departs from
the others as far as its frames speak for it (empirical Bayes; Efron and Morris, 1973, for means). The maximum over
Sigma and S in turn never lowers the objective.

R is diagonal. D is a share of the covariance of the one-state model's residual, not diagonal: weight metrics are nearly
collinear, and a diagonal D charges every state for the directions in which they hardly move, an empty one least.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dynalab.analysis.hmm import covariances as forms
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.frames import LEAST_UNIT, MOST_MULTIPLICATIONS, Frames

# Turns between the states' covariances and their common one inside an M-step; the next one goes on from there.
ROUNDS = 3
# Most frames whose whitened residuals are made at a time: they lie in the cache.
BLOCK = 1000
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Prior:
    """Penalties and the floor, in units of `Frames.unit`.

    Attributes:
        ridge: R, shape (P, P), pseudo-frames.
        weight: w, pseudo-frames behind the noise covariance.
        scatter: D, shape (M, M).
        floor: Least eigenvalue of a noise covariance.
        counts: Pseudo-counts of start and transition probabilities; `sticky`: of self-transitions besides.
        covariance: Form of the noise covariances; `rank`: number of factors of `lowrank`.
        common: c, pseudo-frames behind the common covariance.
        ordered: Whether states can only be left for later ones.
        independent: Whether frames are drawn independently: a mixture, whose transitions all equal the start.
    """

    ridge: np.ndarray
    weight: float
    scatter: np.ndarray
    floor: float
    counts: float
    covariance: str = "full"
    rank: int = 1
    common: float = 0.0
    sticky: float = 0.0
    ordered: bool = False
    independent: bool = False


@dataclass(frozen=True)
class Emission:
    """Parameters of K states, in units of `Frames.unit`: W (K, M, P) and Sigma (K, M, M).

    A run's first frame has mean (M,) and covariance (M, M) in normalised features; None for `level`.
    """

    weights: np.ndarray
    covariances: np.ndarray
    first_mean: np.ndarray | None = None
    first_covariance: np.ndarray | None = None

    @cached_property
    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """L^-1 of Sigma = L L^T, shape (K, M, M), and log|Sigma|, shape (K,): density and penalty both need them."""
        cholesky = np.linalg.cholesky(self.covariances)
        log_det = 2 * np.log(np.diagonal(cholesky, axis1=1, axis2=2)).sum(axis=1)
        return np.linalg.inv(cholesky), log_det

    @cached_property
    def common(self) -> np.ndarray:
        """What the covariances have in common (M, M): the penalty and the M-step after it both need it."""
        return forms.common(self.covariances)

    @cached_property
    def maps(self) -> np.ndarray:
        """L^-1 (-W, I), shape (K, M, P + M): what makes whitened residuals of a row (u, y)."""
        whiten, _ = self.factors
        return np.concatenate([-whiten @ self.weights, whiten], axis=2)


def make_prior(frames: Frames, config: Config, independent: bool = False) -> Prior:
    """Penalties scaled to the data: noise is pulled toward a share of the one-state model's residual covariance."""
    settings = config.settings
    p = frames.inputs
    size = frames.design.shape[1] - p
    weight = settings.shrinkage + size
    pull = settings.ridges[-1] if config.ridge is None else config.ridge
    ridge = np.diag([float(pull)] * (p - 1) + [settings.intercept_ridge])
    bare = Prior(ridge, 0.0, np.zeros((size, size)), settings.floor, settings.transition_prior)
    n = len(frames.design)
    if n:
        found = maximise(frames, np.ones((len(frames.levels), 1)), bare)[1][0]
        # Few frames are fitted too well; with fewer frames than inputs the residual says nothing.
        residual = found * n / max(n - p, 1)
    else:
        residual = np.eye(size)
    scatter = weight * settings.shrinkage_scale * forms.raise_floor(residual, settings.floor, False)
    if config.covariance == "diag":
        scatter = np.diag(np.diagonal(scatter))
    return replace(
        bare,
        weight=weight,
        scatter=scatter,
        covariance=config.covariance,
        rank=min(config.rank, size),
        common=settings.commons[0] if config.common is None else config.common,
        sticky=config.sticky,
        ordered=config.left_to_right,
        independent=independent,
    )


def first_frames(
    frames: Frames, shrinkage: float, diagonal: bool
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Mean (M,) and covariance (M, M) of the first frames under `ar`: there is one frame a run, so they are shrunk.

    The pull is `shrinkage` pseudo-frames of the pooled variance of levels.
    """
    if frames.emission != "ar":
        return None, None
    x = frames.levels[frames.firsts]
    mean = x.mean(axis=0)
    pooled = np.maximum(frames.variances, LEAST_UNIT**2)
    scatter = (x - mean).T @ (x - mean) + shrinkage * np.diag(pooled)
    covariance = scatter / (len(x) + shrinkage)
    return mean, np.diag(np.diagonal(covariance)) if diagonal else covariance


def maximise(
    frames: Frames, posterior: np.ndarray, prior: Prior, before: Emission | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted, penalised M-step: W (K, M, P) and Sigma (K, M, M), given posteriors (N, K).

    `before`: of the iteration before; a form without a closed maximum must not fall behind its noise covariances.
    """
    weighted = frames.predicted(posterior)
    counts = np.ones(len(weighted)) @ weighted
    weights, scatter, totals = penalised(frames.grams(weighted), counts, prior, frames.inputs)
    return weights, maximise_scatter(scatter, totals, prior, before)


def penalised(
    grams: np.ndarray, counts: np.ndarray, prior: Prior, inputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return W (K, M, P), the scatter of the residuals with its penalty (K, M, M), and its weight (K,).

    Given the sums of products of (u, y) of each state's frames, shape (K, P + M, P + M), and their number (K,).
    """
    cross = grams[:, :inputs, inputs:]
    solution = np.linalg.solve(grams[:, :inputs, :inputs] + prior.ridge, cross)
    # Equal to residual scatter + W R W^T, without forming residuals.
    scatter = grams[:, inputs:, inputs:] - cross.transpose(0, 2, 1) @ solution + prior.scatter
    return solution.transpose(0, 2, 1), scatter, np.maximum(counts + prior.weight, 1e-300)


def maximise_scatter(
    scatter: np.ndarray, totals: np.ndarray, prior: Prior, before: Emission | None = None
) -> np.ndarray:
    """Noise covariances (K, M, M) of penalised scatter (K, M, M) and its weight (K,); `before` as of `maximise`."""
    found = None if before is None else before.covariances
    if not shares(prior, len(scatter)):
        return forms.maximise(scatter, totals, prior.covariance, prior.floor, prior.rank, found)
    if found is None:
        found = forms.maximise(scatter, totals, prior.covariance, prior.floor, prior.rank, None)
    for turn in range(ROUNDS):
        common = forms.common(found) if before is None or turn else before.common
        pulled = scatter + prior.common * common
        found = forms.maximise(
            pulled, totals + prior.common, prior.covariance, prior.floor, prior.rank, found
        )
    return found


def shares(prior: Prior, n_states: int) -> bool:
    """Whether states have a noise in common besides their own (`tied` has nothing else)."""
    return prior.common > 0 and n_states > 1 and prior.covariance != "tied"


def log_density(frames: Frames, emission: Emission) -> np.ndarray:
    """Log-density of every frame under every state, shape (N, K) in memory by states, nats in the normalised features.

    One matrix product whitens a block of frames under all states at once; frames come last there, where sums over the
    features are of whole rows.
    """
    n_states, size, _ = emission.weights.shape
    maps, n_frames = emission.maps.reshape(n_states * size, -1), len(frames.levels)
    width = max(1, min(BLOCK, MOST_MULTIPLICATIONS // maps.size))
    white, squares = np.empty((n_states * size, width)), np.empty((n_states, n_frames))
    for begin in range(0, n_frames, width):
        block = frames.columns[:, begin : begin + width]
        np.matmul(maps, block, out=white[:, : block.shape[1]])
        parts = white.reshape(n_states, size, width)[:, :, : block.shape[1]]
        np.einsum("kmn,kmn->kn", parts, parts, out=squares[:, begin : begin + width])
    squares += (emission.factors[1] + 2 * np.log(frames.unit).sum())[:, None] + size * LOG_2PI
    squares *= -0.5
    out = squares.T
    if emission.first_mean is not None:
        out[frames.firsts] = first_log_density(frames, emission)[:, None]
    out[frames.skipped] = 0.0
    return out


def first_log_density(frames: Frames, emission: Emission) -> np.ndarray:
    """Log-density of each run's first frame, which is the same under every state (`ar`), shape (S,), nats."""
    assert emission.first_mean is not None and emission.first_covariance is not None
    factor = np.linalg.cholesky(emission.first_covariance)
    z = np.linalg.solve(factor, (frames.levels[frames.firsts] - emission.first_mean).T)
    constant = 2 * np.log(np.diagonal(factor)).sum() + len(factor) * LOG_2PI
    return np.asarray(-0.5 * ((z**2).sum(axis=0) + constant))


def log_penalty(emission: Emission, prior: Prior) -> float:
    """The penalty that the M-step adds to the log-likelihood, nats (constants left out)."""
    whiten, log_det = emission.factors
    p = emission.weights.shape[2]
    # tr(Sigma^-1 (W R W^T + D)), R diagonal.
    pulled = np.square(emission.maps[:, :, :p]).sum(axis=(0, 1)) @ np.diagonal(prior.ridge)
    spread = np.vdot(whiten, whiten @ prior.scatter)
    found = float(-0.5 * (prior.weight * log_det.sum() + pulled + spread))
    n_states, size = whiten.shape[:2]
    if shares(prior, n_states):
        # At the best S the traces add up to K M.
        middle = np.linalg.slogdet(emission.common)[1]
        found += 0.5 * prior.common * float(n_states * middle - log_det.sum() - n_states * size)
    return found


def parameter_count(
    n_states: int, size: int, emission: str, covariance: str, rank: int = 1, ordered: bool = False
) -> int:
    """Free parameters of a model, for BIC.

    (K - 1) start + K (K - 1) transitions (half of them left to right) + K M P weights, P = 1 (level) or M + 1 (ar)
    + noise covariances + the Gaussian of first frames once (`ar`).
    """
    noise = forms.parameter_count(n_states, size, covariance, rank)
    inputs = size + 1 if emission == "ar" else 1
    first = size + (size if covariance == "diag" else size * (size + 1) // 2) if emission == "ar" else 0
    chain = n_states * (n_states - 1)
    return (n_states - 1) + (chain // 2 if ordered else chain) + n_states * size * inputs + noise + first
