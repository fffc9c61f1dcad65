"""Correlation modes: weights that move alike are one mode, each an affine function of the mode's reference weight.

After Brokman et al. 2024 (arXiv 2312.13247): w_i(t) = a_i w_ref(t) + b_i, with the reference of the mode that i is in.
Modes are clusters of a sample of weights by how their trajectories correlate; every other weight goes to the reference
that it correlates with most. Only NumPy, and SciPy where clusters are made; `Fit` takes tensors as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

A = TypeVar("A", np.ndarray, "Tensor")

SAMPLED = 1000  # weights that are clustered
# Rows of correlations that are nearer than this, a number of their length, are the same.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Modes:
    """Which mode each of N weights is in.

    Attributes:
        of: The mode of each weight, shape (N,), from 0 on.
        references: The weight that each mode is known by, shape (M,); it is in its own mode.
    """

    of: np.ndarray
    references: np.ndarray


def sample(sizes: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return places of about `count` of N weights, ascending: half spread over tensors, half over weights.

    Args:
        sizes: Weights of each tensor, in their order; N is their sum.
        count: How many; all where there are no more.
        rng: What draws them.
    """
    share = np.asarray(sizes, float) / sum(sizes) / 2 + 0.5 / len(sizes)
    quotas = np.diff(np.round(np.append(0, np.cumsum(share)) * count)).astype(int)
    firsts = np.cumsum([0, *sizes[:-1]])
    if count >= sum(sizes):
        quotas = np.asarray(sizes)
    drawn = [
        first + rng.choice(size, min(quota, size), replace=False)
        for first, size, quota in zip(firsts, sizes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def units(rows: np.ndarray) -> np.ndarray:
    """Return trajectories (T, N) less their means and with norm 1, or 0: their products are correlations."""
    away = rows - rows[0]
    away = away - away.mean(axis=0)
    norms = np.sqrt(np.einsum("ti,ti->i", away, away))
    return np.asarray(away / np.where(norms > 0, norms, 1.0))


class Clusters:
    """Clusters of trajectories, from one to as many as there are of them.

    By complete linkage of the distances between rows of the absolute correlations.

    Args:
        rows: Trajectories of a sample of weights, shape (T, K).

    Attributes:
        most: How many clusters can be told apart.
    """

    def __init__(self, rows: np.ndarray) -> None:
        from scipy.cluster.hierarchy import linkage

        found = units(rows)
        # What does not move is in no mode, unless nothing does.
        self._places = np.flatnonzero(found.any(axis=0)) if found.any() else np.zeros(1, int)
        found = found[:, self._places]
        self._alike = np.abs(found.T @ found)
        self._tree = linkage(_distances(self._alike), method="complete") if len(self._places) > 1 else None
        least = ROUNDING * np.sqrt(len(self._places))
        self.most = 1 if self._tree is None else 1 + int((self._tree[:, 2] > least).sum())

    def references(self, count: int) -> np.ndarray:
        """Return the places in the sample of the references of so many modes, or as many as can be told apart.

        In each cluster it is the weight that correlates most with the others, in the mean; the largest comes first.
        """
        from scipy.cluster.hierarchy import fcluster

        count = min(count, self.most)
        if self._tree is None or count == 1:
            labels = np.zeros(len(self._places), int)
        else:
            labels = fcluster(self._tree, count, criterion="maxclust")
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        members.sort(key=lambda own: (-len(own), own[0]))
        best = [own[self._alike[np.ix_(own, own)].mean(axis=1).argmax()] for own in members]
        return np.asarray(self._places[best])


def _distances(rows: np.ndarray) -> np.ndarray:
    """Return the distances between all pairs of rows (K, d), shape (K (K - 1) / 2,), as SciPy orders them."""
    squares = np.einsum("kd,kd->k", rows, rows)
    upper = np.triu_indices(len(rows), 1)
    # A product of matrices takes a tenth of the time that `pdist` takes.
    between = squares[:, None] + squares - 2 * rows @ rows.T
    return np.asarray(np.sqrt(np.maximum(between[upper], 0.0)))


def assign(rows: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mode that each of N weights correlates with most, and how much, absolutely, both (N,).

    Args:
        rows: Trajectories of the weights, shape (T, N).
        references: Those of the references, shape (T, M).
    """
    alike = np.abs(units(references).T @ units(rows))
    of = alike.argmax(axis=0)
    return of, np.take_along_axis(alike, of[None], axis=0)[0]


def decompose(
    rows: np.ndarray,
    sizes: Sequence[int],
    count: int,
    rng: np.random.Generator,
    sampled: int = SAMPLED,
) -> Modes:
    """Return the modes of weights whose trajectories are in memory.

    Args:
        rows: The trajectories, shape (T, N).
        sizes: Weights of each tensor, in their order.
        count: Number of modes; there are fewer where fewer can be told apart.
        rng: What draws the sample.
        sampled: Weights that are clustered.
    """
    places = sample(sizes, sampled, rng)
    references = places[Clusters(rows[:, places]).references(count)]
    of, _ = assign(rows, rows[:, references])
    # Of references that correlate fully each keeps its own.
    of[references] = np.arange(len(references))
    return Modes(of, references)


class Fit(Generic[A]):
    """Slopes and offsets of N weights by least squares, from running sums: snapshots are taken one at a time.

    It holds two numbers a weight. Arrays and tensors do alike, float64; weights of several runs lie one behind another,
    each run with modes of its own.

    Args:
        of: The mode of each weight, shape (N,), from 0 on.
        references: The weight that each mode is known by, shape (M,), which is in its own mode.

    Attributes:
        count: Snapshots that were taken.
        mean: The mean of each weight, shape (N,).
        product: Sum of the products of deviations from the means, of each weight and its reference, shape (N,).
    """

    mean: A
    product: A

    def __init__(self, of: A, references: A) -> None:
        self.of: A = of
        self.references: A = references
        self.count = 0

    def take(self, weights: A) -> None:
        """Take a snapshot in, shape (N,)."""
        if not self.count:
            self.mean, self.product = weights + 0.0, weights * 0.0
        self.count += 1
        before = weights - self.mean
        self.mean += before / self.count
        self.product += before[self.references][self.of] * (weights - self.mean)

    def coefficients(self) -> tuple[A, A]:
        """Return slope and offset of each weight, both (N,); where the reference did not move the slope is 0."""
        spread = self.product[self.references]
        slope = self.product / (spread + (spread == 0))[self.of]
        return slope, self.mean - slope * self.mean[self.references][self.of]


def reconstruct(slope: A, offset: A, of: A, references: A) -> A:
    """Return the weights (N,) of slopes, offsets and modes (N,), at a step where the references are (M,)."""
    return slope * references[of] + offset
