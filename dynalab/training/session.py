"""One process' work on one shard: resume, update, record, save; and from one segment of a fork to the next."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from dynalab.core.blocks import Block
from dynalab.core.errors import ConfigError, StoreError
from dynalab.store import checkpoint, progress, runfile, series
from dynalab.store.checkpoint import CheckpointPaths, CheckpointState
from dynalab.store.lock import Lock
from dynalab.store.names import block_of
from dynalab.store.paths import ShardPaths
from dynalab.store.progress import Progress
from dynalab.store.series import Mark
from dynalab.training.cadence import cadence, probe_cadences
from dynalab.training.editing import edit
from dynalab.training.job import Control, Job
from dynalab.training.loop import Loop
from dynalab.training.recorder import Recorder
from dynalab.training.segments import Segment
from dynalab.training.snapshots import Snapshots

CHECKPOINT_SECONDS = 20.0
PROGRESS_SECONDS = 1.0
# Runs, and examples of a batch, of a rehearsal.
_FEW = 2


class Session:
    """Training of a shard that this process holds the lock of.

    Args:
        paths: Its folder.
        job: What is asked.
        control: How it is watched and stopped.
        lock: The shard's.
        log: Its log.
        shard: Its run.json, which is kept up to date.

    Attributes:
        loop: What trains at the moment.
    """

    loop: Loop
    _recorder: Recorder
    _snapshots: Snapshots

    def __init__(
        self,
        paths: ShardPaths,
        job: Job,
        control: Control,
        lock: Lock,
        log: logging.Logger,
        shard: runfile.Shard,
    ) -> None:
        self._paths, self._job, self._control, self._lock = paths, job, control, lock
        self._log, self._shard, self._index = log, shard, 0
        self._attempt = shard.attempts[-1]
        self._began, self._saved, self._told = time.time(), time.monotonic(), time.monotonic()
        self._first: int | None = None
        self._stored = -1

    def resume(
        self, segment: Segment, index: int, found: CheckpointPaths | None, state: CheckpointState | None
    ) -> None:
        """Go on from a checkpoint, or begin where there is none.

        Raises:
            StoreError: The checkpoint is not of this configuration.
        """
        self.loop, self._index = self._build(segment), index
        if found and state:
            try:
                self.loop.load(state.step, *checkpoint.load_tensors(found))
            except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
                raise StoreError(
                    f"{found.root} is damaged: it is not of this configuration ({error})"
                ) from error
            self._log.info("resumed at step %d with %d runs", self.loop.step, len(self._shard.runs))
            self._stored = state.step
        self._open(dict(state.marks) if state else {})
        if not found:
            self._log.info("started with %d runs", len(self._shard.runs))
            self._record()
        self._attempt["first_step"] = self._first = self.loop.step
        self._began, self._saved = time.time(), time.monotonic()

    def run(self, end: int) -> bool:
        """Train up to a step, saving when it is due; return whether to stop before."""
        job, shard, loop = self._job, self._shard, self.loop
        wanted = frozenset(shard.kept)
        while loop.step < end:
            if self._control.stop():
                return True
            loop.update()
            self._record()
            clock = time.monotonic()
            if self._recorder.due():
                self._recorder.flush(loop.settle())
            if loop.is_over:
                # Every run is beyond saving: the rest would be rows of NaN.
                return False
            if clock - self._told > PROGRESS_SECONDS:
                self._told = clock
                self._tell()
            by_step = job.checkpoint_every is not None and loop.step % job.checkpoint_every == 0
            by_clock = job.checkpoint_every is None and clock - self._saved > CHECKPOINT_SECONDS
            if (by_step or by_clock or loop.step in wanted) and loop.step < shard.requested_steps:
                self.save()
                self._lock.require()
                runfile.write(self._paths, shard)
        return False

    def enter(self, segment: Segment) -> None:
        """Go over to the next segment: with its configuration, and with its edit where it has one.

        The row of the step is measured anew, but for what belongs to the update before it, which is the parent's.

        Raises:
            ConfigError: The weights do not fit, or the edit cannot be made.
        """
        before, step = self.loop, self.loop.step
        self.save()
        weights, other = before.tensors(len(self._shard.runs))
        self._recorder.close()
        self.loop, self._index = self._build(segment), self._index + 1
        carry(before, self.loop, weights, other)
        edited = segment.config.edit is not None
        if edited:
            edit(self.loop, [run.seed for run in self._shard.runs], segment, self._job.folders)
            self._log.info("edit=%s at step %d", segment.config.edit.name, step)
        marks = {name: Mark(*mark) for name, mark in self._shard.marks.items()}
        if edited or differ(before, self.loop):
            for name, row in self.loop.rows().items():
                put = _put if block_of(name) is None else _put_block
                marks[name] = put(self._paths.series(name), step, row, len(self._shard.runs))
        self._open(marks)
        if edited and step in self._snapshots.grid:
            n_runs = len(self._shard.runs)
            self._snapshots.add(step, self.loop.snapshot(n_runs), self.loop.lost(n_runs))
        self._stored = -1
        self.save()

    def save(self) -> None:
        """Make what was done so far survive, unless the newest checkpoint has it."""
        loop, shard = self.loop, self._shard
        if self._stored == loop.step:
            return
        self._recorder.flush(loop.settle())
        marks = self._recorder.sync()
        self._snapshots.sync()
        weights, other = loop.tensors(len(shard.runs))
        keep = "all" if self._job.checkpoint_keep == "all" else shard.plan.get("keep", 2)
        if keep == "all":
            shard.kept = sorted({*shard.kept, loop.step})
            runfile.write(self._paths, shard)
        state = CheckpointState(loop.step, marks, {checkpoint.SEGMENT: self._index} if self._index else {})
        checkpoint.save(self._paths, state, weights, other, self._lock.require)
        checkpoint.prune(self._paths, keep, shard.kept)
        shard.steps = self._stored = loop.step
        shard.marks = {name: [mark.rows, mark.crc] for name, mark in marks.items()}
        self._attempt.update(step=loop.step, seconds=time.time() - self._began)
        for run in shard.runs:
            run.steps = loop.step if run.status != "diverged" else run.steps
        self._saved = time.monotonic()

    def close(self) -> None:
        """Save, and end."""
        self.save()
        self._recorder.close()
        self._attempt["train_seconds"] = time.time() - self._began

    def abandon(self) -> None:
        """Let go of the files, after an error, with the rows that there are; what was not saved is not."""
        if recorder := getattr(self, "_recorder", None):
            with contextlib.suppress(Exception):
                recorder.flush(self.loop.settle())
            recorder.close()

    def _tell(self) -> None:
        """Say on disk how far training is, and how fast."""
        latest = {}
        for name in progress.METRICS:
            values = self._recorder.latest.get(name)
            if values is not None and np.isfinite(values).any():
                latest[name] = float(np.nanmedian(values))
        shard, now = self._shard, time.time()
        rate = (self.loop.step - (self._first or 0)) / max(now - self._began, 1e-9)
        about = (shard.requested_steps, len(shard.runs), self._lock.token, now)
        progress.write(self._paths, Progress(self.loop.step, rate, latest, *about))

    def _build(self, segment: Segment) -> Loop:
        plan, folders = self._shard.plan, self._job.folders
        # Fixed when the shard began: what a probe costs may be counted otherwise by a later version.
        every = plan["every"] = {**probe_cadences(segment.config, folders), **plan.get("every", {})}
        return Loop(
            segment.config,
            segment.streams,
            segment.total,
            torch.device(plan["device"]),
            folders,
            exact=plan["exact"],
            every=every,
        )

    def _open(self, marks: Mapping[str, Mark]) -> None:
        """Open the series behind what a checkpoint vouches for."""
        keys = self.loop.config.snapshots
        grid = cadence(keys.every, None if keys.every else keys.at)
        self._snapshots = Snapshots(self._paths, grid, self._lock.require)
        self._shard.marks = {name: [mark.rows, mark.crc] for name, mark in marks.items()}
        self._recorder = Recorder(self._paths, len(self._shard.runs), marks, self._lock.require)

    def _record(self) -> None:
        loop, n_runs = self.loop, len(self._shard.runs)
        for name, row in loop.rows().items():
            self._recorder.add(name, loop.step, row)
        for place, values in loop.forced_rows().items():
            self._recorder.add_forced(loop.step, place, values)
        if loop.step in self._snapshots.grid:
            self._snapshots.add(loop.step, loop.snapshot(n_runs), loop.lost(n_runs))


def carry(before: Loop, after: Loop, weights: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Give a loop the state of another: all of it, but for what an optimizer or probe of other keys cannot take.

    Args:
        before: The loop whose state it is.
        after: The loop that takes it.
        weights: As `Loop.tensors` returns them.
        other: Likewise.

    Raises:
        ConfigError: The networks differ in their parameters.
    """
    own = {name: tuple(tensor.shape[1:]) for name, tensor in after.stack.state().items()}
    theirs = {name: tuple(tensor.shape[1:]) for name, tensor in weights.items()}
    if own != theirs:
        name = next(name for name in {**own, **theirs} if own.get(name) != theirs.get(name))
        raise ConfigError(
            f"a fork goes on with its parent's weights, and {name} is {theirs.get(name, 'not there')} in the parent, "
            f"{own.get(name, 'not there')} in the fork"
        )
    fresh = _kind(before) != _kind(after)
    probes = before.config.probe
    gone = [name for name, config in after.config.probe.items() if probes.get(name) != config]
    left = ("optimizer/",) * fresh + tuple(f"probe/{name}/" for name in gone)
    kept = {key: value for key, value in other.items() if not key.startswith(left)} if left else other
    after.load(before.step, weights, kept)
    if fresh:
        after.begin_optimizer()


def rehearse_way(
    way: Sequence[Segment], device: torch.device, folders: Sequence[Path], *, exact: bool = True
) -> Loop:
    """Go the way of a fork with few runs and examples, without a step, to see in time whether it can be gone.

    Returns:
        The loop of its last segment.

    Raises:
        ConfigError: It cannot: the weights do not fit, or an edit cannot be made.
    """
    few = [replace(segment, streams=segment.streams[:_FEW]) for segment in way]
    before: Loop | None = None
    for segment in few:
        n_runs = len(segment.streams)
        loop = Loop(
            segment.config, segment.streams, segment.total, device, folders, exact=exact, examples=_FEW
        )
        if before is not None:
            carry(before, loop, *before.tensors(n_runs))
            if segment.config.edit is not None:
                edit(loop, list(range(n_runs)), segment, folders)
        before = loop
    return loop


def _kind(loop: Loop) -> tuple[str, ...]:
    """Name what decides which tensors an optimizer holds."""
    config = loop.config.optimizer
    return config.name, str(getattr(config, "inner", "")), str(getattr(config, "inner_state", ""))


def differ(before: Loop, after: Loop) -> bool:
    """Return whether two configurations train or measure otherwise, by their identity, edits left out."""
    one = before.config
    same = {name: getattr(one, name) for name in ("parent", "origin", "edit", "snapshots")}
    return replace(after.config, **same).id != one.id


def _put(path: Path, step: int, row: Mapping[str, Tensor], n_runs: int) -> Mark:
    """Put a row of a step in the place of the one that is there, whose values it has where it has none of its own."""
    records = series.read(path) if path.is_file() else np.zeros(0, series.row_type((), n_runs))
    last = records[records["step"] == step]
    records = records[records["step"] < step]
    made = np.zeros(len(records) + 1, series.row_type(tuple(row), n_runs))
    made["step"], made["wall"] = [*records["step"], step], [*records["wall"], time.time()]
    for name, values in row.items():
        own = values.to(torch.float64).cpu().numpy()[:n_runs]
        made[name][:-1], made[name][-1] = np.nan, own
        if name in (records.dtype.names or ()):
            made[name][:-1] = records[name]
            made[name][-1] = np.where(np.isnan(own), last[name][-1], own) if len(last) else own
    return series.replace(path, made)


def _put_block(path: Path, step: int, row: Mapping[str, Tensor], n_runs: int) -> Mark:
    """As `_put`, of a block; where it has another type or shape from this step on, the rows before cannot stand."""
    ((name, values),) = row.items()
    own = values.cpu().numpy()[:n_runs]
    dtype = series.row_type({name: Block.of(own.dtype, own.shape[1:])}, n_runs)
    records = series.read(path) if path.is_file() else np.zeros(0, dtype)
    records = records[records["step"] < step] if records.dtype == dtype else np.zeros(0, dtype)
    last = np.zeros(1, dtype)
    last["step"], last["wall"], last[name] = step, time.time(), own
    return series.replace(path, np.concatenate([records, last]))
