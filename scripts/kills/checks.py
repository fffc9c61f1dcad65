"""What must be left after kills and repetitions: what an undisturbed command leaves, to the bit, and nothing more."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file
from stored import bits, difference

from dynalab.store import runfile
from dynalab.store.code import TEXT
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths

# Beside shards an ensemble has these, and a shard those.
_OF_ENSEMBLE = {"config.yaml", "overrides.yaml", "metrics.parquet"}
_OF_SHARD = {"run.json", "log.txt", "series", "checkpoints", "snapshots", "job.json"}


def faults(outputs: Path, reference: Path) -> list[str]:
    """Return a line for everything in which an outputs folder is not what the undisturbed command left."""
    one, other = (
        {paths.root.name: paths for paths in OutputPaths(root).ensembles()} for root in (outputs, reference)
    )
    lines = [f"ensemble {name}: only on one side" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        lines += [f"{name}: {line}" for line in _of_ensemble(one[name], other[name])]
    return lines + [f"left over: {path.relative_to(outputs)}" for path in _left_over(outputs, reference)]


def _of_ensemble(one: EnsemblePaths, other: EnsemblePaths) -> list[str]:
    lines = []
    times = Counter(run.label for shard in one.shards() for run in runfile.read(shard).runs)
    labels = [run.label for shard in other.shards() for run in runfile.read(shard).runs]
    lines += [f"{label}: stored {times[label]} times" for label in {*labels, *times} if times[label] != 1]
    for shard in one.shards():
        states = {run.status for run in runfile.read(shard).runs}
        lines += [f"{shard.root.name}: {state}" for state in states - {"done"}]
    if lines:
        return lines
    found, expected = _everything(one), _everything(other)
    for label in sorted(labels):
        differ = difference(found[label], expected[label])
        lines += [f"{label}: {', '.join(differ[:4])} differ"] if differ else []
    return lines + _of_tables(one, other)


def _everything(paths: EnsemblePaths) -> dict[str, dict[str, Any]]:
    """Return label -> series, weights, optimizer state, snapshots and summary."""
    runs = bits(paths.root)
    for shard in paths.shards():
        last = shard.checkpoints()[-1]
        tensors = {f"optimizer/{name}": value for name, value in load_file(last.optim).items()}
        for step, path in shard.snapshots().items():
            tensors |= {f"snapshot {step}/{name}": value for name, value in load_file(path).items()}
        for index, run in enumerate(runfile.read(shard).runs):
            own = runs[run.label]
            own["summary"] = json.dumps(run.summary, sort_keys=True)
            own["steps"] = run.steps
            for name, value in tensors.items():
                own[name] = np.ascontiguousarray(value[index] if value.ndim else value).tobytes()
    return runs


def _of_tables(one: EnsemblePaths, other: EnsemblePaths) -> list[str]:
    lines = []
    for path in sorted(other.root.glob("metrics*.parquet")):
        if not (one.root / path.name).is_file():
            lines.append(f"{path.name} is missing")
            continue
        found, expected = (pq.read_table(root / path.name) for root in (one.root, other.root))
        keys = list(zip(found["run"].to_pylist(), found["step"].to_pylist(), strict=True))
        lines += [f"{path.name}: rows twice"] if len({*keys}) < len(keys) else []
        order = [("run", "ascending"), ("step", "ascending")]
        found, expected = (
            table.drop_columns("wall") if "wall" in table.column_names else table
            for table in (found.sort_by(order), expected.sort_by(order))
        )
        frames = found.to_pandas(), expected.to_pandas()
        lines += [f"{path.name} differs"] if not frames[0].equals(frames[1]) else []
    return lines


def _left_over(outputs: Path, reference: Path) -> list[Path]:
    """Return files and folders that an undisturbed command leaves no fellow of."""
    known = {path.name for path in reference.rglob("*")} | _OF_ENSEMBLE | _OF_SHARD
    found = []
    for path in sorted(outputs.rglob("*")):
        of_shard = path.is_dir() and path.parent.name not in ("series", "checkpoints", "snapshots")
        if path.name in known or (of_shard and path.name.startswith("shard-")):
            continue
        # Of the code that trained, which may have been edited since the undisturbed command.
        if TEXT.fullmatch(path.name) and EnsemblePaths(path.parent).config.is_file():
            continue
        # Which two checkpoints before the last are kept depends on where training went on.
        if path.name.startswith("step-") and ShardPaths(path.parent.parent).run.is_file():
            continue
        found.append(path)
    return found
