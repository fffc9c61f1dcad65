"""The bars of `scripts/verify`, a file a subject."""

from __future__ import annotations

from bars import claims, decay, hmm, main_job, parity, simulated, variance
from bars.base import Bar

BARS: list[Bar] = [
    *main_job.BARS,
    *decay.BARS,
    *parity.BARS,
    *hmm.BARS,
    *simulated.BARS,
    *variance.BARS,
    *claims.BARS,
]
