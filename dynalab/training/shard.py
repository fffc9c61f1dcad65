"""Training one shard from wherever it stands to the length asked for: lock, resume, loop, checkpoints, run.json."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dynalab.config import compiling
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.atomic import discard, sweep, write_text
from dynalab.core.errors import DynalabError, Locked, StoreError
from dynalab.core.machine import driver
from dynalab.core.plugins import PluginError, naming
from dynalab.core.words import count, listed
from dynalab.networks import compiler
from dynalab.probes import spectra
from dynalab.store import checkpoint, progress, runfile, series
from dynalab.store.carve import is_untrained
from dynalab.store.lock import Lock
from dynalab.store.names import refuse_links
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training import builds
from dynalab.training.code import code_of
from dynalab.training.handover import rehearse_way
from dynalab.training.job import Control, Job
from dynalab.training.loop import Loop
from dynalab.training.provenance import provenance
from dynalab.training.segments import Segment, segments
from dynalab.training.session import Session
from dynalab.training.summary import cause_of_divergence, summarise


def train_shard(paths: ShardPaths, job: Job, control: Control) -> runfile.Shard:
    """Train the shard in a folder.

    Raises:
        Locked: Another process holds it, or took it over; nothing of it was touched since.
        DynalabError: Its files cannot be used or written; run.json says `failed` where it could be written.
        PluginError: A plug-in failed; likewise, and the line names its file, and that of the traceback.
    """
    paths.refuse_links()
    with Lock(paths.lock, steal=job.steal) as lock:
        for folder in (paths.series_folder, paths.checkpoint_folder, paths.snapshot_folder):
            sweep(folder)
        log = _log_to(paths.log)
        try:
            with naming():
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
                if isinstance(error, PluginError):
                    raise PluginError(f"{error}; traceback in {_kept_trace(paths)}") from error.__cause__
            raise
        finally:
            with contextlib.suppress(StoreError):
                if lock.mine():
                    progress.remove(paths)
            for handler in list(log.handlers):
                handler.close()
                log.removeHandler(handler)


def _train(paths: ShardPaths, job: Job, control: Control, lock: Lock, log: logging.Logger) -> runfile.Shard:
    shard = runfile.read(paths)
    config = StoredEnsemble(paths.ensemble).typed_config(job.folders)
    began, attempt = time.time(), _begin_attempt(paths, shard, job, control)
    lock.require()
    runfile.write(paths, shard)
    paths.error.unlink(missing_ok=True)

    found, state, warnings = checkpoint.newest_whole(paths)
    for warning in warnings:
        where = f"step {found.step}" if found else "the start"
        control.warnings.append(f"{warning}; training goes back to {where}")
        log.warning(control.warnings[-1])
    _set_damaged_aside(paths, found.step if found else -1)
    if found and state:
        checkpoint.put_rows(paths, found, state.marks)
    way = segments(config, shard.runs, shard.requested_steps, job.folders)
    _require_branch(way[0], found.step if found else 0, config.parent, paths)
    index = int(state.extra.get(checkpoint.SEGMENT, 0)) if state else 0
    if way[-1].begin > (found.step if found else 0):
        # What is refused is refused before its parent's steps are trained.
        rehearse_way(way[index:], torch.device(shard.plan["device"]), job.folders)
    by_torch = shard.plan.get("rows") == runfile.TORCH
    with spectra.plainly(by_torch), Session(paths, job, lock, log, shard) as session:
        known = dict(shard.plan)
        session.resume(way[index], index, found, state)
        if line := session.loop.updates.without or _still_by_torch(shard, job):
            attempt["uncompiled"] = line
            log.warning(line)
            # That there is no compiler is told before training, where it matters; of another machine by its attempt.
            if compiling.compiler() is not None:
                control.warnings.append(f"{paths.ensemble.root.name}: {line}")
        if shard.plan != known:
            # What it is trained by, before there is anything that it trained.
            runfile.write(paths, shard)
        interrupted = _go(session, way[index:], control.stop)

    if session.left_out:
        line = f"{paths.root.name} goes on with the columns that it began with, without {listed(session.left_out, 4)}"
        control.warnings.append(line)
        log.warning(line)
    loop = session.loop
    if reason := loop.updates.gradients.uncaptured:
        attempt["graph"] = False
        line = f"{paths.root.name}: compute.graph=true has no effect, for {reason}"
        control.warnings.append(line)
        log.warning(line)
    if (reason := loop.updates.uncompiled) and (job.compile or "compiled" in shard.plan):
        ensemble = paths.ensemble.root.name
        line = f"{ensemble}: {compiler.KEY} has no effect, for {reason}"
        if config.parent is not None:
            line = (
                f"{ensemble}: its updates differ from its parent's by rounding, too: those were made in compiled code, "
                f"and {reason}"
            )
        control.warnings.append(line)
        log.warning(line)
    attempt.update(step=loop.step, seconds=time.time() - began, ended=_now())
    _settle(paths, shard, config, loop, interrupted)
    lock.require()
    runfile.write(paths, shard)
    lost, cause = [run for run in shard.runs if run.status == "diverged"], cause_of_divergence(config)
    for run in lost:
        why = cause or "its loss or its weights were no longer finite"
        log.warning("%s diverged at step %d: %s", run.label, run.steps, why)
    if lost and cause:
        control.warnings.append(f"{paths.root.name}: {cause}")
    log.info("%s", shard.status if loop.updates.are_over else f"{shard.status} at step {loop.step}")
    return shard


def _go(session: Session, way: Sequence[Segment], stop: Callable[[], bool]) -> bool:
    """Train along a way, from where a session stands in its first segment; return whether it was stopped before."""
    for place, segment in enumerate(way):
        if place:
            session.enter(segment)
        while session.loop.step < segment.end:
            if stop():
                return True
            session.advance(segment.end)
            session.record()
            if session.loop.updates.are_over:
                # Every run is beyond saving: the rest would be rows of NaN.
                return False
            session.save_when_due()
    return False


def _still_by_torch(shard: runfile.Shard, job: Job) -> str | None:
    """Say that updates go on by torch, where that is only because they could not be compiled before; else None."""
    lacked = shard.plan.get("compiled") == runfile.TORCH or any("uncompiled" in it for it in shard.attempts)
    if job.compile is None and shard.plan["compile"] is False and lacked:
        return "updates go on by torch, for they could not be compiled before"
    return None


def _begin_attempt(paths: ShardPaths, shard: runfile.Shard, job: Job, control: Control) -> dict[str, Any]:
    """Bring a shard's plan up to what is asked, and return the attempt that begins."""
    # A shard keeps the device, the thread count, the exactness and the code it began with: its bits may depend on all.
    asked = {"device": job.device, "threads": job.threads or torch.get_num_threads(), "exact": job.exact}
    if shard.attempts:
        asked["exact"] = shard.plan.setdefault("exact", True)
    if paths.checkpoints():
        shard.plan.setdefault("compile", False)
    else:
        # Nothing of it is kept: it begins anew, in whatever code there is.
        shard.plan = {key: value for key, value in shard.plan.items() if key not in builds.KEYS}
    shard.plan = {**asked, "compile": job.compile, **shard.plan}
    device, threads = shard.plan["device"], shard.plan["threads"]
    if any(shard.plan[key] != value for key, value in asked.items()):
        control.warnings.append(
            f"{paths.root.name} goes on as it began: device {device}, {count(threads, 'thread')}"
        )
    if None not in (job.compile, shard.plan["compile"]) and job.compile != shard.plan["compile"]:
        way = "without" if job.compile else "with"
        control.warnings.append(f"{paths.root.name} goes on as it began, {way} {compiler.KEY}")
    if not device.startswith("cuda"):
        made = builds.here(shard.plan)
        if not job.anyway:
            builds.require(paths.root.name, shard.plan, made)
        shard.plan |= made
        if made.get("compiled") == runfile.TORCH:
            shard.plan["compile"] = False
    torch.set_num_threads(threads)
    attempt = {**provenance(device), **code_of(paths.ensemble, job.folders), "threads": threads}
    attempt |= {"graph": True} if job.graph and device.startswith("cuda") else {}
    attempt |= {**_card(device), "argv": list(job.argv), "started": _now()}
    shard.attempts.append(attempt)
    shard.started = shard.started or _now()
    # Remembered, so that a later command that does not repeat the list, or the number, deletes none of them.
    keep = job.checkpoint_keep
    if isinstance(keep, int) and keep > shard.plan.get("keep", 2):
        shard.plan["keep"] = keep
    listed = [] if isinstance(keep, int) else keep
    if keep == "all":
        listed = [item.step for item in paths.checkpoints()]
    shard.kept = sorted({*shard.kept, *map(int, listed)})
    shard.settle("running")
    return attempt


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


def _require_branch(first: Segment, step: int, parent: str | None, paths: ShardPaths) -> None:
    """Refuse to train a fork of before from before the step at which it leaves its parent, which it does not know."""
    if step < first.begin:
        raise StoreError(
            f"{paths.root}: no whole checkpoint from step {first.begin} on, where this fork of {parent} begins; remove "
            "the folder and fork again"
        )


def _set_damaged_aside(paths: ShardPaths, newest: int) -> None:
    """Rename checkpoints that were found damaged, so that they count no longer as the newest."""
    for item in paths.checkpoints():
        if item.step > newest:
            aside = item.root.with_name(f"{item.root.name}.damaged")
            discard(aside)
            item.root.rename(aside)


def _settle(
    paths: ShardPaths, shard: runfile.Shard, config: EnsembleConfig, loop: Loop, interrupted: bool
) -> None:
    """Say in run.json what became of every run."""
    diverged = loop.settle().cpu().tolist()
    broken = loop.non_finite().cpu().tolist()
    evaluated = loop.measuring.eval_grid.name
    records = series.read(paths.series(evaluated))
    grids = [item.grid.name for item in loop.measuring.items if paths.series(item.grid.name).is_file()]
    # Of runs that all went on to the end the last row of a grid is enough.
    read = series.read if any(step >= 0 for step in diverged) or any(broken) else series.read_last
    others = [read(paths.series(name)) for name in dict.fromkeys(grids) if name != evaluated]
    shard.status = "partial" if interrupted else "done"
    for index, run in enumerate(shard.runs):
        step = diverged[index] if diverged[index] >= 0 else (loop.step if broken[index] else None)
        run.status = "diverged" if step is not None else shard.status
        run.steps = loop.step if step is None else int(step)
        run.summary = summarise(records, index, config.levels, None if step is None else int(step), others)
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


def _kept_trace(paths: ShardPaths) -> Path:
    """Return where the traceback of a failure stays: a shard without a row of its own goes, and its files with it."""
    if not is_untrained(paths):
        return paths.error
    ensemble = paths.ensemble.root
    kept = OutputPaths(ensemble.parent.parent).logs / f"{ensemble.name}.txt"
    try:
        refuse_links(kept.parent)
        kept.parent.mkdir(exist_ok=True)
        write_text(kept, paths.error.read_text("utf-8"))
    except (OSError, DynalabError):
        return paths.error
    return kept


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
