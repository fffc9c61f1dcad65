"""Carving some runs out of a shard: into the ensemble of a fork, or into narrower shards that take its place.

A run's bits do not depend on its neighbours, so its rows and its part of the stacked tensors are cut out, and nothing
is computed anew. What is carved is built under a hidden name and appears whole, in one rename; a training that finds it
goes on from it as from any other shard that was cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dynalab.core.atomic import discard, making, storing, sweep, sync_path, write_json
from dynalab.core.errors import Locked, StoreError
from dynalab.core.words import count
from dynalab.store import checkpoint, runfile, series, snapshot
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.lock import Lock
from dynalab.store.names import block_of
from dynalab.store.paths import CheckpointPaths, EnsemblePaths, ShardPaths
from dynalab.store.read import read_bytes
from dynalab.store.series import Mark, SeriesWriter
from dynalab.store.stored import StoredEnsemble, StoredRun

# Of a parent's plan: what bits may depend on, and the grids of the rows.
KEPT = ("device", "threads", "exact", "compile", "compiled", "every", "bits")


def _kept(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a fork keeps of its parent's plan: of what rows are made by torch alone, which is always there."""
    rows = {"rows": plan["rows"]} if plan.get("rows") == runfile.TORCH else {}
    return {key: plan[key] for key in KEPT if key in plan} | rows


def carve(
    source: ShardPaths,
    places: Sequence[int],
    step: int | None,
    target: ShardPaths,
    shard: runfile.Shard,
    lock: Lock,
) -> None:
    """Make a shard of what another one holds of some of its runs, to go on from its newest whole checkpoint.

    Args:
        source: The other one.
        places: Its runs that are meant, ascending.
        step: Up to which; nothing is made where no checkpoint up to there is whole. None: of all, with older
            checkpoints, later rows and snapshots.
        target: The shard; one that stands there is left.
        shard: Its run.json, but for what the checkpoint says.
        lock: Of the target's ensemble, held.

    Raises:
        StoreError: The source is damaged, or the target cannot be written.
        Locked: The lock was taken over.
    """
    newest, state, _ = checkpoint.newest_whole(source, at_most=step)
    if step is not None and state is None:
        return
    width = len(runfile.read(source).runs)
    with making(target.root) as folder:
        part = ShardPaths(folder)
        if newest and state:
            for cadence, mark in state.marks.items():
                rows = series.read(checkpoint.rows_of(source, newest, cadence))
                save_rows(part, cadence, rows if step is None else rows[: mark.rows], places)
            if step is None:
                for item in source.checkpoints():
                    with contextlib.suppress(StoreError):
                        if item.step < state.step:
                            save_part(item, checkpoint.read_state(item), part, places, width)
            state = save_part(newest, state, part, places, width)
        for at, file in source.snapshots().items() if step is None else ():
            part.snapshot_folder.mkdir(exist_ok=True)
            snapshot.write(part.snapshot(at), tensors_of(snapshot.read(file), places, width, file))
        steps = state.step if state else 0
        runs = [run if run.status == "diverged" else replace(run, steps=steps) for run in shard.runs]
        runfile.write(part, replace(shard, runs=runs, steps=steps, marks=state.series if state else {}))
        lock.require()


def branch(
    runs: Sequence[StoredRun],
    step: int,
    target: EnsemblePaths,
    steps: int,
    folders: Sequence[Path] = (),
    streams: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Make the shards of a fork that are not there yet, one for each shard of the parent that kept a checkpoint.

    Interrupted at any moment, the same call goes on. Of a shard that kept none the runs are trained from the start.

    Args:
        runs: The parent's.
        step: Where the fork leaves them; it is taken from the newest checkpoint up to there.
        target: The fork's ensemble.
        steps: Length that is asked for.
        folders: A user's plug-in folders.
        streams: Label of a run -> its streams in the fork, where these are not its parent's.

    Raises:
        StoreError: The folder cannot be written.
        Locked: Another process is laying out the ensemble.
    """
    target.refuse_links()
    with Lock(target.lock, wait=10.0) as lock:
        there = {run.label for paths in target.shards() for run in runfile.read(paths).runs}
        sweep(target.root, "shard-*")
        by_shard: dict[Path, list[StoredRun]] = {}
        for run in sorted(runs, key=lambda run: run.index):
            if run.label not in there:
                by_shard.setdefault(run.shard.root, []).append(run)
        for members in by_shard.values():
            source, record = members[0].shard, members[0].record
            chosen = [
                runfile.Run(
                    run.label,
                    run.seed,
                    dict((streams or {}).get(run.label, record.runs[run.index].streams)),
                    "partial",
                )
                for run in members
            ]
            shard = runfile.Shard(
                chosen,
                steps,
                status="partial",
                plan=_kept(record.plan),
                folders=[str(folder) for folder in folders],
            )
            place = target.shard(runfile.folder_name(chosen, 1))
            carve(source, [run.index for run in members], step, place, shard, lock)


def is_untrained(paths: ShardPaths) -> bool:
    """Return whether a shard has no row yet, or, of a fork, none but its parent's."""
    if not paths.cadences():
        return True
    try:
        tree = StoredEnsemble(paths.ensemble).tree
    except StoreError:
        return False
    # As many segments come before its own as it has forebears.
    own, before = 0, tree.get("origin")
    while before:
        own, before = own + 1, before.get("origin")
    _, state, _ = checkpoint.newest_whole(paths)
    return own > 0 and (state is None or int(state.extra.get(checkpoint.SEGMENT, 0)) < own)


def kept_before(run: StoredRun, step: int) -> int:
    """Return the newest step up to one given at which a whole checkpoint of a run is kept; 0 where there is none."""
    newest, _, _ = checkpoint.newest_whole(run.shard, at_most=step)
    return newest.step if newest else 0


def split(paths: ShardPaths, n_parts: int = 2) -> list[ShardPaths]:
    """Split a shard that no one is training into so many parts of nearly equal width, at most one a run.

    The parts stand beside the shard while its `split.json` names them, which hides them; moving the shard's folder away
    is the one step that makes them count. Interrupted before it, the shard stands as it was; after it, the parts stand.

    Raises:
        StoreError: The shard cannot be read, or the parts cannot be written; the shard stands as it was.
        Locked: Another process is training it, or laying out its ensemble.
    """
    ensemble = paths.ensemble
    paths.refuse_links()
    with Lock(ensemble.lock, wait=10.0) as whole, Lock(paths.lock) as own:
        shard = runfile.read(paths)
        edges = [len(shard.runs) * index // n_parts for index in range(n_parts + 1)]
        ranges = [range(first, last) for first, last in pairwise(edges) if last > first]
        runs = [shard.runs[members.start : members.stop] for members in ranges]
        parts = [ensemble.shard(runfile.folder_name(some, shard.attempt)) for some in runs]
        for part in parts:
            if part.root.exists():
                raise StoreError(f"cannot split {paths.root}: {part.root} is there already")
        write_json(paths.split, {"schema_version": 1, "parts": [part.root.name for part in parts]})
        plan = {**shard.plan, "split_from": paths.root.name}
        try:
            for part, members, some in zip(parts, ranges, runs, strict=True):
                carve(paths, members, None, part, replace(shard, runs=some, plan=plan), whole)
            own.require()
            with storing(paths.root):
                discard(paths.aside)
                paths.root.rename(paths.aside)
                sync_path(ensemble.root)
        except Locked:
            # Ours no longer, so nothing to undo either; whoever lays the ensemble out next does.
            raise
        except BaseException:
            _undo(paths)
            raise
    discard(paths.aside)
    return parts


def undo_unfinished(ensemble: EnsemblePaths) -> None:
    """Remove what interrupted splits left behind; the caller holds the ensemble's lock."""
    for paths in ensemble.shards():
        if paths.split.exists():
            _undo(paths)
    for leftover in ensemble.root.glob(".shard-*.split"):
        discard(leftover)


def _undo(paths: ShardPaths) -> None:
    for name in paths.parts():
        discard(paths.ensemble.shard(name).root)
    paths.split.unlink(missing_ok=True)


def save_part(
    source: CheckpointPaths, state: CheckpointState, part: ShardPaths, places: Sequence[int], width: int
) -> CheckpointState:
    """Write some runs' part of a checkpoint of S = `width` runs, and return its state.

    Of the series, which stand there already, it vouches for the rows that it did of the whole ones.
    """
    model, optim = (
        tensors_of(read_bytes(file), places, width, file) for file in (source.model, source.optim)
    )
    marks = {name: _mark(part, name, mark.rows, state.step) for name, mark in state.marks.items()}
    state = replace(state, marks=marks)
    checkpoint.save_bytes(part, state, model, optim)
    return state


def _mark(part: ShardPaths, cadence: str, rows: int, step: int) -> Mark:
    records = series.read(part.series(cadence))
    if series.is_single(records.dtype):
        # Those of the other runs are gone.
        rows = int(np.searchsorted(records["step"], step, side="right"))
    crc = series.checksum_of(records, rows)
    if crc is None:
        raise StoreError(f"{part.series(cadence)} has less than {count(rows, 'row')}")
    return Mark(rows, crc)


def save_rows(part: ShardPaths, cadence: str, records: np.ndarray, places: Sequence[int]) -> None:
    """Write what is some runs' own of the rows of a series into the folder of a part; `places` ascend."""
    metrics, members = series.metrics_of(records.dtype), np.array(places)
    single = series.is_single(records.dtype)
    if single:
        records = records[np.isin(records["run"], members)]
        chosen = {
            "run": np.searchsorted(members, records["run"]),
            **{name: records[name] for name in metrics},
        }
    else:
        chosen = {name: records[name][:, members] for name in metrics}
    columns = metrics if block_of(cadence) is None else series.blocks_of(records.dtype)
    writer = SeriesWriter(part.series(cadence), columns, None if single else len(members))
    try:
        writer.append(records["step"], records["wall"], chosen)
        writer.sync()
    finally:
        writer.close()


def tensors_of(data: bytes, places: Sequence[int], width: int, source: object) -> bytes:
    """Cut some runs out of stacked tensors: what has a leading axis of S = `width` is cut, a scalar is shared.

    Raises:
        StoreError: The data are damaged, or a tensor has no axis of the runs.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    try:
        tensors: Mapping[str, np.ndarray] = load(data)
    except SafetensorError as error:
        raise StoreError(f"{source} is damaged: {error}") from error
    cut = {}
    for name, tensor in tensors.items():
        if tensor.ndim and len(tensor) != width:
            raise StoreError(
                f"{source}: {name} has no axis of the shard's {count(width, 'run')} and cannot be split"
            )
        cut[name] = tensor[list(places)].copy() if tensor.ndim else tensor
    return save(cut)
