"""Means of barriers over pairs of runs, by `analyze connectivity` and `landscape`."""

from __future__ import annotations

from functools import partial

from nulls.connectivity import KINDS as BASINS
from nulls.connectivity import LAWS as BARRIERS

from bars.calibration.base import Errors, Null, Subject, printed


def paired(law: str, n: int, neighbours: bool, seed: int) -> Errors:
    """Barriers between all pairs of some runs, or of each and the next one, of a known mean."""
    from nulls.connectivity import mean, pairs

    from dynalab.analysis.connectivity.findings import over

    interval = over(pairs(law, n, seed, neighbours), lambda pair: pair.line.loss).interval
    name = "means over every run and the next" if neighbours else "connectivity, means over pairs"
    return {f"{name}: interval": printed(interval, mean(law))}


SUBJECT = Subject(
    "connectivity",
    [
        Null(f"{words}, {law}", partial(paired, law, n, neighbours))
        for n in (5, 20)
        for law in (*BARRIERS, *BASINS)
        for words, neighbours in ((f"all pairs of {n} runs", False), (f"{n} runs, each and the next", True))
    ],
    ("dynalab/analysis/connectivity", "tests/nulls/connectivity.py"),
)
