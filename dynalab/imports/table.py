"""A file of CSV, TSV, Parquet or JSON lines as one data frame, or one clear line why not."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config.places import real_path
from dynalab.config.suggest import did_you_mean
from dynalab.core.errors import ConfigError
from dynalab.imports.cells import numbers
from dynalab.imports.rows import Form

if TYPE_CHECKING:
    import pandas as pd

FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
}
# A decimal comma, where something else separates the cells.
_DECIMAL_COMMA = r"^\s*([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)\s*$"
# As pandas does it by itself; said here, for names of runs are spared.
_NA_VALUES = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]


def files_in(sources: Sequence[Path]) -> list[Path]:
    """Return the files meant: themselves, and of folders every table in them, in order of their paths."""
    found: dict[Path, Path] = {}
    for source in sources:
        own = [source]
        if source.is_dir():
            inside = (path for path in source.rglob("*") if path.suffix.lower() in FORMATS and path.is_file())
            hidden = (path.relative_to(source) for path in inside)
            own = [source / path for path in sorted(hidden) if not str(path.name).startswith((".", "_"))]
            # Notes and requirements lie beside tables.
            own = [path for path in own if path.suffix.lower() != ".txt"]
            if not own:
                legal = ", ".join(suffix for suffix in FORMATS if suffix != ".txt")
                raise ConfigError(f"{source}: no table in this folder; legal: {legal}")
        for path in own:
            found.setdefault(real_path(path), path)
    return list(found.values())


def read_table(path: Path, form: Form) -> tuple[pd.DataFrame, list[str]]:
    """Return (the table of a file, what was read otherwise than it is written); the suffix says the format.

    Columns that may hold names, as `form` has it, stay as they are written: `007` is no number, `None` none missing.

    Raises:
        ConfigError: There is no such file, its format is not known, or it is not what its suffix says.
    """
    kind = FORMATS.get(path.suffix.lower())
    if not path.exists():
        near = did_you_mean(path.name, [item.name for item in path.parent.glob("*") if item.is_file()])
        raise ConfigError(f"{path}: no such file{near}")
    if not path.is_file():
        raise ConfigError(f"{path}: no file")
    if kind is None:
        raise ConfigError(
            f"{path}: unknown format {path.suffix or '(no suffix)'}; legal: {', '.join(FORMATS)}"
        )
    notes: list[str] = []
    try:
        if kind == "csv":
            frame, notes = _csv(path, form)
        else:
            frame = _parquet(path) if kind == "parquet" else _jsonl(path)
    except OSError as error:
        # pyarrow's errors of damaged files are OSErrors without an errno.
        raise ConfigError(f"{path}: cannot be read ({error.strerror or _first_line(error)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); is it {kind}?") from error
    if not len(frame):
        raise ConfigError(f"{path}: has no rows")
    return tidy(frame, str(path)), notes


def tidy(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return a table whose columns have names without spaces around them, each once; named indices are columns."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [str(name).strip() for name in frame.columns]
    if twice := _twice(names):
        raise ConfigError(f"{what}: two columns are called {twice[0] or '(nothing)'}")
    return frame.set_axis(names, axis=1)


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _header(path: Path) -> tuple[list[str], str]:
    """Return the names in a CSV file's first line, and what separates them: a semicolon or tab where no comma does."""
    best: tuple[list[str], str] = [], ","
    for separator in ("\t",) if path.suffix.lower() == ".tsv" else (",", ";", "\t"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                rows = csv.reader(file, delimiter=separator, skipinitialspace=True)
                header = next((row for row in rows if any(row)), [])
            except csv.Error as error:
                raise ConfigError(f"{path}: not a whole CSV table ({error})") from error
        if not best[0] or (len(best[0]) == 1 < len(header)):
            best = header, separator
    names, separator = best
    if twice := _twice([name.strip() for name in names if name.strip()]):
        # pandas would rename the second one in silence.
        raise ConfigError(f"{path}: two columns are called {twice[0]}")
    return [name.strip() or f"Unnamed: {index}" for index, name in enumerate(names)], separator


def _csv(path: Path, form: Form) -> tuple[pd.DataFrame, list[str]]:
    import pandas as pd

    header, separator = _header(path)
    if not header:
        raise ConfigError(f"{path}: empty")
    text = {name for name in header if form.names_runs(name) or form.names_metrics(name)}
    # From 3.1 on pandas reads every number exactly; before, only when told to.
    version = tuple(int(part) for part in pd.__version__.split(".")[:2])
    exact: dict[str, Any] = {} if version >= (3, 1) else {"float_precision": "round_trip"}
    try:
        with warnings.catch_warnings():
            # A row of more values than the header has names is cut with a warning only.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                encoding="utf-8-sig",
                header=0,
                names=header,
                index_col=False,
                low_memory=False,
                dtype=dict.fromkeys(text, str),
                keep_default_na=False,
                na_values={name: _NA_VALUES for name in header if name not in text},
                skipinitialspace=True,
                **exact,
            )
    except pd.errors.EmptyDataError as error:
        raise ConfigError(f"{path}: empty") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ConfigError(f"{path}: not a whole CSV table ({_first_line(error)})") from error
    changed = []
    for name in frame.columns if separator == ";" else ():
        if form.names_runs(name) or not pd.api.types.is_string_dtype(frame[name]):
            continue
        read = frame[name].str.replace(_DECIMAL_COMMA, r"\1.\2", regex=True)
        if not read.equals(frame[name]) and not numbers(read)[1]:
            frame[name] = read
            changed.append(name)
    return frame, [f"decimal commas read as points: {', '.join(changed)}"] if changed else []


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ValueError as error:
        raise ConfigError(f"{path}: not a whole Parquet file ({_first_line(error)})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the name {_twice([name for name, _ in pairs])[0]} twice in an object")
    return row


def _jsonl(path: Path) -> pd.DataFrame:
    import pandas as pd

    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{path}: line {number} is not JSON ({_first_line(error)})") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}: line {number} is no object of names and values")
            rows.append(row)
    return pd.DataFrame(rows)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
