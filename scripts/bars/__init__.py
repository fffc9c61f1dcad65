"""The bars of `scripts/verify`, a file a subject."""

from __future__ import annotations

from bars import curvature, decay, detectors, hmm, main_job, parity
from bars.base import Bar

BARS: list[Bar] = [
    *(*main_job.BARS, *decay.BARS, *parity.BARS, *hmm.BARS, *curvature.BARS),
    *detectors.BARS,
]
