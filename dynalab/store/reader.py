"""Reading: ensembles, their runs and trajectories as arrays and data frames, whoever trained them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dynalab.config.registry import search_path
from dynalab.config.suggest import listing
from dynalab.core.convergence import Convergence, direction_of
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.progress import counted
from dynalab.core.runs import Group, Lazy, Run, Series
from dynalab.core.streams import Streams
from dynalab.core.trajectories import Trajectories, Trajectory
from dynalab.core.weights import Weights
from dynalab.networks.learner import Recipe, SeededLearner
from dynalab.store import runfile, series
from dynalab.store.names import block_series
from dynalab.store.recorded import Recorded, has_begun
from dynalab.store.references import References
from dynalab.store.stored import StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.store.weights import Kept

T = TypeVar("T")


class Ensemble(Recorded):
    """A stored configuration and the trajectories of its runs."""

    def trajectory(self, run: StoredRun, metrics: Sequence[str], cadence: str | None = None) -> Trajectory:
        """Return one run's rows of some metrics on a cadence (default: the evaluation grid), shape (T, M).

        Rows from a run's divergence on are left out. Metrics of a finer cadence are taken at the cadence's steps.

        Raises:
            StoreError: A series is damaged.
            ConfigError: A metric was not recorded.
        """
        cadence = cadence or self.eval_cadence
        grid = self.records(run, cadence)
        if single := series.is_single(grid.dtype):
            grid = self._single(run, cadence)
        steps = grid["step"].astype(np.int64)
        keep = np.ones(len(steps), bool) if run.diverged_step is None else steps < run.diverged_step
        columns = []
        for metric in metrics:
            source = cadence if metric in (grid.dtype.names or ()) else self._cadence_of(metric)
            records = grid if source == cadence else self.records(run, source)
            if metric not in (records.dtype.names or ()):
                columns.append(np.full(len(steps), np.nan))
            elif source == cadence:
                columns.append(records[metric] if single else records[metric][:, run.index])
            else:
                columns.append(Series(records["step"], records[metric][:, run.index]).at(steps))
        values = np.stack(columns, axis=1) if columns else np.empty((len(steps), 0))
        return Trajectory(
            run.id, steps[keep], values[keep], run.seed, run.status, self.config, run.diverged_step
        )

    def trajectories(
        self,
        metrics: Sequence[str] | None = None,
        statuses: Iterable[str] = ("done",),
        runs: Iterable[str] | None = None,
    ) -> Trajectories:
        """Return the trajectories of the runs in some statuses; the others are named in `warnings`.

        Args:
            metrics: Columns; None for everything on the evaluation grid or a finer one.
            statuses: Which runs enter.
            runs: Ids of the runs wanted, or None for all.
        """
        names = self.grid_metrics() if metrics is None else metrics
        kept, warnings = self._chosen(lambda run: self.trajectory(run, names), statuses, runs)
        return Trajectories(self.id, tuple(names), kept, self.convergence, warnings, self.imported)

    def group(
        self,
        statuses: Iterable[str] = ("done",),
        runs: Iterable[str] | None = None,
        metrics: Sequence[str] = (),
        blocks: Sequence[str] = (),
    ) -> Group:
        """Return the runs in some statuses as analyses take them; the others are named in `warnings`.

        Args:
            statuses: Which runs enter.
            runs: Ids of the runs wanted, or None for all.
            metrics: Metrics that will be read, for damage to be found now; empty for all.
            blocks: Blocks that will be read, likewise.
        """
        cadences = {cadence for name, cadence in self._recorded.items() if not metrics or name in metrics}
        cadences |= {block_series(name) for name in blocks if name in self.blocks}

        def read(run: StoredRun) -> Run:
            for cadence in cadences:
                if has_begun(run, cadence):
                    self.records(run, cadence)
            rows, grid = Lazy(self._recorded, partial(self._series_of, run)), self.trajectory(run, ()).steps
            about = (self.config, run.seed, run.status, run.diverged_step)
            blocks = Lazy(self.blocks, partial(self.block, run))
            return Run(run.id, rows, grid, *about, self._weights_of(run), self._learner_of(run), blocks)

        kept, warnings = self._chosen(read, statuses, runs)
        names = tuple(self.grid_metrics())
        return Group(self.id, kept, names, self.convergence, imported=self.imported, warnings=warnings)

    def rows(self, run: StoredRun, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return steps and values of a run's rows of a metric, each (T,), on the grid that it was recorded on.

        Raises:
            StoreError: The series is damaged.
            ConfigError: The metric was not recorded.
        """
        cadence = self._cadence_of(metric)
        if not has_begun(run, cadence):
            return np.empty(0, np.int64), np.empty(0)
        found = self.trajectory(run, (metric,), cadence)
        return found.steps, found.values[:, 0]

    def _series_of(self, run: StoredRun, name: str) -> Series:
        return Series.of(*self.rows(run, name))

    @cached_property
    def _kept(self) -> Kept:
        from dynalab.store.weights import Kept

        return Kept()

    def _weights_of(self, run: StoredRun) -> Weights:
        """Return what was kept of a run's weights; no file is looked for before it is asked for."""
        if self.imported:
            return self._imported_weights(run)
        return Weights(
            run.id,
            lambda: tuple(self._kept.files(run.shard)),
            lambda step: self._kept.arrays(run, step),
            diverged_step=run.diverged_step,
            cut=lambda step, rows: self._kept.arrays(run, step, rows),
            asked=lambda: tuple(run.shard.snapshots()),
        )

    def _imported_weights(self, run: StoredRun) -> Weights:
        if not os.path.lexists(self.paths.checkpoints):
            return Weights(run.id, keep="the run was imported, and has metrics alone")
        return Weights(
            run.id,
            lambda: tuple(self._references.runs.get(run.label, ())),
            lambda step: self._references.arrays(run.label, step),
            "import more of its checkpoints, dynalab import --checkpoints",
            cut=lambda step, rows: self._references.arrays(run.label, step, rows),
            parts=lambda: self._references.parts,
        )

    @cached_property
    def _references(self) -> References:
        return References.read(self.paths)

    @cached_property
    def _recipe(self) -> Recipe:
        def read() -> tuple[EnsembleConfig, Sequence[Path]]:
            folders = search_path()
            return self.typed_config(folders), folders

        return Recipe(read)

    def _learner_of(self, run: StoredRun) -> SeededLearner | None:
        """Return what a run's weights are weights of; plug-ins come from `DYNALAB_PATH`."""
        named = run.record.runs[run.index].streams
        if self.imported or set(named) != {field.name for field in fields(Streams)}:
            return None
        plan = run.record.plan
        about = (plan.get("threads", 1), len(run.record.runs), runfile.is_compiled(plan))
        return SeededLearner(self._recipe, Streams(**named), *about)

    def _chosen(
        self, read: Callable[[StoredRun], T], statuses: Iterable[str], runs: Iterable[str] | None
    ) -> tuple[tuple[T, ...], tuple[str, ...]]:
        """Return what is read of the runs in some statuses, and lines about those that are left out."""
        wanted, allowed = None if runs is None else set(runs), set(statuses)
        kept, left = [], []
        for run in counted(self.runs, "runs", f"reading {self.id}"):
            if wanted is not None and run.id not in wanted:
                continue
            if run.status not in allowed:
                left.append(f"{run.id} is {run.status}")
                continue
            begun = run.steps > 0 or run.shard.series(self.eval_cadence).is_file()
            if run.status not in runfile.FINAL and not begun:
                left.append(f"{run.id} has no rows yet")
                continue
            try:
                kept.append(read(run))
            except StoreError as error:
                self.leave_out(run.shard.root.name, str(error))
        warnings = [*self.warnings]
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            warnings.append(f"left out: {', '.join(left[:3])}{more}")
        return tuple(kept), tuple(warnings)

    @property
    def convergence(self) -> Convergence | None:
        """The task's convergence default; of imported runs that they generalise, where a level says so."""
        rule = self.config.get("convergence") or {}
        level = (self.config.get("levels") or {}).get("test_accuracy")
        if not rule and self.imported and level is not None:
            return Convergence("test_accuracy", float(level))
        metric, threshold = rule.get("metric"), rule.get("threshold")
        direction = rule.get("direction") or direction_of(metric or "")
        if metric is None or threshold is None or direction is None:
            return None
        return Convergence(metric, float(threshold), direction, int(rule.get("persistence") or 1))

    def steps(self, metric: str) -> np.ndarray:
        """Return the steps a metric was recorded at, over all runs, shape (T,)."""
        cadence = self._cadence_of(metric)
        own = [np.unique(self._safe(run, cadence)["step"]) for run in self._shards if has_begun(run, cadence)]
        if not own:
            return np.empty(0, np.int64)
        longest = max(own, key=len)
        # Runs of one configuration are on one grid; imported ones need not be.
        if all(np.array_equal(steps, longest[: len(steps)]) for steps in own):
            return longest.astype(np.int64)
        return np.unique(np.concatenate(own)).astype(np.int64)

    def array(self, metric: str, at: np.ndarray | None = None) -> np.ndarray:
        """Return a metric of every run, shape (S, T), in the order of `runs` at the steps of `steps`.

        A run has NaN where it has no row: beyond its end, and between its rows where runs are on different grids.

        Args:
            metric: Its name.
            at: Some of the steps of `steps`, ascending, where runs on grids of their own have too many: a row stands at
                the nearest of them, and of several rows of a run at one the last.
        """
        cadence = self._cadence_of(metric)
        grid = self.steps(metric) if at is None else at
        middles = (grid[1:] + grid[:-1]) / 2
        result = np.full((len(self.runs), len(grid)), np.nan)
        for row, run in enumerate(self.runs):
            if not has_begun(run, cadence):
                continue
            try:
                found = self.trajectory(run, [metric], cadence)
            except StoreError as error:
                self.leave_out(run.shard.root.name, str(error))
                continue
            result[row, np.searchsorted(middles, found.steps)] = found.values[:, 0]
        return result

    def _safe(self, run: StoredRun, cadence: str) -> np.ndarray:
        try:
            return self.records(run, cadence)
        except StoreError as error:
            self.leave_out(run.shard.root.name, str(error))
            return np.empty(0, [("step", "<i8")])

    def frame(self, runs: Iterable[str] | None = None) -> pd.DataFrame:
        """Return every run, or those of some ids, and step of the evaluation grid: `run seed step` and its metrics.

        Metrics with other rows (`off_grid`) are left out; `steps` and `array` have them.
        """
        import pandas as pd

        table = self.trajectories(statuses=runfile.STATUSES, runs=runs)
        if not table.runs:
            return pd.DataFrame({"run": [], "seed": [], "step": []})
        counts = [len(run.steps) for run in table.runs]
        frame = pd.DataFrame(np.concatenate([run.values for run in table.runs]), columns=list(table.metrics))
        frame.insert(0, "step", np.concatenate([run.steps for run in table.runs]))
        seeds = pd.Series([run.seed for run in table.runs], dtype="Int64")
        frame.insert(0, "seed", seeds.repeat(counts).array)
        frame.insert(0, "run", pd.Series([run.run for run in table.runs]).repeat(counts).array)
        return frame

    def model(self, seed: int | str, step: int, *, average: bool = False) -> nn.Module:
        """Return one run's network with the weights it had at a step (a snapshot or a checkpoint).

        Args:
            seed: Its seed, or its label.
            step: One of the steps that weights were kept at.
            average: Take the averaged weights of that step, of a training with `average=ema`, `lawa` or `swa`, with
                their batch statistics.

        Raises:
            ConfigError: There is no such run, no weights of that step, or no averaged ones.
        """
        if self.imported:
            has = "metrics, and no weights"
            if os.path.lexists(self.paths.checkpoints):
                has = "weights (group().runs[0].weights.at(step)), and no network that is known"
            raise ConfigError(f"{self.id} was imported: its runs have {has}")
        from dynalab.store.weights import network_at

        label = f"s{seed:04d}" if isinstance(seed, int) else seed
        run = self.by_label.get(label)
        if run is None:
            raise ConfigError(
                f"{self.id} has no run {label}; there are {listing(r.label for r in self.runs)}"
            )
        return network_at(self, run, step, average)
