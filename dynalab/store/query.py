"""SQL over what is stored: DuckDB on the tables in memory, without a way to any file."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from dynalab.core.errors import ConfigError
from dynalab.core.words import listed
from dynalab.store.find import Selection
from dynalab.store.names import FORCED
from dynalab.store.reader import Ensemble
from dynalab.store.table import is_stale, notice
from dynalab.store.tags import of_run

_NAMED = ("run", "seed", "step")
_PATTERN = re.compile(r"[*?\[{]")
INSTALL = "runs query needs DuckDB: pip install 'dynalab[query]'"


def query(selection: Selection[Ensemble], sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer one SELECT over three tables: `runs`, with one row a run, `metrics` and `series`.

    `metrics` has one row a run and step of the evaluation grid, `series` one a run and step at which anything was
    recorded, with null for what was not. The tables of the ensembles are all that can be read: what is asked reaches no
    other file, writes none, loads no extension and sees nothing that this process holds.

    Returns:
        The names of the columns, and the rows: plain values, None for what is missing or not finite.

    Raises:
        ConfigError: DuckDB is not installed, it is more than one statement or none that reads, or DuckDB refuses it.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET python_enable_replacements = false; SET enable_progress_bar = false")
        named = tables_of(sql)
        if "runs" in named:
            connection.register("_runs", _runs(selection))
            connection.execute("CREATE VIEW runs AS FROM _runs")
        for name in named - {"runs"}:
            _add_rows(connection, selection, name)
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise ConfigError(f"query: expected one statement, a SELECT, and got {len(statements)}")
        # No other writes, and no other can be made to.
        if statements[0].type != duckdb.StatementType.SELECT:
            raise ConfigError("query: only reads; expected a SELECT over runs, metrics or series")
        answer = connection.execute(statements[0])
        names = [str(item[0]) for item in answer.description or ()]
        return names, [tuple(map(_plain, row)) for row in answer.fetchall()]
    except duckdb.Error as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        missing = f"query: {' '.join(lines[:2])}"
        other = {name for item, _ in selection for names in item.off_grid().values() for name in names}
        # The second line names columns that there are.
        series = re.search(r"\bseries\b", sql, re.IGNORECASE)
        asked = [] if series else sorted(name for name in other if f'"{name}"' in lines[0])
        where = f"; {listed(asked)} has other rows than `metrics`: ask FROM series" if asked else ""
        raise ConfigError(missing + where) from error
    finally:
        connection.close()


def tables_of(sql: str) -> set[str]:
    """Return which of the tables a query may be about; what it does not name is not read."""
    names = {"runs", "metrics", "series"}
    return {name for name in names if re.search(rf"\b{name}\b", sql, re.IGNORECASE)} or names


def _runs(selection: Selection[Ensemble]) -> Any:
    """Return a table with a row a run: what `dynalab.ensembles_frame` has, and tags."""
    import pyarrow as pa

    # Pandas takes as long to import as all runs take to be read.
    from dynalab.store.outcomes import outcomes

    frame = outcomes(selection)
    for name in [name for name in frame if frame[name].dtype == "object"]:
        # A key may be a number in one ensemble and a word in another.
        if len({type(value) for value in frame[name] if value is not None}) > 1:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    tags = [of_run(ensemble.tags, run.label) for ensemble, runs in selection for run in runs]
    return table.append_column("tags", pa.array(tags, pa.list_(pa.string())))


def _add_rows(connection: Any, selection: Selection[Ensemble], name: str) -> None:
    """Add the rows of some runs as the table `metrics` or `series`; a metric that an ensemble lacks is null there."""
    import pyarrow as pa

    files = []
    for ensemble, _ in selection:
        if is_stale(ensemble):
            notice(ensemble.paths)
        grids = (None,) if name == "metrics" else (None, *ensemble.columns(), FORCED)
        # Of one that has no rows there is none.
        files += [str(path) for grid in grids if (path := ensemble.paths.metrics(grid)).is_file()]
    if not files:
        source = f"_{name}"
        nothing = {"run": pa.string(), "seed": pa.int64(), "step": pa.int64()}
        connection.register(source, pa.schema(nothing).empty_table())
    elif any(_PATTERN.search(path) for path in files):
        # DuckDB would take them for patterns. What reads them instead imports pandas.
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        source = f"_{name}"
        schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in files])
        connection.register(source, ds.dataset(files, schema=schema, format="parquet"))
    else:
        quoted = f"[{', '.join(_quoted(path) for path in files)}]"
        # The view and what is asked of it read every file's footer.
        connection.execute(f"SET allowed_paths = current_setting('allowed_paths') || {quoted}")
        connection.execute("SET parquet_metadata_cache = true")
        source = f"read_parquet({quoted}, union_by_name = true)"
    chosen = ""
    if any(len(runs) < len(ensemble.runs) for ensemble, runs in selection):
        ids = pa.array([run.id for _, runs in selection for run in runs], pa.string())
        connection.register("_chosen", pa.table({"run": ids}))
        chosen = " SEMI JOIN _chosen USING (run)"
    columns, grouped = "*", ""
    if name == "series":
        described = connection.execute(f"DESCRIBE FROM {source}").fetchall()
        metrics = ['"' + row[0].replace('"', '""') + '"' for row in described if row[0] not in _NAMED]
        # NaN is the largest number to DuckDB, and of a step that stands in two files both say the same.
        columns = ", ".join(
            ["run", "any_value(seed) AS seed", "step", *(f"min({x}) AS {x}" for x in metrics)]
        )
        grouped = " GROUP BY run, step"
    connection.execute(
        f"CREATE VIEW {name} AS SELECT split_part(run, '/', 1) AS ensemble, {columns} FROM {source}{chosen}{grouped}"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return float(value)
        case date() | datetime() | time():
            return value.isoformat()
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)
