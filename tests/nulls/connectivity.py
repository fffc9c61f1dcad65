"""Pairs of runs whose barriers share what their runs have: a part of each run, and one of the pair."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np

from dynalab.analysis.connectivity.findings import Barrier, Pair

# Law -> that of the parts, how much of a barrier runs share, and below what it counts as that: barriers have a floor.
LAWS = {
    "normal": ("normal", 1.0, -np.inf),
    "skewed": ("skewed", 1.0, -np.inf),
    "of the pairs alone": ("normal", 0.0, -np.inf),
    "normal, half at the floor": ("normal", 1.0, 0.0),
    "skewed, half at the floor": ("skewed", 1.0, 0.0),
}
# Runs of two kinds, of which this share is of the first: there is a barrier between the kinds, next to none within.
KINDS = {"two kinds": 0.5, "two kinds, one rarer": 0.7}


def _drawn(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=n) if kind == "normal" else rng.gamma(4, size=n) - 4


def _kind(law: str) -> str:
    return LAWS[law][0] if law in LAWS else "normal"


def _heights(law: str, ends: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    if law in KINDS:
        level = NormalDist().inv_cdf(KINDS[law])
        return ((ends[0] < level) != (ends[1] < level)) + 0.1 * np.abs(rng.normal(size=len(ends[0])))
    kind, shared, floor = LAWS[law]
    return np.maximum(shared * (ends[0] + ends[1]) + _drawn(kind, len(ends[0]), rng) / 2, floor)


@cache
def mean(law: str) -> float:
    """Return the mean barrier."""
    if law in LAWS and np.isinf(LAWS[law][2]):
        return 0.0
    rng, n = np.random.default_rng(0), 4_000_000
    one, other = (_drawn(_kind(law), n, rng) for _ in range(2))
    return float(_heights(law, (one, other), rng).mean())


def pairs(law: str, runs: int, seed: int, neighbours: bool = False) -> list[Pair]:
    """Return all pairs of some runs, or those of every run and the next one, with barriers of a law."""
    rng = np.random.default_rng(seed + 1)
    own = _drawn(_kind(law), runs, rng)
    # A kind that is not among them is not known of.
    while law in KINDS and len({bool(x) for x in own < NormalDist().inv_cdf(KINDS[law])}) < 2:
        own = _drawn(_kind(law), runs, rng)
    places = np.array([(i, j) for i in range(runs) for j in range(i + 1, runs)])
    if neighbours:
        places = np.array([(i, (i + 1) % runs) for i in range(runs)])
    heights = _heights(law, (own[places[:, 0]], own[places[:, 1]]), rng)
    return [
        Pair(f"r{i:02d}", f"r{j:02d}", "apart", Barrier(float(value), None, None, 1.0))
        for (i, j), value in zip(places, heights, strict=True)
    ]
