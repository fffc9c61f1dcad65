"""metrics.parquet: what users open. One row a run and step, a file a cadence, written when an ensemble is done."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynalab.errors import StoreError
from dynalab.store.atomic import storing
from dynalab.store.paths import FORCED, forced_cadence
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredEnsemble, StoredRun


def write_tables(ensemble: Ensemble) -> None:
    """Write `metrics.parquet` and a `metrics-<cadence>.parquet` for every other grid.

    Args:
        ensemble: Every run that has rows enters, whole or not.

    Raises:
        StoreError: The folder cannot be written.
    """
    ensemble.paths.refuse_links()
    runs = [run for run in ensemble.runs if run.shard.cadences()]
    if not runs:
        return
    for cadence, own in ensemble.columns().items():
        main = cadence == ensemble.eval_cadence
        names = ensemble.grid_metrics() if main else own
        _write(ensemble, runs, None if main else cadence, names)
    _write_forced(ensemble, runs)


def _write_forced(ensemble: Ensemble, runs: list[StoredRun]) -> None:
    """Write the rows that spikes forced, `metrics-forced.parquet`, where there are some."""
    import pandas as pd

    frames = []
    for run in runs:
        try:
            found = ensemble.forced(run)
        except StoreError:
            continue
        if found is not None:
            names = (ensemble.records(run, forced_cadence(run.label)).dtype.names or ())[2:]
            frame = pd.DataFrame(found.values, columns=list(names))
            frame.insert(0, "step", found.steps)
            frame.insert(0, "seed", pd.array([run.seed] * len(found.steps), dtype="Int64"))
            frame.insert(0, "run", run.id)
            frames.append(frame)
    if not frames:
        return
    path = ensemble.paths.metrics(FORCED)
    temporary = path.with_name(f".{path.name}.tmp")
    with storing(path):
        try:
            pd.concat(frames, ignore_index=True).to_parquet(temporary, index=False)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def are_whole(ensemble: StoredEnsemble) -> bool:
    """Return whether the table of the evaluation grid is there and ends as a Parquet file does."""
    path = ensemble.paths.metrics()
    if not path.is_file() or path.stat().st_size < 8:
        return False
    with path.open("rb") as file:
        file.seek(-4, 2)
        return file.read() == b"PAR1"


def _write(ensemble: Ensemble, runs: list[StoredRun], cadence: str | None, names: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = ensemble.paths.metrics(cadence)
    temporary = path.with_name(f".{path.name}.tmp")
    schema = pa.schema(
        [("run", pa.string()), ("seed", pa.int64()), ("step", pa.int64())]
        + [(name, pa.float64()) for name in names]
    )
    with storing(path):
        try:
            # A row group a run: memory stays that of one run, however many seeds there are.
            with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=["run"]) as writer:
                for run in runs:
                    try:
                        trajectory = ensemble.trajectory(run, names, cadence)
                    except StoreError:
                        continue
                    count = len(trajectory.steps)
                    columns: list[Any] = [
                        pa.array([run.id] * count, pa.string()),
                        pa.array([run.seed] * count, pa.int64()),
                        pa.array(trajectory.steps),
                    ]
                    columns += [pa.array(np.ascontiguousarray(column)) for column in trajectory.values.T]
                    writer.write_table(pa.table(columns, schema=schema))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
