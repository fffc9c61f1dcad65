"""The compiled recursions of hmmlearn, behind one small interface.

`hmmlearn._hmmc` is private to hmmlearn (0.3.3 is pinned in pyproject.toml); this is the only module that touches it,
and tests hold each function here against the sum over all paths. The scaled form is used: it is 4 to 8 times faster
than that in logarithms (301 frames, 8 states: 163 against 1,050 microseconds for forward, backward and pair sums), and
it also yields the filtering posterior directly.

The scaled form takes emission densities, not their logarithms. It cannot underflow as long as each frame is
shifted so that its best state has density 1 and every start and transition probability is positive. Where some are 0
(left to right; hmmlearn's own M-step) it may: then the sequence is done in logarithms.

All arrays are float64 and C-contiguous: emissions (T, K), start (K,), transitions (K, K).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hmmlearn import _hmmc

# Beyond this the backward recursion could overflow.
LARGEST_SCALING = 1e100
# Nats that a sequence with probabilities of 0 may lose to its best densities.
MILD = 600.0
# So many times as many sequences as frames in the longest are done side by side, frame by frame: a call of a kernel
# takes as long as 3 frames of all of them (1,000 sequences of 21 frames, 5 states: 13 against 2.5 ms).
MANY = 3


def forward(
    start: np.ndarray, transitions: np.ndarray, density: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Scaled forward recursion of one sequence; of `density` (T, K) each row has a largest value of 1.

    Returns the log-likelihood in nats, the filtering posterior p(z_t | x_1..x_t) of shape (T, K), and the scaling
    factors 1 / p(x_t | x_1..x_{t-1}) of shape (T,).
    """
    log_likelihood, lattice, scaling = _hmmc.forward_scaling(start, transitions, density)
    return float(log_likelihood), lattice, scaling


def _safe(start: np.ndarray, transitions: np.ndarray) -> bool:
    """Whether no shifted frame can ask for a scaling that overflows."""
    return bool(min(start.min(), transitions.min()) > 1 / LARGEST_SCALING)


def _mild(scaling: np.ndarray) -> bool:
    """Whether no path that died out by underflow can matter for what comes after it.

    Such a path had less than e^-700 of the evidence when it died, and gains no more on the others than the evidence
    falls behind the best densities, which is the product of the scalings.
    """
    return float(np.log(scaling).sum()) < MILD


def forward_backward(
    start: np.ndarray,
    transitions: np.ndarray,
    density: np.ndarray,
    log_density: np.ndarray,
    sequences: Sequence[slice],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Forward and backward of stacked sequences, scaled where that is safe and in logarithms where it is not.

    Given shifted densities of all frames and their logarithms, both (N, K), and the rows of each sequence.

    Returns, of the shifted densities, the log-likelihood of each sequence (S,), nats, p(z_t | x_1..x_t) (N, K),
    p(z_t | all) up to a factor per frame (N, K), log p(x_t | x_1..x_{t-1}) (N,) and the expected number of transitions
    (K, K).
    """
    filtered, behind, scaling = np.empty_like(density), np.empty_like(density), np.ones(len(density))
    log_likelihoods = np.empty(len(sequences))
    safe = _safe(start, transitions)
    beside = safe and _are_many(sequences)
    if beside:
        log_likelihoods = _forward_beside(start, transitions, density, sequences, filtered, scaling)
        _backward_beside(transitions, density, sequences, scaling, behind)
    slow: list[int] = []
    for index, rows in enumerate(() if beside else sequences):
        here = density[rows]
        try:
            log_likelihoods[index], filtered[rows], factors = forward(start, transitions, here)
            if safe or _mild(factors):
                behind[rows] = _hmmc.backward_scaling(start, transitions, here, factors)
                scaling[rows] = factors
                continue
        except ValueError:
            # hmmlearn says so when a row of densities underflows.
            pass
        slow.append(index)
        filtered[rows] = behind[rows] = 0.0
    # Expected transitions i -> j at t are filtered_{t-1,i} A_ij density_tj behind_tj: a matrix product over all t that
    # do not begin a sequence.
    arrived = density * behind
    arrived[[rows.start for rows in sequences]] = 0.0
    pairs = transitions * (filtered[:-1].T @ arrived[1:])
    smoothed = np.multiply(filtered, behind, out=behind)
    predictive = -np.log(scaling)
    for index in slow:
        rows = sequences[index]
        found = _in_logarithms(start, transitions, log_density[rows])
        log_likelihoods[index], filtered[rows], smoothed[rows], predictive[rows], own = found
        pairs += own
    return log_likelihoods, filtered, smoothed, predictive, pairs


def _in_logarithms(
    start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood, filtered, smoothed, predictive and pairs (as of `forward_backward`) of one sequence."""
    log_density = np.ascontiguousarray(log_density)
    log_likelihood, lattice = _hmmc.forward_log(start, transitions, log_density)
    behind = _hmmc.backward_log(start, transitions, log_density)
    evidence = np.logaddexp.reduce(lattice, axis=1)
    filtered = np.exp(lattice - evidence[:, None])
    both = lattice + behind
    smoothed = np.exp(both - both.max(axis=1, keepdims=True))
    pairs = np.zeros_like(transitions)
    if len(lattice) > 1:
        pairs = np.exp(_hmmc.compute_log_xi_sum(lattice, transitions, behind, log_density))
    return float(log_likelihood), filtered, smoothed, np.diff(evidence, prepend=0.0), pairs


def likelihoods(
    start: np.ndarray,
    transitions: np.ndarray,
    density: np.ndarray,
    log_density: np.ndarray,
    sequences: Sequence[slice],
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of each sequence (S,) and its filtering posterior (N, K); as `forward_backward`."""
    found, filtered = np.empty(len(sequences)), np.empty_like(density)
    safe = _safe(start, transitions)
    if safe and _are_many(sequences):
        scaling = np.empty(len(density))
        return _forward_beside(start, transitions, density, sequences, filtered, scaling), filtered
    for index, rows in enumerate(sequences):
        try:
            found[index], filtered[rows], factors = forward(start, transitions, density[rows])
            if safe or _mild(factors):
                continue
        except ValueError:
            pass
        found[index], lattice = _hmmc.forward_log(start, transitions, np.ascontiguousarray(log_density[rows]))
        filtered[rows] = np.exp(lattice - np.logaddexp.reduce(lattice, axis=1)[:, None])
    return found, filtered


def _are_many(sequences: Sequence[slice]) -> bool:
    return len(sequences) > MANY * max(rows.stop - rows.start for rows in sequences)


def _frames_of(sequences: Sequence[slice]) -> list[np.ndarray]:
    """The rows of the first, second, ... frames of all sequences that have one, longest sequences first."""
    lengths = np.array([rows.stop - rows.start for rows in sequences])
    order = np.argsort(-lengths, kind="stable")
    begins, lengths = np.array([rows.start for rows in sequences])[order], lengths[order]
    left = np.searchsorted(-lengths, -np.arange(1, lengths[0] + 1), side="right")
    return [begins[:n] + t for t, n in enumerate(left)]


def _forward_beside(
    start: np.ndarray,
    transitions: np.ndarray,
    density: np.ndarray,
    sequences: Sequence[slice],
    filtered: np.ndarray,
    scaling: np.ndarray,
) -> np.ndarray:
    """As `forward`, of all sequences frame by frame: fills in `filtered` and `scaling`, returns log-likelihoods (S,)."""
    arrived = np.broadcast_to(start, (len(sequences), len(start)))
    for rows in _frames_of(sequences):
        both = arrived[: len(rows)] * density[rows]
        scaling[rows] = factors = 1 / both.sum(axis=1)
        filtered[rows] = both = both * factors[:, None]
        arrived = both @ transitions
    return np.asarray(np.add.reduceat(-np.log(scaling), [rows.start for rows in sequences]))


def _backward_beside(
    transitions: np.ndarray,
    density: np.ndarray,
    sequences: Sequence[slice],
    scaling: np.ndarray,
    behind: np.ndarray,
) -> None:
    """The scaled backward recursion of all sequences, frame by frame: fills in `behind` (N, K)."""
    ahead = np.empty((0, len(transitions)))
    for rows in reversed(_frames_of(sequences)):
        both = np.ones((len(rows), len(transitions)))
        both[: len(ahead)] = ahead @ transitions.T
        both *= scaling[rows][:, None]
        behind[rows] = both
        ahead = density[rows] * both


def best_path(start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """Viterbi path of one sequence of log-densities (T, K), integers of shape (T,)."""
    return np.asarray(_hmmc.viterbi(start, transitions, log_density)[1], dtype=np.int64)
