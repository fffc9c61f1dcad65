"""What runs recorded, as arrays: all that an analysis knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dynalab.core.convergence import Convergence

# Of every batch since the last row.
LARGEST = "train_loss_max"


@dataclass(frozen=True)
class Trajectory:
    """What one run recorded.

    Attributes:
        run: Run id, `<ensemble>/s0007`.
        steps: Recorded steps, shape (T,), ascending integers.
        values: Metrics at these steps, shape (T, M), float64; NaN where a metric was not recorded.
        seed: The run's seed, or None where it has none.
        status: As stored (`done`, `diverged`, ...).
        config: The run's resolved configuration; empty where it is not known (a run of another trainer).
        diverged_step: When it diverged; None where it did not, or where that is not known.
    """

    run: str
    steps: np.ndarray
    values: np.ndarray
    seed: int | None = None
    status: str = "done"
    config: Mapping[str, Any] = field(default_factory=dict)
    diverged_step: int | None = None

    def until(self, step: int) -> Trajectory:
        """Return the run as it stood at a step: nothing later has happened yet, a divergence neither."""
        inside = np.asarray(self.steps) <= step
        ended = inside.all() if self.diverged_step is None else self.diverged_step <= step
        return replace(
            self,
            steps=np.asarray(self.steps)[inside],
            values=np.asarray(self.values)[inside],
            status="done" if self.status == "diverged" and not ended else self.status,
            diverged_step=self.diverged_step if ended else None,
        )

    def at_multiples(self, steps: int, metrics: tuple[str, ...]) -> Trajectory:
        """Return the run's rows at multiples of some steps.

        Args:
            steps: The number of steps.
            metrics: Names of the columns; what is the largest since the last row is made so of the rows that are left.
        """
        kept = np.flatnonzero(np.asarray(self.steps) % steps == 0)
        values = np.asarray(self.values)[kept]
        if LARGEST in metrics and len(kept):
            column = metrics.index(LARGEST)
            since = np.concatenate([[0], kept[:-1] + 1])
            values[:, column] = np.fmax.reduceat(np.asarray(self.values)[: kept[-1] + 1, column], since)
        return replace(self, steps=np.asarray(self.steps)[kept], values=values)

    def column(self, metrics: tuple[str, ...], name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the steps at which a metric has a value and the values, both (N,); None where it never has one.

        Args:
            metrics: Names of the columns, `Trajectories.metrics`.
            name: The metric.
        """
        if name not in metrics:
            return None
        values = np.asarray(self.values)[:, metrics.index(name)]
        some = ~np.isnan(values)
        return (np.asarray(self.steps)[some], values[some]) if some.any() else None


@dataclass(frozen=True)
class Trajectories:
    """The runs of one ensemble (or of several, pooled) on one grid of steps.

    Attributes:
        ensemble: Id of the ensemble, or of the first one where several are pooled.
        metrics: Names of the M columns of every run's `values`.
        runs: The runs, in order of their ids.
        convergence: The task's own default, if it has one.
        warnings: What was left out on the way here, for the result to repeat.
        imported: Whether the runs were trained elsewhere: nothing is known of their metrics but the names.
    """

    ensemble: str
    metrics: tuple[str, ...]
    runs: tuple[Trajectory, ...]
    convergence: Convergence | None = None
    warnings: tuple[str, ...] = ()
    imported: bool = False

    def at_multiples(self, steps: int) -> Trajectories:
        """Return the rows of the runs at multiples of some steps."""
        return replace(self, runs=tuple(run.at_multiples(steps, self.metrics) for run in self.runs))

    def until(self, step: int | None) -> Trajectories:
        """Return the runs as they stood at a step, the key `steps=` of every analysis; None keeps all."""
        return self if step is None else replace(self, runs=tuple(run.until(step) for run in self.runs))
