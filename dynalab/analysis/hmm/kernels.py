"""The compiled recursions of hmmlearn, behind one small interface.

`hmmlearn._hmmc` is private to hmmlearn (0.3.3 is pinned in pyproject.toml); this is the only module that
touches it, and tests hold each function here against the sum over all paths. It offers the recursions for one
sequence, in log form and in scaled form. The scaled form is used: it is 4 to 8 times faster (301 frames, 8
states: 163 against 1,050 microseconds for forward, backward and pair sums), and it also yields the filtering
posterior directly.

The scaled form takes emission densities, not their logarithms. It cannot underflow as long as each frame is
shifted so that its best state has density 1 and every start and transition probability is positive. Where some are 0
(left to right; hmmlearn's own M-step) it may: then the sequence is done in logarithms.

All arrays are float64 and C-contiguous: emissions (T, K), start (K,), transitions (K, K).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hmmlearn import _hmmc
from scipy.special import logsumexp

# Beyond this the backward recursion could overflow.
LARGEST_SCALING = 1e100


def forward(
    start: np.ndarray, transitions: np.ndarray, density: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Scaled forward recursion of one sequence.

    Args:
        start: Start probabilities, shape (K,), positive.
        transitions: Transition probabilities, rows sum to 1, shape (K, K), positive.
        density: Emission densities, shape (T, K), each row scaled to a largest value of 1.

    Returns:
        The log-likelihood in nats, the filtering posterior p(z_t | x_1..x_t) of shape (T, K), and the scaling
        factors 1 / p(x_t | x_1..x_{t-1}) of shape (T,).
    """
    log_likelihood, lattice, scaling = _hmmc.forward_scaling(start, transitions, density)
    return float(log_likelihood), lattice, scaling


def backward(
    start: np.ndarray, transitions: np.ndarray, density: np.ndarray, scaling: np.ndarray
) -> np.ndarray:
    """Scaled backward recursion of one sequence, with the factors of `forward`; shape (T, K)."""
    return np.asarray(_hmmc.backward_scaling(start, transitions, density, scaling))


def pair_sums(
    lattice: np.ndarray, transitions: np.ndarray, behind: np.ndarray, density: np.ndarray
) -> np.ndarray:
    """Expected number of transitions i -> j in one sequence, shape (K, K).

    Args:
        lattice: From `forward`, shape (T, K).
        transitions: Transition probabilities, shape (K, K).
        behind: From `backward`, shape (T, K).
        density: As given to `forward`, shape (T, K).
    """
    if len(lattice) < 2:
        return np.zeros_like(transitions)
    return np.asarray(_hmmc.compute_scaling_xi_sum(lattice, transitions, behind, density))


@dataclass(frozen=True)
class Lattice:
    """What forward and backward yield of one sequence.

    Attributes:
        log_likelihood: Nats, of the shifted densities.
        filtered: p(z_t | x_1..x_t), shape (T, K).
        smoothed: p(z_t | all) up to a factor per frame, shape (T, K).
        predictive: log p(x_t | x_1..x_{t-1}) of the shifted densities, shape (T,).
        pairs: Expected number of transitions, shape (K, K).
    """

    log_likelihood: float
    filtered: np.ndarray
    smoothed: np.ndarray
    predictive: np.ndarray
    pairs: np.ndarray


def _safe(start: np.ndarray, transitions: np.ndarray) -> bool:
    """Whether no shifted frame can ask for a scaling that overflows."""
    return bool(min(start.min(), transitions.min()) > 1 / LARGEST_SCALING)


def forward_backward(
    start: np.ndarray, transitions: np.ndarray, density: np.ndarray, log_density: np.ndarray
) -> Lattice:
    """Forward and backward of one sequence, scaled where that is safe and in logarithms where it is not.

    Args:
        start: Shape (K,).
        transitions: Shape (K, K).
        density: Shifted densities, shape (T, K).
        log_density: Their logarithms, shape (T, K), for the slow way.
    """
    try:
        log_likelihood, filtered, scaling = forward(start, transitions, density)
        if _safe(start, transitions) or scaling.max() < LARGEST_SCALING:
            behind = backward(start, transitions, density, scaling)
            pairs = pair_sums(filtered, transitions, behind, density)
            return Lattice(log_likelihood, filtered, filtered * behind, -np.log(scaling), pairs)
    except ValueError:
        # hmmlearn says so when a row of densities underflows.
        pass
    return _in_logarithms(start, transitions, log_density)


def _in_logarithms(start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray) -> Lattice:
    log_density = np.ascontiguousarray(log_density)
    log_likelihood, lattice = _hmmc.forward_log(start, transitions, log_density)
    behind = _hmmc.backward_log(start, transitions, log_density)
    evidence = logsumexp(lattice, axis=1)
    filtered = np.exp(lattice - evidence[:, None])
    both = lattice + behind
    smoothed = np.exp(both - both.max(axis=1, keepdims=True))
    pairs = np.zeros_like(transitions)
    if len(lattice) > 1:
        pairs = np.exp(_hmmc.compute_log_xi_sum(lattice, transitions, behind, log_density))
    predictive = np.diff(evidence, prepend=0.0)
    return Lattice(float(log_likelihood), filtered, smoothed, predictive, pairs)


def likelihood(
    start: np.ndarray, transitions: np.ndarray, density: np.ndarray, log_density: np.ndarray
) -> tuple[float, np.ndarray]:
    """Log-likelihood of one sequence's shifted densities and its filtering posterior (T, K); as `forward_backward`."""
    try:
        log_likelihood, filtered, scaling = forward(start, transitions, density)
        if scaling.max() < LARGEST_SCALING:
            return log_likelihood, filtered
    except ValueError:
        pass
    log_likelihood, lattice = _hmmc.forward_log(start, transitions, np.ascontiguousarray(log_density))
    return float(log_likelihood), np.exp(lattice - logsumexp(lattice, axis=1)[:, None])


def best_path(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray
) -> tuple[float, np.ndarray]:
    """Viterbi path of one sequence.

    Args:
        start: Start probabilities, shape (K,).
        transitions: Transition probabilities, shape (K, K).
        log_density: Emission log-densities, shape (T, K).

    Returns:
        Joint log-probability of path and data, and the path, integers of shape (T,).
    """
    log_probability, path = _hmmc.viterbi(start, transitions, log_density)
    return float(log_probability), np.asarray(path, dtype=np.int64)
