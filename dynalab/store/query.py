"""SQL over what is stored: DuckDB on the tables in memory, without a way to any file."""

from __future__ import annotations

import contextlib
import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from dynalab.core.errors import ConfigError
from dynalab.store.find import Selection
from dynalab.store.outcomes import outcomes
from dynalab.store.reader import Ensemble
from dynalab.store.table import notice
from dynalab.store.tags import of_run

INSTALL = "runs query needs DuckDB: pip install 'dynalab[query]'"


def query(selection: Selection[Ensemble], sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer one SELECT over two tables, `runs` (one row a run) and `metrics` (one a run and recorded step).

    The tables are handed to the database as values: what is asked can neither read nor write a file, load an extension
    or see what this process holds.

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
        connection.register("_runs", _runs(selection))
        connection.register("_metrics", _metrics(selection))
        connection.execute("CREATE VIEW runs AS FROM _runs")
        connection.execute(
            "CREATE VIEW metrics AS SELECT split_part(run, '/', 1) AS ensemble, * FROM _metrics"
        )
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise ConfigError(f"query: expected one statement, a SELECT, and got {len(statements)}")
        if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
            raise ConfigError("query: only reads; expected a SELECT over runs and metrics")
        answer = connection.execute(statements[0])
        names = [str(item[0]) for item in answer.description or ()]
        return names, [tuple(map(_plain, row)) for row in answer.fetchall()]
    except duckdb.Error as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(f"query: {' '.join(lines[:2])}") from error
    finally:
        connection.close()


def _runs(selection: Selection[Ensemble]) -> Any:
    """Return a table with a row a run: what `dynalab.ensembles_frame` has, and tags."""
    import pyarrow as pa

    frame = outcomes(selection)
    for name in [name for name in frame if frame[name].dtype == "object"]:
        # A key may be a number in one ensemble and a word in another.
        if len({type(value) for value in frame[name] if value is not None}) > 1:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    tags = [of_run(ensemble.tags, run.label) for ensemble, runs in selection for run in runs]
    return table.append_column("tags", pa.array(tags, pa.list_(pa.string())))


def _metrics(selection: Selection[Ensemble]) -> Any:
    """Return the rows of the evaluation grid of some runs; a metric that an ensemble lacks is null there."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    schemas = {}
    for ensemble, _ in selection:
        notice(ensemble.paths)
        path = ensemble.paths.metrics()
        # Of one that has no rows there is none.
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            schemas[str(path)] = pq.read_schema(path).remove_metadata()
    if not schemas:
        return pa.table({"run": pa.array([], pa.string()), "step": pa.array([], pa.int64())})
    schema = pa.unify_schemas(list(schemas.values()), promote_options="permissive")
    found = ds.dataset(list(schemas), schema=schema, format="parquet")
    if all(len(runs) == len(ensemble.runs) for ensemble, runs in selection):
        return found
    return found.filter(ds.field("run").isin([run.id for _, runs in selection for run in runs]))


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
