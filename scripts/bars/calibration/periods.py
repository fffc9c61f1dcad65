"""Periods of weight decay, by `analyze periods`."""

from __future__ import annotations

from bars.calibration.base import Errors, Null, Subject


def aperiodic(seed: int) -> Errors:
    """Norms without periods of weight decay."""
    from nulls.periods import decoy

    from dynalab.analysis import periods

    return {"periods: verdict": [periods.judge(decoy(seed), periods.Config()).verdict == "periodic"]}


SUBJECT = Subject(
    "periods",
    [Null("norms without periods", aperiodic)],
    ("dynalab/analysis/periods.py", "dynalab/analysis/cycle.py", "tests/nulls/periods.py"),
)
