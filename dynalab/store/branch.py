"""Shards of a fork: what a parent's checkpoint holds of some runs, in the folder of another ensemble.

The rows up to the checkpoint are the parent's, so that a fork's series are whole from step 0 on; a training that finds
such a shard goes on from it as from any other that was cut off, up to the fork as the parent would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dynalab.core.atomic import making, sweep
from dynalab.core.errors import StoreError
from dynalab.store import checkpoint, runfile, series
from dynalab.store.cut import cut_checkpoint, write_series
from dynalab.store.lock import Lock
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.stored import StoredEnsemble, StoredRun

# Of a parent's plan: what bits may depend on, and the grids of the rows.
KEPT = ("device", "threads", "exact", "every", "bits")


def kept_before(run: StoredRun, step: int) -> int:
    """Return the newest step up to one given at which a whole checkpoint of a run is kept; 0 where there is none."""
    newest, _, _ = checkpoint.newest_whole(run.shard, at_most=step)
    return newest.step if newest else 0


def is_untrained(paths: ShardPaths) -> bool:
    """Return whether a shard has no row yet, or, of a fork, none but its parent's."""
    if not paths.cadences():
        return True
    try:
        forked = StoredEnsemble(paths.ensemble).tree.get("origin") is not None
    except StoreError:
        return False
    _, state, _ = checkpoint.newest_whole(paths)
    return forked and (state is None or not state.extra.get(checkpoint.SEGMENT))


def branch(
    runs: Sequence[StoredRun],
    step: int,
    target: EnsemblePaths,
    steps: int,
    folders: Sequence[Path] = (),
    streams: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Make the shards of a fork that are not there yet, one for each shard of the parent that kept a checkpoint.

    Each is built under a hidden name and appears in one rename: interrupted at any moment, the same call goes on.

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
        for run in runs:
            if run.label not in there:
                by_shard.setdefault(run.shard.root, []).append(run)
        for members in by_shard.values():
            source, record = members[0].shard, members[0].record
            places = sorted(run.index for run in members)
            newest, state, _ = checkpoint.newest_whole(source, at_most=step)
            if newest is None or state is None:
                # Trained from the start.
                continue
            chosen = [record.runs[place] for place in places]
            with making(target.shard(runfile.folder_name(chosen, 1)).root) as root:
                part = ShardPaths(root)
                for cadence, mark in state.marks.items():
                    write_series(part, cadence, series.read(source.series(cadence))[: mark.rows], places)
                state = cut_checkpoint(newest, state, part, places, len(record.runs))
                shard = runfile.Shard(
                    runs=[
                        runfile.Run(
                            run.label,
                            run.seed,
                            dict((streams or {}).get(run.label, run.streams)),
                            "partial",
                            state.step,
                        )
                        for run in chosen
                    ],
                    requested_steps=steps,
                    status="partial",
                    steps=state.step,
                    plan={key: record.plan[key] for key in KEPT if key in record.plan},
                    marks=state.series,
                    folders=[str(folder) for folder in folders],
                )
                runfile.write(part, shard)
                lock.require()
