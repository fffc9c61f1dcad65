"""`dynalab worker`: one shard without a command that waits for it, for schedulers of any kind."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from dynalab.cli.options import (
    columns,
    config_dir_option,
    echo,
    emit_json,
    is_interactive,
    named_seeds,
    note,
    quiet_option,
    run_fields,
    warn,
)
from dynalab.config.places import user_path
from dynalab.config.registry import search_path
from dynalab.core.errors import ConfigError
from dynalab.core.words import count, listed
from dynalab.store import runfile
from dynalab.store.names import ENSEMBLE, SHARD
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.stored import StoredEnsemble, StoredRun


@click.command("worker")
@click.option("--shard", required=True, metavar="DIR", help="The shard's folder, outputs/TASK/NAME/shard-...")
@click.option("--anyway", is_flag=True, help="Go on under other versions than a half-done shard began with.")
@click.option("--steal", is_flag=True, help="Take the shard over from a process that holds it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@config_dir_option
@quiet_option
def command(shard: str, anyway: bool, steal: bool, as_json: bool, quiet: bool) -> int:
    """Train one shard to its end, or go on with it, in this process.

    For job arrays, GNU parallel and schedulers of any kind: `dynalab train ... --prepare` makes shards ready and prints
    their folders, a worker each trains them wherever the outputs folder is seen. SIGTERM, and the warnings that
    schedulers send before they kill (SIGUSR1, SIGUSR2, SIGXCPU), end it with its state saved and exit code 130; the
    same command goes on.

    \b
    dynalab train task=grokking seed=0..99 compute.width=10 --prepare > shards.txt
    parallel -a shards.txt dynalab worker --shard {}
    """
    from dynalab.launch import compare
    from dynalab.training.job import Job
    from dynalab.training.provenance import bits_of

    paths = _shard(shard)
    job = Job.read(paths, steal=steal, folders=tuple(search_path()))
    record = runfile.read(paths)
    if record.status in runfile.FINAL:
        note(f"{paths.root.name}: nothing to train, all is done")
        return _conclude(paths, {}, as_json)
    if not anyway:
        compare.check_bits(paths, record, bits_of())
    return _train(paths, job, as_json, quiet)


def _shard(shard: str) -> ShardPaths:
    """Return the shard that a path names.

    Raises:
        ConfigError: It names none.
    """
    root = Path(os.path.abspath(user_path(shard)))
    paths = ShardPaths(root)
    if SHARD.fullmatch(root.name) and ENSEMBLE.fullmatch(root.parent.name) and os.path.lexists(paths.run):
        paths.refuse_links()
        return paths
    there = [item.root.name for item in EnsemblePaths(root).shards()] if root.is_dir() else []
    if there:
        raise ConfigError(f"--shard {shard}: an ensemble, not a shard; its shards are {listed(there, 4)}")
    what = "no shard of an outputs folder" if root.is_dir() else "no such folder"
    raise ConfigError(
        f"--shard {shard}: {what}; `dynalab train ... --prepare` prints the shards that it made ready"
    )


def _train(paths: ShardPaths, job: Any, as_json: bool, quiet: bool) -> int:
    from dynalab.cli.board import Board, showing
    from dynalab.core.machine import keep_memory
    from dynalab.launch.base import Events, Work, launcher
    from dynalab.launch.process import environment
    from dynalab.store.table import refresh
    from dynalab.worker import spare_compiler

    # Before torch is loaded: OpenMP reads it once.
    threads = job.threads or 1
    os.environ.update(environment(threads))
    keep_memory()
    spare_compiler()
    # A plug-in that is not here, or is another by now, is the command's to mend: no attempt of the shard has failed.
    StoredEnsemble(paths.ensemble).typed_config(job.folders)
    with contextlib.ExitStack() as stack:
        if not quiet:
            runs = count(len(runfile.read(paths).runs), "run")
            note(f"training {paths.ensemble.digest}/{paths.root.name}: {runs}")
            board = Board(paths.ensemble.root.parent.parent, [paths])
            stack.enter_context(showing(board, is_interactive()))
        work = Work([paths], 1, job)
        report = launcher("inline")(1, threads).run(work, Events())
    warn(report.warnings)
    for line in report.held.values():
        note(line)
    for line in report.failures.values():
        note(f"failed: {paths.ensemble.root.name}/{paths.root.name}: {line}")
    refresh(paths.ensemble)
    code = max([3] * bool(report.held or report.failures) + [*report.codes.values()], default=0)
    if report.interrupted and not code:
        note("interrupted; the state is saved and the same command goes on")
        code = 130
    return _conclude(paths, {"code": code}, as_json)


def _conclude(paths: ShardPaths, ended: dict[str, int], as_json: bool) -> int:
    """Print what became of the runs; return the exit code."""
    ensemble = StoredEnsemble(paths.ensemble)
    runs: list[StoredRun] = [run for run in ensemble.runs if run.shard == paths]
    if as_json:
        about = {"shard": str(paths.root), "ensemble": ensemble.id}
        emit_json({**about, "runs": [run_fields(run) for run in runs]})
    else:
        states = Counter(run.status for run in runs)
        status = ", ".join(f"{n} {name}" for name, n in states.items())
        steps = max((run.steps for run in runs), default=0)
        row = [ensemble.id, named_seeds([run.seed for run in runs]), status, steps, paths.root]
        echo(columns(["ensemble", "seeds", "status", "steps", "shard"], [row]))
    diverged = any(run.status == "diverged" for run in runs)
    return ended.get("code", 0) or (3 if diverged else 0)
