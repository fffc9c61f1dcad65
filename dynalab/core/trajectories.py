"""What runs recorded, as arrays: all that an analysis knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.core.words import clean, count, listed, states

if TYPE_CHECKING:
    from dynalab.core.convergence import Convergence

# Of every batch since the last row.
LARGEST = "train_loss_max"


@dataclass(frozen=True)
class Trajectory:
    """What one run recorded, on one grid; what is not said here is as in `Run`."""

    run: str  # Its id, `<ensemble>/s0007`.
    steps: np.ndarray  # Shape (T,), ascending integers.
    values: np.ndarray  # Metrics at these steps, shape (T, M), float64; NaN where a metric was not recorded.
    seed: int | None = None
    status: str = "done"
    config: Mapping[str, Any] = field(default_factory=dict)
    diverged_step: int | None = None

    def __repr__(self) -> str:
        return f"Trajectory({clean(self.run)}, {clean(self.status)}, {described(self.steps)})"

    def at_multiples(self, steps: int, metrics: tuple[str, ...]) -> Trajectory:
        """Return the run's rows at multiples of some steps, as `Run.at_multiples`; `metrics` are the columns' names."""
        kept = np.flatnonzero(np.asarray(self.steps) % steps == 0)
        values = np.asarray(self.values)[kept]
        if LARGEST in metrics:
            column = metrics.index(LARGEST)
            values[:, column] = largest_since(np.asarray(self.values)[:, column], kept)
        return replace(self, steps=np.asarray(self.steps)[kept], values=values)


def described(steps: np.ndarray) -> str:
    """Return how many rows there are and of which steps (T,): `61 rows, steps 0 to 600`."""
    rows = count(len(steps), "row")
    return f"{rows}, steps {steps[0]:,} to {steps[-1]:,}" if len(steps) else rows


def largest_since(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the largest of a column's values, (T,), since the row before among those that are kept, their places."""
    if not len(kept):
        return values[kept]
    return np.fmax.reduceat(values[: kept[-1] + 1], np.concatenate([[0], kept[:-1] + 1]))


@dataclass(frozen=True)
class Trajectories:
    """The runs of one ensemble (or of several, pooled) on one grid of steps; what is not said here is as in `Group`."""

    ensemble: str  # Its id, or that of the first one where several are pooled.
    metrics: tuple[str, ...]  # Names of the M columns of every run's `values`.
    runs: tuple[Trajectory, ...]
    convergence: Convergence | None = None
    warnings: tuple[str, ...] = ()
    imported: bool = False

    def __repr__(self) -> str:
        metrics = clean(listed(self.metrics))
        return f"Trajectories({clean(self.ensemble)}, {clean(states(run.status for run in self.runs))}; {metrics})"

    def at_multiples(self, steps: int) -> Trajectories:
        """Return the rows of the runs at multiples of some steps."""
        return replace(self, runs=tuple(run.at_multiples(steps, self.metrics) for run in self.runs))
