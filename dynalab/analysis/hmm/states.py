"""What the decoded paths say: the order of states, transitions, edges and distinct paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis.hmm.findings import Edge, Feature
from dynalab.core.stats import clopper_pearson

TOP_FEATURES = 3


def canonical_order(paths: Sequence[np.ndarray], steps: Sequence[np.ndarray], n_states: int) -> list[int]:
    """Old numbers of states in the order in which training meets them.

    EM numbers states at random; sorted by the median step of first entry over the runs that visit them (ties by
    the mean and the old number, states that no run visits last), numbers mean the same from one analysis to the next.
    """

    def place(k: int) -> tuple[float, float, int]:
        entries = first_entries(paths, steps, k)
        return (float(np.median(entries)), float(np.mean(entries)), k) if entries else (np.inf, np.inf, k)

    return sorted(range(n_states), key=place)


def first_entries(paths: Sequence[np.ndarray], steps: Sequence[np.ndarray], state: int) -> list[int]:
    """Step of a state's first row in every run that visits it; states and steps of rows, shapes (T,)."""
    pairs = zip(paths, steps, strict=True)
    return [int(s[np.argmax(path == state)]) for path, s in pairs if (path == state).any()]


def first_entry(paths: Sequence[np.ndarray], steps: Sequence[np.ndarray], state: int) -> float | None:
    """Mean of `first_entries`; None if no run visits the state."""
    entries = first_entries(paths, steps, state)
    return float(np.mean(entries)) if entries else None


def visited(path: np.ndarray) -> tuple[int, ...]:
    """The sequence of states without stays: 0 0 1 1 0 -> (0, 1, 0)."""
    path = np.asarray(path)
    return tuple(path[np.diff(path, prepend=-1) != 0].tolist())


def transition_counts(paths: Sequence[np.ndarray], n_states: int) -> np.ndarray:
    """Number of row-to-row transitions i -> j (stays included) in all paths, integers of shape (K, K)."""
    counts = np.zeros((n_states, n_states), dtype=np.int64)
    for path in paths:
        np.add.at(counts, (path[:-1], path[1:]), 1)
    return counts


def profiles(
    paths: Sequence[np.ndarray], z: Sequence[np.ndarray], n_states: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean level and mean drift of every state, both (K, M), over the rows of z (T, M) decoded as it; NaN without any.

    Drifts are in z-units per row: x_t - x_{t-1} over rows t in the state; a run's first row has none.
    """
    size = z[0].shape[1]
    state = np.concatenate(paths)
    level = np.concatenate(z)
    moves = np.concatenate([np.diff(x, axis=0, prepend=np.full((1, size), np.nan)) for x in z])
    levels = np.full((n_states, size), np.nan)
    drifts = np.full((n_states, size), np.nan)
    for k in range(n_states):
        rows = (state == k) & ~np.isnan(level[:, 0])
        moving = rows & ~np.isnan(moves[:, 0])
        if rows.any():
            levels[k] = level[rows].mean(axis=0)
        if moving.any():
            drifts[k] = moves[moving].mean(axis=0)
    return levels, drifts


def table(runs: Sequence[str], steps: Sequence[np.ndarray], paths: Sequence[np.ndarray]) -> pd.DataFrame:
    """Return run, step and state of every row."""
    return pd.DataFrame(
        {
            "run": np.repeat(np.array(runs, dtype=object), [len(s) for s in steps]),
            "step": np.concatenate(steps),
            "state": np.concatenate(paths),
        }
    )


def passage_table(rows: Sequence[Mapping[str, Any]] | None) -> pd.DataFrame | None:
    """Return when every run converged, as `core.convergence.follow` has it; None where nothing is watched."""
    return None if rows is None else pd.DataFrame(list(rows)).astype({"step": "Int64"})


def edges(paths: Sequence[np.ndarray], names: Sequence[str], means: np.ndarray) -> list[Edge]:
    """Every change of state that some run makes, by from and to, and the features whose mean changes most.

    `means` is what characterises a state (level or drift), shape (K, M), and the unit of the changes.
    """
    taken = [set(pairwise(visited(path))) for path in paths]
    out = []
    for a, b in sorted(set().union(*taken)):
        runs = sum((a, b) in one for one in taken)
        change = means[b] - means[a]
        top = [i for i in np.argsort(-np.abs(change), kind="stable") if np.isfinite(change[i])][:TOP_FEATURES]
        features = [Feature(name=names[i], change=float(change[i])) for i in top]
        out.append(
            Edge(start=a, end=b, runs=runs, interval=clopper_pearson(runs, len(paths)), features=features)
        )
    return out
