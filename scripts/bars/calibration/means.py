"""Means over runs, by all analyses that print one of a number a run."""

from __future__ import annotations

from functools import partial

import numpy as np
from nulls.landscape import LAWS as SLICES

from bars.calibration.base import MOST, Errors, Null, Subject, printed


def around(law: str, n: int, seed: int) -> Errors:
    """A number a run, of a known mean: of landscapes, and as all that prints a mean over runs has it."""
    from nulls.landscape import mean, values

    from dynalab.analysis.directions.findings import Against, Over
    from dynalab.analysis.hybrid.findings import Over as Hybrids
    from dynalab.core.means import Mean

    drawn, truth = values(law, n, seed), mean(law)
    intervals = {
        "landscape, means over runs": Mean.of(drawn).interval,
        "directions, means over runs": Over.of([Against(x, 0.0, x) for x in drawn.tolist()]).interval,
        "hybrid, means of differences": Hybrids.of(1 - drawn, np.ones(n)).interval,
    }
    truths = {"hybrid, means of differences": -truth}
    return {f"{name}: interval": printed(it, truths.get(name, truth)) for name, it in intervals.items()}


SUBJECT = Subject(
    "means",
    [
        # Of so few skewed values no interval of a mean holds its level, as by `compare`.
        Null(f"{n} runs, {law}", partial(around, law, n), most=0.08 if n <= 5 else MOST)
        for n in (3, 5, 8, 20)
        for law in SLICES
    ],
    ("dynalab/analysis/directions", "dynalab/analysis/hybrid", "tests/nulls/landscape.py"),
)
