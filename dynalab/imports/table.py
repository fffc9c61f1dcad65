"""A file of CSV, TSV, Parquet or JSON lines as one data frame, or one clear line why not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.config.suggest import did_you_mean
from dynalab.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def read_table(path: Path, text_columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table; its format follows from the file's suffix.

    Args:
        path: The file.
        text_columns: Columns that stay text as it is written (`007` is a name, not a number); CSV only.

    Raises:
        ConfigError: There is no such file, its format is not known, or it is not what its suffix says.
    """
    kind = FORMATS.get(path.suffix.lower())
    if not path.exists():
        near = did_you_mean(path.name, [item.name for item in path.parent.glob("*") if item.is_file()])
        raise ConfigError(f"{path}: no such file{near}")
    if not path.is_file():
        raise ConfigError(f"{path}: a folder, not a file")
    if kind is None:
        raise ConfigError(
            f"{path}: unknown format {path.suffix or '(no suffix)'}; legal: {', '.join(FORMATS)}"
        )
    read = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[kind]
    try:
        frame = read(path, text_columns)
    except OSError as error:
        # pyarrow's errors of damaged files are OSErrors without an errno.
        raise ConfigError(f"{path}: cannot be read ({error.strerror or _first_line(error)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); is it {kind}?") from error
    if not len(frame):
        raise ConfigError(f"{path}: has no rows")
    frame.columns = [str(name).strip() for name in frame.columns]
    twice = sorted({name for name in frame.columns if list(frame.columns).count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: two columns are called {twice[0] or '(nothing)'}")
    return frame


def _csv(path: Path, text_columns: tuple[str, ...]) -> pd.DataFrame:
    import csv

    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter=separator), [])
    named = [name.strip() for name in header if name.strip()]
    for name in named:
        # pandas would rename the second one in silence.
        if named.count(name) > 1:
            raise ConfigError(f"{path}: two columns are called {name}")
    # From 3.1 on pandas reads every number exactly; before, only when told to.
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    exact = {} if version >= (3, 1) else {"float_precision": "round_trip"}
    try:
        with warnings.catch_warnings():
            # A row of more values than the header has names is cut with a warning only.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=separator,
                encoding="utf-8-sig",
                index_col=False,
                low_memory=False,
                dtype=dict.fromkeys(text_columns, str),
                skipinitialspace=True,
                **exact,
            )
    except pd.errors.EmptyDataError as error:
        raise ConfigError(f"{path}: empty") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ConfigError(f"{path}: not a whole CSV table ({_first_line(error)})") from error


def _parquet(path: Path, text_columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ValueError as error:
        raise ConfigError(f"{path}: not a whole Parquet file ({_first_line(error)})") from error
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index() if named else frame


def _jsonl(path: Path, text_columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}: line {number} is not JSON ({_first_line(error)})") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}: line {number} is no object of names and values")
            rows.append(row)
    return pd.DataFrame(rows)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
