"""Networks of the same snapshots, none better than another."""

from __future__ import annotations

import numpy as np

METHODS = ("modes", "last", "ema", "lawa", "swa", "pca")
EXAMPLES = 150


def values(runs: int, seed: int) -> dict[str, np.ndarray]:
    """Return accuracies of every method, (n,), on examples that all but a few are right or wrong on alike.

    What a run gets right is its own affair, and on what share of the examples its networks differ, too: many differ on
    none, so that there are ties.
    """
    rng = np.random.default_rng(seed)
    common = rng.binomial(EXAMPLES, 0.9 + 0.02 * rng.normal(size=runs).clip(-2, 2))
    apart = rng.integers(0, 6, size=runs)
    return {method: (common - rng.binomial(apart, 0.5)) / EXAMPLES for method in METHODS}
