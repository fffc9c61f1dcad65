"""Kernels of random features, which know nothing of the labels and come back in no direction."""

from __future__ import annotations

import numpy as np


def unrelated(seed: int, n: int = 30, features: int = 12, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel (n, n), some features of which are far larger than others, and labels (n, C) drawn apart."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, features)) * rng.lognormal(0, 1, features)
    return rows @ rows.T, np.eye(classes)[rng.integers(classes, size=n)]


def wandering(seed: int, steps: int = 8, size: int = 400) -> list[np.ndarray]:
    """Return kernels that walk at random, with steps of a length."""
    return [*np.cumsum(np.random.default_rng(seed).normal(size=(steps, size)), axis=0)]
