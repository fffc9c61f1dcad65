"""Runs in which the step from which forks stay connected knows nothing of a landmark."""

from __future__ import annotations

import numpy as np

from dynalab.analysis.butterfly.findings import RunFindings

TRIED = (0, 1, 3, 7, 20, 54, 147, 400)


def unrelated(runs: int, seed: int) -> list[RunFindings]:
    """Return runs with ties on the grid of tried steps, some of which never stay connected or reach the landmark."""
    rng = np.random.default_rng(seed)
    places = rng.integers(2, len(TRIED) + 2, runs)
    landmarks = (10 * rng.lognormal(2.5, 0.6, runs)).round().astype(int)
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
