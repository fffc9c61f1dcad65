"""From runs to the store: an ensemble whose identity is its content."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from dynalab._version import __version__
from dynalab.config.schema import Levels
from dynalab.errors import ConfigError, StoreError
from dynalab.imports.runs import Imported, ImportedRun, from_long, from_wide
from dynalab.imports.table import read_table
from dynalab.store import runfile, series
from dynalab.store.atomic import check_writable, making, write_json, write_text
from dynalab.store.lock import Lock
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths, refuse_links
from dynalab.store.reader import Ensemble
from dynalab.store.stored import IMPORTED, IMPORTED_CADENCE, StoredEnsemble
from dynalab.store.table import refresh
from dynalab.training.summary import summarise

if TYPE_CHECKING:
    import pandas as pd

# For imports that other processes make at the same time.
WAIT_SECONDS = 300.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}$")


@dataclass
class Outcome:
    """What an import did.

    Attributes:
        ensemble: The stored ensemble.
        name: What it was called.
        new: Whether anything was written.
        notes: What was left out or renamed, and what was found damaged.
    """

    ensemble: Ensemble
    name: str
    new: bool
    notes: list[str] = field(default_factory=list)


def import_table(
    source: Path | pd.DataFrame,
    outputs: Path,
    name: str | None = None,
    run: str | None = None,
    step: str | None = None,
    *,
    wide: bool = False,
    force: bool = False,
    argv: Sequence[str] = (),
) -> Outcome:
    """Import a table of runs.

    Args:
        source: A file (CSV, TSV, Parquet, JSON lines), or a data frame.
        outputs: The outputs folder.
        name: What the ensemble is called; default: the file's name without its suffix.
        run: Column that names the run (long form).
        step: Column of steps; default `Step` in wide form.
        wide: The table has columns `run - metric`.
        force: Store it again, as a new attempt; or let a name that is taken mean this table.
        argv: The command, for the record.

    Raises:
        ConfigError: The table cannot be read so, or the name cannot be used or is taken.
        StoreError: The outputs folder cannot be written.
    """
    path = source if isinstance(source, Path) else None
    name = _check_name(name if name is not None else path.stem if path is not None else "imported", name)
    if wide and run is not None:
        raise ConfigError(f"--run {run}: with --wide the columns name the runs; leave it out")
    if not wide and (run is None or step is None):
        missing = "--run COLUMN" if run is None else "--step COLUMN"
        raise ConfigError(f"{missing} is missing (or --wide, for columns 'run - metric')")
    # A file is read anew; a caller's frame stays as it is.
    frame = read_table(source, () if run is None else (run,)) if isinstance(source, Path) else source
    if wide:
        imported = from_wide(frame, step or "Step")
    else:
        assert run is not None and step is not None
        imported = from_long(frame, run, step)
    form = {"form": "wide", "step": step or "Step"} if wide else {"form": "long", "run": run, "step": step}
    file = {} if path is None else {"file": path.name}
    return _store(imported, OutputPaths(outputs), name, {**file, **form}, force, argv)


def digest_of(imported: Imported) -> str:
    """Return the identity of a table's content: its runs, steps, metrics and values, not its format or order."""
    order = np.argsort(np.array(imported.metrics))
    digest = hashlib.sha256()
    digest.update(json.dumps(["imported", sorted(imported.metrics)]).encode())
    for run in imported.runs:
        digest.update(json.dumps([run.name, run.seed, len(run.steps)]).encode())
        digest.update(run.steps.astype("<i8").tobytes())
        values = run.values[:, order].astype("<f8")
        # Every NaN is the same NaN, and there is one zero.
        digest.update((np.where(np.isnan(values), np.nan, values) + 0.0).tobytes())
    return digest.hexdigest()[:10]


def _check_name(name: str, given: str | None) -> str:
    if given is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:60] or "imported"
    if not _NAME.match(name):
        raise ConfigError(
            f"--name {name}: expected letters, digits, '.', '_' and '-', at most 60, and no dot at the beginning"
        )
    return name


def _store(
    imported: Imported,
    outputs: OutputPaths,
    name: str,
    form: Mapping[str, Any],
    force: bool,
    argv: Sequence[str],
) -> Outcome:
    refuse_links(outputs.imports_lock.parent)
    check_writable(outputs.imports_lock.parent)
    # What a name means is read, then written.
    with Lock(outputs.imports_lock, wait=WAIT_SECONDS):
        return _store_locked(imported, outputs, name, form, force, argv)


def _store_locked(
    imported: Imported,
    outputs: OutputPaths,
    name: str,
    form: Mapping[str, Any],
    force: bool,
    argv: Sequence[str],
) -> Outcome:
    digest = digest_of(imported)
    stored = [StoredEnsemble(paths) for paths in outputs.ensembles() if paths.task == IMPORTED]
    same = next((item for item in stored if item.id == digest), None)
    taken = [item for item in stored if name in item.names and item.id != digest]
    if taken and not force:
        raise ConfigError(
            f"--name {name}: {taken[0].id} is called so and holds other runs or values; choose another name, "
            "or let it mean this table with --force"
        )
    notes = list(imported.notes)
    new = True
    if same is None:
        paths = outputs.ensemble(IMPORTED, name, digest)
        _make(paths, imported, {"names": [name], **form}, argv)
    else:
        paths = same.paths
        paths.refuse_links()
        whole = Ensemble(paths)
        kept = whole.trajectories(statuses=runfile.STATUSES)
        damaged = bool(whole.damaged) or len(kept.runs) != len(imported.runs)
        new = force or damaged
        if damaged:
            notes.append(
                f"{digest} was damaged; it is stored again ({'; '.join(whole.warnings[:2]) or 'runs were missing'})"
            )
        if new:
            # Who removes the ensemble holds it too.
            with Lock(paths.lock, wait=WAIT_SECONDS):
                _write_shards(paths, imported, _next_attempt(paths, same), argv)
        if name not in same.names:
            tree = dict(same.config)
            tree["import"] = {**tree["import"], "names": [*same.names, name]}
            write_text(paths.config, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
            notes.append(f"the same content is stored as {same.names[0]}; {name} is a second name of it")
    for other in taken:
        # A name means one thing: what was imported last under it.
        other.paths.refuse_links()
        tree = dict(other.config)
        tree["import"] = {**tree["import"], "names": [word for word in other.names if word != name]}
        write_text(other.paths.config, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        notes.append(f"{name} meant {other.id} before, which is kept")
    refresh(paths)
    write_json(outputs.last, {"schema_version": 1, "ensembles": [digest]})
    return Outcome(Ensemble(paths), name, new, notes)


def _next_attempt(paths: EnsemblePaths, stored: StoredEnsemble) -> int:
    """Number of the next attempt; damaged shards count by their names."""
    found = [run.attempt for run in stored.runs]
    for shard in paths.shards():
        tail = re.search(r"-a(\d+)$", shard.root.name)
        found.append(int(tail[1]) if tail else 1)
    return max(found, default=0) + 1


def _make(paths: EnsemblePaths, imported: Imported, about: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Make an ensemble's folder in one rename, so that no half-made one is ever seen."""
    paths.refuse_links()
    with making(paths.root) as folder:
        own = EnsemblePaths(folder)
        _write_shards(own, imported, 1, argv)
        tree = {"task": {"name": IMPORTED}, "import": dict(about)}
        write_text(own.config, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def _write_shards(paths: EnsemblePaths, imported: Imported, attempt: int, argv: Sequence[str]) -> None:
    """Write the runs; those that share their steps share a shard."""
    groups: dict[bytes, list[ImportedRun]] = {}
    for run in imported.runs:
        groups.setdefault(run.steps.tobytes(), []).append(run)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "dynalab": __version__,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "argv": list(argv or sys.argv),
        "started": now,
        "ended": now,
    }
    for number, runs in enumerate(groups.values()):
        suffix = f"-a{attempt}" if attempt > 1 else ""
        with making(paths.shard(f"shard-{number:04d}-{len(runs)}{suffix}").root) as folder:
            _write_shard(ShardPaths(folder), runs, imported.metrics, attempt, record)


def _write_shard(
    shard: ShardPaths,
    runs: Sequence[ImportedRun],
    metrics: Sequence[str],
    attempt: int,
    record: Mapping[str, Any],
) -> None:
    steps = runs[0].steps
    values = np.stack([run.values for run in runs], axis=1)
    try:
        writer = series.SeriesWriter(shard.series(IMPORTED_CADENCE), metrics, len(runs))
    except StoreError as error:
        if "no room in its header" not in str(error):
            raise
        raise ConfigError(
            f"{len(metrics)} metrics are more than a series can hold; import fewer columns"
        ) from error
    try:
        writer.append(steps, np.zeros(len(steps)), {name: values[:, :, i] for i, name in enumerate(metrics)})
        mark = writer.sync()
    finally:
        writer.close()
    rows = series.read(shard.series(IMPORTED_CADENCE))
    last = int(steps[-1])
    levels = Levels()
    own = [
        runfile.Run(run.label, run.seed, {}, "done", last, summarise(rows, index, levels, None))
        for index, run in enumerate(runs)
    ]
    runfile.write(
        shard,
        runfile.Shard(
            own,
            last,
            attempt=attempt,
            status="done",
            steps=last,
            plan={"names": {run.label: run.name for run in runs if run.name != run.label}},
            attempts=[dict(record)],
            marks={IMPORTED_CADENCE: [mark.rows, mark.crc]},
            started=str(record["started"]),
        ),
    )
