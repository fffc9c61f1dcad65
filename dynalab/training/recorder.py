"""Rows on their way to the store: kept on the device, moved to the host in blocks, appended to the series."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from dynalab.core.atomic import storing
from dynalab.store.names import FORCED
from dynalab.store.paths import ShardPaths
from dynalab.store.series import Mark, SeriesWriter, truncate

BLOCK_ROWS = 256
BLOCK_SECONDS = 1.0


class Recorder:
    """The series of one shard.

    Args:
        paths: The shard's folder.
        n_runs: How many of the stacked runs are real; a copy that fills the least width is not recorded.
        marks: Cadence -> what the checkpoint vouches for; series it does not name start anew, and rows behind are cut
            off at once: training may end right here.
        require: Called before rows are appended; raises where they may not be.
    """

    def __init__(
        self,
        paths: ShardPaths,
        n_runs: int,
        marks: Mapping[str, Mark],
        require: Callable[[], None] = lambda: None,
    ) -> None:
        self._paths, self._n_runs, self._marks, self._require = paths, n_runs, dict(marks), require
        self._writers: dict[str, SeriesWriter] = {}
        self._blocks: dict[str, list[tuple[int, float, Tensor]]] = {}
        self._forced: list[tuple[int, float, int, Tensor]] = []
        self._columns: dict[str, tuple[str, ...]] = {}
        self._flushed = time.monotonic()
        self.latest: dict[str, np.ndarray] = {}
        for cadence in paths.cadences():
            path = paths.series(cadence)
            with storing(path):
                if cadence in marks:
                    truncate(path, marks[cadence].rows)
                else:
                    path.unlink()

    def add(self, cadence: str, step: int, values: Mapping[str, Tensor]) -> None:
        """Keep a row of `(S,)` values for the series of a cadence."""
        row = step, time.time(), self._stacked(cadence, step, values)
        self._blocks.setdefault(cadence, []).append(row)

    def add_forced(self, step: int, place: int, values: Mapping[str, Tensor]) -> None:
        """Keep a row that one run's spike forced, each value of shape (); called by step and place, ascending."""
        self._forced.append((step, time.time(), place, self._stacked(FORCED, step, values)))

    def _stacked(self, cadence: str, step: int, values: Mapping[str, Tensor]) -> Tensor:
        """Return all values of a row, (columns, S) or (columns,)."""
        names = tuple(values)
        if self._columns.setdefault(cadence, names) != names:
            raise ValueError(f"the columns of {cadence} changed at step {step}: {names}")
        return torch.stack([value.to(torch.float64) for value in values.values()])

    def due(self) -> bool:
        """Return whether it is time to move rows to the host."""
        most = max([len(self._forced), *map(len, self._blocks.values())])
        return most >= BLOCK_ROWS or time.monotonic() - self._flushed > BLOCK_SECONDS

    def flush(self, diverged_step: Tensor) -> None:
        """Append what was kept.

        Args:
            diverged_step: Step from which a run's values mean nothing, -1 where there is none, shape (S,).
        """
        self._flushed = time.monotonic()
        self._require()
        bad = diverged_step[: self._n_runs].cpu().numpy()
        for cadence, block in self._blocks.items():
            if not block:
                continue
            steps = np.array([step for step, _, _ in block])
            wall = np.array([clock for _, clock, _ in block])
            values = torch.stack([row for *_, row in block]).cpu().numpy()[:, :, : self._n_runs]
            values = np.where(((bad >= 0) & (steps[:, None] >= bad))[:, None, :], np.nan, values)
            columns = {name: values[:, index] for index, name in enumerate(self._columns[cadence])}
            self._writer(cadence).append(steps, wall, columns)
            self.latest |= {name: column[-1] for name, column in columns.items()}
            block.clear()
        if self._forced:
            steps, wall, places = (np.array(column) for column in list(zip(*self._forced, strict=True))[:3])
            values = torch.stack([row for *_, row in self._forced]).cpu().numpy()
            values[(bad[places] >= 0) & (steps >= bad[places])] = np.nan
            columns = dict(zip(self._columns[FORCED], values.T, strict=True))
            self._writer(FORCED).append(steps, wall, {"run": places, **columns})
            self._forced.clear()

    def _writer(self, cadence: str) -> SeriesWriter:
        if cadence not in self._writers:
            keep = self._marks.get(cadence)
            path, n_runs = self._paths.series(cadence), None if cadence == FORCED else self._n_runs
            self._writers[cadence] = SeriesWriter(path, self._columns[cadence], n_runs, keep)
        return self._writers[cadence]

    def sync(self) -> dict[str, Mark]:
        """Make the rows survive a power loss, and return what a checkpoint may vouch for."""
        return {**self._marks, **{cadence: writer.sync() for cadence, writer in self._writers.items()}}

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
