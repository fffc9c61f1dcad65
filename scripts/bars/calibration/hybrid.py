"""Hybrids beside full training, by `analyze hybrid`."""

from __future__ import annotations

from functools import partial

from bars.calibration.base import Errors, Null, Subject, misses


def hybrids(n: int, seed: int) -> Errors:
    """Hybrids that are as good as full training from a known step on."""
    from nulls.hybrid import FIRST, GAPS, MARGIN, STEPS, values

    from dynalab.analysis.hybrid.findings import Over, Point, first_step, verdict_of

    hybrid, full = values(n, seed)
    overs = [Over.of(row, full) for row in hybrid]
    points = [
        Point(step, verdict_of(over, n, MARGIN, True), {"test_accuracy": over})
        for step, over in zip(STEPS, overs, strict=True)
    ]
    _, low, high = first_step(points, "test_accuracy", MARGIN, True)
    missed = (low is not None and low >= FIRST) or (high is not None and high < FIRST)
    return {
        "hybrid, difference: interval": [
            misses(over.interval, gap) for over, gap in zip(overs, GAPS, strict=True)
        ],
        "hybrid, first step as good: interval": [missed],
    }


SUBJECT = Subject(
    "hybrid",
    [Null(f"hybrids of {n} runs", partial(hybrids, n)) for n in (5, 10)],
    ("dynalab/analysis/hybrid", "tests/nulls/hybrid.py"),
)
