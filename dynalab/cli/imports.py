"""`dynalab import`."""

from __future__ import annotations

import click

from dynalab.cli.options import echo, emit_json, json_option, note, outputs_option, warn


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option(
    "--name", metavar="NAME", help="What the runs are called from now on (default: the file's name)."
)
@click.option("--run", metavar="COLUMN", help="The column that names the run.")
@click.option("--step", metavar="COLUMN", help="The column of steps (default with --wide: Step).")
@click.option(
    "--wide", is_flag=True, help="A row a step and columns 'run - metric', as Weights & Biases exports it."
)
@click.option("--force", is_flag=True, help="Store it again, or let a name that is taken mean this file.")
@json_option
@outputs_option
def command(
    file: str,
    name: str | None,
    run: str | None,
    step: str | None,
    wide: bool,
    force: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Take in runs that were trained elsewhere; every analysis and report accepts them by name.

    FILE is CSV, TSV, Parquet or JSON lines. Every numeric column but the two named is a metric; runs may differ in
    length and in their steps. The same content again changes nothing.

    \b
    dynalab import runs.csv --name mine --run run --step step
    dynalab import wandb.csv --name mine --wide --step Step
    dynalab analyze hmm mine metrics=[loss,grad_norm] convergence.metric=loss convergence.threshold=0.1
    dynalab report mine
    """

    from dynalab.cli.runs import run_json
    from dynalab.config.outputs import outputs_root
    from dynalab.config.places import user_path
    from dynalab.imports.store import import_table

    root = outputs_root(outputs)
    outcome = import_table(user_path(file), root, name, run, step, wide=wide, force=force)
    ensemble = outcome.ensemble
    if as_json:
        emit_json(
            {
                "id": ensemble.id,
                "name": outcome.name,
                "path": str(ensemble.path),
                "new": outcome.new,
                "metrics": ensemble.metrics,
                "runs": [run_json(ensemble, item) for item in ensemble.runs],
                "warnings": outcome.notes,
            }
        )
        return 0
    lengths = sorted({len(ensemble.trajectory(item, []).steps) for item in ensemble.runs})
    rows = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    what = f"{len(ensemble.runs)} runs of {rows} rows, {len(ensemble.metrics)} metrics"
    note(f"{outcome.name}: {what}{'' if outcome.new else '; stored already'}")
    warn(outcome.notes)
    echo(ensemble.path)
    return 0
