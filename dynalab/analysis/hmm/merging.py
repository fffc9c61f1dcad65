"""Starts from a fit with more states: the states whose union costs least become one, or one is given up.

More states often hold the best fewer ones among them, where starts from nowhere miss these; merging as a remedy for
local maxima of EM is due to Ueda, Nakano, Ghahramani and Hinton ("SMEM algorithm for mixture models", Neural
Computation, 2000). What a union costs is not estimated from posteriors, as there, but counted: given the states of
all frames, the penalised likelihood of linear-Gaussian emissions follows from each state's sums of products alone,
and those of a union are the sum of its parts'. A state that gathered a few frames of several others fits no
union: its frames go back to the states that explain them next best.
"""

from __future__ import annotations

import numpy as np

from dynalab.analysis.hmm import covariances as forms
from dynalab.analysis.hmm import starts
from dynalab.analysis.hmm.emissions import Prior, maximise_scatter, penalised, shares
from dynalab.analysis.hmm.frames import Frames


def values(
    grams: np.ndarray, counts: np.ndarray, prior: Prior, inputs: int, common: np.ndarray | None = None
) -> np.ndarray:
    """Greatest penalised log-likelihood of the frames of each state, up to a constant, shape (K,), nats.

    Given the sums of products of (u, y) of each state's frames (K, P + M, P + M), their number (K,), and the covariance
    (M, M) that states share: all they have (`tied`), or what each is pulled to; None for states of their own.
    """
    _, scatter, totals = penalised(grams, counts, prior, inputs)
    if common is not None and prior.covariance == "tied":
        found = np.broadcast_to(common, scatter.shape)
    else:
        if common is not None:
            scatter, totals = scatter + prior.common * common, totals + prior.common
        found = forms.maximise(scatter, totals, prior.covariance, prior.floor, prior.rank, None)
    log_det = np.linalg.slogdet(found)[1]
    return np.asarray(-0.5 * (totals * log_det + np.einsum("kij,kji->k", np.linalg.inv(found), scatter)))


def in_common(grams: np.ndarray, counts: np.ndarray, prior: Prior, inputs: int) -> np.ndarray | None:
    """The covariance (M, M) that states share; None where each has its own. Arguments as of `values`."""
    _, scatter, totals = penalised(grams, counts, prior, inputs)
    if prior.covariance == "tied":
        return forms.maximise(scatter, totals, "tied", prior.floor, prior.rank, None)[0]
    if not shares(prior, len(counts)):
        return None
    return forms.common(maximise_scatter(scatter, totals, prior))


def merge(frames: Frames, prior: Prior, labels: np.ndarray, n_states: int, target: int) -> np.ndarray:
    """States of every frame (N,), 0 to `n_states` - 1, after unions: 0 to `target` - 1."""
    own = starts.one_hot(labels, n_states)[frames.regressed]
    grams, counts = frames.grams(own), own.sum(axis=0)
    name = np.arange(n_states)
    while len(counts) > target:
        # That of the states as they are: a union changes it by little.
        common = in_common(grams, counts, prior, frames.inputs)
        alone = values(grams, counts, prior, frames.inputs, common)
        left, right = np.triu_indices(len(counts), 1)
        unions = grams[left] + grams[right], counts[left] + counts[right]
        together = values(*unions, prior, frames.inputs, common)
        pair = int(np.argmax(together - alone[left] - alone[right]))
        keep, gone = int(left[pair]), int(right[pair])
        grams[keep] += grams[gone]
        counts[keep] += counts[gone]
        grams, counts = np.delete(grams, gone, axis=0), np.delete(counts, gone)
        name = np.where(name == gone, keep, name - (name > gone))
    return np.asarray(name[labels])


def give_up(density: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """States of every frame (N,), 0 to K - 2, after one of K is given up; log-densities have shape (N, K)."""
    n_states = density.shape[1]
    frame = np.arange(len(labels))
    others = density.copy()
    others[frame, labels] = -np.inf
    second = others.argmax(axis=1)
    loss = density[frame, labels] - density[frame, second]
    gone = int(np.bincount(labels, loss, n_states).argmin())
    kept = np.where(labels == gone, second, labels)
    return np.asarray(kept - (kept > gone))
