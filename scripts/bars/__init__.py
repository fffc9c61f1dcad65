"""The bars of `scripts/verify`, a file a subject."""

from __future__ import annotations

from bars import detectors, main_job
from bars.base import Bar

BARS: list[Bar] = [*main_job.BARS, *detectors.BARS]
