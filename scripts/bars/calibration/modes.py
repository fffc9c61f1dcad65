"""Modes beside averages, by `analyze modes`."""

from __future__ import annotations

from functools import partial

from bars.calibration.base import Errors, Null, Subject, misses


def modes(n: int, seed: int) -> Errors:
    """Modes and averages that are equally good."""
    from nulls.modes import values

    from dynalab.analysis.modes.judge import pairs

    found = pairs(values(n, seed), 0.005, 1)
    return {
        "modes against averages: p": [pair.p < 0.05 for pair in found],
        "modes against averages: adjusted p, any": [any(pair.p_adjusted < 0.05 for pair in found)],
        "modes against averages: interval": [misses(pair.interval, 0.0) for pair in found],
    }


SUBJECT = Subject(
    "modes",
    [Null(f"modes and averages of {n} runs", partial(modes, n)) for n in (8, 20)],
    ("dynalab/analysis/modes", "dynalab/analysis/compare", "tests/nulls/modes.py"),
)
