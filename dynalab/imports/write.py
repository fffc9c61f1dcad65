"""The files of an imported ensemble."""

from __future__ import annotations

import contextlib
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import yaml

from dynalab.config.schema import Levels
from dynalab.core.atomic import making, sweep, write_text
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.version import __version__
from dynalab.imports.runs import Imported, ImportedRun
from dynalab.store import runfile, series
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.stored import IMPORTED, IMPORTED_CADENCE
from dynalab.training.summary import summarise

# More grids than these are one series whose rows are of a single run each: no folder a run.
MOST_GRIDS = 16
ACCURACIES = tuple(item.name for item in fields(Levels))


def write_config(paths: EnsemblePaths, about: Mapping[str, Any], levels: Mapping[str, float] | None) -> None:
    """Write config.yaml: what the ensemble was imported from, its names, and the levels of its accuracies."""
    tree = {"task": {"name": IMPORTED}, "import": dict(about)}
    tree |= {} if levels is None else {"levels": dict(levels)}
    write_text(paths.config, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def make_ensemble(
    paths: EnsemblePaths,
    imported: Imported,
    about: Mapping[str, Any],
    levels: Mapping[str, float],
    argv: Sequence[str],
) -> None:
    """Make an ensemble's folder in one rename, so that no half-made one is ever seen."""
    paths.refuse_links()
    # What the same import left, killed in the middle; the lock of imports is held.
    sweep(paths.root.parent, f"{paths.root.name}.*")
    with making(paths.root) as folder:
        own = EnsemblePaths(folder)
        write_shards(own, imported, levels, 1, argv)
        write_config(own, about, levels)
        if imported.references is not None:
            imported.references.write(own)


def write_shards(
    paths: EnsemblePaths, imported: Imported, levels: Mapping[str, float], attempt: int, argv: Sequence[str]
) -> None:
    """Write the runs; those that share their steps share a shard, those on many grids one whose rows are of one run."""
    # What has no level is reached by no value.
    judged = Levels(**{name: levels.get(name, np.nan) for name in ACCURACIES})
    groups: dict[bytes, list[ImportedRun]] = {}
    for run in imported.runs:
        groups.setdefault(run.steps.tobytes(), []).append(run)
    shards = list(groups.values())
    if len(shards) > MOST_GRIDS:
        shards = [list(imported.runs)]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "dynalab": __version__,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "argv": list(argv or sys.argv),
        "started": now,
        "ended": now,
    }
    for number, runs in enumerate(shards):
        suffix = f"-a{attempt}" if attempt > 1 else ""
        with making(paths.shard(f"shard-{number:04d}-{len(runs)}{suffix}").root) as folder:
            _write_shard(ShardPaths(folder), runs, imported.metrics, judged, attempt, record)


def _write_shard(
    shard: ShardPaths,
    runs: Sequence[ImportedRun],
    metrics: Sequence[str],
    levels: Levels,
    attempt: int,
    record: Mapping[str, Any],
) -> None:
    single = any(not np.array_equal(run.steps, runs[0].steps) for run in runs)
    if single:
        steps = np.concatenate([run.steps for run in runs])
        places = np.repeat(np.arange(len(runs)), [len(run.steps) for run in runs])
        order = np.lexsort((places, steps))
        steps, values = steps[order], np.concatenate([run.values for run in runs])[order]
        columns = {"run": places[order], **{name: values[:, i] for i, name in enumerate(metrics)}}
    else:
        steps = runs[0].steps
        columns = {name: np.stack([run.values[:, i] for run in runs], 1) for i, name in enumerate(metrics)}
    try:
        writer = series.SeriesWriter(shard.series(IMPORTED_CADENCE), metrics, None if single else len(runs))
    except StoreError as error:
        if "no room in its header" not in str(error):
            raise
        raise ConfigError(
            f"{len(metrics)} metrics are more than a series can hold; import fewer columns"
        ) from error
    with contextlib.closing(writer):
        writer.append(steps, np.zeros(len(steps)), columns)
        mark = writer.sync()
    lost = [run.diverged_step(metrics) for run in runs]
    summaries = [
        summarise(_rows(run, metrics), 0, levels, step) for run, step in zip(runs, lost, strict=True)
    ]
    last = max(int(run.steps[-1]) for run in runs)
    stored = runfile.Shard(
        [
            runfile.Run(
                run.label, run.seed, {}, "done" if step is None else "diverged", int(run.steps[-1]), summary
            )
            for run, step, summary in zip(runs, lost, summaries, strict=True)
        ],
        last,
        attempt=attempt,
        status="done",
        steps=last,
        plan={"names": {run.label: run.name for run in runs if run.name != run.label}},
        attempts=[dict(record)],
        marks={IMPORTED_CADENCE: [mark.rows, mark.crc]},
        started=str(record["started"]),
    )
    runfile.write(shard, stored)


def _rows(run: ImportedRun, metrics: Sequence[str]) -> np.ndarray:
    """Return a run's rows as a series of it alone holds them, shape (T,) with columns of shape (1,)."""
    rows = np.zeros(len(run.steps), series.row_type(metrics, 1))
    rows["step"] = run.steps
    for index, name in enumerate(metrics):
        rows[name] = run.values[:, index : index + 1]
    return rows
