"""`dynalab import`."""

from __future__ import annotations

import math

import click

from dynalab.cli.options import echo, emit_json, json_option, note, outputs_option, warn
from dynalab.core.errors import ConfigError


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--name",
    metavar="NAME",
    multiple=True,
    help="What the runs are called from now on (default: the file's name).",
)
@click.option(
    "--run", metavar="COLUMN", multiple=True, help="The column that names the run; of several: --run lr,seed."
)
@click.option("--step", metavar="COLUMN", multiple=True, help="The column of steps.")
@click.option(
    "--key",
    metavar="COLUMN",
    multiple=True,
    help="The column that names the metric, where there is a row a metric.",
)
@click.option(
    "--value", metavar="COLUMN", multiple=True, help="The column of the metrics' values, with --key."
)
@click.option(
    "--wide", is_flag=True, help="A row a step, columns 'run - metric': an export of Weights & Biases."
)
@click.option(
    "--map",
    "renamed",
    metavar="OLD=NEW",
    multiple=True,
    help="What a metric is called here: --map loss=train_loss.",
)
@click.option(
    "--const",
    "constants",
    metavar="NAME=NUMBER",
    multiple=True,
    help="A metric of one value: --const stability_threshold=20.",
)
@click.option(
    "--level",
    "levels",
    metavar="NAME=NUMBER",
    multiple=True,
    help="What counts as generalised: --level test_accuracy=99.",
)
@click.option("--force", is_flag=True, help="Store it again.")
@json_option
@outputs_option
def command(
    files: tuple[str, ...],
    name: tuple[str, ...],
    run: tuple[str, ...],
    step: tuple[str, ...],
    key: tuple[str, ...],
    value: tuple[str, ...],
    wide: bool,
    renamed: tuple[str, ...],
    constants: tuple[str, ...],
    levels: tuple[str, ...],
    force: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Take in runs that were trained elsewhere; every analysis and report accepts them by name.

    FILE is CSV, TSV, Parquet or JSON lines, or a folder of such. What is not said is taken from the header: a column
    run, run_id, seed or the like names the run, else each file is one run of the file's name; step, _step, epoch or the
    like holds the steps; key, metric or tag and value are a row a metric, as MLflow and TensorBoard export it. Every
    other numeric column is a metric; runs may differ in length and in their steps. The same content again changes
    nothing; other content under the same name gets the name.

    \b
    dynalab import runs.csv --name mine --run run --step step
    dynalab import logs/*/metrics.csv --name mine --map val_acc=test_accuracy --level test_accuracy=0.99
    dynalab import wandb.csv --name mine --wide --step Step
    dynalab analyze hmm mine metrics=[loss,grad_norm] convergence.metric=loss convergence.threshold=0.1
    dynalab report mine
    """

    from dynalab.cli.runs import run_json
    from dynalab.config.places import outputs_root, user_path
    from dynalab.imports.rows import Form
    from dynalab.imports.runs import Changes
    from dynalab.imports.store import Order, import_table

    root = outputs_root(outputs)
    single = {"name": name, "step": step, "key": key, "value": value}
    for option, given in single.items():
        if len(given) > 1:
            raise ConfigError(f"--{option} {' '.join(given)}: given {len(given)} times; expected once")
    once = {option: given[0] if given else None for option, given in single.items()}
    form = Form(run, once["step"], once["key"], once["value"], wide)
    changes = Changes(_pairs("map", renamed), _numbers("const", constants))
    order = Order(form, changes, _numbers("level", levels) if levels else None, force)
    outcome = import_table([user_path(file) for file in files], root, once["name"], order)
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
                "warnings": [*outcome.doubts, *outcome.notes],
            }
        )
        return 0
    lengths = sorted({len(ensemble.trajectory(item, []).steps) for item in ensemble.runs})
    rows = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    what = f"{len(ensemble.runs)} runs of {rows} rows, {len(ensemble.metrics)} metrics"
    note(f"{outcome.name}: {what}{'' if outcome.new else '; stored already'}")
    warn([*outcome.doubts, *outcome.notes])
    echo(ensemble.path)
    return 0


def _pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.rpartition("="))
        if not (name and equals and value):
            raise ConfigError(f"--{option} {word}: expected NAME=VALUE")
        if name in found:
            raise ConfigError(f"--{option} {word}: {name} is {found[name]} already")
        found[name] = value
    return found


def _numbers(option: str, words: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for name, value in _pairs(option, words).items():
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise ConfigError(f"--{option} {name}={value}: expected a number")
    return found
