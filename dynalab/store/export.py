"""Rows of stored runs as one file: CSV, Parquet or JSON lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.core.atomic import replacing
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.store.find import Selection
from dynalab.store.reader import Ensemble

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet", ".jsonl")


def check_target(path: Path) -> Path:
    """Return where to write.

    Raises:
        ConfigError: Its suffix names no format, it is a folder, or its folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"--to {path}: unknown format {path.suffix or '(no suffix)'}; legal: {', '.join(SUFFIXES)}"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--to {path}: {'a folder' if path.is_dir() else f'{path.parent} is no folder'}")
    return path


def table(selection: Selection[Ensemble]) -> pd.DataFrame:
    """Return every row of the evaluation grid of some runs: `run`, `seed`, `step`, and all their metrics.

    A metric that only some ensembles have is NaN in the others. Shards that cannot be read are left out, and named in
    the ensembles' warnings.

    Raises:
        NothingMatched: No run has a row.
    """
    import pandas as pd

    frames = []
    for ensemble, runs in selection:
        frame = ensemble.frame(runs=[run.id for run in runs])
        if len(frame):
            frames.append(frame)
    if not frames:
        raise NothingMatched("these runs have no rows yet")
    return pd.concat(frames, ignore_index=True)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table; floats are written so that they are read back exactly.

    Raises:
        StoreError: The disk is full; what stood there before still stands.
    """
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": lambda to: frame.to_csv(to, index=False),
        ".parquet": lambda to: frame.to_parquet(to, index=False),
        ".jsonl": lambda to: _write_lines(frame, to),
    }
    with replacing(path) as temporary:
        writers[path.suffix.lower()](temporary)


def _write_lines(frame: pd.DataFrame, path: Path) -> None:
    import json
    import math

    with path.open("w", encoding="utf-8") as file:
        names = list(frame.columns)
        for row in frame.astype(object).itertuples(index=False, name=None):
            # JSON has no NaN; a missing seed is null as well.
            values = [_plain(value, math.isfinite) for value in row]
            file.write(json.dumps(dict(zip(names, values, strict=True))) + "\n")


def _plain(value: object, finite: Callable[[float], bool]) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return value if finite(value) else None
    return int(value) if isinstance(value, int) else None
