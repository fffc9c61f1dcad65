"""Simulated series with a known arrival at the edge of stability: for the detector's figures.

A case is fixed by its number. The sharpness rises to the threshold along a curve of one of three shapes and hovers
there; its measurement noise is .05 to .2 decades. The decoys beside them are in `nulls.eos`.
"""

from __future__ import annotations

import numpy as np
from nulls.eos import Case, curve, recorded

# Cases of this number and more are for settling thresholds, those below for figures.
TUNING = 1000


def edge(number: int) -> Case:
    """Return a case that arrives at the edge and stays."""
    rng = np.random.default_rng([3, number])
    rows, cadence = int(rng.integers(200, 2000)), int(rng.choice([1, 10, 20, 50]))
    onset = int(rows * rng.uniform(0.1, 0.7))
    x = np.zeros(rows)
    x[:onset] = np.log(rng.uniform(0.05, 0.7)) * (1 - curve(rng, onset))
    after = np.arange(rows - onset)
    level, swing = rng.uniform(0.0, 0.06), rng.uniform(0.0, 0.06)
    x[onset:] = level * (1 - np.exp(-after / 20)) + swing * np.sin(after / rng.uniform(2, 15))
    return recorded("edge", number, rng, x, cadence, onset)
