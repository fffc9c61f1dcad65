"""Where EM starts, and where a state that lost all its frames begins again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynalab.analysis.hmm.clustering import k_means
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.inference import slices

SEGMENTATIONS = ("even", "early")


def segmentation(positions: np.ndarray, n_states: int, early: bool, rng: np.random.Generator) -> np.ndarray:
    """Cut training into contiguous stretches at random steps, the same steps in all runs; state of every frame (N,).

    On curves this is a good start, k-means on levels often a poor one. Sharing the cuts keeps a state's meaning the
    same across runs. Cuts are uniform in rank of the frames' steps (N,) or, where `early`, in its logarithm: much of
    training happens early.
    """
    cuts = rng.uniform(size=n_states - 1)
    if early:
        cuts = (len(np.unique(positions)) + 1.0) ** (cuts - 1)
    # Quantiles of the pooled steps, so that log-spaced and ragged grids are cut as fairly as even ones.
    bounds = np.quantile(positions, np.sort(cuts)) if n_states > 1 else np.empty(0)
    return np.searchsorted(bounds, positions, side="right")


def clusters(points: np.ndarray, n_states: int, rng: np.random.Generator) -> np.ndarray:
    """K-means on points of shape (N, Q), for data that do jump between levels; integers of shape (N,).

    Where there are fewer distinct frames than clusters some are empty; EM deals with empty states itself.
    """
    return k_means(points, min(n_states, len(points)), int(rng.integers(2**31)))


def moving(frames: Frames) -> np.ndarray:
    """Levels and increments of every frame side by side, shape (N, 2 M).

    Increments span decades over a training; arcsinh keeps their sign and order and tames their size.
    """
    increments = np.zeros_like(frames.levels)
    increments[frames.regressed] = frames.design[:, frames.inputs :]
    return np.column_stack([frames.levels, np.arcsinh(3 * increments)])


def kind(restart: int, emission: str) -> str:
    """The kind of start of restart number `restart`: kinds take turns, because each fails on some data.

    Measured on simulated and real ensembles: random segmentations find states of dynamics but seldom the best of many
    states; clusters of levels find states of level always, and those of levels with increments some that neither does.
    """
    return ("even", "clusters", "early", "moves" if emission == "ar" else "clusters")[restart % 4]


def labels(
    frames: Frames, positions: np.ndarray, n_states: int, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """Labels of one start, integers of shape (N,); `positions` is the step of every frame (N,)."""
    if kind == "clusters":
        return clusters(frames.levels, n_states, rng)
    if kind == "moves":
        return clusters(moving(frames), n_states, rng)
    return segmentation(positions, n_states, kind == "early", rng)


def in_order(states: np.ndarray, positions: np.ndarray, n_states: int) -> np.ndarray:
    """Labels renumbered by their mean position, for chains that only go on; shapes (N,)."""
    mean = [positions[states == k].mean() if (states == k).any() else np.inf for k in range(n_states)]
    return np.argsort(np.argsort(mean, kind="stable"), kind="stable")[states]


def one_hot(states: np.ndarray, n_states: int) -> np.ndarray:
    """Certain posteriors from labels, shape (N, K)."""
    return np.eye(n_states)[states]


def reseed(
    posterior: np.ndarray, dead: Sequence[int], predictive: np.ndarray, lengths: Sequence[int]
) -> np.ndarray:
    """Give every dead state a short stretch around the worst-explained frame that is not yet given away.

    A stretch, not a frame, because a regression on a single frame explains it perfectly and nothing else. Posteriors
    have shape (N, K); `predictive` is log p(x_t | x_1..x_{t-1}) of every frame (N,).
    """
    n_states = posterior.shape[1]
    posterior = posterior.copy()
    left = predictive.copy()
    reach = max(1, len(predictive) // (20 * n_states * max(1, len(lengths))))
    ends = slices(lengths)
    for state in dead:
        worst = int(np.argmin(left))
        if not np.isfinite(left[worst]):
            break
        run = next(rows for rows in ends if rows.start <= worst < rows.stop)
        stretch = slice(max(run.start, worst - reach), min(run.stop, worst + reach + 1))
        posterior[stretch] = one_hot(np.array([state]), n_states)
        left[stretch] = np.inf
    return posterior
