"""Runs in which the step from which forks stay connected knows nothing of a landmark."""

from __future__ import annotations

from functools import cache
from math import log

import numpy as np
from nulls.alike import alike
from scipy.stats import norm

from dynalab.analysis.butterfly.findings import Apart, Fork, RunFindings

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
            (Fork(TRIED[-1], None, place < len(TRIED), Apart()),),
        )
        for i, place in enumerate(places)
    ]


# Steps that are tried, and would be, were training longer; of the length that it has the first are seen.
GRID = np.array([*TRIED, 1100, 3000, 8000, 22000, 60000])
LENGTH = 800
# What of a run's step and landmark is seen: their means as logarithms, and how much they have in common.
LAGS = {
    "all come": (2.0, 3.0, 0.0),
    "a third never stay connected": (5.5, 4.5, 0.0),
    "a fifth of the landmarks never come": (4.0, 6.0, 0.0),
    "late runs are late in both": (5.6, 6.0, 0.8),
    "landmarks with ties": (4.5, 5.0, 0.0),
}


def _latent(law: str, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    *means, share = LAGS[law]
    drawn = alike(runs, share, seed)
    steps, landmarks = (np.exp(mean + own) for mean, own in zip(means, drawn, strict=True))
    spacing = 100 if law.endswith("ties") else 1
    return GRID[np.searchsorted(GRID, steps)], np.ceil(landmarks / spacing) * spacing


@cache
def lag_of(law: str) -> float:
    """Return the median over all runs of the step from which they stay connected, less their landmark."""
    steps, landmarks = _latent(law, 1_000_001, 0)
    return float(np.median(steps - landmarks))


def late(law: str, runs: int, seed: int) -> list[RunFindings]:
    """Return runs of which the step or the landmark, or both, come after what is seen of them."""
    found = []
    for place, (step, landmark) in enumerate(zip(*_latent(law, runs, seed + 1), strict=True)):
        seen = step <= TRIED[-1]
        found.append(
            RunFindings(
                f"e/s{place:04d}",
                "connected" if seen else "apart",
                int(step) if seen else None,
                {"generalised_step": int(landmark) if landmark <= LENGTH else None},
                (Fork(TRIED[-1], None, bool(seen), Apart()),),
            )
        )
    return found
