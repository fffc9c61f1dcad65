"""Rows of stored runs as one file: CSV, Parquet, JSON lines, or NumPy's arrays."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.core.atomic import replacing
from dynalab.core.errors import NothingMatched
from dynalab.core.progress import counted
from dynalab.core.words import count, listed
from dynalab.store.find import Selection
from dynalab.store.reader import Ensemble

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet", ".jsonl", ".npz")
# Rows that are written at a time, as text.
ROWS = 10_000


def table(selection: Selection[Ensemble], keys: bool = False) -> pd.DataFrame:
    """Return every row of the evaluation grid of some runs: `run`, `seed`, `step`, and all their metrics.

    With `keys` the configuration keys in which the ensembles differ stand behind `step`, each a column. A metric that
    only some ensembles have is NaN in the others. Shards that cannot be read are left out, and named in
    the ensembles' warnings.

    Raises:
        NothingMatched: No run has a row.
    """
    import numpy as np
    import pandas as pd

    from dynalab.store.outcomes import column, differing_keys

    frames = [ensemble.frame(runs=[run.id for run in runs]) for ensemble, runs in selection]
    if not any(map(len, frames)):
        raise NothingMatched("these runs have no rows yet")
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    if keys:
        settings = differing_keys(selection)
        of_rows = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
        # Behind `step`, and a metric of the same name stays.
        names = [name for name in settings[0] if name not in rows]
        for place, name in enumerate(names, 3):
            values = column(name, [own[name] for own in settings])
            if values.dtype == object:
                values = values.map(lambda value: None if value is None else str(value))
            rows.insert(place, name, values.take(of_rows).reset_index(drop=True))
    return rows


def off_grid(selection: Selection[Ensemble]) -> list[str]:
    """Return a line for each other grid on which some ensembles recorded metrics: which these are, and where."""
    names: dict[str, dict[str, None]] = {}
    tables: dict[str, list[Path]] = {}
    for ensemble, _ in selection:
        for cadence, metrics in ensemble.off_grid().items():
            names.setdefault(cadence, {}).update(dict.fromkeys(metrics))
            tables.setdefault(cadence, []).append(ensemble.paths.metrics(cadence))
    return [
        f"left out are metrics with other rows, {listed([*names[cadence]])}: they stand in "
        + (str(paths[0]) if len(paths) == 1 else f"{paths[0].name} of {count(len(paths), 'ensemble')}")
        for cadence, paths in tables.items()
    ]


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table, atomically; floats are written so that they are read back exactly."""
    with replacing(path) as temporary:
        match path.suffix.lower():
            case ".csv":
                _write_text(frame, temporary)
            case ".parquet":
                # Numbers hardly ever repeat: to look for those that do takes half of the writing.
                frame.to_parquet(temporary, index=False, use_dictionary=["run"])
            case ".npz":
                _write_arrays(frame, temporary)
            case _:
                _write_lines(frame, temporary)


def _write_text(frame: pd.DataFrame, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for first, rows in _parts(frame):
            rows.to_csv(file, index=False, header=not first)


def _parts(frame: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield a table in parts, each with its first row, and tell how many are written; there is one at least."""
    firsts = range(0, max(len(frame), 1), ROWS)
    for first in counted(firsts, f"x {ROWS:,} rows", "writing"):
        yield first, frame.iloc[first : first + ROWS]


def _write_arrays(frame: pd.DataFrame, path: Path) -> None:
    """Write an array (rows,) a column, as `numpy.load` reads them without pickle; seeds are NaN where one has none."""
    import numpy as np

    # `numpy.savez` takes names as keywords: a metric called `file` would be none.
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in counted([*frame.items()], "columns", "writing"):
            if column.dtype.kind not in "biuf":
                array = np.array(["" if value is None else value for value in column], str)
            else:
                array = column.astype(float if column.hasnans else column.dtype.type).to_numpy()
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_lines(frame: pd.DataFrame, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for _, rows in _parts(frame):
            for row in rows.astype(object).itertuples(index=False, name=None):
                # JSON has no NaN; a missing seed is null as well.
                values = [_plain(value) for value in row]
                file.write(json.dumps(dict(zip(frame.columns, values, strict=True))) + "\n")


def _plain(value: object) -> object:
    finite = math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)
    return value if finite else None
