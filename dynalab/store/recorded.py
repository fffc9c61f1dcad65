"""The series of an ensemble's runs: which there are, which columns they have, and their rows as they are stored."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.blocks import BlockRows
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.words import count
from dynalab.store import runfile, series
from dynalab.store.names import FORCED, block_of, block_series, forced_cadence
from dynalab.store.paths import EnsemblePaths
from dynalab.store.stored import IMPORTED_CADENCE, StoredEnsemble, StoredRun


class Recorded(StoredEnsemble):
    """A stored configuration and the rows of its runs."""

    def __init__(self, path: Path | EnsemblePaths) -> None:
        super().__init__(path)
        self._series: dict[tuple[Path, str], np.ndarray | StoreError] = {}
        self._sorted: dict[tuple[Path, str], tuple[np.ndarray, np.ndarray]] = {}

    def records(self, run: StoredRun, cadence: str) -> np.ndarray:
        """Return the rows of a run's shard on a cadence, a structured array with columns of shape (S,).

        Raises:
            StoreError: The series is damaged.
        """
        key = (run.shard.root, cadence)
        if key not in self._series:
            try:
                self._series[key] = _records(run, cadence)
            except StoreError as error:
                # Of all its runs, which ask one after another.
                self._series[key] = error
        if isinstance(rows := self._series[key], StoreError):
            raise rows
        return rows

    @cached_property
    def eval_cadence(self) -> str:
        """Name of the series that losses and accuracies are on."""
        if self.imported:
            return IMPORTED_CADENCE
        return f"every-{self.config['eval']['every']}"

    @cached_property
    def _shards(self) -> list[StoredRun]:
        """The first run of each shard, in their order: what all of its runs share is asked once."""
        first: dict[Path, StoredRun] = {}
        for run in self.runs:
            first.setdefault(run.shard.root, run)
        return list(first.values())

    def cadences(self) -> list[str]:
        """Return the names of all series, the evaluation grid's first."""
        # Rows of single runs, on no grid, are read by `forced_rows`, blocks by `block`.
        own = {n for n in self._stored_series if n.partition("-")[0] != FORCED and block_of(n) is None}
        return sorted(own, key=lambda name: (name != self.eval_cadence, name))

    @cached_property
    def _stored_series(self) -> set[str]:
        # A series that a finished shard vouches for is asked for even if its file is gone: that is damage.
        return {name for run in self._shards for name in [*run.shard.cadences(), *run.record.marks]}

    @property
    def blocks(self) -> list[str]:
        """Every block that was recorded, in order of their names."""
        return sorted(name for series in self._stored_series if (name := block_of(series)) is not None)

    def block(self, run: StoredRun, name: str) -> BlockRows:
        """Return a run's rows of a block, up to where it diverged; none where its shard has not begun.

        Raises:
            StoreError: The series is damaged.
            ConfigError: The block was not recorded.
        """
        if name not in self.blocks:
            known = f"; there are {listing(self.blocks)}" if self.blocks else ", nor another block"
            raise ConfigError(f"{name}: no block of {self.id}{did_you_mean(name, self.blocks)}{known}")
        if not has_begun(run, block_series(name)):
            return BlockRows(np.empty(0, np.int64), np.empty(0))
        rows = self.records(run, block_series(name))
        found = BlockRows(rows["step"], rows[name][:, run.index])
        return found if run.diverged_step is None else found.where(found.steps < run.diverged_step)

    def forced_rows(self, run: StoredRun) -> np.ndarray:
        """Return the rows that spikes of a run's loss forced between those of its grids, a structured array (T,).

        Raises:
            StoreError: The series is damaged.
        """
        parts = []
        # Once every run had a series of its own.
        former = forced_cadence(run.label)
        # A long name that no file system takes is no file.
        if os.path.isfile(run.shard.series(former)) or former in run.record.marks:
            parts.append(series.own_rows(self.records(run, former), run.index))
        if run.shard.series(FORCED).is_file() or FORCED in run.record.marks:
            parts.append(self._single(run, FORCED))
        rows = np.concatenate(parts) if parts else np.empty(0, series.row_type((), None))
        return rows if run.diverged_step is None else rows[rows["step"] < run.diverged_step]

    def _single(self, run: StoredRun, cadence: str) -> np.ndarray:
        """Return a run's rows of a series whose rows are of a single run each, shape (T,)."""
        key = (run.shard.root, cadence)
        if key not in self._sorted:
            rows = self.records(run, cadence)
            rows = rows[np.argsort(rows["run"], kind="stable")]
            ends = np.searchsorted(rows["run"], np.arange(len(run.record.runs) + 1))
            self._sorted[key] = rows, ends
        rows, ends = self._sorted[key]
        return rows[ends[run.index] : ends[run.index + 1]]

    def columns(self) -> dict[str, list[str]]:
        """Return cadence -> metrics recorded on it."""
        return {cadence: [*names] for cadence, names in self._columns.items()}

    @cached_property
    def _columns(self) -> dict[str, tuple[str, ...]]:
        return {cadence: self._columns_of(cadence) for cadence in self.cadences()}

    def _columns_of(self, cadence: str) -> tuple[str, ...]:
        for run in self._shards:
            if has_begun(run, cadence):
                try:
                    return series.metrics_of(self.records(run, cadence).dtype)
                except StoreError as error:
                    self.leave_out(run.shard.root.name, str(error))
        return ()

    @property
    def metrics(self) -> list[str]:
        """Every metric that was recorded, in order of their series."""
        return list(self._recorded)

    @cached_property
    def _recorded(self) -> dict[str, str]:
        """Metric -> the first cadence that it was recorded on."""
        found: dict[str, str] = {}
        for cadence, names in self._columns.items():
            for name in names:
                found.setdefault(name, cadence)
        return found

    def _cadence_of(self, metric: str) -> str:
        if metric not in self._recorded:
            known = self.metrics
            raise ConfigError(
                f"{metric}: not recorded in {self.id}{did_you_mean(metric, known)}; there are {listing(known, 60)}"
            )
        return self._recorded[metric]

    def grid_metrics(self) -> list[str]:
        """Return the metrics recorded on the evaluation grid or a finer one."""
        if self.imported:
            return self.metrics
        every = int(self.config["eval"]["every"])
        grids = [cadence for cadence in self._columns if cadence.startswith("every-")]
        return [name for grid in grids if every % int(grid[6:]) == 0 for name in self._columns[grid]]

    def off_grid(self) -> dict[str, list[str]]:
        """Return cadence -> metrics recorded on it, and on no grid that has the rows of the evaluation grid."""
        kept = {*self.grid_metrics()}
        found = {
            cadence: [name for name in names if name not in kept] for cadence, names in self._columns.items()
        }
        return {cadence: names for cadence, names in found.items() if names}


def _records(run: StoredRun, cadence: str) -> np.ndarray:
    path, mark, n_runs = run.shard.series(cadence), run.record.marks.get(cadence), len(run.record.runs)
    records = series.read(path)
    metrics = series.metrics_of(records.dtype)
    single = series.is_single(records.dtype)
    shapes = {records.dtype[name].shape for name in metrics}
    if (block := block_of(cadence)) is not None:
        fits = metrics == (block,) and {shape[:1] for shape in shapes} == {(n_runs,)}
    else:
        # Runs that were trained elsewhere may each be on steps of their own.
        fits = single == (cadence == FORCED) or cadence == IMPORTED_CADENCE
        fits = fits and not shapes - {() if single else (n_runs,)}
    if not fits:
        raise StoreError(f"{path} is damaged: its columns are not of {count(n_runs, 'run')}")
    if not mark or run.record.status not in runfile.FINAL:
        return records
    if series.checksum_of(records, mark[0]) != mark[1]:
        raise StoreError(f"{path} is damaged: its checksum does not fit")
    return records[: mark[0]]


def has_begun(run: StoredRun, cadence: str) -> bool:
    """Return whether a run's shard must have a series: one that was made and not trained yet has none."""
    finished = run.record.status in runfile.FINAL or cadence in run.record.marks
    return finished or os.path.lexists(run.shard.series(cadence))
