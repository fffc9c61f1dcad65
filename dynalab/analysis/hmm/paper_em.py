"""Expectation maximisation as the published pipeline did it: hmmlearn's starts and hmmlearn's M-step.

hmmlearn 0.3 adds the scalar `covars_prior` to every entry of a full scatter matrix (not to its diagonal), divides by
the posterior count alone, and keeps zeros of start and transition probabilities for ever. Here the same steps are
made from stacked frames and matrix products. A floor, a re-seeding or a row of transitions is put in only where
hmmlearn would end in an exception or in NaN, and is counted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.hmm import inference
from dynalab.analysis.hmm.config import PaperSettings
from dynalab.analysis.hmm.covariances import raise_floor
from dynalab.analysis.hmm.emissions import Emission, log_density
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.iterations import Parameters

SETTINGS = PaperSettings()


@dataclass(frozen=True)
class PaperFit:
    """Where EM arrived: the HMM after the last M-step.

    Attributes:
        history: Log-likelihood at every E-step, nats.
        converged: The last gain was below the tolerance and not negative; False when iterations ran out first or the
            likelihood fell (hmmlearn calls all three converged).
        repairs: How often something was put right that hmmlearn would have failed on.
    """

    parameters: Parameters
    history: list[float]
    converged: bool
    repairs: int


def initialise(x: np.ndarray, n_states: int, seed: int, covariance: str) -> Parameters:
    """hmmlearn's start for an integer `random_state`, on training frames (N, M).

    Chain from Dirichlet(1/K), means from k-means (ten starts), for all states the covariance of all frames.
    """
    from sklearn.cluster import KMeans

    size = x.shape[1]
    rng = np.random.RandomState(seed)
    start = rng.dirichlet(np.full(n_states, 1 / n_states))
    transitions = rng.dirichlet(np.full(n_states, 1 / n_states), size=n_states)
    with warnings.catch_warnings():
        # Fewer distinct frames than states; the M-step deals with it.
        warnings.simplefilter("ignore")
        model = KMeans(min(n_states, len(x)), random_state=seed, n_init=10).fit(x)
    means = model.cluster_centers_[np.arange(n_states) % len(model.cluster_centers_)]
    pooled = np.zeros((size, size)) if len(x) < 2 else np.cov(x.T).reshape(size, size)
    pooled = pooled + SETTINGS.min_covar * np.eye(size)
    if covariance == "diag":
        pooled = np.diag(np.diagonal(pooled))
    return Parameters(
        start, transitions, Emission(means[:, :, None], np.repeat(pooled[None], n_states, axis=0))
    )


def _normalised(counts: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Probabilities from expected counts; zeros of the iteration before stay zero."""
    kept = np.where(before == 0, 0.0, counts)
    total = kept.sum(axis=-1, keepdims=True)
    return np.asarray(kept / np.where(total == 0, 1.0, total))


def m_step(
    frames: Frames, before: Parameters, found: inference.Expectation, covariance: str
) -> tuple[Parameters, int]:
    """hmmlearn's M-step on level frames in units of 1, and the number of repairs."""
    gram = frames.grams(found.posterior)
    post, total, square = gram[:, 0, 0], gram[:, 0, 1:], gram[:, 1:, 1:]
    dead = post <= 0
    weight = np.where(dead, 1.0, post)
    means = total / weight[:, None]
    outer = means[:, :, None] * total[:, None, :]
    scatter = (
        square
        - outer
        - outer.transpose(0, 2, 1)
        + post[:, None, None] * means[:, :, None] * means[:, None, :]
    )
    if covariance == "diag":
        size = scatter.shape[1]
        variances = np.diagonal(scatter, axis1=1, axis2=2) + SETTINGS.covars_prior
        covariances = (variances / np.maximum(weight, 1e-5)[:, None])[:, :, None] * np.eye(size)
    else:
        covariances = (scatter + SETTINGS.covars_prior) / weight[:, None, None]
    repairs = 0
    for k in np.flatnonzero(dead):
        # Worst explained frames first, one a dead state.
        worst = np.argsort(found.predictive)[repairs % len(found.predictive)]
        means[k] = frames.levels[worst]
        covariances[k] = np.diag(frames.levels.var(axis=0) + SETTINGS.min_covar)
        repairs += 1
    try:
        np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        # Relative to its own size: a state of a frame's billionth is as wide as the prior over its count.
        size = np.maximum(np.diagonal(covariances, axis1=1, axis2=2).max(axis=1), 1.0)[:, None, None]
        covariances = size * raise_floor(covariances / size, SETTINGS.floor, False)
        repairs += 1
    start = _normalised(found.starts, before.start)
    transitions = _normalised(found.pairs, before.transitions)
    for k in np.flatnonzero(transitions.sum(axis=1) == 0):
        # A state that is never left: hmmlearn refuses the model when it decodes.
        transitions[k, k] = 1.0
        repairs += 1
    return Parameters(start, transitions, Emission(means[:, :, None], covariances)), repairs


def run(frames: Frames, begin: Parameters, n_iter: int, tol: float, covariance: str) -> PaperFit:
    """EM as `GaussianHMM.fit` runs it: an M-step follows every E-step, also the last one.

    It stops when the log-likelihood of all frames gains less than `tol` nats. Frames are levels in units of 1.
    """
    history: list[float] = []
    current, repairs = begin, 0
    for _ in range(n_iter):
        density = log_density(frames, current.emission)
        found = inference.expect(current.start, current.transitions, density, frames.lengths)
        history.append(found.log_likelihood)
        current, put_right = m_step(frames, current, found, covariance)
        repairs += put_right
        if len(history) > 1 and history[-1] - history[-2] < tol:
            return PaperFit(current, history, history[-1] >= history[-2], repairs)
    return PaperFit(current, history, False, repairs)
