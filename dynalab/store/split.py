"""Splitting a shard into narrower ones that go on where it stood, so that each needs less memory.

A run's bits do not depend on its neighbours, so its rows and weights are cut out of the stacked ones and nothing is
computed anew. The parts are built beside the shard while its `split.json` names them, which hides them; moving the
shard's folder away is the one step that makes them count. Interrupted before it, the shard stands as it was;
after it, the parts stand.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from dynalab.core.atomic import discard, storing, sync_path, write_json
from dynalab.core.errors import Locked, StoreError
from dynalab.store import checkpoint, runfile, series, snapshot
from dynalab.store.cut import cut_checkpoint, runs_of, write_series
from dynalab.store.lock import Lock
from dynalab.store.paths import EnsemblePaths, ShardPaths


def split(paths: ShardPaths, count: int = 2) -> list[ShardPaths]:
    """Split a shard that no one is training into so many parts of nearly equal width, at most one a run.

    Raises:
        StoreError: The shard cannot be read, or the parts cannot be written; the shard stands as it was.
        Locked: Another process is training it, or laying out its ensemble.
    """
    ensemble = paths.ensemble
    paths.refuse_links()
    with Lock(ensemble.lock, wait=10.0) as whole, Lock(paths.lock) as own:
        shard = runfile.read(paths)
        edges = [len(shard.runs) * index // count for index in range(count + 1)]
        ranges = [range(first, last) for first, last in pairwise(edges) if last > first]
        parts = [
            ensemble.shard(runfile.folder_name(shard.runs[members.start : members.stop], shard.attempt))
            for members in ranges
        ]
        for part in parts:
            if part.root.exists():
                raise StoreError(f"cannot split {paths.root}: {part.root} is there already")
        write_json(paths.split, {"schema_version": 1, "parts": [part.root.name for part in parts]})
        try:
            for part, members in zip(parts, ranges, strict=True):
                with storing(part.root):
                    part.root.mkdir()
                _cut_out(paths, shard, part, members)
            whole.require()
            own.require()
            with storing(paths.root):
                discard(paths.aside)
                paths.root.rename(paths.aside)
                sync_path(ensemble.root)
        except OSError as error:
            _undo(paths)
            raise StoreError(f"cannot read {paths.root}: {error.strerror or error}") from error
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


def _cut_out(paths: ShardPaths, shard: runfile.Shard, part: ShardPaths, members: range) -> None:
    """Write what a shard holds of some of its runs into the folder of a part."""
    _, newest, _ = checkpoint.newest_whole(paths)
    steps, marks = (newest.step, newest.marks) if newest else (-1, {})
    for cadence in marks:
        write_series(part, cadence, series.read(paths.series(cadence)), members)
    vouched: dict[str, list[int]] = {}
    for item in paths.checkpoints():
        if item.step <= steps:
            try:
                state = checkpoint.read_state(item)
            except StoreError:
                continue
            # The last is the newest.
            vouched = cut_checkpoint(item, state, part, members, len(shard.runs)).series
    for step, file in paths.snapshots().items():
        target = part.snapshot(step)
        with storing(target):
            target.parent.mkdir(exist_ok=True)
        snapshot.write(target, runs_of(snapshot.read(file), members, len(shard.runs), file))
    steps = max(steps, 0)
    runs = [
        run if run.status == "diverged" else dataclasses.replace(run, steps=min(run.steps, steps))
        for run in shard.runs[members.start : members.stop]
    ]
    plan = {**shard.plan, "split_from": paths.root.name}
    # Last: with run.json a folder is a shard.
    runfile.write(part, dataclasses.replace(shard, runs=runs, steps=steps, plan=plan, marks=vouched))
