"""Runs in which the step from which forks stay connected knows nothing of a landmark."""

from __future__ import annotations

from math import log

import numpy as np
from scipy.stats import norm

from dynalab.analysis.butterfly.findings import RunFindings

TRIED = (0, 1, 3, 7, 20, 54, 147, 400)
# Where the step from which a run stays connected stands among these; beyond them it never does.
PLACES = range(2, len(TRIED) + 2)
# Of the logarithm of a tenth of the landmark: its mean and its standard deviation.
MEAN, SPREAD = 2.5, 0.6


def earlier() -> float:
    """Return the share of the runs that reach the landmark of which forks stay connected by then."""
    tried = [TRIED[place] for place in PLACES if place < len(TRIED)]
    # The landmark is rounded, so that it is at step t from t - .5 on.
    by_then = [1 - norm.cdf((log((step - 0.5) / 10) - MEAN) / SPREAD) for step in tried]
    return float(sum(by_then)) / len(PLACES)


def unrelated(runs: int, seed: int) -> list[RunFindings]:
    """Return runs with ties on the grid of tried steps, some of which never stay connected or reach the landmark."""
    rng = np.random.default_rng(seed)
    places = rng.integers(PLACES.start, PLACES.stop, runs)
    landmarks = (10 * rng.lognormal(MEAN, SPREAD, runs)).round().astype(int)
    return [
        RunFindings(
            f"e/s{i:04d}",
            "connected" if place < len(TRIED) else "apart",
            TRIED[place] if place < len(TRIED) else None,
            {"generalised_step": None if rng.random() < 0.1 else int(landmarks[i])},
            (),
        )
        for i, place in enumerate(places)
    ]
