"""Two numbers of every run that have something in common."""

from __future__ import annotations

import numpy as np


def alike(runs: int, share: float, seed: int) -> list[np.ndarray]:
    """Return two standard normal numbers of every run, (runs,) each, whose correlation is `share` squared."""
    both, *own = np.random.default_rng(seed).normal(size=(3, runs))
    return [share * both + np.sqrt(1 - share**2) * each for each in own]
