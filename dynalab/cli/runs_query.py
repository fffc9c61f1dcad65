"""`dynalab runs query`."""

from __future__ import annotations

import click

from dynalab.cli.options import columns, echo, emit_json, filter_options, note, result_options, warn
from dynalab.config.places import outputs_root
from dynalab.core.words import count
from dynalab.store.find import readable, select


@click.command("query")
@click.argument("sql", metavar="SQL")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@result_options
def query_runs(
    sql: str, refs: tuple[str, ...], filter_text: str | None, forks: bool, as_json: bool, outputs: str | None
) -> int:
    """Answer a SELECT over runs and what they recorded.

    Over everything that is stored, or over some runs. Three tables: `runs` with a row a run (run, ensemble, task, seed,
    status, steps, the keys in which ensembles differ, generalised_step, "final.test_loss", tags, ...), `metrics` with a
    row a run and step of the evaluation grid, and `series` with a row a run and step at which anything was recorded,
    as sharpness by probe.curvature: what was not is null. It reads these and nothing else, and changes nothing. Needs
    DuckDB: pip install 'dynalab[query]'.

    \b
    dynalab runs query 'DESCRIBE runs'
    dynalab runs query 'SELECT ensemble, count(*), median(generalised_step) FROM runs GROUP BY 1'
    dynalab runs query 'SELECT run, min(step) FROM metrics WHERE test_accuracy > 0.9 GROUP BY run'
    dynalab runs query 'SELECT run, step, sharpness FROM series WHERE sharpness IS NOT NULL'
    """
    from dynalab.store.query import query, tables_of
    from dynalab.store.reader import Ensemble

    selection = select(outputs_root(outputs), refs or ("@all",), filter_text, Ensemble, forks)
    # Configurations are columns of one of the tables.
    selection, left_out = readable(selection) if "runs" in tables_of(sql) else (selection, [])
    names, rows = query(selection, sql)
    warnings = left_out + [line for ensemble, _ in selection for line in ensemble.warnings]
    if as_json:
        emit_json({"columns": names, "rows": rows, "warnings": warnings})
    else:
        echo(columns(names, rows))
        note(count(len(rows), "row"))
        warn(warnings)
    return 3 if left_out or any(ensemble.damaged for ensemble, _ in selection) else 0
