"""One process' work on one shard: resume, record, save; and from one segment of a fork to the next."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from dynalab.core.errors import StoreError
from dynalab.store import checkpoint, progress, runfile
from dynalab.store.checkpoint import CheckpointPaths, CheckpointState
from dynalab.store.lock import Lock
from dynalab.store.paths import ShardPaths
from dynalab.store.progress import Progress
from dynalab.store.series import Mark
from dynalab.training.cadence import cadence, probe_cadences
from dynalab.training.editing import edit
from dynalab.training.handover import carry, differ
from dynalab.training.job import Job
from dynalab.training.loop import Loop
from dynalab.training.recorder import Recorder, put_row
from dynalab.training.segments import Segment
from dynalab.training.snapshots import Snapshots

CHECKPOINT_SECONDS = 20.0
PROGRESS_SECONDS = 1.0


class Session:
    """Training of a shard that this process holds the lock of.

    Args:
        paths: Its folder.
        job: What is asked.
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
        lock: Lock,
        log: logging.Logger,
        shard: runfile.Shard,
    ) -> None:
        self._paths, self._job, self._lock = paths, job, lock
        self._log, self._shard, self._index = log, shard, 0
        self._attempt = shard.attempts[-1]
        self._began, self._saved, self._told = time.time(), time.monotonic(), time.monotonic()
        self._first: int | None = None
        self._stored, self._kept = -1, frozenset(shard.kept)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Save, and end; after an error keep the rows that there are: what was not saved is not."""
        if (recorder := getattr(self, "_recorder", None)) is None:
            return
        with contextlib.closing(recorder):
            if kind is None:
                self.save()
                self._attempt["train_seconds"] = time.time() - self._began
            else:
                with contextlib.suppress(Exception):
                    recorder.flush(self.loop.settle())

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
            self.record()
        self._attempt["first_step"] = self._first = self.loop.step
        self._began, self._saved = time.time(), time.monotonic()

    @property
    def left_out(self) -> list[str]:
        """Metrics that are not recorded, as the shard began without them."""
        return self._recorder.left_out

    def advance(self, end: int) -> None:
        """Make updates, to `end` at most and to the next step at which something is looked at or saved."""
        step, every = self.loop.step, self._job.checkpoint_every
        ends = [end, self._snapshots.grid.after(step, end), *(kept for kept in self._kept if kept > step)]
        self.loop.advance(min([*ends, step - step % every + every] if every else ends))

    def record(self) -> None:
        """Write down the rows and the snapshot of the step."""
        loop, n_runs = self.loop, len(self._shard.runs)
        for name, row in loop.measuring.rows().items():
            self._recorder.add(name, loop.step, row)
        for place, values in loop.forced_rows().items():
            self._recorder.add_forced(loop.step, place, values)
        if loop.step in self._snapshots.grid:
            self._snapshots.add(loop.step, loop.snapshot(n_runs), loop.lost(n_runs))
        if self._recorder.due():
            self._recorder.flush(loop.settle(), whole=False)

    def save_when_due(self) -> None:
        """Save where it is time to, or the step is one that is kept; and say how far training is."""
        job, shard, step, clock = self._job, self._shard, self.loop.step, time.monotonic()
        if clock - self._told > PROGRESS_SECONDS:
            self._told = clock
            self._tell()
        if job.checkpoint_every is None:
            due = clock - self._saved > CHECKPOINT_SECONDS
        else:
            due = step % job.checkpoint_every == 0
        if (due or step in self._kept) and step < shard.requested_steps:
            self.save()
            self._lock.require()
            runfile.write(self._paths, shard)

    def enter(self, segment: Segment) -> None:
        """Go over to the next segment: with its configuration, and with its edit where it has one.

        The row of the step is measured anew, but for what belongs to the update before it, which is the parent's. It
        takes its place with the checkpoint that vouches for it: a kill leaves the one before whole, or this one.

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
        rows: dict[str, Path] = {}
        n_runs = len(self._shard.runs)
        if edited or differ(before, self.loop):
            for name, row in self.loop.rows().items():
                # Under a name that is swept away where training begins.
                rows[name] = self._paths.series_folder / f".{name}.tmp"
                marks[name] = put_row(self._paths.series(name), step, row, n_runs, rows[name])
        self._snapshots = self._begin_snapshots()
        if edited and step in self._snapshots.grid:
            self._snapshots.add(step, self.loop.snapshot(n_runs), self.loop.lost(n_runs))
        self._keep(marks, rows)
        checkpoint.put_rows(self._paths, self._paths.checkpoint(step), rows)
        self._open(marks)

    def save(self) -> None:
        """Make what was done so far survive, unless the newest checkpoint has it."""
        if self._stored == self.loop.step:
            return
        self._recorder.flush(self.loop.settle())
        self._keep(self._recorder.sync())

    def _keep(self, marks: Mapping[str, Mark], rows: Mapping[str, Path] | None = None) -> None:
        """Write a checkpoint that vouches for some rows, of which those in files of their own come with it."""
        loop, shard = self.loop, self._shard
        self._snapshots.sync()
        weights, other = loop.tensors(len(shard.runs))
        keep = "all" if self._job.checkpoint_keep == "all" else shard.plan.get("keep", 2)
        if keep == "all":
            shard.kept = sorted({*shard.kept, loop.step})
            runfile.write(self._paths, shard)
        state = CheckpointState(loop.step, marks, {checkpoint.SEGMENT: self._index} if self._index else {})
        checkpoint.save(self._paths, state, weights, other, self._lock.require, rows)
        checkpoint.prune(self._paths, keep, shard.kept)
        shard.steps = self._stored = loop.step
        shard.marks = {name: [mark.rows, mark.crc] for name, mark in marks.items()}
        self._attempt.update(step=loop.step, seconds=time.time() - self._began)
        for run in shard.runs:
            run.steps = loop.step if run.status != "diverged" else run.steps
        self._saved = time.monotonic()

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
        loop = Loop(
            segment.config,
            segment.streams,
            segment.total,
            torch.device(plan["device"]),
            folders,
            exact=plan["exact"],
            every=every,
            graph=self._job.graph,
            compile=plan["compile"],
        )
        code = loop.updates.code
        if "compiled" not in plan:
            plan["compile"] = code is not None
        if code is not None:
            plan["compiled"] = code
        return loop

    def _open(self, marks: Mapping[str, Mark]) -> None:
        """Open the series behind what a checkpoint vouches for."""
        self._snapshots = self._begin_snapshots()
        self._shard.marks = {name: [mark.rows, mark.crc] for name, mark in marks.items()}
        self._recorder = Recorder(self._paths, len(self._shard.runs), marks, self._lock.require)

    def _begin_snapshots(self) -> Snapshots:
        keys = self.loop.config.snapshots
        return Snapshots(
            self._paths, cadence(keys.every, None if keys.every else keys.at), self._lock.require
        )
