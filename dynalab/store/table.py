"""metrics.parquet: what users open. One row a run and step, a file a cadence, written when an ensemble is done.

Every file says what was stored when it was written, so whoever looks sees whether it is older than what is stored now.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynalab.core.atomic import replacing
from dynalab.core.errors import StoreError
from dynalab.core.trajectories import Trajectory
from dynalab.store import runfile, series
from dynalab.store.names import FORCED, block_of
from dynalab.store.paths import EnsemblePaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredEnsemble, StoredRun

_ABOUT = b"dynalab"
# To be raised when the same rows make other files.
_VERSION = 1
# Rows of a group, but for a run with more: to write a group costs as much as some thousands of rows.
_ROWS = 1 << 14


def refresh(paths: EnsemblePaths) -> None:
    """Write the tables where they are missing or older than what is stored.

    `metrics.parquet`, and a `metrics-<cadence>.parquet` for every other grid; every run that has rows enters, whole or
    not. Any number of processes may do so at once: each looks again after it has written, so the last sees all.
    """
    paths.refuse_links()
    before = seen = None
    # Looked at first, for to read all runs takes a fifth of the time of their tables.
    while (now := _seen(paths)) != seen:
        stored = _stored(ensemble := Ensemble(paths))
        if stored in (None, before) or _are_of(paths, str(stored)):
            return
        _write(ensemble, str(stored))
        before, seen = stored, now


def notice(paths: EnsemblePaths) -> None:
    """As `refresh`, for a command that reads: tables in a folder that cannot be written stay as they are."""
    with contextlib.suppress(StoreError):
        refresh(paths)


def is_stale(ensemble: Ensemble) -> bool:
    """Return whether tables are missing, or older than what is stored of an ensemble that was just opened."""
    stored = _stored(ensemble)
    return stored is not None and not _are_of(ensemble.paths, stored)


def _seen(paths: EnsemblePaths) -> set[tuple[Path, int, int, int]]:
    """Return which files of runs and rows there are, told from others that may take their places."""
    found = set()
    for shard in paths.shards():
        for path in (shard.run, *map(shard.series, shard.cadences())):
            with contextlib.suppress(OSError):
                about = path.stat()
                found.add((path, about.st_ino, about.st_mtime_ns, about.st_size))
    return found


def _stored(ensemble: StoredEnsemble) -> str | None:
    """Return a hash of what is stored of the runs that nobody is writing; None where they have no rows.

    Who writes the others refreshes the tables at the end, or is found dead by the next who looks.
    """
    rows: dict[Path, Any] = {}
    entries = []
    for run in ensemble.runs:
        root, marks = run.shard.root, run.record.marks
        if root not in rows and marks and run.record.status in runfile.FINAL:
            rows[root] = marks
        elif root not in rows:
            rows[root] = {name: series.count(run.shard.series(name)) for name in run.shard.cadences()}
        if run.status != "running" and rows[root]:
            entries.append([run.label, root.name, run.status, run.steps, run.diverged_step, rows[root]])
    document = json.dumps([_VERSION, entries], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest() if entries else None


def _are_of(paths: EnsemblePaths, stored: str) -> bool:
    """Return whether all tables are there and were written from what is stored."""
    about = _about(paths.metrics())
    names = about.get("tables")
    others = [_about(paths.root / str(name)) for name in names] if isinstance(names, list) else [{}]
    return all(found.get("stored") == stored for found in (about, *others))


def _about(path: Path) -> dict[str, Any]:
    """Return what a table says about itself; nothing where it is missing, cut off, of an older dynalab, or no table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = json.loads((pq.read_metadata(path).metadata or {}).get(_ABOUT, b"{}"))
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return {}
    return found if isinstance(found, dict) else {}


def _write(ensemble: Ensemble, stored: str) -> None:
    paths, shards = ensemble.paths, {run.shard: run for run in ensemble.runs}
    begun = {
        shard: {name for name in (*names, *run.record.marks) if block_of(name) is None}
        for shard, run in shards.items()
        if (names := shard.cadences())
    }
    runs = [run for run in ensemble.runs if run.shard in begun]
    about: dict[str, Any] = {"stored": stored, "tables": []}
    try:
        for shard, cadences in begun.items():
            for cadence in cadences:
                ensemble.records(shards[shard], cadence)
    except StoreError:
        # A table that lacks damaged rows is of nothing that is stored: once they are mended it is written again.
        about["stored"] = None
    for cadence, names in ensemble.columns().items():
        if cadence != ensemble.eval_cadence:
            _write_grid(ensemble, runs, cadence, names, about)
            about["tables"].append(paths.metrics(cadence).name)
    spiked = {shard for shard, names in begun.items() if any(name.startswith(FORCED) for name in names)}
    if _write_forced(ensemble, [run for run in runs if run.shard in spiked], about):
        about["tables"].append(paths.metrics(FORCED).name)
    # The one that names the others comes last.
    _write_grid(ensemble, runs, None, ensemble.grid_metrics(), about)
    for path in paths.root.glob("metrics-*.parquet"):
        if path.name not in about["tables"] and _about(path):
            path.unlink(missing_ok=True)


def _write_forced(ensemble: Ensemble, runs: Sequence[StoredRun], about: dict[str, Any]) -> bool:
    """Write the rows that spikes forced, `metrics-forced.parquet`, and return whether there are some."""
    forced = []
    for run in runs:
        with contextlib.suppress(StoreError):
            forced.append((run, ensemble.forced_rows(run)))
    if not any(len(rows) for _, rows in forced):
        return False
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    frames = []
    for run, rows in forced:
        if len(rows):
            frame = pd.DataFrame({name: rows[name] for name in ("step", *series.metrics_of(rows.dtype))})
            frame.insert(0, "seed", pd.array([run.seed] * len(rows), dtype="Int64"))
            frame.insert(0, "run", run.id)
            frames.append(frame)
    table = pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)
    with replacing(ensemble.paths.metrics(FORCED)) as temporary:
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, _ABOUT: json.dumps(about)}), temporary
        )
    return True


def _write_grid(
    ensemble: Ensemble,
    runs: Sequence[StoredRun],
    cadence: str | None,
    names: list[str],
    about: dict[str, Any],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("run", pa.string()), ("seed", pa.int64()), ("step", pa.int64())]
    fields += [(name, pa.float64()) for name in names]
    schema = pa.schema(fields, {_ABOUT: json.dumps(about)})
    with (
        replacing(ensemble.paths.metrics(cadence)) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=["run"]) as writer,
    ):
        # Some runs a group: memory stays that of these, however many seeds there are.
        for group in _groups(ensemble, runs, cadence, names):
            sizes = [len(trajectory.steps) for _, trajectory in group]
            own = list(zip((run for run, _ in group), sizes, strict=True))
            n, values = sum(sizes), np.concatenate([trajectory.values for _, trajectory in group])
            columns = [pa.concat_arrays([_texts(run.id, size) for run, size in own])]
            columns.append(pa.concat_arrays([_numbers(pa.int64(), run.seed, size) for run, size in own]))
            steps = np.concatenate([trajectory.steps for _, trajectory in group])
            columns += [_numbers(pa.int64(), steps, n), *(_numbers(pa.float64(), x, n) for x in values.T)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _groups(
    ensemble: Ensemble, runs: Sequence[StoredRun], cadence: str | None, names: list[str]
) -> Iterator[list[tuple[StoredRun, Trajectory]]]:
    """Yield the runs that can be read, with their rows, some at a time."""
    group, rows = list[tuple[StoredRun, Trajectory]](), 0
    for run in runs:
        with contextlib.suppress(StoreError):
            group.append((run, ensemble.trajectory(run, names, cadence)))
            rows += len(group[-1][1].steps)
        if rows >= _ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _numbers(kind: Any, values: Any, n: int) -> Any:
    """Return a column of n numbers, one for all or one each; nulls for None.

    Columns are made from buffers: to look at what it is given, `pyarrow.array` imports pandas, a quarter of a second at
    the end of every training.
    """
    import pyarrow as pa

    if values is None:
        return pa.nulls(n, kind)
    filled = np.ascontiguousarray(np.broadcast_to(values, n), kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, n, [None, pa.py_buffer(filled)])


def _texts(text: str, n: int) -> Any:
    """Return a column of n times the same text."""
    import pyarrow as pa

    encoded = text.encode()
    ends = np.arange(n + 1, dtype=np.int32) * len(encoded)
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(ends), pa.py_buffer(encoded * n)])
