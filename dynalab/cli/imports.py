"""`dynalab import`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli.options import F, echo, emit_json, note, result_options, warn
from dynalab.cli.progress import counted
from dynalab.config.places import outputs_root, typed, user_path
from dynalab.core.errors import ConfigError
from dynalab.core.words import count

if TYPE_CHECKING:
    from dynalab.imports.store import Outcome


def _several(*names: str, metavar: str, about: str) -> Callable[[F], F]:
    """Add an option that may be given several times."""
    return click.option(*names, metavar=metavar, multiple=True, help=about)


@click.command("import")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@_several(
    "--checkpoints",
    metavar="PATTERN",
    about="Checkpoints in the place of tables: 'runs/{run}/step{step}.pt', 'runs/*/step*.safetensors', a folder, or a "
    "table with the columns path, run and step.",
)
@click.option(
    "--weights",
    metavar="REGEX",
    help="Tensors of two or more axes whose names have this are the weights; their biases go with them.",
)
@click.option(
    "--model",
    metavar="MODULE:FUNCTION",
    help="What makes the network that checkpoints are weights of; of a pair (network, metrics), metrics(network) "
    "is measured, too.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="What the runs are called from now on (default: the file's name).",
)
@_several("--run", metavar="COLUMN", about="The column that names the run; of several: --run lr,seed.")
@click.option(
    "--split",
    metavar="COLUMN",
    help="A column each of whose values is a run of its own, beside what names the runs: of one long file --split lr.",
)
@_several(
    "--setting",
    "settings",
    metavar="COLUMN",
    about="A column each of whose values is a setting, an ensemble of its own, for analyze compare; of several: lr,wd.",
)
@click.option("--step", metavar="COLUMN", help="The column of steps.")
@click.option(
    "--key",
    metavar="COLUMN",
    help="The column that names the metric, where there is a row a metric.",
)
@click.option("--value", metavar="COLUMN", help="The column of the metrics' values, with --key.")
@click.option(
    "--wide", is_flag=True, help="A row a step, columns 'run - metric': an export of Weights & Biases."
)
@_several("--map", "renamed", metavar="OLD=NEW", about="What a metric is called here: --map loss=train_loss.")
@_several(
    "--const",
    "constants",
    metavar="NAME=NUMBER",
    about="A metric of one value: --const stability_threshold=20.",
)
@_several(
    "--level", "levels", metavar="NAME=NUMBER", about="What counts as generalised: --level test_accuracy=99."
)
@click.option("--force", is_flag=True, help="Store it again.")
@result_options
def command(
    files: tuple[str, ...],
    checkpoints: tuple[str, ...],
    weights: str | None,
    model: str | None,
    name: str | None,
    run: tuple[str, ...],
    split: str | None,
    settings: tuple[str, ...],
    step: str | None,
    key: str | None,
    value: str | None,
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

    With --checkpoints the weights themselves are read, safetensors or what torch.save wrote, also in shards; no code in
    a file is run. Of each the fourteen weight statistics are stored, and where it stands, so that analyze directions
    reads it there; it is not copied. {run}, {step}, {seed} and names of your own stand for parts of a path; so do the
    groups of a regular expression, 'runs/(?P<run>.+)/step(?P<step>[0-9]+)[.]pt'. Where the pattern has no names, the
    step is the last number of a path, and the run what sets paths apart besides, as in folders of Pythia,
    pythia-70m-seed1/step1000. Weights are tensors of two or more axes whose name has none of embed, norm and ln, biases
    those that end in bias, without those of norms. Other columns of a table of checkpoints are metrics.

    \b
    dynalab import runs.csv --name mine --run run --step step
    dynalab import logs/*/metrics.csv --name mine --map val_acc=test_accuracy --level test_accuracy=0.99
    dynalab import long.csv --name mine --split lr
    dynalab import sweep.csv --name mine --setting lr   # mine-lr0.1, ...; dynalab analyze compare mine
    dynalab import wandb.csv --name mine --wide --step Step
    dynalab import --checkpoints 'runs/{run}/step{step}.safetensors' --name mine
    dynalab import --checkpoints pythia-70m-seed*/step* --name pythia-70m
    dynalab import --checkpoints paths.csv --name mine --model mine.py:network
    dynalab analyze hmm mine metrics=[loss,grad_norm] convergence.metric=loss convergence.threshold=0.1
    dynalab report mine
    """
    from dynalab.imports.rows import Form
    from dynalab.imports.runs import Changes
    from dynalab.imports.store import Order, import_settings

    root = outputs_root(outputs)
    changes = Changes(_pairs("map", renamed), _numbers("const", constants))
    levelled = _numbers("level", levels) if levels else None
    order = Order(Form(run, step, key, value, wide, split, settings), changes, levelled, force)
    if checkpoints:
        from dynalab.imports.checkpoints import Reading, import_checkpoints

        if settings:
            raise ConfigError(
                "--setting: of tables of metrics only; --run names runs of checkpoints by their settings"
            )
        with counted("checkpoints") as tell:
            reading = Reading(weights, model)
            outcomes = [import_checkpoints([*checkpoints, *files], root, name, order, reading, tell=tell)]
    else:
        if weights is not None or model is not None:
            raise ConfigError(f"--{'weights' if model is None else 'model'}: of --checkpoints only")
        if not files:
            raise ConfigError("FILE is missing: a table of runs, or --checkpoints PATTERN")
        outcomes = import_settings([user_path(file) for file in files], root, name, order)
    if as_json:
        documents = [_json(outcome) for outcome in outcomes]
        emit_json({"ensembles": documents} if settings else documents[0])
        return 0
    for outcome in outcomes:
        ensemble = outcome.ensemble
        lengths = sorted({len(ensemble.trajectory(item, []).steps) for item in ensemble.runs})
        rows = count(lengths[0], "row") if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,} rows"
        what = f"{count(len(ensemble.runs), 'run')} of {rows}, {count(len(ensemble.metrics), 'metric')}"
        note(f"{outcome.name}: {what}{'' if outcome.new else '; stored already'}")
    # What is said of one table is said once.
    warn(list(dict.fromkeys(line for outcome in outcomes for line in [*outcome.doubts, *outcome.notes])))
    for outcome in outcomes:
        echo(outcome.ensemble.path)
    if settings:
        note(
            f"next: {typed('analyze', 'compare', str(outcomes[0].ensemble.config['import']['family']), outputs=root)}"
        )
    return 0


def _json(outcome: Outcome) -> dict[str, Any]:
    from dynalab.cli.runs import run_json

    ensemble = outcome.ensemble
    return {
        "id": ensemble.id,
        "name": outcome.name,
        "path": str(ensemble.path),
        "new": outcome.new,
        "metrics": ensemble.metrics,
        "runs": [run_json(ensemble, item) for item in ensemble.runs],
        "warnings": [*outcome.doubts, *outcome.notes],
    }


def _pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.rpartition("="))
        if not (name and equals and value):
            raise ConfigError(f"--{option} {word}: expected NAME=VALUE")
        if name in pairs:
            raise ConfigError(f"--{option} {word}: {name} is {pairs[name]} already")
        pairs[name] = value
    return pairs


def _numbers(option: str, words: tuple[str, ...]) -> dict[str, float]:
    numbers = {}
    for name, value in _pairs(option, words).items():
        try:
            numbers[name] = float(value)
        except ValueError:
            numbers[name] = math.nan
        if not math.isfinite(numbers[name]):
            raise ConfigError(f"--{option} {name}={value}: expected a number")
    return numbers
