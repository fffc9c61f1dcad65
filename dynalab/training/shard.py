"""Training one shard from wherever it stands to the length asked for: lock, resume, loop, checkpoints, run.json."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.atomic import discard, sweep, write_text
from dynalab.core.errors import DynalabError, Locked, StoreError
from dynalab.core.machine import driver
from dynalab.core.streams import Streams
from dynalab.store import checkpoint, runfile, series
from dynalab.store.lock import Lock
from dynalab.store.paths import ShardPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training.cadence import cadence, probe_cadences
from dynalab.training.job import Control, Job
from dynalab.training.loop import Loop
from dynalab.training.provenance import provenance
from dynalab.training.recorder import Recorder
from dynalab.training.snapshots import Snapshots
from dynalab.training.summary import cause_of_divergence, summarise

CHECKPOINT_SECONDS = 20.0
PROGRESS_SECONDS = 0.5


def train_shard(paths: ShardPaths, job: Job, control: Control) -> runfile.Shard:
    """Train the shard in a folder.

    Raises:
        Locked: Another process holds it, or took it over; nothing of it was touched since.
        DynalabError: Its files cannot be used or written; run.json says `failed` where it could be written.
    """
    paths.refuse_links()
    with Lock(paths.lock, steal=job.steal) as lock:
        for folder in (paths.series_folder, paths.checkpoint_folder, paths.snapshot_folder):
            sweep(folder)
        log = _log_to(paths.log)
        try:
            return _train(paths, job, control, lock, log)
        except Locked:
            raise
        except BaseException as error:
            # Whatever went wrong, what lies there may be another's by now, and its being another's may be what went
            # wrong.
            if isinstance(error, Exception):
                lock.require()
            if lock.mine():
                log.error("%s: %s", type(error).__name__, error)
                _record_failure(paths, error)
            raise
        finally:
            for handler in list(log.handlers):
                handler.close()
                log.removeHandler(handler)


def _train(paths: ShardPaths, job: Job, control: Control, lock: Lock, log: logging.Logger) -> runfile.Shard:
    shard = runfile.read(paths)
    config = StoredEnsemble(paths.ensemble).typed_config(job.folders)
    # A shard keeps the device, the thread count and the exactness it began with: its bits may depend on all three.
    asked = {"device": job.device, "threads": job.threads or torch.get_num_threads(), "exact": job.exact}
    if shard.attempts:
        asked["exact"] = shard.plan.setdefault("exact", True)
    shard.plan = {**asked, **shard.plan}
    device, threads = shard.plan["device"], shard.plan["threads"]
    if any(shard.plan[key] != value for key, value in asked.items()):
        control.warnings.append(f"{paths.root.name} goes on as it began: device {device}, {threads} threads")
    torch.set_num_threads(threads)
    began, attempt = time.time(), {**provenance(device), "threads": threads}
    attempt |= {**_card(device), "argv": list(job.argv), "started": _now()}
    shard.attempts.append(attempt)
    shard.started = shard.started or _now()
    # Remembered, so that a later command that does not repeat the list deletes none of them.
    keep = job.checkpoint_keep
    listed = [] if isinstance(keep, int) else keep
    if keep == "all":
        listed = [item.step for item in paths.checkpoints()]
    shard.kept = sorted({*shard.kept, *map(int, listed)})
    shard.settle("running")
    lock.require()
    runfile.write(paths, shard)
    paths.error.unlink(missing_ok=True)

    found, state, warnings = checkpoint.newest_whole(paths)
    for warning in warnings:
        where = f"step {found.step}" if found else "the start"
        control.warnings.append(f"{warning}; training goes back to {where}")
        log.warning(control.warnings[-1])
    _set_damaged_aside(paths, found.step if found else -1)
    real = [Streams(**run.streams) for run in shard.runs]
    # Fixed when the shard began: what a probe costs may be counted otherwise by a later version.
    every = shard.plan.setdefault("every", probe_cadences(config, job.folders))
    loop = Loop(
        config,
        real,
        shard.requested_steps,
        torch.device(device),
        job.folders,
        exact=shard.plan["exact"],
        every=every,
    )
    grid = cadence(config.snapshots.every, None if config.snapshots.every else config.snapshots.at)
    snapshots = Snapshots(paths, grid, lock.require)
    _require_branch(config.parent, found.step if found else 0, paths)
    if found and state:
        try:
            loop.load(state.step, *checkpoint.load_tensors(found))
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise StoreError(f"{found.root} is damaged: it is not of this configuration ({error})") from error
        log.info("resumed at step %d with %d runs", loop.step, len(real))
    vouched = dict(state.marks) if state else {}
    shard.marks = {name: [mark.rows, mark.crc] for name, mark in vouched.items()}
    recorder = Recorder(paths, len(real), vouched, lock.require)
    if not found:
        log.info("started with %d runs", len(real))
        _record(loop, recorder, snapshots, len(real))

    def save() -> None:
        recorder.flush(loop.settle())
        marks = recorder.sync()
        snapshots.sync()
        weights, other = loop.tensors(len(real))
        if keep == "all":
            shard.kept = sorted({*shard.kept, loop.step})
            runfile.write(paths, shard)
        checkpoint.save(paths, checkpoint.CheckpointState(loop.step, marks), weights, other, lock.require)
        checkpoint.prune(paths, keep, shard.kept)
        shard.steps = loop.step
        shard.marks = {name: [mark.rows, mark.crc] for name, mark in marks.items()}
        attempt.update(step=loop.step, seconds=time.time() - began)
        for run in shard.runs:
            run.steps = loop.step if run.status != "diverged" else run.steps

    attempt["first_step"] = loop.step
    first, saved, told, began_steps = loop.step, time.monotonic(), 0.0, time.time()
    wanted = frozenset(shard.kept)
    interrupted = False
    while loop.step < shard.requested_steps:
        if control.stop():
            interrupted = True
            break
        loop.update()
        _record(loop, recorder, snapshots, len(real))
        clock = time.monotonic()
        if recorder.due():
            recorder.flush(loop.settle())
        if loop.is_over:
            # Every run is beyond saving: the rest would be rows of NaN.
            break
        if clock - told > PROGRESS_SECONDS:
            told = clock
            rate = (loop.step - first) / max(time.time() - began_steps, 1e-9)
            control.progress(_progress(loop, shard, recorder, rate))
        by_step = job.checkpoint_every is not None and loop.step % job.checkpoint_every == 0
        by_clock = job.checkpoint_every is None and clock - saved > CHECKPOINT_SECONDS
        if (by_step or by_clock or loop.step in wanted) and loop.step < shard.requested_steps:
            save()
            lock.require()
            runfile.write(paths, shard)
            saved = time.monotonic()
    if loop.step > first or found is None:
        save()
    recorder.close()
    attempt.update(step=loop.step, seconds=time.time() - began, ended=_now())
    attempt["train_seconds"] = time.time() - began_steps
    _settle(paths, shard, config, loop, interrupted)
    lock.require()
    runfile.write(paths, shard)
    lost, cause = [run for run in shard.runs if run.status == "diverged"], cause_of_divergence(config)
    for run in lost:
        why = cause or "its loss or its weights were no longer finite"
        log.warning("%s diverged at step %d: %s", run.label, run.steps, why)
    if lost and cause:
        control.warnings.append(f"{paths.root.name}: {cause}")
    log.info("%s", shard.status if loop.is_over else f"{shard.status} at step {loop.step}")
    control.progress(_progress(loop, shard, recorder, 0.0))
    return shard


def _card(device: str) -> dict[str, Any]:
    """Return the card's name and the versions of its libraries, nothing of a CPU."""
    if not device.startswith("cuda"):
        return {}
    return {
        "card": torch.cuda.get_device_name(device),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _require_branch(parent: str | None, step: int, paths: ShardPaths) -> None:
    """Refuse to train a fork from before the step at which it leaves its parent."""
    at = int((parent or "").rpartition("@")[2] or 0)
    if step < at:
        raise StoreError(
            f"{paths.root}: no whole checkpoint from step {at} on, where this fork of {parent} begins; remove "
            "the folder and fork again"
        )


def _record(loop: Loop, recorder: Recorder, snapshots: Snapshots, n_runs: int) -> None:
    for name, row in loop.rows().items():
        recorder.add(name, loop.step, row)
    for place, values in loop.forced_rows().items():
        recorder.add_forced(loop.step, place, values)
    if loop.step in snapshots.grid:
        snapshots.add(loop.step, loop.snapshot(n_runs), loop.lost(n_runs))


def _set_damaged_aside(paths: ShardPaths, newest: int) -> None:
    """Rename checkpoints that were found damaged, so that they count no longer as the newest."""
    for item in paths.checkpoints():
        if item.step > newest:
            aside = item.root.with_name(f"{item.root.name}.damaged")
            discard(aside)
            item.root.rename(aside)


def _progress(loop: Loop, shard: runfile.Shard, recorder: Recorder, rate: float) -> dict[str, Any]:
    latest = {}
    for name in ("train_loss", "train_accuracy", "test_accuracy"):
        values = recorder.latest.get(name)
        if values is not None and np.isfinite(values).any():
            latest[name] = float(np.nanmedian(values))
    return {
        "step": loop.step,
        "steps": shard.requested_steps,
        "runs": len(shard.runs),
        "rate": rate,
        "status": shard.status,
        "latest": latest,
    }


def _settle(
    paths: ShardPaths, shard: runfile.Shard, config: EnsembleConfig, loop: Loop, interrupted: bool
) -> None:
    """Say in run.json what became of every run."""
    diverged = loop.diverged_step.cpu().tolist()
    broken = loop.non_finite().cpu().tolist()
    records = series.read(paths.series(loop.eval_grid.name))
    shard.status = "partial" if interrupted else "done"
    for index, run in enumerate(shard.runs):
        step = diverged[index] if diverged[index] >= 0 else (loop.step if broken[index] else None)
        run.status = "diverged" if step is not None else shard.status
        run.steps = loop.step if step is None else int(step)
        run.summary = summarise(records, index, config.levels, None if step is None else int(step))
    if all(run.status == "diverged" for run in shard.runs):
        shard.status = "diverged"
    shard.steps = loop.step


def _record_failure(paths: ShardPaths, error: BaseException) -> None:
    # The disk that failed the training fails this note as well; the checkpoint on it is what counts.
    with contextlib.suppress(OSError, DynalabError):
        write_text(paths.error, "".join(traceback.format_exception(error)))
        shard = runfile.read(paths)
        shard.settle("failed")
        if shard.attempts:
            line = str(error).splitlines()[0] if str(error) else repr(error)
            shard.attempts[-1] |= {"ended": _now(), "error": line}
        runfile.write(paths, shard)


def _log_to(path: Path) -> logging.Logger:
    log = logging.getLogger(f"dynalab.shard.{path.parent.name}")
    log.propagate, log.disabled = False, False
    log.setLevel(logging.INFO)
    try:
        handler: logging.Handler = logging.FileHandler(path)
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.raiseExceptions = False
    log.addHandler(handler)
    return log


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
