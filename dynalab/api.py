"""The Python interface: what the command line does, as functions that return objects."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from dynalab.config.command import read_command
from dynalab.config.places import outputs_root, user_path
from dynalab.core.errors import ConfigError, DynalabError, NothingMatched
from dynalab.core.plugins import named
from dynalab.core.words import listed
from dynalab.store.find import Selection, readable, select
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, find_result

if TYPE_CHECKING:
    import pandas as pd

    from dynalab.launch.train import Outcome
    from dynalab.show.view import View

# What names ensembles: references, ensembles, and lists of these.
Refs = str | Path | Ensemble | Sequence[str | Path | Ensemble]


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
    for line in [*command.notes, *outcome.warnings, *outcome.report.warnings]:
        warnings.warn(line, stacklevel=3)
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
    left_out = (f"left out: {line}" for line in forking.left_out)
    for line in [*left_out, *outcome.warnings, *outcome.report.warnings]:
        warnings.warn(line, stacklevel=3)
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

        table = pandas.DataFrame({"run": ["a", "a"], "step": [0, 10], "loss": [2.3, 0.7]})
        ensemble = dynalab.import_runs(table, "mine", run="run", step="step", renamed={"loss": "train_loss"})
        ensemble = dynalab.import_runs("logs", "others")              # a folder of tables

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


@named
def load(ref: str | Path = "@last", *, outputs: str | Path | None = None) -> Any:
    """Open a stored ensemble, or a stored analysis.

        ensemble = dynalab.load("cb7150eb3e")            # an Ensemble; of an imported one the name will do
        ensemble.frame(), ensemble.array("train_loss")   # a pandas data frame; (S, T)

        result = dynalab.load("hmm-7ebafd365b")          # a Result
        result.headline, result["config"]                # a sentence; plain values
        result.frames()                                  # table -> pandas data frame

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
        ids = listed([ensemble.id for ensemble, _ in selection], 4)
        raise ConfigError(
            f"{ref} means {len(selection)} ensembles ({ids}): dynalab.load_all({str(ref)!r}) opens them all, "
            "dynalab.load(ID) one"
        )
    return selection[0][0]


def load_all(
    *refs: Refs, where: str | None = None, forks: bool = False, outputs: str | Path | None = None
) -> list[Ensemble]:
    """Open several stored ensembles, such as those of a sweep.

        for ensemble in dynalab.load_all():              # what was trained last
            print(ensemble, ensemble.array("test_accuracy")[:, -1])
        adaptive = dynalab.load_all(where="optimizer=adamw status=done")

    Args:
        *refs: As `load` takes them, without analyses; none: the last that were trained, with `where` everything.
        where: Terms of which all hold for some run of an ensemble, as `-f` of the commands: `optimizer.lr<0.01`.
        forks: Whether everything has forks in it.
        outputs: The outputs folder.

    Returns:
        The ensembles, each once, in the order in which they are named.

    Raises:
        NothingMatched: Nothing has this id, or no run fits.
        ConfigError: The beginning of an id is several ensembles', or a term cannot be read.
    """
    return [ensemble for ensemble, _ in _selection(refs, where, forks, outputs)]


def ensembles_frame(
    *refs: Refs, where: str | None = None, forks: bool = False, outputs: str | Path | None = None
) -> pd.DataFrame:
    """Return what became of runs: a pandas data frame with one row a run, for the statistics of a sweep.

        frame = dynalab.ensembles_frame()                # of what was trained last, or is being trained
        frame.groupby("ensemble")[["generalised_step", "final.test_accuracy"]].median()

    Args:
        *refs: As `load_all` takes them; of a run's id the run alone.
        where: As of `load_all`; only the runs for which all terms hold.
        forks: As of `load_all`.
        outputs: The outputs folder.

    Returns:
        A row a run, with the columns `ensemble` (its id), `task`, `run` (its id), `seed`, `label`, `status`, `steps`,
        `requested_steps`; each configuration key in which the ensembles differ (`optimizer.lr`; a part by its group,
        `optimizer`), missing where an ensemble has no such key; of forks `parent` and `parent_step`, of imported
        ensembles `name`; the landmarks `memorised_step`, `generalised_step`, `diverged_step`; and the last row's
        metrics, `final.test_accuracy`. Steps that never came are missing values of nullable integers.

    Raises:
        NothingMatched: Nothing has this id, or no run fits.
        ConfigError: The beginning of an id is several ensembles', or a term cannot be read.
        StoreError: The configurations of all of them are damaged.
    """
    from dynalab.store.outcomes import outcomes

    selection, lines = readable(_selection(refs, where, forks, outputs))
    for line in [*lines, *(line for ensemble, _ in selection for line in ensemble.warnings)]:
        warnings.warn(line, stacklevel=2)
    return outcomes(selection)


def _selection(
    refs: Iterable[Refs], where: str | None, forks: bool, outputs: str | Path | None
) -> Selection[Ensemble]:
    """Return what references name, as it is stored now: an ensemble that was opened before is opened again."""
    flat: list[str | Path | Ensemble] = []
    for ref in refs:
        flat += ref if isinstance(ref, list | tuple) else [ref]  # type: ignore[list-item]
    for ref in flat:
        if not isinstance(ref, str | Path | Ensemble):
            raise ConfigError(f"{ref!r}: expected an ensemble, its id or a list of these")
    opened = [ref for ref in flat if isinstance(ref, Ensemble)]
    root = outputs_root(opened[0].path.parent.parent if opened and outputs is None else outputs)
    if refs and not flat:
        raise NothingMatched("there are no ensembles in an empty list")
    names = [str(ref.path if isinstance(ref, Ensemble) else ref) for ref in flat]
    return select(root, names, where, Ensemble, forks)


@overload
def analyze(kind: str, ensemble: Ensemble | str, **keys: Any) -> Result: ...
@overload
def analyze(kind: str, ensemble: Any, *others: Any, **keys: Any) -> Any: ...
@named
def analyze(kind: str, ensemble: Any, *others: Any, **keys: Any) -> Any:
    """Analyse an ensemble, as `dynalab analyze KIND` does; a stored result is reused.

        result = dynalab.analyze("hmm", "cb7150eb3e", max_states=4)
        results = dynalab.analyze("hmm", dynalab.load_all())          # of each ensemble one

    Args:
        kind: `hmm`, ...; one of your own is found in the folders of `DYNALAB_PATH` and among installed plug-ins.
        ensemble: An ensemble or its id, or a list of several.
        *others: More of them.
        **keys: Keys of the analysis; nested ones as dictionaries, `convergence={"metric": "loss"}`.

    Returns:
        The result; for several ensembles a list, one for each, unless the kind is about all of them together, or
        `pool=True` makes one over all: one then.

    Raises:
        ConfigError: There is no such analysis, or a key does not exist or cannot have this value.
        NothingMatched: No run can enter.
    """
    from dynalab.analysis.command import analyse, gather, needs_of
    from dynalab.config.analysis import pooled, read_analysis
    from dynalab.config.overrides import Override

    ensemble = [ensemble, *others] if others else ensemble
    several = isinstance(ensemble, list | tuple)
    refs = ensemble if several else [ensemble]
    opened = [item if isinstance(item, Ensemble) else load(item) for item in refs]
    pool, overrides = pooled([Override.of(key, value) for key, value in keys.items()])
    part, config = read_analysis(kind, overrides)
    together = pool or needs_of(part, config).across
    if not opened and together:
        raise NothingMatched(f"analyze {kind} needs ensembles, and there is none")
    results = []
    for chosen in [opened] if together else [[item] for item in opened]:
        (inputs,) = gather([(item, item.runs) for item in chosen], part, config, pool=pool)
        results.append(analyse(inputs, part, config, chosen[0].path.parent.parent))
    return results if several and not together else results[0]


@named
def view(
    result: Result | str, *, size: tuple[float, float] | None = None, outputs: str | Path | None = None
) -> View:
    """Return what an analysis says, as the page has it: a notebook shows it, `print` prints it.

        view = dynalab.view("hmm-7ebafd365b", size=(6, 3))
        print(view)
        figures = [block for block in view if hasattr(block, "alt")]
        dynalab.figures.draw(figures[0], size=(3.25, 2.2)).savefig("figure.pdf")   # a column of a paper

    Args:
        result: A stored analysis, or its id.
        size: Width and height of its figures in inches; by default each has its own.
        outputs: The outputs folder, where an id is given.

    Raises:
        ConfigError: The analysis is not there, has nothing to say, or is at another version than the result's.
        NothingMatched: No analysis has this id.
    """
    from dynalab.analysis.command import blocks_of
    from dynalab.config.registry import find, search_path
    from dynalab.show.blocks import in_order
    from dynalab.show.view import View
    from dynalab.store.runfile import STATUSES

    if isinstance(result, str):
        result = find_result(outputs_root(outputs), result)
    if not isinstance(result, Result):
        raise ConfigError(f"view: expected a stored analysis or its id, not {type(result).__name__}")
    name = f"{result.kind}-{result.id}"
    part = find("analysis", result.kind, search_path())
    if not hasattr(part.module, "show"):
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
    said = in_order(blocks_of(part, result.value, groups), result.warnings)
    return View(said, name, size, part.module.show)
