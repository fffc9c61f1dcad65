"""What an HMM says of sequences, given the log-density of every frame under every state.

Sequences are stacked: `log_density` holds the frames of all runs one after another, `lengths` says where each
ends.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def slices(lengths: Sequence[int]) -> tuple[slice, ...]:
    """The rows of each sequence in the stacked arrays."""
    return kernels.places(tuple(lengths))[0]


def _begins(lengths: Sequence[int]) -> np.ndarray:
    return kernels.places(tuple(lengths))[1]


def _shifted(log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities (N, K) shifted to a largest value of 0 per frame, and that shift (N,)."""
    shift = log_density.max(axis=1)
    return log_density - shift[:, None], shift


def expect(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> Expectation:
    """Forward-backward over all sequences: likelihoods, posteriors and expected counts.

    Given start (K,) and transition probabilities (K, K), emission log-densities (N, K) and frames per sequence, each 1
    or more, summing to N.
    """
    shifted, shift = _shifted(log_density)
    found = kernels.forward_backward(start, transitions, shifted, lengths)
    log_likelihoods, filtered, posterior, predictive, pairs = found
    posterior /= (posterior @ np.ones(len(start)))[:, None]
    begins = _begins(lengths)
    likelihoods, starts = log_likelihoods + np.add.reduceat(shift, begins), posterior[begins].sum(axis=0)
    return Expectation(likelihoods, posterior, filtered, predictive + shift, starts, pairs)


def expect_independent(start: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]) -> Expectation:
    """The same for a mixture: frames drawn independently, with `start` as weights (so nothing is known of pairs)."""
    joint = log_density + np.log(start)
    shifted, shift = _shifted(joint)
    posterior = np.exp(shifted)
    total = posterior @ np.ones(len(start))
    posterior /= total[:, None]
    predictive = shift + np.log(total)
    begins = _begins(lengths)
    likelihoods, starts = np.add.reduceat(predictive, begins), posterior[begins].sum(axis=0)
    none = np.zeros((len(start), len(start)))
    return Expectation(likelihoods, posterior, posterior, predictive, starts, none)


def _filtered(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of every sequence (S,) and the filtering posterior (N, K)."""
    shifted, shift = _shifted(log_density)
    values, posterior = kernels.likelihoods(start, transitions, shifted, lengths)
    return values + np.add.reduceat(shift, _begins(lengths)), posterior


def score(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """Log-likelihood of every sequence, shape (S,), nats; arguments as for `expect`."""
    return _filtered(start, transitions, log_density, lengths)[0]


def filtering(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """Filtering posterior p(z_t | x_1..x_t), shape (N, K): what is known of a run still training."""
    return _filtered(start, transitions, log_density, lengths)[1]


def predictive(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """Log-density of every frame given those before it, log p(x_t | x_1..x_{t-1}), shape (N,), nats."""
    filtered = filtering(start, transitions, log_density, lengths)
    before = np.empty_like(filtered)
    before[1:] = filtered[:-1] @ transitions
    before[_begins(lengths)] = start
    shifted, shift = _shifted(log_density)
    return np.asarray(np.log((before * np.exp(shifted)).sum(axis=1)) + shift)


def viterbi(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray, lengths: Sequence[int]
) -> list[np.ndarray]:
    """The most probable path of every sequence, integers of shape (T,) each; arguments as for `expect`."""
    return [kernels.best_path(start, transitions, log_density[rows]) for rows in slices(lengths)]
