"""`dynalab runs list|show`, and the group that the other commands on runs hang on."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import yaml

from dynalab.cli import runs_archive, runs_files, runs_order, runs_query, runs_rerun
from dynalab.cli.options import (
    columns,
    echo,
    emit_json,
    filter_options,
    named_seeds,
    note,
    result_options,
    run_fields,
    span,
    warn,
)
from dynalab.cli.runs_analyses import list_analyses, show_analysis
from dynalab.cli.runs_watch import watch_runs
from dynalab.config.places import outputs_root
from dynalab.config.registry import search_path
from dynalab.config.seeds import format_seeds
from dynalab.core.errors import ConfigError, DynalabError, NothingMatched, StoreError
from dynalab.core.words import count
from dynalab.store.code import codes
from dynalab.store.filters import ordered, values
from dynalab.store.find import Selection, forks_of, orphaned, readable, select
from dynalab.store.paths import OutputPaths
from dynalab.store.results import is_analysis
from dynalab.store.stored import StoredEnsemble, StoredRun
from dynalab.store.tags import of_run

if TYPE_CHECKING:
    from dynalab.store.reader import Ensemble


@click.group("runs")
def command() -> None:
    """List, show, watch, compare, query, tag, archive and remove what is stored."""


for item in (
    *(watch_runs, runs_files.diff_runs, runs_files.export_runs, runs_query.query_runs, runs_rerun.rerun),
    *(runs_order.tag_runs, runs_archive.archive_runs, runs_archive.unpack_runs),
    *(runs_order.show_usage, runs_order.collect_waste, runs_files.remove_runs),
):
    command.add_command(item)


def run_json(ensemble: StoredEnsemble, run: StoredRun) -> dict[str, Any]:
    """Return a run as `--json` gives it; that of a fork has a `parent`."""
    about: dict[str, Any] = {"ensemble": ensemble.id, "task": ensemble.task, "started": run.started}
    parent = _parent(ensemble)
    about |= {} if parent is None else {"parent": parent}
    return run_fields(run) | about | ({"tags": found} if (found := of_run(ensemble.tags, run.label)) else {})


def _parent(ensemble: StoredEnsemble) -> str | None:
    """Return what an ensemble is a fork of, `ID@STEP`; None where it is none, or damaged, which its warnings say."""
    try:
        return ensemble.parent
    except StoreError as error:
        ensemble.leave_out(ensemble.paths.config.name, str(error))
        return None


@command.command("list")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@click.option("-e", "--ensembles", is_flag=True, help="A line an ensemble instead of a line a run.")
@click.option("-a", "--analyses", is_flag=True, help="The stored analyses instead of the runs.")
@click.option(
    "--sort", metavar="KEY", help="By any key of a filter, as final.test_loss; -KEY: largest first."
)
@click.option(
    "--cols", metavar="KEYS", help="These columns, as optimizer.lr,final.test_loss: keys of a filter."
)
@click.option("-n", "most", type=click.IntRange(min=1), metavar="N", help="No more than the first N runs.")
@click.option("--ids", is_flag=True, help="Ids alone, a line each, for other commands.")
@result_options
def list_runs(
    refs: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    ensembles: bool,
    analyses: bool,
    sort: str | None,
    cols: str | None,
    most: int | None,
    ids: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """List the stored runs, or analyses.

    \b
    dynalab runs list
    dynalab runs list -f 'task=grokking status=done'
    dynalab runs list --sort final.test_loss -n 5 --cols optimizer.lr,status,final.test_loss
    dynalab runs list -f 'seed<5' --ids | xargs dynalab runs tag --add paper
    dynalab runs list --analyses
    """
    root = outputs_root(outputs)
    if (analyses and (sort or most or ids)) or (ensembles and (sort or most)):
        raise ConfigError("--sort, -n and --ids are of runs, and --ids of ensembles as well")
    if ids + as_json + (cols is not None) > 1:
        raise ConfigError("--ids, --cols and --json: give only one (--json has every column)")
    if cols is not None and (ensembles or analyses):
        raise ConfigError("--cols is of runs")
    if analyses:
        return list_analyses(root, refs, filter_text, as_json)
    if not refs and not filter_text and not OutputPaths(root).ensembles():
        if as_json:
            emit_json({"runs": []})
        else:
            missing = "" if root.is_dir() else ", which is no folder"
            note(f"no runs in {root}{missing}; train some: dynalab train task=grokking seed=0..3")
        return 0
    try:
        selection = select(root, refs or ("@all",), filter_text, StoredEnsemble, forks)
        hidden = {} if as_json else forks_of(root, [ensemble.id for ensemble, _ in selection])
    except NothingMatched:
        if as_json:
            emit_json({"runs": []})
        raise
    stored = {ensemble.id: ensemble for ensemble, _ in selection}.values()
    if sort:
        selection = ordered(selection, sort)
    if most:
        pairs = [(ensemble, [run]) for ensemble, runs in selection for run in runs]
        selection = pairs[:most]
    if as_json:
        emit_json({"runs": [run_json(ensemble, run) for ensemble, runs in selection for run in runs]})
    elif ids:
        of_runs = [run.id for _, runs in selection for run in runs]
        echo("\n".join([ensemble.id for ensemble, _ in selection] if ensembles else of_runs))
    elif cols is not None:
        names = [name for word in cols.split(",") if (name := word.strip())]
        table = [[run.id for _, runs in selection for run in runs]]
        table += [list(map(_cell, values(selection, name, f"--cols {cols}"))) for name in names]
        echo(columns(["run", *names], [list(row) for row in zip(*table, strict=True)]))
    else:
        echo(columns(*(_by_ensemble if ensembles else _by_run)(selection, hidden)))
    warn([line for ensemble in stored for line in ensemble.warnings])
    return 3 if any(ensemble.damaged for ensemble in stored) else 0


def _cell(value: Any) -> Any:
    """Return a value as it is typed: a part by its name, a list as [a,b]."""
    value = value["name"] if isinstance(value, Mapping) else value
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else value


def _by_run(
    selection: Selection[StoredEnsemble], hidden: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[list[Any]]]:
    header = ["run", "task", "configuration", "status", "steps", "memorised", "generalised", "started"]
    parents = [_parent(ensemble) for ensemble, _ in selection]
    forks = any(parents)
    header += ["fork of"] * forks
    tagged = any(ensemble.tags for ensemble, _ in selection)
    header += ["tags"] * tagged
    rows = []
    for (ensemble, runs), parent in zip(selection, parents, strict=True):
        for run in runs:
            summary = run.summary or {}
            rows.append(
                [
                    run.id,
                    ensemble.task,
                    _slug(ensemble, hidden),
                    run.status,
                    f"{run.steps}/{run.requested_steps}" if run.steps < run.requested_steps else run.steps,
                    summary.get("memorised_step"),
                    summary.get("generalised_step"),
                    (run.started or "").replace("T", " ")[:16] or None,
                    *([parent] if forks else []),
                    *([", ".join(of_run(ensemble.tags, run.label)) or None] if tagged else []),
                ]
            )
    return header, rows


def _by_ensemble(
    selection: Selection[StoredEnsemble], hidden: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[list[Any]]]:
    rows: list[list[Any]] = []
    forks = any(_parent(ensemble) for ensemble, _ in selection)
    for ensemble, runs in selection:
        status = ", ".join(f"{n} {name}" for name, n in Counter(run.status for run in runs).items())
        steps = span([run.steps for run in runs])
        seeds = named_seeds([run.seed for run in runs])
        cells = [ensemble.id, ensemble.task, _slug(ensemble, hidden), seeds, status, steps]
        rows.append([*cells, *([_parent(ensemble)] if forks else []), ensemble.path])
    header = ["ensemble", "task", "configuration", "seeds", "status", "steps"]
    return [*header, *["fork of"] * forks, "path"], rows


def _slug(ensemble: StoredEnsemble, hidden: Mapping[str, Sequence[str]]) -> str:
    """Name an ensemble in a list, with the number of its forks that are not listed."""
    forks = hidden.get(ensemble.id)
    more = f" +{count(len(forks), 'fork')}" if forks else ""
    return ensemble.slug + more


@command.command("show")
@click.argument("ref", metavar="RUN|ENSEMBLE|ANALYSIS", default="@last")
@result_options
def show_run(ref: str, as_json: bool, outputs: str | None) -> int:
    """Show a run, ensemble or analysis.

    What it is, what became of it, and where its files lie.
    """
    from dynalab.store.reader import Ensemble

    root = outputs_root(outputs)
    try:
        chosen = select(root, [ref], None, Ensemble)
    except NothingMatched:
        if not is_analysis(root, ref):
            raise
        return show_analysis(root, ref, as_json)
    selection, left_out = readable(chosen)
    documents = [_document(ensemble, runs) for ensemble, runs in selection]
    warn(left_out + [line for ensemble, _ in selection for line in ensemble.warnings])
    warn([line for ensemble, _ in selection if (line := orphaned(root, ensemble))])
    code = 3 if left_out or any(ensemble.damaged for ensemble, _ in selection) else 0
    if as_json:
        emit_json({"ensembles": documents})
        return code
    for place, document in enumerate(documents):
        echo(
            ("---\n" if place else "")
            + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100).rstrip()
        )
    return code


def _command(ensemble: Ensemble, runs: list[StoredRun]) -> str | None:
    """Return the command that makes runs again from the stored configuration alone; None where none does."""
    from dynalab.config.command import words_of
    from dynalab.config.ensemble import from_stored
    from dynalab.config.forks import fork_command
    from dynalab.store.read import read_yaml

    if ensemble.imported or not runs:
        return None
    seeds = [run.seed for run in runs if run.seed is not None]
    chosen = [f"seed={format_seeds(seeds)}"] if seeds else []
    if ensemble.parent:
        try:
            words = read_yaml(ensemble.paths.overrides)
        except StoreError:
            return None
        # The length of the first command may not be that of the last.
        words = [str(word) for word in words or () if not str(word).startswith("train.steps=")]
        made = fork_command(words, f"train.steps={max(run.requested_steps for run in runs)}", *chosen)
        return shlex.join(made) if made else None
    try:
        config = from_stored(ensemble.config, search_path())
    except DynalabError:
        return None
    if (words := words_of(config)) is None:
        return None
    if not config.depends_on_total:
        words.append(f"train.steps={max(run.requested_steps for run in runs)}")
    return shlex.join(["dynalab", "train", *words, *chosen])


def _document(ensemble: Ensemble, runs: list[StoredRun]) -> dict[str, Any]:
    from dynalab.training.shown import shown_stored

    shards = {run.shard.root: run for run in runs}
    steps = max((run.requested_steps for run in runs), default=None)
    attempts = [attempt for run in shards.values() for attempt in run.record.attempts]
    return {
        "id": ensemble.id,
        "task": ensemble.task,
        "path": str(ensemble.path),
        "command": _command(ensemble, runs),
        "config": shown_stored(ensemble.config, steps, search_path()),
        "metrics": ensemble.columns(),
        "code": [item.line for item in codes(ensemble.paths, attempts)],
        "runs": [run_json(ensemble, run) for run in runs],
        "shards": [
            {
                "folder": str(root),
                "attempts": run.record.attempts,
                "checkpoints": [item.step for item in run.shard.checkpoints()],
                "snapshots": list(run.shard.snapshots()),
            }
            for root, run in shards.items()
        ],
    }
