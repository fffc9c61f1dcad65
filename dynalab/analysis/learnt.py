"""Runs that have learnt nothing: what is said of their networks is said of the initialisation."""

from __future__ import annotations

from collections.abc import Iterable

from dynalab.analysis.base import Run
from dynalab.core.words import count

# Share by which a loss has come down since the first row where something has been learnt.
LEAST = 0.05


def unlearnt(runs: Iterable[Run], step: int) -> str | None:
    """Return how many runs have learnt nothing by a step, in words; None where all have, or it is not known."""
    told = [series.until(step).values for run in runs if (series := run.first("train_loss")) is not None]
    told = [values for values in told if len(values)]
    flat = sum(bool(values[-1] > (1 - LEAST) * values[0]) for values in told)
    if not flat:
        return None
    return f"in {flat:,} of {count(len(told), 'run')} the training loss is not {LEAST:.0%} below that of the first row"
