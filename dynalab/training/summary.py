"""The landmarks of a run, read off its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.config.ensemble import EnsembleConfig
from dynalab.config.schema import Levels
from dynalab.curvature.thresholds import inner_of
from dynalab.store.final import final_of


def first_step(steps: np.ndarray, values: np.ndarray, level: float) -> int | None:
    """Return the first recorded step (T,) at which a value (T,) is at least a level, or None; NaN is below all."""
    reached = np.flatnonzero(values >= level)
    return int(steps[reached[0]]) if len(reached) else None


def summarise(
    records: np.ndarray,
    index: int,
    levels: Levels,
    diverged_step: int | None,
    others: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """Return a run's `summary`, with null for what did not happen or does not apply.

    Args:
        records: Rows of the evaluation grid, a structured array of shape (T,) with columns of shape (S,).
        index: Place of the run in the shard.
        levels: Accuracies that count as memorised and as generalised.
        diverged_step: When it diverged, or None.
        others: The last rows of other grids, likewise.
    """
    if diverged_step is not None:
        records, *others = (rows[rows["step"] < diverged_step] for rows in (records, *others))
    names = records.dtype.names or ()
    summary: dict[str, Any] = {}
    for landmark, metric in (("memorised_step", "train_accuracy"), ("generalised_step", "test_accuracy")):
        has = metric in names and len(records) > 0
        level = getattr(levels, metric)
        summary[landmark] = first_step(records["step"], records[metric][:, index], level) if has else None
    summary["diverged_step"] = diverged_step
    if not len(records):
        return {**summary, "final": None}
    return {**summary, **final_of([(rows, index) for rows in (records, *others) if len(rows)])}


def cause_of_divergence(config: EnsembleConfig) -> str | None:
    """Return why runs of a configuration diverge, where that can be told from the configuration."""
    if getattr(inner_of(config.optimizer), "eps", None) == 0:
        return "optimizer.eps=0 divides 0 by 0 where an entry's gradients are all 0; expected a small number, as 1e-8"
    return None
