"""Rows on their way to the store: kept on the device, moved to the host in blocks, appended to the series."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynalab.core.atomic import storing
from dynalab.core.blocks import Block
from dynalab.store import series
from dynalab.store.names import FORCED, block_of
from dynalab.store.paths import ShardPaths
from dynalab.store.series import Mark, SeriesWriter, truncate
from dynalab.training.host import Promised

# What is kept on the device is moved at the latest with so many rows, seconds and bytes.
MOST_ROWS = 256
MOST_SECONDS = 1.0
MOST_BYTES = 1 << 22


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
        self._kept: dict[str, list[tuple[int, float, Tensor]]] = {}
        # Series -> place of the row, place of the column, and what the host is still making.
        self._promised: dict[str, list[tuple[int, int, Promised]]] = {}
        self._bytes = 0
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

    def add(self, cadence: str, step: int, values: Mapping[str, Tensor | Promised]) -> None:
        """Keep a row of `(S,)` values for the series of a cadence, or the `(S, ...)` of a block for its own."""
        rows, own = self._kept.setdefault(cadence, []), dict[str, Tensor]()
        for column, (name, value) in enumerate(values.items()):
            if isinstance(value, Promised):
                self._promised.setdefault(cadence, []).append((len(rows), column, value))
                value = value.blank
            own[name] = value
        (block,) = own.values() if block_of(cadence) is not None else (None,)
        row = self._stacked(cadence, step, own) if block is None else block.detach()
        self._bytes += row.nbytes
        rows.append((step, time.time(), row))

    def add_forced(self, step: int, place: int, values: Mapping[str, Tensor]) -> None:
        """Keep a row that one run's spike forced, each value of shape (); called by step and place, ascending."""
        self._forced.append((step, time.time(), place, self._stacked(FORCED, step, values)))

    def _stacked(self, cadence: str, step: int, values: Mapping[str, Tensor]) -> Tensor:
        """Return all values of a row, (columns, S) or (columns,)."""
        names = tuple(values)
        if self._columns.setdefault(cadence, names) != names:
            raise ValueError(f"the columns of {cadence} changed at step {step}: {names}")
        wide = torch.float64
        return torch.stack([x if x.dtype is wide else x.to(wide) for x in values.values()])

    def due(self) -> bool:
        """Return whether it is time to move rows to the host."""
        most = max([len(self._forced), *map(len, self._kept.values())])
        full = most >= MOST_ROWS or self._bytes >= MOST_BYTES
        return full or time.monotonic() - self._flushed > MOST_SECONDS

    def flush(self, diverged_step: Tensor, whole: bool = True) -> None:
        """Append what was kept.

        Args:
            diverged_step: Step from which a run's values mean nothing, -1 where there is none, shape (S,).
            whole: Whether to append also a row with values that the next update finds on its way; else it waits,
                unless its series has no other to append.
        """
        self._flushed, self._bytes = time.monotonic(), 0
        self._require()
        bad = diverged_step[: self._n_runs].cpu().numpy()
        for cadence, rows in self._kept.items():
            if not rows:
                continue
            waiting = [] if whole or len(rows) == 1 else self._waiting(cadence, len(rows) - 1)
            ready = rows[: len(rows) - bool(waiting)]
            steps = np.array([step for step, _, _ in ready])
            wall = np.array([clock for _, clock, _ in ready])
            values = torch.stack([row for *_, row in ready]).cpu().numpy()
            for place, column, promised in self._promised.get(cadence, ()):
                if place < len(ready):
                    values[place, column] = promised.result().numpy()
            # What went wrong there goes wrong again: no row is stored with blanks.
            self._promised[cadence] = [(0, column, promised) for column, promised in waiting]
            lost = (bad >= 0) & (steps[:, None] >= bad)
            del rows[: len(ready)]
            if (name := block_of(cadence)) is not None:
                values = values[:, : self._n_runs]
                # Not every type has a NaN.
                values[lost] = 0
                form = {name: Block.of(values.dtype, values.shape[2:])}
                self._writer(cadence, form).append(steps, wall, {name: values})
                continue
            values = np.where(lost[:, None, :], np.nan, values[:, :, : self._n_runs])
            columns = {name: values[:, index] for index, name in enumerate(self._columns[cadence])}
            self._writer(cadence, self._columns[cadence]).append(steps, wall, columns)
            self.latest |= {name: column[-1] for name, column in columns.items()}
        if self._forced:
            steps, wall, places = (np.array(column) for column in list(zip(*self._forced, strict=True))[:3])
            values = torch.stack([row for *_, row in self._forced]).cpu().numpy()
            values[(bad[places] >= 0) & (steps >= bad[places])] = np.nan
            columns = dict(zip(self._columns[FORCED], values.T, strict=True))
            self._writer(FORCED, self._columns[FORCED]).append(steps, wall, {"run": places, **columns})
            self._forced.clear()

    def _waiting(self, cadence: str, place: int) -> list[tuple[int, Promised]]:
        """Return what a row is still promised, with its columns, where some of it will be found on the way."""
        own = [
            (column, promised) for row, column, promised in self._promised.get(cadence, ()) if row == place
        ]
        return own if any(promised.is_coming() for _, promised in own) else []

    def _writer(self, cadence: str, columns: Sequence[str] | Mapping[str, Block]) -> SeriesWriter:
        if cadence not in self._writers:
            keep = self._marks.get(cadence)
            path, n_runs = self._paths.series(cadence), None if cadence == FORCED else self._n_runs
            self._writers[cadence] = SeriesWriter(path, columns, n_runs, keep)
        return self._writers[cadence]

    def sync(self) -> dict[str, Mark]:
        """Make the rows survive a power loss, and return what a checkpoint may vouch for."""
        return {**self._marks, **{cadence: writer.sync() for cadence, writer in self._writers.items()}}

    @property
    def left_out(self) -> list[str]:
        """Metrics that are not written, as the series began without them."""
        return [name for writer in self._writers.values() for name in writer.left_out]

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


def put_row(path: Path, step: int, row: Mapping[str, Tensor], n_runs: int, to: Path) -> Mark:
    """Write a series with a row of a step in the place of its own, whose values it has where it has none of its own.

    Rows of later steps go.

    Args:
        path: The series, which stays as it is.
        step: The step.
        row: Metric -> values, shape (S,), or of a block (S, ...).
        n_runs: How many of the stacked runs are real.
        to: The file that is written.
    """
    if block_of(path.stem) is not None:
        return _put_block(path, step, row, n_runs, to)
    records = series.read(path) if path.is_file() else np.zeros(0, series.row_type((), n_runs))
    last = records[records["step"] == step]
    records = records[records["step"] < step]
    # What is measured no more stays, up to here.
    gone = [name for name in series.metrics_of(records.dtype) if name not in row]
    made = np.zeros(len(records) + 1, series.row_type((*row, *gone), n_runs))
    made["step"], made["wall"] = [*records["step"], step], [*records["wall"], time.time()]
    for name in gone:
        made[name][:-1], made[name][-1] = records[name], np.nan
    for name, values in row.items():
        own = values.to(torch.float64).cpu().numpy()[:n_runs]
        made[name][:-1], made[name][-1] = np.nan, own
        if name in (records.dtype.names or ()):
            made[name][:-1] = records[name]
            made[name][-1] = np.where(np.isnan(own), last[name][-1], own) if len(last) else own
    return series.replace(to, made)


def _put_block(path: Path, step: int, row: Mapping[str, Tensor], n_runs: int, to: Path) -> Mark:
    """As `put_row`, of a block; where it has another type or shape from this step on, the rows before cannot stand."""
    ((name, values),) = row.items()
    own = values.cpu().numpy()[:n_runs]
    dtype = series.row_type({name: Block.of(own.dtype, own.shape[1:])}, n_runs)
    records = series.read(path) if path.is_file() else np.zeros(0, dtype)
    records = records[records["step"] < step] if records.dtype == dtype else np.zeros(0, dtype)
    last = np.zeros(1, dtype)
    last["step"], last["wall"], last[name] = step, time.time(), own
    return series.replace(to, np.concatenate([records, last]))
