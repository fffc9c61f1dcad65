"""Simulated series with known slingshots: what the detector's figures are measured on.

A case is fixed by its number. A slingshot's loss rises by 2 to 7 decades within a few rows, every 100 to 500 rows, and
falls back over up to two fifths of the way to the next; the last layer's norm grows before and stands still after. The
measurement noise of the loss is .05 to .2 decades, the norm's up to a tenth of that. The decoys beside them are in
`nulls.slingshot`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nulls.slingshot import Case, bump, fitted, recorded

# Cases of this number and more are for settling thresholds, those below for figures.
TUNING = 1000


def slingshots(number: int) -> Case:
    """Return a case with two to eight slingshots."""
    rng = np.random.default_rng([1, number])
    period, cadence = float(rng.uniform(100, 500)), int(rng.choice([1, 5, 10, 20]))
    jitter, fall = rng.uniform(0, 0.12), rng.uniform(0.05, 0.4)
    count = int(rng.integers(2, 9))
    fit = int(rng.uniform(0.3, 1.0) * period)
    gaps = period * np.clip(1 + jitter * rng.normal(size=count), 0.6, 1.4)
    begins = (fit + 0.3 * period + np.cumsum(gaps)).astype(int)
    rows = int(begins[-1] + period * rng.uniform(0.3, 0.9))
    loss = fitted(rng, rows, fit)
    rest, bend = rng.uniform(0.3, 0.8), rng.uniform(1.0, 3.0)
    height = np.zeros(rows)
    now, previous = 0.0, 0
    peaks = []
    for begin in [*begins, begins[-1] + int(period)]:
        # Standing still, then growth that speeds up; the last stretch is cut off.
        share = np.linspace(0, 1, max(begin - previous, 1))
        grown = now + rng.uniform(0.02, 0.3) * (np.clip(share - rest, 0, None) / (1 - rest)) ** bend
        height[previous:begin] = grown[: max(rows - previous, 0)]
        now, previous = float(grown[-1]), begin
    for begin in begins:
        peak = begin + int(rng.integers(1, 9))
        top = rng.uniform(2, 7)
        bump(loss, begin, min(peak, rows - 1), top, max(fall * period, 4))
        peaks.append(min(peak, rows - 1))
    return recorded("slingshot", number, rng, loss, height, cadence, tuple(peaks), tuple(begins), period)


@dataclass(frozen=True)
class Score:
    """Counts of events against the truth.

    Attributes:
        hits: Slingshots that were found.
        missed: Slingshots that were not.
        false: Events that were called slingshots and are none.
        verdict: Whether the run was called one of slingshots.
    """

    hits: int
    missed: int
    false: int
    verdict: bool


def score(case: Case, found: list[int], verdict: str) -> Score:
    """Compare onsets that were found with the truth: each may be off by a tenth of the period.

    Args:
        case: The case.
        found: Onset steps of the events that were called slingshots.
        verdict: The run's verdict.
    """
    left = list(found)
    hits = 0
    for begin in case.onsets:
        near = min(left, key=lambda step: abs(step - begin), default=None)
        if near is not None and abs(near - begin) <= 0.1 * case.period:
            left.remove(near)
            hits += 1
    return Score(hits, len(case.onsets) - hits, len(left), verdict == "slingshot")


def f1(scores: list[Score]) -> float:
    """Return the harmonic mean of precision and recall over all events."""
    hits = sum(item.hits for item in scores)
    wrong = sum(item.missed + item.false for item in scores)
    return 2 * hits / (2 * hits + wrong) if hits or wrong else 1.0
