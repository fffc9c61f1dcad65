"""Runs that are the same run again: an import under two names, a copied folder, a seed trained under two ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dynalab.analysis.base import Group, Run, runs_of
from dynalab.core.words import count, listed

# Pairs that the line names.
NAMED = 2


def repeats(groups: Sequence[Group]) -> dict[str, str]:
    """Return run -> the first run whose rows of every metric that all groups have it repeats to the bit.

    A fork has its parent's rows up to its step alone, and is no repeat unless nothing differs after it.
    """
    names = sorted(set.intersection(*(group.columns for group in groups))) if groups else []
    alike = [[run for run in runs_of(groups) if len(run.grid)]] if names else []
    # As a rule the first metric tells all runs apart, and no other one is read.
    for name in names:
        alike = [part for together in alike for part in _parted(together, name) if len(part) > 1]
    return {run.id: together[0].id for together in alike for run in together[1:]}


def _parted(runs: Iterable[Run], name: str) -> list[list[Run]]:
    parts: dict[bytes, list[Run]] = {}
    for run in runs:
        series = run.first(name)
        rows = b"" if series is None else series.steps.astype("<i8").tobytes() + series.values.tobytes()
        parts.setdefault(rows, []).append(run)
    return list(parts.values())


def warning(groups: Sequence[Group]) -> list[str]:
    """Return a line where runs repeat others: none is left out, as a key without an effect makes repeats, too."""
    found = repeats(groups)
    if not found:
        return []
    pairs = listed([f"{run} is {other}" for run, other in found.items()], NAMED)
    total = count(len(runs_of(groups)), "run")
    verb, each = ("repeats", "it counts") if len(found) == 1 else ("repeat", "each counts")
    return [
        f"{len(found):,} of {total} {verb} the rows of another ({pairs}): {each} as a run of its own, so that "
        "intervals and p-values are too small where these are copies"
    ]
