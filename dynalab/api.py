"""The Python interface: what the command line does, as functions that return objects."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dynalab.config.command import read_command
from dynalab.config.places import outputs_root, user_path
from dynalab.core.errors import ConfigError, DynalabError, NothingMatched
from dynalab.store.find import select
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, find_result

if TYPE_CHECKING:
    import pandas as pd

    from dynalab.launch.train import Outcome
    from dynalab.show.view import View


def train(overrides: Sequence[str], *, outputs: str | Path | None = None) -> list[Ensemble]:
    """Train, as `dynalab train` does; what is stored is not trained again.

    Args:
        overrides: The command's words, `["task=grokking", "seed=0..3"]`.
        outputs: The outputs folder; default `DYNALAB_OUTPUTS`, then ./outputs.

    Returns:
        One ensemble for each combination of swept values. Runs that diverged are among its runs, `status` says so.

    Raises:
        ConfigError: Something in the overrides cannot be used.
        RunsFailed: A run failed, cannot be read, or is being trained by another process, where the command ends with
            3. The others are whole and stored; the error's `ensembles` are what would have been returned.
    """
    from dynalab.launch.train import Options
    from dynalab.launch.train import train as launch

    command = read_command(list(overrides), outputs=outputs)
    outcome = launch(command, Options(argv=("dynalab.train", *overrides)))
    for line in [*command.notes, *outcome.warnings, *outcome.report.warnings]:
        warnings.warn(line, stacklevel=2)
    return _trained(outcome)


def _trained(outcome: Outcome) -> list[Ensemble]:
    """Return the ensembles that were trained; where some were not, the error that says so has them."""
    ensembles = [Ensemble(layout.paths) for layout in outcome.layouts if layout.paths.config.is_file()]
    try:
        outcome.require_whole()
    except DynalabError as error:
        error.ensembles = ensembles
        raise
    return ensembles


def fork(
    ref: str | Path | Ensemble, step: int, overrides: Sequence[str] = (), *, outputs: str | Path | None = None
) -> list[Ensemble]:
    """Go on from a stored state with something changed, as `dynalab fork` does.

        (shaken,) = dynalab.fork("cb7150eb3e", 200, ["edit=perturb", "edit.scale=0.01"])

    Args:
        ref: An ensemble, or the reference of one or of one of its runs.
        step: Where the forks leave it: up to there they are their parent to the bit.
        overrides: What they do otherwise; without any they are their parent again. Runs that have no such step are left
            out, in a warning.
        outputs: The outputs folder.

    Returns:
        One ensemble for each combination of values.

    Raises:
        ConfigError: A word cannot be used, or the reference is of several ensembles.
        NothingMatched: No run has the step.
        RunsFailed: As `train`.
    """
    from dynalab.launch.fork import make_forks, plan_forks, read_fork
    from dynalab.launch.train import Options

    if isinstance(ref, Ensemble):
        root = ref.path.parent.parent if outputs is None else outputs_root(outputs)
        forking = plan_forks(ref, ref.runs, step, list(overrides), outputs=root)
    else:
        forking = read_fork(outputs_root(outputs), str(ref), step, list(overrides))
    named = ref.id if isinstance(ref, Ensemble) else str(ref)
    outcome = make_forks(forking, Options(argv=("dynalab.fork", named, str(step), *overrides)))
    left_out = (f"left out: {line}" for line in forking.left_out)
    for line in [*left_out, *outcome.warnings, *outcome.report.warnings]:
        warnings.warn(line, stacklevel=2)
    return _trained(outcome)


def import_runs(
    source: str | Path | Sequence[str | Path] | pd.DataFrame,
    name: str | None = None,
    *,
    run: str | Sequence[str] | None = None,
    step: str | None = None,
    key: str | None = None,
    value: str | None = None,
    wide: bool = False,
    renamed: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
    force: bool = False,
    outputs: str | Path | None = None,
) -> Ensemble:
    """Take in runs that were trained elsewhere, as `dynalab import` does; the same content again changes nothing.

    What is not said of the form is taken from the header, in a warning.

    Args:
        source: A file (CSV, TSV, Parquet, JSON lines), a folder of such, several, or a data frame.
        name: What the ensemble is called from now on; default: the file's name. It means what was imported last under
            it.
        run: Column that names the run, or several that do together; where there is none, each file is one run.
        step: Column of steps, whole numbers of 0 or more.
        key: Column that names the metric, where there is a row a metric.
        value: Column of the metrics' values, with `key`.
        wide: A row a step and columns `run - metric`, as Weights & Biases exports it.
        renamed: Metric in the table -> its name here, `{"loss": "train_loss"}`.
        constants: Metric that the table lacks -> its one value, `{"stability_threshold": 20}`.
        levels: What counts as memorised and as generalised, `{"test_accuracy": 99}`; nothing does where it is not said.
        force: Store it again.
        outputs: The outputs folder.

    Raises:
        ConfigError: A table cannot be read so, or the name cannot be used.
    """
    from dynalab.imports.rows import Form
    from dynalab.imports.runs import Changes
    from dynalab.imports.store import Order, import_table

    if isinstance(source, str | Path):
        source = [source]
    tables = [user_path(item) for item in source] if isinstance(source, Sequence) else source
    runs = () if run is None else (run,) if isinstance(run, str) else tuple(run)
    form = Form(runs, step, key, value, wide)
    order = Order(form, Changes(renamed or {}, constants or {}), levels, force)
    outcome = import_table(tables, outputs_root(outputs), name, order, ("dynalab.import_runs",))
    for line in outcome.doubts:
        warnings.warn(line, stacklevel=2)
    return outcome.ensemble


def load(ref: str | Path = "@last", *, outputs: str | Path | None = None) -> Any:
    """Open a stored ensemble, or a stored analysis.

        import dynalab
        result = dynalab.load("hmm-7ebafd365b")          # a Result
        result["paths"], result.table("states")          # plain values; a pandas data frame

        ensemble = dynalab.load("cb7150eb3e")            # an Ensemble; of an imported one the name will do
        ensemble.frame(), ensemble.array("test_loss")    # a pandas data frame; (S, T)

    Args:
        ref: An ensemble's id (its beginning is enough), folder or, of an imported one, name; `@last`; or an analysis'
            id, with its kind before it or without.
        outputs: The outputs folder.

    Returns:
        An `Ensemble`, or a `Result` where the id is an analysis'.

    Raises:
        NothingMatched: Nothing has this id.
        ConfigError: Several ensembles do.
    """
    root = outputs_root(outputs)
    try:
        selection = select(root, [str(ref)], None, Ensemble)
    except NothingMatched:
        with contextlib.suppress(NothingMatched):
            return find_result(root, str(ref))
        raise
    if len(selection) != 1:
        ids = ", ".join(ensemble.id for ensemble, _ in selection)
        raise ConfigError(f"{ref} means {len(selection)} ensembles ({ids}); name one")
    return selection[0][0]


@overload
def analyze(kind: str, ensemble: Ensemble | str, **keys: Any) -> Result: ...
@overload
def analyze(kind: str, ensemble: Sequence[Ensemble | str], **keys: Any) -> Any: ...
def analyze(kind: str, ensemble: Any, **keys: Any) -> Any:
    """Analyse an ensemble, as `dynalab analyze KIND` does; a stored result is reused.

    Args:
        kind: `hmm`, ...; one of your own is found in the folders of `DYNALAB_PATH` and among installed plug-ins.
        ensemble: An ensemble or its id, or several.
        **keys: Keys of the analysis; nested ones as dictionaries, `convergence={"metric": "loss"}`.

    Returns:
        The result; for several ensembles a list, one for each, unless the kind is about all of them together: one then.

    Raises:
        ConfigError: There is no such analysis, or a key does not exist or cannot have this value.
        NothingMatched: No run can enter.
    """
    from dynalab.analysis.command import analyse, gather, needs_of
    from dynalab.config.analysis import read_analysis

    several = isinstance(ensemble, list | tuple)
    refs = ensemble if several else [ensemble]
    opened = [item if isinstance(item, Ensemble) else load(item) for item in refs]
    part, config = read_analysis(kind, [], keys)
    across = needs_of(part, config).across
    if not opened and across:
        raise NothingMatched(f"analyze {kind} needs ensembles, and there is none")
    results = []
    for chosen in [opened] if across else [[item] for item in opened]:
        (inputs,) = gather([(item, item.runs) for item in chosen], part, config)
        results.append(analyse(inputs, part, config, chosen[0].path.parent.parent))
    return results if several and not across else results[0]


def view(result: Result | str, *, outputs: str | Path | None = None) -> View:
    """Return what an analysis says, as the page has it: a notebook shows it, `print` prints it.

    Args:
        result: A stored analysis, or its id.
        outputs: The outputs folder, where an id is given.

    Raises:
        ConfigError: The analysis is not there, has nothing to say, or is at another version than the result's.
        NothingMatched: No analysis has this id.
    """
    from dynalab.config.registry import find, search_path
    from dynalab.show.blocks import in_order
    from dynalab.show.view import View
    from dynalab.store.runfile import STATUSES

    if isinstance(result, str):
        result = find_result(outputs_root(outputs), result)
    if not isinstance(result, Result):
        raise ConfigError(f"view: expected a stored analysis or its id, not {type(result).__name__}")
    name = f"{result.kind}-{result.id}"
    module = find("analysis", result.kind, search_path()).module
    if not hasattr(module, "show"):
        raise ConfigError(
            f"{name}: the analysis {result.kind} has no blocks to show; `dynalab report` shows it"
        )
    if result.value is None:
        raise ConfigError(
            f"{name}: another version of the analysis made it; `dynalab analyze {result.kind}` makes it anew"
        )
    root = result.paths.root.parent.parent
    runs = [item["run"] for item in result.data.get("inputs") or ()]
    groups = []
    for ref in result.ensembles:
        # Figures are of what was recorded, where it is still there.
        with contextlib.suppress(NothingMatched):
            groups.append(load(ref, outputs=root).group(STATUSES, runs))
    return View(in_order(module.show(result.value, groups), result.warnings), name)
