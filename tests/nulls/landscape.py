"""Numbers of landscapes, a run each, of a known mean: shares with ends that many runs are at, and eigenvalues."""

from __future__ import annotations

from functools import cache

import numpy as np

LAWS = ("shares, half at 0", "shares, half at 1, ties", "shares, few at 1", "eigenvalues")


def values(law: str, runs: int, seed: int) -> np.ndarray:
    """Return a number a run, shape (n,)."""
    drawn = np.random.default_rng(seed + 1).normal(size=runs)
    if law == "eigenvalues":
        return np.exp(0.3 * drawn)
    if law.endswith("0"):
        return np.clip(0.2 * drawn, 0, 1)
    if law.endswith("ties"):
        return np.floor(10 * np.clip(1 + 0.2 * drawn, 0, 1)) / 10
    return np.clip(0.9 + 0.1 * drawn, 0, 1)


@cache
def mean(law: str) -> float:
    """Return the mean of a law."""
    return float(values(law, 4_000_000, -1).mean())
