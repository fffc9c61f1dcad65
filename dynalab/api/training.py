"""Functions that make ensembles: trained, forked, taken in from elsewhere."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config.command import read_command
from dynalab.config.places import outputs_root, user_path
from dynalab.core.errors import DynalabError
from dynalab.core.plugins import named
from dynalab.store.reader import Ensemble

if TYPE_CHECKING:
    import pandas as pd

    from dynalab.launch.train import Outcome


@named
def train(
    overrides: Sequence[str], *, progress: bool = False, outputs: str | Path | None = None
) -> list[Ensemble]:
    """Train, as `dynalab train` does; what is stored is not trained again.

        (ensemble,) = dynalab.train(["task=grokking", "seed=0..3"])
        ensembles = dynalab.train(["task=grokking", "optimizer=adamw,sgd"], progress=True)   # a sweep

    Args:
        overrides: The command's words, `["task=grokking", "seed=0..3"]`.
        progress: Whether a line on standard error says how far it is.
        outputs: The outputs folder; default `DYNALAB_OUTPUTS`, then ./outputs.

    Returns:
        One ensemble for each combination of swept values. Runs that diverged are among its runs, `status` says so.

    Raises:
        ConfigError: Something in the overrides cannot be used.
        RunsFailed: A run failed, cannot be read, or is being trained by another process, where the command ends with
            3. The others are whole and stored; the error's `ensembles` are what would have been returned.
    """
    from dynalab.launch import meter
    from dynalab.launch.train import Options
    from dynalab.launch.train import train as launch

    command = read_command(overrides, outputs=outputs)
    with contextlib.ExitStack() as stack:
        watch = meter.showing(stack) if progress else meter.silent
        outcome = launch(command, Options(argv=("dynalab.train", *map(str, overrides))), watch)
    return _trained(outcome, command.notes)


def _trained(outcome: Outcome, notes: Sequence[str]) -> list[Ensemble]:
    """Warn of what there is to say, and return the ensembles that were trained.

    Where some were not, the error that says so has them.
    """
    for line in [*notes, *outcome.warnings, *outcome.report.warnings]:
        warnings.warn(line, stacklevel=4)
    ensembles = [Ensemble(layout.paths) for layout in outcome.layouts if layout.paths.config.is_file()]
    try:
        outcome.require_whole()
    except DynalabError as error:
        error.ensembles = ensembles
        raise
    return ensembles


@named
def fork(
    ref: str | Path | Ensemble,
    step: int,
    overrides: Sequence[str] = (),
    *,
    progress: bool = False,
    outputs: str | Path | None = None,
) -> list[Ensemble]:
    """Go on from a stored state with something changed, as `dynalab fork` does.

        (shaken,) = dynalab.fork("cb7150eb3e", 200, ["edit=perturb", "edit.scale=0.01"])

    Args:
        ref: An ensemble, or the reference of one or of one of its runs.
        step: Where the forks leave it: up to there they are their parent to the bit.
        overrides: What they do otherwise; without any they are their parent again. Runs that have no such step are left
            out, in a warning.
        progress: As of `train`.
        outputs: The outputs folder.

    Returns:
        One ensemble for each combination of values.

    Raises:
        ConfigError: A word cannot be used, or the reference is of several ensembles.
        NothingMatched: No run has the step.
        RunsFailed: As `train`.
    """
    from dynalab.launch import meter
    from dynalab.launch.fork import make_forks, plan_forks, read_fork
    from dynalab.launch.train import Options

    if isinstance(ref, Ensemble):
        root = ref.path.parent.parent if outputs is None else outputs_root(outputs)
        forking = plan_forks(ref, ref.runs, step, overrides, outputs=root)
    else:
        forking = read_fork(outputs_root(outputs), str(ref), step, overrides)
    named = ref.id if isinstance(ref, Ensemble) else str(ref)
    with contextlib.ExitStack() as stack:
        watch = meter.showing(stack) if progress else meter.silent
        options = Options(argv=("dynalab.fork", named, str(step), *map(str, overrides)))
        outcome = make_forks(forking, options, watch)
    return _trained(outcome, [f"left out: {line}" for line in forking.left_out])


def import_runs(
    source: str | Path | Sequence[str | Path] | pd.DataFrame,
    name: str | None = None,
    *,
    run: str | Sequence[str] | None = None,
    step: str | None = None,
    key: str | None = None,
    value: str | None = None,
    wide: bool = False,
    split: str | None = None,
    renamed: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
    force: bool = False,
    outputs: str | Path | None = None,
) -> Ensemble:
    """Take in runs that were trained elsewhere, as `dynalab import` does; the same content again changes nothing.

        table = pandas.DataFrame({"run": ["a", "a"], "step": [0, 10], "loss": [2.3, 0.7]})
        ensemble = dynalab.import_runs(table, "mine", run="run", step="step", renamed={"loss": "train_loss"})
        ensemble = dynalab.import_runs("logs", "others")              # a folder of tables

    What is not said of the form is taken from the header, in a warning. A table of a whole sweep, an ensemble a
    setting, is taken in by `dynalab import --setting`; `load_all(name)` opens them.

    Args:
        source: A file (CSV, TSV, Parquet, JSON lines), a folder of such, several, or a data frame.
        name: What the ensemble is called from now on; default: the file's name. It means what was imported last under
            it.
        run: Column that names the run, or several that do together; where there is none, each file is one run.
        step: Column of steps, whole numbers of 0 or more.
        key: Column that names the metric, where there is a row a metric.
        value: Column of the metrics' values, with `key`.
        wide: A row a step and columns `run - metric`, as Weights & Biases exports it.
        split: Column each of whose values is a run of its own, beside what names the runs.
        renamed: Metric in the table -> its name here, `{"loss": "train_loss"}`.
        constants: Metric that the table lacks -> its one value, `{"stability_threshold": 20}`.
        levels: What counts as memorised and as generalised, `{"test_accuracy": 99}`; nothing does where it is not said.
        force: Store it again.
        outputs: The outputs folder.

    Raises:
        ConfigError: A table cannot be read so, or the name cannot be used.
    """
    from dynalab.core.errors import ConfigError
    from dynalab.imports.rows import Form
    from dynalab.imports.runs import Changes
    from dynalab.imports.store import Order, import_table

    if isinstance(source, str | Path):
        source = [source]
    if not isinstance(source, Sequence) and not hasattr(source, "columns"):
        raise ConfigError(
            f"source: a {type(source).__name__} is no table; legal: paths of files, or a pandas.DataFrame of it"
        )
    tables = [user_path(item) for item in source] if isinstance(source, Sequence) else source
    runs = () if run is None else (run,) if isinstance(run, str) else tuple(run)
    form = Form(runs, step, key, value, wide, split)
    order = Order(form, Changes(renamed or {}, constants or {}), levels, force)
    outcome = import_table(tables, outputs_root(outputs), name, order, ("dynalab.import_runs",))
    for line in outcome.doubts:
        warnings.warn(line, stacklevel=2)
    return outcome.ensemble


def import_checkpoints(
    source: str | Path | Sequence[str | Path],
    name: str | None = None,
    *,
    weights: str | None = None,
    model: str | Callable[[], Any] | None = None,
    run: str | Sequence[str] | None = None,
    step: str | None = None,
    split: str | None = None,
    renamed: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
    force: bool = False,
    outputs: str | Path | None = None,
) -> Ensemble:
    """Take in checkpoints that were trained elsewhere, as `dynalab import --checkpoints` does.

        ensemble = dynalab.import_checkpoints("runs/{run}/step{step}.safetensors", "mine")
        ensemble.group().runs[0].weights.at(100)          # name -> array, read where the checkpoint stands

    Args:
        source: A pattern, file or folder, several, or one table with the columns path, run and step.
        name: What the ensemble is called from now on; default: what the runs have in common.
        weights: Regular expression: tensors of two or more axes whose names have this are the weights.
        model: A function, or its `module:function`, that makes the network that checkpoints are weights of, or a pair
            of it and a function of it that returns metrics, name -> number.
        run: Column of a table that names the run, or several that do together.
        step: Column of a table of steps.
        split: Column of a table each of whose values is a run of its own.
        renamed: As of `import_runs`, and so the following.
        constants: Metric -> its one value.
        levels: What counts as memorised and as generalised.
        force: Store it again.
        outputs: The outputs folder.

    Raises:
        ConfigError: A checkpoint cannot be read, or is not of the same network as the others; nothing is stored.
        NothingMatched: There is no checkpoint.
    """
    from dynalab.imports.checkpoints import Reading, import_checkpoints
    from dynalab.imports.rows import Form
    from dynalab.imports.runs import Changes
    from dynalab.imports.store import Order

    words = [str(source)] if isinstance(source, str | Path) else [str(item) for item in source]
    runs = () if run is None else (run,) if isinstance(run, str) else tuple(run)
    order = Order(Form(runs, step, split=split), Changes(renamed or {}, constants or {}), levels, force)
    reading = Reading(weights, model)
    outcome = import_checkpoints(
        words, outputs_root(outputs), name, order, reading, ("dynalab.import_checkpoints",)
    )
    for line in outcome.doubts:
        warnings.warn(line, stacklevel=2)
    return outcome.ensemble
