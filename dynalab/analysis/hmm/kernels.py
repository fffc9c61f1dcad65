"""The compiled recursions of hmmlearn, behind one small interface.

`hmmlearn._hmmc` is private to hmmlearn (0.3.3 is pinned in pyproject.toml); this is the only module that touches it,
and tests hold each function here against the sum over all paths. The scaled form is used: it is 4 to 8 times faster
than that in logarithms (301 frames, 8 states: 163 against 1,050 microseconds for forward, backward and pair sums), and
it also yields the filtering posterior directly.

The scaled form takes emission densities, not their logarithms. It cannot underflow as long as each frame is
shifted so that its best state has density 1 and every start and transition probability is positive. Where some are 0
(left to right; hmmlearn's own M-step) it may: then the sequence is done in logarithms.

Densities that cannot matter are raised to one that cannot either: what underflows is denormal on the way there, and
arithmetic with denormals takes ten times as long (4,816 frames, 6 states: 1.5 against .5 ms).

All arrays are float64 and C-contiguous: emissions (T, K), start (K,), transitions (K, K).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from hmmlearn import _hmmc

# Beyond this the backward recursion could overflow.
LARGEST_SCALING = 1e100
# Least log-density of a state beside a frame's best. To leave a state for a frame and come back costs a factor of
# LARGEST_SCALING squared at most where that is safe, e^460: beside that, it lies below rounding.
LEAST = -500.0
# Nats that a sequence with probabilities of 0 may lose to its best densities.
MILD = 600.0
# So many times as many sequences as frames in the longest are done side by side, frame by frame: a call of a kernel
# takes as long as 3 frames of all of them (1,000 sequences of 21 frames, 5 states: 13 against 2.5 ms).
MANY = 3


@lru_cache(maxsize=16)
def places(lengths: tuple[int, ...]) -> tuple[tuple[slice, ...], np.ndarray]:
    """The rows of each sequence in the stacked arrays, and the first of each, shape (S,)."""
    ends = np.cumsum(lengths).tolist()
    begins = [end - length for end, length in zip(ends, lengths, strict=True)]
    return tuple(map(slice, begins, ends)), np.array(begins, dtype=np.int64)


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


def _densities(log_density: np.ndarray, safe: bool) -> np.ndarray:
    """Densities (N, K) of logarithms that are 0 at most; where `safe`, none is near underflow."""
    return np.ascontiguousarray(np.exp(np.maximum(log_density, LEAST) if safe else log_density))


def _mild(scaling: np.ndarray) -> bool:
    """Whether no path that died out by underflow can matter for what comes after it.

    Such a path had less than e^-700 of the evidence when it died, and gains no more on the others than the evidence
    falls behind the best densities, which is the product of the scalings.
    """
    return float(np.log(scaling).sum()) < MILD


def forward_backward(
    start: np.ndarray,
    transitions: np.ndarray,
    log_density: np.ndarray,
    lengths: Sequence[int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Forward and backward of stacked sequences, scaled where that is safe and in logarithms where it is not.

    Given log-densities of all frames (N, K), shifted to a largest value of 0 in each, and the frames of each sequence.

    Returns, of these, the log-likelihood of each sequence (S,), nats, p(z_t | x_1..x_t) (N, K),
    p(z_t | all) up to a factor per frame (N, K), log p(x_t | x_1..x_{t-1}) (N,) and the expected number of transitions
    (K, K).
    """
    safe = _safe(start, transitions)
    density = _densities(log_density, safe)
    filtered, behind, scaling = np.empty_like(density), np.empty_like(density), np.ones(len(density))
    log_likelihoods = np.empty(len(lengths))
    sequences, begins = places(tuple(lengths))
    many = _beside(tuple(lengths)) if safe else None
    if many is not None:
        ordered = density.take(many.order, axis=0)
        filtered, factors = _forward_beside(start, transitions, ordered, many)
        behind = _backward_beside(transitions, ordered, factors, many).take(many.back, axis=0)
        filtered, scaling = filtered.take(many.back, axis=0), factors.take(many.back)
        log_likelihoods = np.add.reduceat(-np.log(scaling), begins)
    slow: list[int] = []
    for index, rows in enumerate(sequences if many is None else ()):
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
    arrived[begins] = 0.0
    pairs = transitions * (filtered[:-1].T @ arrived[1:])
    smoothed = np.multiply(filtered.T, behind.T, out=np.empty_like(filtered.T, order="C")).T
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
    log_density: np.ndarray,
    lengths: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of each sequence (S,) and its filtering posterior (N, K); as `forward_backward`."""
    safe = _safe(start, transitions)
    density = _densities(log_density, safe)
    found, filtered = np.empty(len(lengths)), np.empty_like(density)
    many = _beside(tuple(lengths)) if safe else None
    if many is not None:
        filtered, scaling = _forward_beside(start, transitions, density.take(many.order, axis=0), many)
        _, begins = places(tuple(lengths))
        found = np.add.reduceat(-np.log(scaling.take(many.back)), begins)
        return found, filtered.take(many.back, axis=0)
    for index, rows in enumerate(places(tuple(lengths))[0]):
        try:
            found[index], filtered[rows], factors = forward(start, transitions, density[rows])
            if safe or _mild(factors):
                continue
        except ValueError:
            pass
        found[index], lattice = _hmmc.forward_log(start, transitions, np.ascontiguousarray(log_density[rows]))
        filtered[rows] = np.exp(lattice - np.logaddexp.reduce(lattice, axis=1)[:, None])
    return found, filtered


@dataclass(frozen=True)
class Beside:
    """The frames of many short sequences in order of time: the first of all, the second of all that have one, ...

    Attributes:
        order: Rows of the stacked frames in that order, shape (N,); `back` is the way back.
        counts: Sequences that have a first, second, ... frame; those that have one stand first.
    """

    order: np.ndarray
    back: np.ndarray
    counts: tuple[int, ...]


@lru_cache(maxsize=4)
def _beside(lengths: tuple[int, ...]) -> Beside | None:
    """How sequences of these lengths are done side by side; None where they are too few for that."""
    if len(lengths) <= MANY * max(lengths):
        return None
    _, begins = places(lengths)
    longest = np.argsort(-np.array(lengths), kind="stable")
    counts = [sum(length > t for length in lengths) for t in range(max(lengths))]
    order = np.concatenate([begins[longest[:n]] + t for t, n in enumerate(counts)])
    return Beside(order, np.argsort(order), tuple(counts))


def _forward_beside(
    start: np.ndarray, transitions: np.ndarray, density: np.ndarray, many: Beside
) -> tuple[np.ndarray, np.ndarray]:
    """The filtering posterior (N, K) and scaling factors (N,), all frames in order of time."""
    filtered, scaling = np.empty_like(density), np.empty(len(density))
    arrived, end = np.broadcast_to(start, (many.counts[0], len(start))), 0
    for n in many.counts:
        rows = slice(end, end := end + n)
        both = np.multiply(arrived[:n], density[rows], out=filtered[rows])
        np.divide(1.0, both @ np.ones(len(start)), out=scaling[rows])
        both *= scaling[rows][:, None]
        arrived = both @ transitions
    return filtered, scaling


def _backward_beside(
    transitions: np.ndarray, density: np.ndarray, scaling: np.ndarray, many: Beside
) -> np.ndarray:
    """The scaled backward recursion (N, K), all frames in order of time."""
    behind, end = np.empty_like(density), len(density)
    ahead = density[:0]
    for n in reversed(many.counts):
        rows = slice(end - n, end)
        end -= n
        behind[rows] = scaling[rows][:, None]
        behind[rows][: len(ahead)] *= ahead @ transitions.T
        ahead = density[rows] * behind[rows]
    return behind


def best_path(start: np.ndarray, transitions: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """Viterbi path of one sequence of log-densities (T, K), integers of shape (T,)."""
    return np.asarray(_hmmc.viterbi(start, transitions, log_density)[1], dtype=np.int64)
