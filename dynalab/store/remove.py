"""Removing what is stored, shards, ensembles and analyses: out of sight in one rename, then from the disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalab.core.atomic import discard, storing
from dynalab.core.errors import ConfigError, Locked, StoreError
from dynalab.store import lock, runfile
from dynalab.store.find import Selection
from dynalab.store.lock import Lock
from dynalab.store.names import ENSEMBLE, refuse_links
from dynalab.store.paths import AnalysisPaths, EnsemblePaths, ShardPaths
from dynalab.store.stored import StoredEnsemble, StoredRun


@dataclass(frozen=True)
class Removal:
    """What goes of an ensemble: the runs of some ids, with the shards that hold them."""

    ensemble: EnsemblePaths
    runs: list[str]
    shards: list[ShardPaths]
    whole: bool  # Whether the ensemble goes as a whole.

    @property
    def folders(self) -> list[Path]:
        """Folders to remove: the ensemble's, or those of the shards."""
        return [self.ensemble.root] if self.whole else [shard.root for shard in self.shards]


def size_of(folders: Sequence[Path]) -> int:
    """Return the bytes that are freed with some folders; of one that is a link, none."""
    files = (path for folder in folders if not folder.is_symlink() for path in (folder, *folder.rglob("*")))
    return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())


def plan(
    selection: Selection[StoredEnsemble], outputs: Path, tell: Callable[[str], None] = lambda line: None
) -> list[Removal]:
    """Return what would be removed; nothing outside of the outputs folder ever is.

    `tell` takes a line where it is waited for a sign of life of writers on other machines.

    Raises:
        ConfigError: Some runs of a shard are chosen and others are not: seeds that were trained stacked share their
            files. Or a folder is no ensemble of the outputs folder.
        StoreError: A folder is reached through a link.
        Locked: A live process writes one of the shards.
    """
    removals = []
    for ensemble, runs in selection:
        require_own(ensemble.paths, outputs)
        whole = len(runs) == len(ensemble.runs)
        shards = ensemble.paths.shards() if whole else _shards(ensemble, runs)
        removals.append(Removal(ensemble.paths, [run.id for run in runs], shards, whole))
    held = [shard for removal in removals for shard in removal.shards]
    lock.watch([*(removal.ensemble.lock for removal in removals), *(shard.lock for shard in held)], tell)
    for shard in held:
        if (owner := lock.holder(shard.lock)) is not None:
            raise Locked(f"{shard.root}: {owner.said} is training it; stop it first")
    return removals


def require_own(paths: EnsemblePaths, outputs: Path) -> None:
    """Check that a folder is an ensemble of the outputs folder; itself it may be a link, which then goes alone."""
    folder = paths.root
    if not folder.is_relative_to(outputs):
        raise ConfigError(f"{folder} is outside of {outputs}; rm removes nothing there (--outputs names it)")
    if folder.parent.parent != outputs or not ENSEMBLE.fullmatch(folder.name) or not paths.is_ours():
        raise ConfigError(f"{folder} is no ensemble of {outputs}; rm leaves it alone")
    refuse_links(folder.parent)


def _shards(ensemble: StoredEnsemble, runs: Sequence[StoredRun]) -> list[ShardPaths]:
    """Return the shards that hold some runs, older attempts included, and no other run."""
    wanted = {run.label for run in runs}
    found = []
    for shard in ensemble.paths.shards():
        try:
            labels = [run.label for run in runfile.read(shard).runs]
        except StoreError:
            continue
        if not wanted & set(labels):
            continue
        if others := [label for label in labels if label not in wanted]:
            raise ConfigError(
                f"{ensemble.id}: {', '.join(sorted(wanted & set(labels))[:3])} and {', '.join(others[:3])} "
                f"{'...' if len(others) > 3 else ''}share {shard.root.name} and go together; name them all, "
                f"or the ensemble {ensemble.id}"
            )
        found.append(shard)
    return found


def remove(removal: Removal, outputs: Path) -> None:
    """Remove it, holding the locks of all that goes: a writer that would begin now finds it held, then gone.

    Raises:
        Locked: A live process writes some of it; nothing of it is removed.
        StoreError: A folder cannot be moved away, or there are shards by now that were not asked about; likewise.
    """
    ensemble = removal.ensemble
    with contextlib.ExitStack() as held:
        # Of what is a link the link goes; what it points to is left alone, locks included.
        if not ensemble.root.is_symlink():
            held.enter_context(Lock(ensemble.lock, wait=10.0))
            if removal.whole and {*ensemble.shards()} != {*removal.shards}:
                raise StoreError(
                    f"{ensemble.root} has changed since it was looked at; nothing of it was removed"
                )
            for shard in removal.shards:
                if not shard.root.is_symlink():
                    held.enter_context(Lock(shard.lock, beats=False))
        with burying(outputs) as bury:
            for folder in removal.folders:
                bury(folder)
            if removal.whole:
                # Where it is empty.
                with contextlib.suppress(OSError):
                    ensemble.root.parent.rmdir()


def remove_analysis(paths: AnalysisPaths, outputs: Path) -> None:
    """Remove an analysis. It has no lock: one that is being made again appears whole, before or after.

    Raises:
        StoreError: It cannot be moved away, or the folder of analyses is a link.
    """
    refuse_links(paths.root.parent)
    with burying(outputs) as bury:
        bury(paths.root)


@contextlib.contextmanager
def burying(outputs: Path) -> Iterator[Callable[[Path], None]]:
    """Yield what moves a folder, a file or a link out of sight; where one resists, all are put back."""
    with storing(outputs):
        grave = Path(tempfile.mkdtemp(prefix=".removed.", suffix=".tmp", dir=outputs))
    moved: list[tuple[Path, Path]] = []

    def bury(path: Path) -> None:
        # Names of shards and steps come again in other folders.
        place = grave / f"{len(moved)}-{path.name}"
        with storing(path):
            os.rename(path, place)
        moved.append((path, place))

    try:
        yield bury
    except BaseException:
        for path, place in moved:
            with contextlib.suppress(OSError):
                os.rename(place, path)
        # What could not be put back stays in it.
        with contextlib.suppress(OSError):
            grave.rmdir()
        raise
    discard(grave)
