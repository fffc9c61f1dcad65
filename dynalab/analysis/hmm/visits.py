"""Which states a run visited before it converged, and what share of its rows it spent in each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def before_convergence(
    paths: Sequence[np.ndarray], steps: Sequence[np.ndarray], time: np.ndarray, observed: np.ndarray
) -> list[np.ndarray]:
    """Return for every run its states up to convergence; a run that never converged keeps all its rows.

    Of states and steps (T,), and of the times (S,) as `survival.censored_times` has them.
    """
    return [
        path[rows < when] if seen else path
        for path, rows, when, seen in zip(paths, steps, time, observed, strict=True)
    ]


def entries(early: Sequence[np.ndarray], steps: Sequence[np.ndarray], n_states: int) -> np.ndarray:
    """Return the step at which each run first enters each state, shape (S, K); infinity where it never does.

    `early` are the states of every run's first rows, `steps` the steps of as many rows or more.
    """
    found = np.full((len(early), n_states), np.inf)
    for row, (path, step) in enumerate(zip(early, steps, strict=True)):
        visited, first = np.unique(path, return_index=True)
        found[row, visited] = np.asarray(step)[first]
    return found


def chances(entry: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return how likely a run is to have entered each state by its own time, however long that is, shape (S, K).

    One minus Kaplan and Meier's (1958) estimate of the time until a state is entered (S, K; infinity for never), in
    which a run is watched until it converges or ends (S,). Visits that are drawn so know of a run nothing but how long
    it takes.
    """
    found = np.zeros(entry.shape)
    for k, own in enumerate(entry.T):
        at = np.unique(own[np.isfinite(own)])
        enter = (own[:, None] == at).sum(axis=0)
        risk = ((time[:, None] > at) & (own[:, None] >= at) | (own[:, None] == at)).sum(axis=0)
        never = np.concatenate([[1.0], np.cumprod(1 - enter / risk)])
        found[:, k] = 1 - never[np.searchsorted(at, time, side="left")]
    return found


def shares(paths: Sequence[np.ndarray], n_states: int) -> np.ndarray:
    """Return the share of each run's rows in each state, shape (S, K); zeros for a run without rows."""
    counts = np.array([np.bincount(path, minlength=n_states) for path in paths], dtype=np.float64)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
