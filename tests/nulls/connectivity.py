"""Pairs of runs whose barriers share what their runs have: a part of each run, and one of the pair."""

from __future__ import annotations

import numpy as np

from dynalab.analysis.connectivity.findings import Barrier, Pair

LAWS = ("normal", "skewed")


def pairs(law: str, runs: int, seed: int) -> list[Pair]:
    """Return all pairs of some runs, whose barriers have the mean 0."""
    rng = np.random.default_rng(seed)

    def drawn(n: int) -> np.ndarray:
        return rng.normal(size=n) if law == "normal" else rng.gamma(4, size=n) - 4

    own = drawn(runs)
    places = [(i, j) for i in range(runs) for j in range(i + 1, runs)]
    apart = [
        own[i] + own[j] + own_pair / 2 for (i, j), own_pair in zip(places, drawn(len(places)), strict=True)
    ]
    return [
        Pair(f"r{i:02d}", f"r{j:02d}", "apart", Barrier(float(value), None, None, 1.0))
        for (i, j), value in zip(places, apart, strict=True)
    ]
