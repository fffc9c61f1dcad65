"""The `train` command without its terminal: compose, compare with the store, launch, write the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dynalab.config.command import Command, Request
from dynalab.errors import StoreError
from dynalab.launch import inline, local
from dynalab.launch.base import Events, Report, Work
from dynalab.launch.trials import Plans
from dynalab.store import lock, runfile
from dynalab.store.atomic import check_writable, storing, write_bytes, write_json
from dynalab.store.layout import Layout, discard_untrained, lay_out, mend_config
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredEnsemble, StoredRun
from dynalab.store.table import are_whole, write_tables
from dynalab.training.planner import ADDRESS, Plan


@dataclass(frozen=True)
class Options:
    """Switches of the `train` command."""

    force: bool = False
    anyway: bool = False
    steal: bool = False
    dry_run: bool = False
    argv: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a `train` command found and did.

    Attributes:
        layouts: One for each ensemble.
        plan: The planner's choice for the new runs.
        report: What became of the work.
    """

    layouts: list[Layout]
    plan: Plan
    report: Report = field(default_factory=Report)

    @property
    def unfinished(self) -> list[str]:
        """A line for each shard that failed, or that another process is training."""
        busy = [
            f"{layout.paths.root.name}: {', '.join(sorted(layout.busy))[:60]} is being trained by {owner}"
            for layout in self.layouts
            for owner in sorted(set(layout.busy.values()))
        ]
        return [*self.report.failures.values(), *self.report.held.values(), *busy]

    @property
    def exit_code(self) -> int:
        """0; 3 where a run that was asked for did not end well; 2 where it was for the configuration's sake."""
        codes = set(self.report.codes.values())
        if codes:
            return 2 if codes == {2} else 3
        if (
            self.report.failures
            or self.report.held
            or any(layout.damaged or layout.busy for layout in self.layouts)
        ):
            return 3
        return 3 if any(run.status == "diverged" for item in self.layouts for run in stored_runs(item)) else 0


def stored_runs(layout: Layout) -> list[StoredRun]:
    """Return the stored runs that a request asked for, in its order."""
    if not layout.paths.config.is_file():
        return []
    by_label = {run.label: run for run in StoredEnsemble(layout.paths).runs}
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
        DynalabError: Something cannot be used or written at all; what only one shard suffers is in the report.
    """
    settings = command.settings
    outputs = OutputPaths(settings.outputs)
    plans = Plans(command)
    compared = [_lay_out(outputs, request, options, plans, write=False) for request in command.requests]
    if not options.dry_run and not options.steal:
        locks = [path for layout in compared for path in (layout.paths.lock, *layout.locks)]
        if lock.watch(locks, tell):
            compared = [
                _lay_out(outputs, request, options, plans, write=False) for request in command.requests
            ]
    outcome = Outcome(compared, plans.largest(compared))
    busy = any(layout.work for layout in compared)
    check_device = settings.device.startswith("cuda")
    if not busy and not check_device:
        if not options.dry_run:
            for layout in compared:
                mend_config(layout, settings.folders)
                if not are_whole(StoredEnsemble(layout.paths)):
                    write_tables(Ensemble(layout.paths))
            _remember(outputs, compared)
        return outcome
    if not options.dry_run:
        check_writable(outputs.root)
        for request in command.requests:
            check_data = getattr(request.config.task, "check_data", None)
            if check_data is not None:
                check_data()
    if options.dry_run and not check_device:
        return outcome
    count = min(outcome.plan.workers, max(sum(len(layout.work) for layout in compared), 1))
    pool = None if settings.launcher == "inline" else local.Pool(count, outcome.plan.threads)
    try:
        if pool is not None:
            # The workers are importing torch meanwhile; the first that is ready tries the step.
            plans.ask(pool, pool.device(settings.device))
        else:
            plans.ask(inline, inline.device(settings.device))
        if options.dry_run:
            return outcome
        for layout in compared:
            # Here, since a trial takes its time, and an ensemble is locked while it is laid out.
            plans.of(layout.request, len(layout.new))
        outcome.layouts = [
            _lay_out(outputs, request, options, plans, write=True) for request in command.requests
        ]
        outcome.plan = plans.largest(outcome.layouts)
        earlier = _remember(outputs, outcome.layouts)
        work = Work(
            shards=_by_size([shard for layout in outcome.layouts for shard in layout.work]),
            workers=outcome.plan.workers,
            threads=outcome.plan.threads,
            device=settings.device,
            checkpoint_every=settings.checkpoint.every,
            checkpoint_keep=settings.checkpoint.keep,
            steal=options.steal,
            argv=options.argv or tuple(sys.argv),
            exact=settings.compute.exact,
            folders=settings.folders,
        )
        events = watch(outcome)
        outcome.report = inline.run(work, events) if pool is None else local.run(work, events, pool)
        outcome.report.warnings[:0] = _without_bits(outcome.layouts, plans)
    finally:
        if pool is not None:
            pool.close()
    for layout in outcome.layouts:
        discard_untrained(layout.paths, [shard for shard, code in outcome.report.codes.items() if code == 2])
    stored = [layout for layout in outcome.layouts if layout.paths.config.is_file()]
    if stored and len(stored) < len(outcome.layouts):
        _remember(outputs, stored)
    elif not stored:
        _remember_again(outputs, earlier)
    for layout in stored:
        if layout.work or not are_whole(StoredEnsemble(layout.paths)):
            write_tables(Ensemble(layout.paths))
    return outcome


def _without_bits(layouts: Sequence[Layout], plans: Plans) -> list[str]:
    """Return a line where bits of new runs depend on where in memory their numbers lie, else none."""
    names = [
        layout.paths.root.name
        for layout in layouts
        if layout.new and plans.of(layout.request, len(layout.new)).bits == ADDRESS
    ]
    if not names:
        return []
    which = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return [
        f"{which}: bits do not hold on this machine for this network; its kernels round by where in "
        "memory numbers lie, so a seed's values may depend on its neighbours (plan.bits of run.json says so)"
    ]


def _by_size(shards: Sequence[ShardPaths]) -> list[ShardPaths]:
    """Return shards, those with most left to do first, so that no worker is left alone with a large one."""

    def left(paths: ShardPaths) -> int:
        shard = runfile.read(paths)
        return (shard.requested_steps - shard.steps) * len(shard.runs)

    return sorted(shards, key=left, reverse=True)


def _lay_out(
    outputs: OutputPaths, request: Request, options: Options, plans: Plans, *, write: bool
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
        inline=plans.command.settings.launcher == "inline",
    )


def _remember(outputs: OutputPaths, layouts: Sequence[Layout]) -> bytes | None:
    """Write which ensembles `@last` means, and return what the file held before; None where there was none."""
    with storing(outputs.last):
        outputs.root.mkdir(parents=True, exist_ok=True)
        before = outputs.last.read_bytes() if outputs.last.is_file() else None
    write_json(
        outputs.last, {"schema_version": 1, "ensembles": [layout.request.config.id for layout in layouts]}
    )
    return before


def _remember_again(outputs: OutputPaths, earlier: bytes | None) -> None:
    """Let `@last` mean what it did before: of this command nothing is stored."""
    if earlier is not None:
        write_bytes(outputs.last, earlier)
    else:
        with storing(outputs.last):
            outputs.last.unlink(missing_ok=True)


def seconds_per_step(layout: Layout) -> float | None:
    """Return the median seconds a step and seed took in stored runs of the same work, or None where none was timed.

    Args:
        layout: Its ensemble counts, and those of the same task, model and training.
    """
    config = layout.request.config.as_dict()
    rates: list[float] = []
    folders = sorted(layout.paths.root.parent.glob("*/")) if layout.paths.root.parent.is_dir() else []
    for ensemble in map(StoredEnsemble, folders):
        try:
            same = all(
                ensemble.config.get(part) == config[part] for part in ("task", "model", "train", "eval")
            )
        except StoreError:
            continue
        for run in ensemble.runs if same else ():
            for attempt in run.record.attempts:
                done = attempt.get("step", 0) - attempt.get("first_step", 0)
                if done > 0 and "train_seconds" in attempt:
                    rates.append(attempt["train_seconds"] / done / len(run.record.runs))
    return sorted(rates)[len(rates) // 2] if rates else None
