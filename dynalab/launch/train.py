"""The `train` command without its terminal: compose, compare with the store, launch, write the tables."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dynalab.config.command import Command, Request
from dynalab.config.places import typed
from dynalab.core.atomic import check_writable, storing, write_bytes, write_json
from dynalab.core.errors import ConfigError, RunsFailed, StoreError
from dynalab.core.forks import parent_and_step
from dynalab.launch.base import Events, Report, Work, launcher
from dynalab.launch.jobplans import plans_of
from dynalab.launch.layout import Layout, discard_untrained, failed_of, lay_out, mend_config
from dynalab.launch.rehearsal import failed_before, refusals
from dynalab.launch.snapshots import refuse_excess
from dynalab.launch.trials import Plans
from dynalab.networks import compiler
from dynalab.optim import rates
from dynalab.store import jobs, lock, runfile
from dynalab.store.commands import Announcement
from dynalab.store.jobs import Task
from dynalab.store.leftovers import tidy
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.stored import StoredEnsemble, StoredRun
from dynalab.store.table import refresh
from dynalab.training.cadence import scarce_probes, sparse_probes
from dynalab.training.job import Job
from dynalab.training.planner import ADDRESS, DRAWN, Plan


@dataclass(frozen=True)
class Options:
    """Switches of the `train` command.

    Attributes:
        force: Make a new attempt of every run.
        anyway: Go on under other versions than a half-done run began with.
        steal: Take over shards whoever holds them.
        dry_run: Write nothing.
        argv: The command, for provenance.
        remember: Whether `@last` means its ensembles from now on.
        retry: Train nothing but runs that failed or crashed.
        prepare: Make shards ready for `dynalab worker`, and train none.
        wait: Wait for jobs of a cluster, whatever `launcher.wait` says.
    """

    force: bool = False
    anyway: bool = False
    steal: bool = False
    dry_run: bool = False
    argv: tuple[str, ...] = ()
    remember: bool = True
    retry: bool = False
    prepare: bool = False
    wait: bool = True


@dataclass
class Outcome:
    """What a `train` command found and did.

    Attributes:
        layouts: One for each ensemble.
        plan: The planner's choice for the new runs.
        warnings: What is known before the work begins.
        report: What became of the work.
        prepared: Shards that were made ready, and trained by none.
    """

    layouts: list[Layout]
    plan: Plan
    warnings: list[str] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    prepared: list[ShardPaths] = field(default_factory=list)

    @cached_property
    def stored(self) -> list[list[StoredRun]]:
        """The runs that were asked for, by layout, as they are stored at the end: to read many takes time."""
        return [stored_runs(layout) for layout in self.layouts]

    @property
    def exit_code(self) -> int:
        """0; 3 where a run that was asked for did not end well; 2 where it was for the configuration's sake."""
        if codes := set(self.report.codes.values()):
            return 2 if codes == {2} else 3
        left = any(layout.damaged or layout.busy for layout in self.layouts)
        if self.report.failures or self.report.held or left:
            return 3
        return 3 if any(run.status == "diverged" for runs in self.stored for run in runs) else 0

    @property
    def held(self) -> list[str]:
        """A line for each process that was or is training runs that were asked for."""
        lines = []
        for layout in self.layouts:
            for owner, n_runs in sorted(Counter(layout.busy.values()).items()):
                name, runs = layout.paths.root.name, f"{n_runs} run{'s are' if n_runs > 1 else ' is'}"
                watch = typed("runs", "watch", layout.paths.digest, outputs=layout.paths.root.parent.parent)
                lines.append(
                    f"{name}: {runs} being trained by {owner}; `{watch}` shows how far, --steal takes them over"
                )
        return [*lines, *self.report.held.values()]

    def require_whole(self) -> None:
        """Raise where less was done than was asked for; runs that diverged are whole, and their status says so."""
        if self.report.interrupted:
            raise KeyboardInterrupt
        damaged = [line for layout in self.layouts if layout.damaged for line in layout.warnings]
        if lines := [*self.report.failures.values(), *self.held, *damaged]:
            refused = set(self.report.codes.values()) == {2}
            cause = next(filter(None, self.report.causes.values()), None)
            raise (ConfigError if refused else RunsFailed)("; ".join(dict.fromkeys(lines))) from cause


def stored_runs(layout: Layout) -> list[StoredRun]:
    """Return the stored runs that a request asked for, in its order."""
    if not layout.paths.config.is_file():
        return []
    by_label = StoredEnsemble(layout.paths).by_label
    return [by_label[spec.label] for spec in layout.request.runs if spec.label in by_label]


def train(
    command: Command,
    options: Options,
    watch: Callable[[Outcome], Events] = lambda outcome: Events(),
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Do what a `train` command asks.

    Args:
        command: The ensembles and settings.
        options: Its switches.
        watch: Called with the plan before work starts; returns the callbacks that watch it.
        tell: Takes a line where it is waited for a sign of life of writers on other machines.

    Raises:
        DynalabError: Something cannot be used or written at all, or snapshots would take too much; what only one shard
            suffers is in the report.
    """
    settings = command.settings
    outputs = OutputPaths(settings.outputs)
    if options.retry:
        command = replace(command, requests=failed_of(outputs, command.requests))
    plans = plans_of(command)
    queued = jobs.under_way(outputs) if plans.elsewhere and not options.prepare else {}
    compared = [
        _lay_out(outputs, request, options, plans, queued, write=False) for request in command.requests
    ]
    if not options.dry_run and not options.steal:
        locks = [path for layout in compared for path in (layout.paths.lock, *layout.locks)]
        if lock.watch(locks, tell):
            compared = [
                _lay_out(outputs, request, options, plans, queued, write=False)
                for request in command.requests
            ]
    outcome = Outcome(compared, plans.largest(compared), _doubts(compared, settings.folders, options))
    wait = options.wait or settings.slurm.wait
    busy = any(layout.work or (wait and layout.waiting) for layout in compared)
    check_device = settings.device.startswith("cuda") and not plans.elsewhere
    if not busy and not check_device:
        if not options.dry_run:
            for layout in compared:
                mend_config(layout, settings.folders)
                refresh(layout.paths)
            if options.remember:
                remember(outputs, compared, options.argv)
            tidy(outputs, [layout.paths for layout in compared])
            if plans.elsewhere:
                jobs.sweep(outputs)
            outcome.report.jobs = _waiting(compared)
        return outcome
    check_writable(outputs.root, make=not options.dry_run)
    for request in command.requests:
        check_data = getattr(request.config.task, "check_data", None)
        if check_data is not None:
            check_data()
    asked, here = settings.compute.compile, not plans.elsewhere
    compiles = here and any(
        compiler.planned(asked, request.config, settings.device) for request in command.requests
    )
    if compiles and asked:
        compiler.require()
    most_gb = settings.compute.snapshot_gb
    if options.dry_run or options.prepare:
        refuse_excess(compared, most_gb, plans.size)
        report = outcome.report
        report.failures, report.codes = refusals(settings, compared, outcome.plan.threads)
        if options.dry_run:
            report.warnings += [*failed_before(compared, report.failures), *_without_bits(compared, plans)]
            new = any(layout.new for layout in compared)
            if new and plans.promises_bits and outcome.plan.bits is None:
                why = f"{outcome.plan.reason}; whether bits hold is tried before it trains, not here"
                outcome.plan = replace(outcome.plan, reason=why)
        if options.dry_run or report.failures:
            return outcome
    count = min(outcome.plan.workers, max(sum(len(layout.work) for layout in compared), 1))
    with contextlib.ExitStack() as stack:
        announcement = stack.enter_context(Announcement(outputs))
        trainer = launcher(settings.launcher)(count, outcome.plan.threads)
        stack.callback(trainer.close)
        # Workers are importing torch meanwhile, and ask for the library afterwards, so that it is made once.
        if compiles:
            compiler.made(asked, tell)
        # The first that is ready tries the step.
        plans.ask(trainer)
        if not options.prepare:
            plans.survey(compared, tell)
        try:
            refuse_excess(compared, most_gb, plans.size)
        except ConfigError:
            for layout in compared:
                # Of a fork what its parent kept is laid out already.
                if layout.paths.root.is_dir():
                    discard_untrained(layout.paths, layout.work)
            raise
        for layout in compared:
            # Here, since a trial takes its time, and an ensemble is locked while it is laid out.
            plans.of(layout.request, len(layout.new))
        outcome.layouts = [
            _lay_out(outputs, request, options, plans, queued, write=True) for request in command.requests
        ]
        outcome.plan = plans.largest(outcome.layouts)
        earlier = remember(outputs, outcome.layouts, options.argv) if options.remember else None
        job = Job(
            device=plans.asked,
            checkpoint_every=settings.checkpoint.every,
            checkpoint_keep=settings.checkpoint.keep,
            steal=options.steal,
            argv=options.argv or tuple(sys.argv),
            threads=outcome.plan.threads,
            exact=settings.compute.exact,
            graph=settings.compute.graph,
            compile=False if asked is None and outcome.plan.by_torch else asked,
            folders=settings.folders,
            anyway=options.anyway,
        )
        shards = _by_size([shard for layout in outcome.layouts for shard in layout.work])
        if options.prepare:
            for shard in shards:
                job.write(shard)
            outcome.prepared = shards
            return outcome
        if not plans.elsewhere:
            announcement.of(shards, outcome.plan.workers)
        waiting = _waiting(outcome.layouts)
        stop = settings.on_error == "stop"
        work = Work(shards, outcome.plan.workers, job, stop, settings.slurm, wait, waiting)
        outcome.report = trainer.run(work, watch(outcome))
        if not wait or outcome.report.interrupted:
            outcome.report.jobs = waiting | outcome.report.jobs
        # Of shards that are alike, once.
        said = _without_bits(outcome.layouts, plans) + outcome.report.warnings
        outcome.report.warnings[:] = dict.fromkeys(said)
    for layout in outcome.layouts:
        discard_untrained(layout.paths, [shard for shard, code in outcome.report.codes.items() if code == 2])
    stored = [layout for layout in outcome.layouts if layout.paths.config.is_file()]
    if earlier is not None and len(stored) < len(outcome.layouts):
        _forget(outputs, stored, *earlier)
    for layout in stored:
        refresh(layout.paths)
    tidy(outputs, [layout.paths for layout in stored])
    return outcome


def _doubts(layouts: Sequence[Layout], folders: Sequence[Path], options: Options) -> list[str]:
    """Return a line for each probe with no rows, or too few, in what is to be trained, and for each change too late."""
    lines: dict[str, None] = {}
    for layout in layouts:
        config, steps = layout.request.config, layout.request.steps
        begin = parent_and_step(config.parent)[1] if config.parent else 0
        if layout.work and steps:
            lines |= dict.fromkeys(sparse_probes(config, begin, steps, folders))
            # Who writes Python knows the length beside the schedule, and an analysis that is asked for says it.
            told = options.dry_run or options.argv[:1] == ("dynalab",)
            # A fork has its parent's rows before it began, where the parent has any.
            lines |= dict.fromkeys(scarce_probes(config, steps, folders) if told and not begin else ())
            lines |= dict.fromkeys(rates.beyond(config, steps, folders) if told else ())
    return list(lines)


_WHY_NO_BITS = {
    ADDRESS: "bits do not hold on this machine for this network; its kernels round by where in memory numbers lie, so "
    "a seed's values may depend on its neighbours",
    DRAWN: "the same seed gave other numbers the second time, so no run of it can be made again; does a part of yours "
    "draw from a generator of torch's or numpy's own in place of its stream's (`streams[i].torch(...)`)?",
}


def _without_bits(layouts: Sequence[Layout], plans: Plans) -> list[str]:
    """Return a line for each reason for which bits of new runs are not their seed's own."""
    names: dict[str | None, list[str]] = {}
    for layout in layouts:
        if layout.new:
            verdict = plans.of(layout.request, len(layout.new)).bits
            names.setdefault(verdict, []).append(layout.paths.root.name)
    return [
        f"{which[0]}{f' and {len(which) - 1} more' if which[1:] else ''}: {why} (plan.bits of run.json says so)"
        for verdict, why in _WHY_NO_BITS.items()
        if (which := names.get(verdict))
    ]


def _by_size(shards: Sequence[ShardPaths]) -> list[ShardPaths]:
    """Return shards, those with most left to do first, so that no worker is left alone with a large one."""

    def left(paths: ShardPaths) -> int:
        shard = runfile.read(paths)
        return (shard.requested_steps - shard.steps) * len(shard.runs)

    return sorted(shards, key=left, reverse=True)


def _waiting(layouts: Sequence[Layout]) -> dict[ShardPaths, Task]:
    """Return the shards that a scheduler had a job of before, and the jobs."""
    return {paths: task for layout in layouts for paths, task in layout.waiting.items()}


def _lay_out(
    outputs: OutputPaths,
    request: Request,
    options: Options,
    plans: Plans,
    queued: Mapping[ShardPaths, Task],
    *,
    write: bool,
) -> Layout:
    return lay_out(
        outputs,
        request,
        lambda n_new: plans.of(request, n_new),
        write=write,
        force=options.force,
        anyway=options.anyway,
        steal=options.steal,
        folders=plans.command.settings.folders,
        apart=plans.apart,
        elsewhere=plans.elsewhere,
        queued=queued,
    )


def remember(
    outputs: OutputPaths, layouts: Sequence[Layout], argv: Sequence[str] = ()
) -> tuple[bytes | None, bytes | None]:
    """Write which ensembles `@last` means; return what the file held before, None where there was none, and holds.

    Args:
        outputs: The outputs folder.
        layouts: The ensembles.
        argv: The command, by which it is known when it is given again.
    """
    with storing(outputs.last):
        outputs.root.mkdir(parents=True, exist_ok=True)
    before = _read(outputs.last)
    ids = [layout.request.config.id for layout in layouts]
    write_json(outputs.last, {"schema_version": 1, "ensembles": ids, "argv": list(argv)})
    return before, _read(outputs.last)


def _forget(
    outputs: OutputPaths, stored: Sequence[Layout], before: bytes | None, written: bytes | None
) -> None:
    """Let `@last` mean what is stored of this command, else what it did before; another's word is left alone."""
    if _read(outputs.last) != written:
        return
    if stored:
        remember(outputs, stored)
    elif before is not None:
        write_bytes(outputs.last, before)
    else:
        with storing(outputs.last):
            outputs.last.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def seconds_per_step(layouts: Sequence[Layout]) -> list[float | None]:
    """Return for each of a command's ensembles the median seconds a step and seed took in stored runs of the same work.

    None where no run of the same task, model and training was timed, or nothing is left to do.
    """
    rates: dict[str, list[float]] = {}
    tasks = {layout.paths.root.parent for layout in layouts if layout.work}
    for folder in sorted(place for task in tasks if task.is_dir() for place in task.glob("*/")):
        ensemble = StoredEnsemble(folder)
        try:
            work = _work(ensemble.config)
        except StoreError:
            continue
        for run in ensemble.runs:
            for attempt in run.record.attempts:
                done = attempt.get("step", 0) - attempt.get("first_step", 0)
                if done > 0 and "train_seconds" in attempt:
                    rate = attempt["train_seconds"] / done / len(run.record.runs)
                    rates.setdefault(work, []).append(rate)
    known = [
        rates.get(_work(layout.request.config.as_dict()) if layout.work else "", []) for layout in layouts
    ]
    return [sorted(found)[len(found) // 2] if found else None for found in known]


def _work(config: Mapping[str, Any]) -> str:
    """Return what decides the time of a step, as text."""
    return json.dumps([config.get(part) for part in ("task", "model", "train", "eval")], sort_keys=True)
