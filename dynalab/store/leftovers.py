"""What killed processes leave in an outputs folder beside what counts; it goes where they are known to be dead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from dynalab.core.atomic import sweep_orphans
from dynalab.core.errors import Locked, StoreError
from dynalab.store import commands, progress
from dynalab.store.lock import Lock, holder, sweep_guards
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths


def tidy(outputs: OutputPaths, ensembles: Iterable[EnsemblePaths]) -> None:
    """Remove half-written files, locks and progress of dead processes from an outputs folder and some ensembles of it.

    Whoever lives, or cannot be seen from here, keeps what is theirs. What resists stays; `dynalab runs gc` names it.
    """
    with contextlib.suppress(OSError):
        commands.sweep(outputs)
        sweep_orphans(outputs.root)
        sweep_orphans(outputs.commands)
        for ensemble in ensembles:
            sweep_orphans(ensemble.root)
            sweep_guards(ensemble.root)
            for shard in ensemble.shards():
                _tidy_shard(shard)


def _tidy_shard(shard: ShardPaths) -> None:
    sweep_guards(shard.root)
    for folder in (shard.root, shard.series_folder, shard.checkpoint_folder, shard.snapshot_folder):
        sweep_orphans(folder)
    if not any(map(os.path.lexists, (shard.lock, shard.progress))) or holder(shard.lock) is not None:
        return
    # Dead between the last word of run.json and the lock: nobody goes on with a shard that is done.
    with contextlib.suppress(Locked, StoreError), Lock(shard.lock, beats=False):
        progress.remove(shard)
