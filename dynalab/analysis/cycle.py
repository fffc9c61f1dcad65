"""Rows within a cycle of Lookahead: what they show, its slow weights, stands still between two synchronisations.

Rows at every place of the cycle repeat each other, or move by one synchronisation more or less, and an update's columns
differ by its place: what repeats by construction would be taken for something that training does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dynalab.core.runs import Group, Run
from dynalab.core.trajectories import Trajectories

# With fewer rows at the ends of cycles all are kept, unless those within show nothing else.
LEAST = 20


def cycle_of(config: Mapping[str, Any]) -> int:
    """Return the steps between two moves of the weights that rows of a configuration show, 1 but for Lookahead."""
    optimizer = config.get("optimizer") or {}
    return int(optimizer.get("k") or 1) if optimizer.get("name") == "lookahead" else 1


def at_ends(trajectories: Trajectories, metrics: Sequence[str]) -> tuple[Trajectories, int, list[str]]:
    """Return the runs at the ends of their optimizers' cycles, all runs alike; rows without any metric are left out.

    Returns:
        The runs, the number of steps that the steps of their rows are multiples of (1: all rows were kept), and what
        was done, or could not be, in a line.
    """
    columns = [trajectories.metrics.index(name) for name in metrics if name in trajectories.metrics]
    steps = [
        np.asarray(run.steps)[np.isfinite(np.asarray(run.values, np.float64)[:, columns]).any(axis=1)]
        for run in trajectories.runs
    ]
    cycle, notes = _common([run.config for run in trajectories.runs], steps)
    return (trajectories if cycle == 1 else trajectories.at_multiples(cycle)), cycle, notes


def groups_at_ends(groups: Sequence[Group], metrics: Sequence[str]) -> tuple[list[Group], list[str]]:
    """Return groups as `at_ends` returns trajectories, and what was done."""
    runs = [run for group in groups for run in group.runs]
    cycle, notes = _common([run.config for run in runs], [_finite(run, metrics) for run in runs])
    if cycle == 1:
        return list(groups), notes
    thin = [replace(group, runs=tuple(run.at_multiples(cycle) for run in group.runs)) for group in groups]
    return thin, notes


def _finite(run: Run, metrics: Sequence[str]) -> np.ndarray:
    """Return the steps of the rows that have any of some metrics, (T,)."""
    series = [recorded for name in metrics if (recorded := run.first(name)) is not None]
    return np.unique(
        np.concatenate([np.empty(0, int), *(item.steps[np.isfinite(item.values)] for item in series)])
    )


def _common(configs: Sequence[Mapping[str, Any]], steps: Sequence[np.ndarray]) -> tuple[int, list[str]]:
    """Return what the steps of all rows that are taken are multiples of, and what is to be said of it."""
    cycle = math.lcm(*(cycle_of(config) for config in configs))
    ends = [rows[rows % cycle == 0] for rows in steps]
    total, kept = sum(map(len, steps)), sum(map(len, ends))
    if kept == total:
        return 1, []
    line = f"Lookahead moves the weights that rows show every {cycle} steps: "
    whole = all(len(np.unique(a // cycle)) == len(b) for a, b in zip(steps, ends, strict=True))
    if max(map(len, ends)) < LEAST and not whole:
        line += f"{total - kept} of {total} rows are within a cycle, too many to leave out; what differs between rows "
        return 1, [f"{line}may be their place in it (rows at multiples of {cycle} have none)"]
    line += f"{kept} of {total} rows are taken, at multiples of {cycle}; the others repeat these by construction, or "
    return cycle, [f"{line}differ by their place in the cycle"]
