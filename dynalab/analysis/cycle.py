"""Rows within a cycle of Lookahead: what they show, its slow weights, stands still between two synchronisations.

Rows at every place of the cycle repeat each other, or move by one synchronisation more or less, and an update's columns
differ by its place: what repeats by construction would be taken for something that training does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.base import Trajectories, Trajectory

# With fewer rows at the ends of cycles all are kept, unless those within show nothing else.
LEAST = 20


def cycle_of(config: Mapping[str, Any]) -> int:
    """Return the steps between two moves of the weights that rows show, 1 but for Lookahead.

    Args:
        config: A resolved configuration, or an empty one.
    """
    optimizer = config.get("optimizer") or {}
    return int(optimizer.get("k") or 1) if optimizer.get("name") == "lookahead" else 1


def at_ends(trajectories: Trajectories, metrics: Sequence[str]) -> tuple[Trajectories, int, list[str]]:
    """Return the runs at the ends of their optimizers' cycles, all runs alike.

    Args:
        trajectories: The runs.
        metrics: The columns that are to be read; rows without any of them are of other grids.

    Returns:
        The runs, the number of steps that the steps of their rows are multiples of (1: all rows were kept), and what
        was done, or could not be, in a line.
    """
    cycle = math.lcm(*(cycle_of(run.config) for run in trajectories.runs))
    found = [_steps(run, trajectories.metrics, metrics) for run in trajectories.runs]
    ends = [steps[steps % cycle == 0] for steps in found]
    total, kept = sum(map(len, found)), sum(map(len, ends))
    if kept == total:
        return trajectories, 1, []
    said = f"Lookahead moves the weights that rows show every {cycle} steps: "
    whole = all(len(np.unique(a // cycle)) == len(b) for a, b in zip(found, ends, strict=True))
    if max(map(len, ends)) < LEAST and not whole:
        said += f"{total - kept} of {total} rows are within a cycle, too many to leave out; what differs between rows "
        said += f"may be their place in it (rows at multiples of {cycle} have none)"
        return trajectories, 1, [said]
    said += f"{kept} of {total} rows are taken, at multiples of {cycle}; the others repeat these by construction, or "
    said += "differ by their place in the cycle"
    return trajectories.at_multiples(cycle), cycle, [said]


def _steps(run: Trajectory, names: tuple[str, ...], metrics: Sequence[str]) -> np.ndarray:
    """Return the steps of the rows that have any of some metrics, shape (N,)."""
    columns = [names.index(name) for name in metrics if name in names]
    values = np.asarray(run.values, dtype=np.float64)[:, columns]
    return np.asarray(run.steps)[np.isfinite(values).any(axis=1)]
