"""What of a store can go without a loss: damaged pieces, superseded attempts, and snapshots beyond a number."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalab.core.atomic import is_orphan
from dynalab.core.errors import StoreError
from dynalab.core.forks import attempt_of, parent_and_step
from dynalab.store import lock, runfile
from dynalab.store.lock import Lock
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.remove import burying, require_own, size_of
from dynalab.store.stored import StoredEnsemble

# A temporary file of a living writer is renamed within seconds.
_OLD_SECONDS = 24 * 3600.0
_SUPERSEDED = "superseded:"


@dataclass(frozen=True)
class Waste:
    """Something that can go: `shard` is the one that it is, or is a part of; None of what lies beside shards."""

    path: Path
    why: str
    ensemble: EnsemblePaths
    shard: ShardPaths | None
    size: int


def find(
    ensembles: Sequence[EnsemblePaths],
    outputs: Path,
    snapshots: int | None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Waste]:
    """Return what can go of some ensembles.

    Nothing goes of a shard that a living process writes, nor an attempt that a fork which is not done leaves.

    Args:
        ensembles: The ensembles.
        outputs: The outputs folder; nothing outside of it ever goes.
        snapshots: How many snapshots of a shard stay, the first, the last, and evenly between them; None: all.
        tell: Takes a line where it is waited for a sign of life of writers on other machines.
    """
    locks = [shard.lock for paths in ensembles for shard in paths.shards()]
    lock.watch([path for path in locks if path.exists()], tell)
    unfinished: set[tuple[str, int, str]] | None = None
    found = []
    for paths in ensembles:
        # A link to elsewhere is left alone.
        if paths.root.is_symlink() or paths.root.parent.is_symlink():
            continue
        require_own(paths, outputs)
        for path, why, shard in _of(paths, snapshots):
            if shard is not None and why.startswith(_SUPERSEDED):
                unfinished = _unfinished_forks(outputs) if unfinished is None else unfinished
                record = runfile.read(shard)
                if any((paths.digest, record.attempt, run.label) in unfinished for run in record.runs):
                    continue
            found.append(Waste(path, why, paths, shard, size_of([path])))
    return found


def _of(paths: EnsemblePaths, snapshots: int | None) -> Iterator[tuple[Path, str, ShardPaths | None]]:
    known: dict[ShardPaths, runfile.Shard] = {}
    # What is reached through a link is somebody else's.
    shards = [
        item
        for item in paths.shards()
        if not any(
            folder.is_symlink()
            for folder in (item.root, item.series_folder, item.checkpoint_folder, item.snapshot_folder)
        )
        and lock.holder(item.lock) is None
    ]
    for shard in paths.shards():
        try:
            known[shard] = runfile.read(shard)
        except StoreError as error:
            # What a newer dynalab wrote, or what cannot be read for want of a permission, is not damaged.
            if shard in shards and isinstance(error.__cause__, ValueError | RecursionError):
                yield shard.root, "damaged: run.json cannot be read", shard
    # The best that there is of each run: an attempt that ended.
    newest: dict[str, int] = {}
    for record in known.values():
        for run in record.runs:
            if run.status in runfile.FINAL:
                newest[run.label] = max(newest.get(run.label, 0), record.attempt)
    for shard in shards:
        if shard not in known:
            continue
        record = known[shard]
        if all(newest.get(run.label, 0) > record.attempt for run in record.runs):
            yield shard.root, f"{_SUPERSEDED} attempt {record.attempt}, and a later one is done", shard
            continue
        for path in sorted(shard.checkpoint_folder.glob("step-*.damaged")):
            yield path, "damaged: a checkpoint that was set aside", shard
        if snapshots is not None and record.status in runfile.FINAL:
            for path in _beyond(list(shard.snapshots().values()), snapshots):
                yield path, f"snapshots beyond {snapshots}", shard
        for folder in (shard.root, shard.series_folder, shard.checkpoint_folder, shard.snapshot_folder):
            for path in _left_over(folder):
                yield path, "left over by a writer that was killed", shard
    for path in _left_over(paths.root):
        yield path, "left over by a writer that was killed", None


def _unfinished_forks(outputs: Path) -> set[tuple[str, int, str]]:
    """Return (id, attempt, label) of runs that forks leave, and do not leave behind: what they go on to is not done."""
    found = set()
    for fork in map(StoredEnsemble, OutputPaths(outputs).ensembles()):
        if not fork.is_fork:
            continue
        parent = str(fork.parent)
        digest, _ = parent_and_step(parent)
        found |= {
            (digest, attempt_of(parent), run.label) for run in fork.runs if run.status not in runfile.FINAL
        }
    return found


def _beyond(paths: Sequence[Path], most: int) -> list[Path]:
    """Return all but so many of some files: the first and the last stay, and others evenly between them."""
    last = len(paths) - 1
    kept = (
        {round(place * last / max(most - 1, 1)) for place in range(most)}
        if most > 1
        else {last}
        if most
        else set()
    )
    return [path for place, path in enumerate(paths) if place not in kept]


def _left_over(folder: Path) -> list[Path]:
    old = []
    for path in sorted(folder.glob(".*.tmp")):
        with contextlib.suppress(OSError):
            if is_orphan(path) or time.time() - path.lstat().st_mtime > _OLD_SECONDS:
                old.append(path)
    return old


def remove(items: Sequence[Waste], outputs: Path) -> None:
    """Remove it, ensemble by ensemble, holding the locks of what is touched.

    Raises:
        Locked: A living process has begun to write a shard; of its ensemble nothing goes.
        StoreError: Something cannot be moved away; likewise.
    """
    by_ensemble: dict[Path, list[Waste]] = {}
    for item in items:
        by_ensemble.setdefault(item.ensemble.root, []).append(item)
    for some in by_ensemble.values():
        with contextlib.ExitStack() as held:
            held.enter_context(Lock(some[0].ensemble.lock, wait=10.0))
            for shard in dict.fromkeys(item.shard for item in some if item.shard):
                held.enter_context(Lock(shard.lock, beats=False))
            with burying(outputs) as bury:
                for item in some:
                    bury(item.path)
