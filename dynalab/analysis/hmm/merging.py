"""Starts from a fit with more states: the states whose union costs least become one.

More states often hold the best fewer ones among them, where starts from nowhere miss these; merging as a remedy for
local maxima of EM is due to Ueda, Nakano, Ghahramani and Hinton ("SMEM algorithm for mixture models", Neural
Computation, 2000). What a union costs is not estimated from posteriors, as there, but counted: given the states of
all frames, the penalised likelihood of linear-Gaussian emissions follows from each state's sums of products alone,
and those of a union are the sum of its parts'.
"""

from __future__ import annotations

import numpy as np

from dynalab.analysis.hmm import covariances as forms
from dynalab.analysis.hmm import starts
from dynalab.analysis.hmm.emissions import Prior
from dynalab.analysis.hmm.frames import Frames


def values(grams: np.ndarray, counts: np.ndarray, prior: Prior, inputs: int) -> np.ndarray:
    """Greatest penalised log-likelihood of the frames of each state, up to a constant, shape (K,), nats.

    Args:
        grams: Sums of products of (u, y) of each state's frames, shape (K, P + M, P + M).
        counts: Frames of each state, shape (K,).
        prior: Penalties and floor.
        inputs: P.
    """
    p = inputs
    cross = grams[:, :p, p:]
    solution = np.linalg.solve(grams[:, :p, :p] + prior.ridge, cross)
    scatter = grams[:, p:, p:] - cross.transpose(0, 2, 1) @ solution + prior.scatter
    totals = np.maximum(counts + prior.weight, 1e-300)
    # One covariance for all states says nothing of two of them.
    form = "full" if prior.covariance == "tied" else prior.covariance
    found = forms.maximise(scatter, totals, form, prior.floor, prior.rank, None)
    log_det = np.linalg.slogdet(found)[1]
    return np.asarray(-0.5 * (totals * log_det + np.einsum("kij,kji->k", np.linalg.inv(found), scatter)))


def merge(frames: Frames, prior: Prior, labels: np.ndarray, n_states: int, target: int) -> np.ndarray:
    """States of every frame after unions, integers of shape (N,), 0 to `target` - 1.

    Args:
        frames: The data.
        prior: Penalties and floor.
        labels: State of every frame, shape (N,), 0 to `n_states` - 1.
        n_states: How many there are.
        target: How many are to be left.
    """
    own = starts.one_hot(labels, n_states)[frames.regressed]
    grams, counts = frames.grams(own), own.sum(axis=0)
    name = np.arange(n_states)
    while len(counts) > target:
        alone = values(grams, counts, prior, frames.inputs)
        left, right = np.triu_indices(len(counts), 1)
        together = values(grams[left] + grams[right], counts[left] + counts[right], prior, frames.inputs)
        pair = int(np.argmax(together - alone[left] - alone[right]))
        keep, gone = int(left[pair]), int(right[pair])
        grams[keep] += grams[gone]
        counts[keep] += counts[gone]
        grams, counts = np.delete(grams, gone, axis=0), np.delete(counts, gone)
        name = np.where(name == gone, keep, name - (name > gone))
    return np.asarray(name[labels])
