"""What an HMM says of sequences, given the log-density of every frame under every state.

Sequences are stacked: `log_density` holds the frames of all runs one after another, `lengths` says where each
ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.hmm import kernels


@dataclass(frozen=True)
class Expectation:
    """What one pass forward and backward over all sequences yields.

    Attributes:
        log_likelihoods: One per sequence, shape (S,), nats.
        posterior: Smoothed p(z_t | all of its run), shape (N, K).
        filtered: p(z_t | x_1..x_t), shape (N, K).
        predictive: log p(x_t | x_1..x_{t-1}), shape (N,), nats; sums to the log-likelihood.
        starts: Expected number of sequences that start in each state, shape (K,).
        pairs: Expected number of transitions i -> j, shape (K, K).
    """

    log_likelihoods: np.ndarray
    posterior: np.ndarray
    filtered: np.ndarray
    predictive: np.ndarray
    starts: np.ndarray
    pairs: np.ndarray

    @property
    def log_likelihood(self) -> float:
        """Of all sequences together, nats."""
        return float(self.log_likelihoods.sum())


def slices(lengths: Sequence[int]) -> Iterator[slice]:
    """The rows of each sequence in the stacked arrays."""
    end = 0
    for length in lengths:
        yield slice(end, end + length)
        end += length


def _shifted(log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities (N, K) scaled to a largest value of 1 per frame, and the log of that scale (N,)."""
    shift = log_density.max(axis=1)
    return np.exp(log_density - shift[:, None]), shift


def expect(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> Expectation:
    """Forward-backward over all sequences.

    Args:
        start: Start probabilities, shape (K,), positive.
        transitions: Transition probabilities, shape (K, K), positive.
        log_density: Emission log-densities, shape (N, K).
        lengths: Frames per sequence, each 1 or more, summing to N.

    Returns:
        Likelihoods, posteriors and expected counts.
    """
    density, shift = _shifted(log_density)
    posterior = np.empty_like(density)
    filtered = np.empty_like(density)
    predictive = shift.copy()
    starts = np.zeros(len(start))
    pairs = np.zeros_like(transitions)
    log_likelihoods = np.empty(len(lengths))
    for index, rows in enumerate(slices(lengths)):
        frames = density[rows]
        log_likelihood, lattice, scaling = kernels.forward(start, transitions, frames)
        behind = kernels.backward(start, transitions, frames, scaling)
        smoothed = lattice * behind
        smoothed /= smoothed.sum(axis=1, keepdims=True)
        posterior[rows] = smoothed
        filtered[rows] = lattice
        predictive[rows] -= np.log(scaling)
        starts += smoothed[0]
        pairs += kernels.pair_sums(lattice, transitions, behind, frames)
        log_likelihoods[index] = log_likelihood + shift[rows].sum()
    return Expectation(log_likelihoods, posterior, filtered, predictive, starts, pairs)


def score(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """Log-likelihood of every sequence, shape (S,), nats; arguments as for `expect`."""
    density, shift = _shifted(log_density)
    return np.array(
        [
            kernels.forward(start, transitions, density[rows])[0] + shift[rows].sum()
            for rows in slices(lengths)
        ]
    )


def filtering(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """Filtering posterior p(z_t | x_1..x_t), shape (N, K): what is known of a run still training."""
    density, _ = _shifted(log_density)
    return np.concatenate([kernels.forward(start, transitions, density[rows])[1] for rows in slices(lengths)])


def viterbi(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> list[np.ndarray]:
    """The most probable path of every sequence, integers of shape (T,) each; arguments as for `expect`."""
    return [kernels.best_path(start, transitions, log_density[rows])[1] for rows in slices(lengths)]
