"""Weights that walk at random."""

from __future__ import annotations

import numpy as np

KINDS = ("equal steps", "shorter steps", "weights on scales of their own")


def walk(kind: str, rows: int, weights: int, rng: np.random.Generator) -> np.ndarray:
    """Return the rows (n, p) of a random walk that begins as far away as some steps take it."""
    steps = rng.normal(size=(rows - 1, weights))
    if kind == "shorter steps":
        steps *= np.linspace(2, 0.1, rows - 1)[:, None]
    elif kind == "weights on scales of their own":
        steps *= np.exp(0.5 * rng.normal(size=weights))
    start = 3.0 * rng.normal(size=weights)
    return np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
