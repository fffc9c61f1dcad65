"""Forks: runs that go on from a stored state with one thing changed, an ensemble of their own.

A fork has its parent and the step it leaves it at in its identity. Up to that step it is its parent, to the bit: rows
and state are cut out of what the parent stored, from the newest checkpoint that was kept; what is missing up to the
step is trained once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dynalab.config.command import Command, Request, Settings
from dynalab.config.ensemble import RunSpec, from_stored
from dynalab.config.forks import Forks, Origin, Variant, is_setting, parse_fork, read_forks
from dynalab.config.overrides import Override
from dynalab.config.schema import Compute
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.forks import attempt_of, parent_and_step
from dynalab.core.words import count, listed
from dynalab.launch.base import Events
from dynalab.launch.layout import Layout, find_ensemble, mend_config
from dynalab.launch.train import Options, Outcome, remember, train
from dynalab.store import runfile
from dynalab.store.carve import branch
from dynalab.store.find import select
from dynalab.store.paths import OutputPaths
from dynalab.store.stored import StoredEnsemble, StoredRun


@dataclass(frozen=True)
class Forking:
    """What a `fork` command comes to, before anything is trained.

    Attributes:
        commands: What is to be trained: one command for each way in which the parent's runs were.
        left_out: A line for each run that has no such step.
        origins: Request's id -> the parent's runs of it, and the step; what is no fork has none.
    """

    commands: list[Command]
    left_out: list[str] = field(default_factory=list)
    origins: dict[str, tuple[list[StoredRun], int]] = field(default_factory=dict)

    def beside(self, other: Forking) -> Forking:
        """Return both plans as one: what is trained in the same way is one command."""
        commands: list[Command] = []
        for command in [*self.commands, *other.commands]:
            same = [item for item in commands if item.settings == command.settings]
            if same:
                same[0].requests.extend(command.requests)
            else:
                commands.append(replace(command, requests=list(command.requests)))
        return Forking(commands, [*self.left_out, *other.left_out], {**self.origins, **other.origins})


def read_fork(outputs: Path, ref: str, step: int, words: Sequence[str | Override]) -> Forking:
    """Read a `fork` command: of what is stored, or of what is gone and some forks of which are stored and go on.

    Args:
        outputs: The outputs folder.
        ref: An ensemble, or one of its runs.
        step: Where the forks leave it.
        words: What they do otherwise, as `plan_forks` takes them.

    Raises:
        ConfigError: The reference is of several ensembles, or as `plan_forks`.
        NothingMatched: Nothing is stored under it, or no run has the step.
    """
    try:
        selection = select(outputs, [ref], None, StoredEnsemble)
    except NothingMatched:
        if (forking := _plan_orphans(outputs, ref, step, words)) is None:
            raise
        return forking
    if len(selection) != 1:
        named = ", ".join(ensemble.id for ensemble, _ in selection[:5])
        raise ConfigError(f"{ref} is {len(selection)} ensembles ({named}); a fork is of one")
    ((parent, runs),) = selection
    return plan_forks(parent, runs, step, words, outputs=outputs)


def plan_forks(
    parent: StoredEnsemble,
    runs: Sequence[StoredRun],
    step: int,
    words: Sequence[str | Override],
    *,
    outputs: str | Path | None = None,
) -> Forking:
    """Read a `fork` command.

    Args:
        parent: The ensemble.
        runs: Those of its runs that are named.
        step: Where the forks leave it.
        words: What they do otherwise, and `seed=`, which chooses among the runs.
        outputs: The command's `--outputs`.

    Raises:
        ConfigError: The parent was not trained by dynalab, or a word cannot be used.
        NothingMatched: No run has the step.
    """
    if not (parent.config.get("optimizer") or {}).get("name"):
        raise ConfigError(f"{parent.id} was not trained by dynalab, so it cannot go on otherwise")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ConfigError(f"step={step}: expected an integer of at least 0")
    of, first = parent_and_step(parent.parent) if parent.parent else ("", 0)
    if step < first:
        raise ConfigError(
            f"{parent.id} leaves its parent at step {first:,}; what it was at step {step:,} is {of}: fork that"
        )
    if runs and max(run.steps for run in runs) < step:
        longest = max(run.steps for run in runs)
        raise NothingMatched(
            f"{parent.id} has no run to fork at step {step:,}: the longest has {count(longest, 'step')}"
        )
    overrides = parse_fork(words)
    stem = parent.path.name.rpartition("-")[0]
    forking = Forking([])
    for attempt in sorted({run.attempt for run in runs}):
        members = [run for run in runs if run.attempt == attempt]
        longest = max(run.requested_steps for run in members)
        origin = Origin(parent.id, parent.tree, step, attempt, stem, longest)
        forks = read_forks(origin, overrides, outputs=outputs)
        _require_same_network(parent.tree, forks)
        named = _named(members, forks.seeds, forking.left_out)
        chosen = list(_reaching(named, step, forking.left_out))
        planned = _plan(forks.settings, [(variant, chosen) for variant in forks.variants], step)
        forking = forking.beside(planned)
    if not forking.commands:
        lines = "; ".join(forking.left_out) or "no run has one of the seeds that are named"
        raise NothingMatched(f"{parent.id} has no run to fork at step {step:,}: {lines}")
    return forking


def _require_same_network(parent: Mapping[str, Any], forks: Forks) -> None:
    """Refuse forks whose words about the task or the model make another network, before anything is laid out."""
    folders = forks.settings.folders
    before = from_stored(parent, folders)
    changed = [
        item.config
        for item in forks.variants
        if (item.config.task, item.config.model) != (before.task, before.model)
    ]
    if changed:
        # Networks are built, which nothing else of a plan needs.
        from dynalab.networks.build import require_shapes, shapes_of

        theirs = shapes_of(before, folders)
        for config in changed:
            require_shapes(theirs, shapes_of(config, folders))


def plan_replay(
    fork: StoredEnsemble,
    runs: Sequence[StoredRun],
    words: Sequence[str | Override],
    steps: int,
    *,
    outputs: str | Path,
) -> Forking:
    """Plan to make runs of a fork once more, from what its parent keeps and into another outputs folder.

    Args:
        fork: The fork.
        runs: Those of its runs that are meant.
        words: How they are trained, and `seed=`, which chooses among them.
        steps: Their length.
        outputs: Where they are made.

    Raises:
        ConfigError: A word would make another fork, a plug-in has changed, or the length ends where the fork begins.
        NothingMatched: The parent's runs are not stored any more.
    """
    text = str(fork.parent)
    digest, step = parent_and_step(text)
    overrides = parse_fork(words)
    if strange := [item.written for item in overrides if not is_setting(item)]:
        raise ConfigError(
            f"{' '.join(strange)}: makes another fork; give keys of how it is trained, as compute.width"
        )
    if steps <= step:
        raise ConfigError(
            f"{count(steps, 'step')}: {fork.id} leaves its parent at step {step:,}; it needs more"
        )
    there = OutputPaths(fork.path.parent.parent).of_task(fork.task, digest)
    parents = StoredEnsemble(there).by_label if there else {}
    origin = Origin(digest, fork.tree.get("origin") or {}, step, attempt_of(text), steps=steps)
    forks = read_forks(origin, overrides, outputs=outputs)
    left_out: list[str] = []
    labels = [run.label for run in _named(runs, forks.seeds, left_out)]
    kept = [run for run in parents.values() if run.label in labels and run.attempt == origin.attempt]
    if gone := sorted({*labels} - {run.label for run in kept}):
        left_out.append(f"{text} of {listed(gone, 3)}, which {fork.id} goes on from, is not stored any more")
    chosen = list(_reaching(kept, step, left_out))
    if not chosen:
        raise NothingMatched("; ".join(left_out))
    config = from_stored(fork.tree, forks.settings.folders)
    config = replace(config, train=replace(config.train, steps=steps, epochs=None))
    streams = {name: seed for name, seed in asdict(config.seed_streams).items() if isinstance(seed, int)}
    planned = _plan(forks.settings, [(Variant(config, steps, [], fork.slug, streams), chosen)], step)
    return replace(planned, left_out=left_out)


def make_forks(
    forking: Forking,
    options: Options,
    watch: Callable[[Outcome], Events] = lambda outcome: Events(),
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train what was planned, or find it trained; what it came to is one outcome, also of several commands.

    Args:
        forking: The plan.
        options: Switches, as of `train`.
        watch: As `dynalab.launch.train.train` takes it.
        tell: Likewise.

    Raises:
        DynalabError: As `train`.
    """
    outcomes: list[Outcome] = []
    for command in forking.commands:
        if not options.dry_run:
            for request in command.requests:
                if origin := forking.origins.get(request.config.id):
                    _begin(command.settings, request, *origin)
        outcomes.append(train(command, options, watch, tell))
        if outcomes[-1].report.interrupted:
            break
    whole = outcomes[0]
    for outcome in outcomes[1:]:
        for layout in outcome.layouts:
            # Of one fork whose runs are trained in several ways.
            same = [item for item in whole.layouts if item.paths.root == layout.paths.root]
            if same:
                same[0].add(layout)
            else:
                whole.layouts.append(layout)
        whole.report.add(outcome.report)
        whole.warnings += [line for line in outcome.warnings if line not in whole.warnings]
    if options.remember and not options.dry_run and len(outcomes) > 1:
        remember(OutputPaths(forking.commands[0].settings.outputs), whole.layouts)
    return whole


def _plan_orphans(outputs: Path, ref: str, step: int, words: Sequence[str | Override]) -> Forking | None:
    """Read a `fork` command whose parent is gone: forks that are stored go on, from what they hold themselves.

    Returns:
        The plan; None where no fork of such a parent is stored.

    Raises:
        ConfigError: The reference is of several parents, or a word cannot be used.
        NothingMatched: The words ask for a fork that is not stored.
    """
    digest, _, label = ref.partition("/")
    by_parent: dict[str, list[StoredEnsemble]] = {}
    for item in map(StoredEnsemble, OutputPaths(outputs).ensembles()):
        if digest and item.is_fork and str(item.parent).startswith(digest) and "origin" in item.tree:
            by_parent.setdefault(str(item.parent), []).append(item)
    overrides = parse_fork(words)
    ids = {parent_and_step(text)[0] for text in by_parent}
    if len(ids) > 1:
        raise ConfigError(f"{ref} is ambiguous: {', '.join(sorted(ids)[:5])}")
    forking, there = Forking([]), list[str]()
    for text, members in by_parent.items():
        parent, left = parent_and_step(text)
        there += [f"{item.id} (step {left:,})" for item in members]
        if left != step:
            continue
        longest = max(run.requested_steps for item in members for run in item.runs)
        origin = Origin(parent, members[0].tree["origin"], step, attempt_of(text), steps=longest)
        forks = read_forks(origin, overrides, outputs=outputs)
        stored = {item.id: [run for run in item.runs if run.label.startswith(label)] for item in members}
        wanted = [
            (variant, _named(stored[variant.config.id], forks.seeds, forking.left_out))
            for variant in forks.variants
            if variant.config.id in stored
        ]
        if len(wanted) == len(forks.variants):
            forking = forking.beside(_plan(forks.settings, wanted, step))
    if by_parent and not forking.commands:
        raise NothingMatched(
            f"{ids.pop()} is not stored any more, so no new fork of it can be made; those that are stored go on with "
            f"the words that made them: {listed(there)}"
        )
    return forking if by_parent else None


def _plan(settings: Settings, wanted: Sequence[tuple[Variant, Sequence[StoredRun]]], step: int) -> Forking:
    """Return forks, each of some runs, as commands: one for each way in which the runs were trained."""
    commands: dict[tuple[str, Compute], Command] = {}
    origins: dict[str, tuple[list[StoredRun], int]] = {}
    for variant, runs in wanted:
        for (device, compute), some in _by_plan(runs, settings).items():
            specs = [
                RunSpec(run.label, run.seed, {**run.record.runs[run.index].streams, **variant.streams})
                for run in some
            ]
            request = Request(variant.config, specs, variant.steps, variant.overrides, variant.slug)
            own = replace(settings, device=device, compute=compute)
            commands.setdefault((device, compute), Command([], own)).requests.append(request)
            origins.setdefault(variant.config.id, ([], step))[0].extend(some)
    return Forking(list(commands.values()), origins=origins)


def _named(runs: Sequence[StoredRun], seeds: Sequence[int] | None, left_out: list[str]) -> list[StoredRun]:
    """Return the runs of some seeds, None for all, and note seeds that none has."""
    if seeds is None:
        return list(runs)
    there = {run.seed for run in runs}
    left_out += [f"no run that is named has seed {seed}" for seed in seeds if seed not in there]
    return [run for run in runs if run.seed in seeds]


def _reaching(runs: Sequence[StoredRun], step: int, left_out: list[str]) -> Iterator[StoredRun]:
    """Yield the runs that have a step, and note the others."""
    for run in runs:
        if run.diverged_step is not None and run.diverged_step <= step:
            left_out.append(f"{run.id} diverged at step {run.diverged_step:,}")
        elif run.steps < step:
            left_out.append(f"{run.id} has {count(run.steps, 'step')}")
        else:
            yield run


def _by_plan(runs: Sequence[StoredRun], settings: Settings) -> dict[tuple[str, Compute], list[StoredRun]]:
    """Return runs by how they were trained, as a fork of them is too: device, exactness, threads, code."""
    found: dict[tuple[str, Compute], list[StoredRun]] = {}
    for run in runs:
        plan = run.record.plan
        exact = bool(plan.get("exact", True))
        threads, own_code = None if exact else plan.get("threads"), runfile.is_compiled(plan)
        compute = replace(settings.compute, exact=exact, threads=threads, compile=own_code)
        found.setdefault((str(plan.get("device", "auto")), compute), []).append(run)
    return found


def _begin(settings: Settings, request: Request, runs: Sequence[StoredRun], step: int) -> None:
    """Lay what the parent kept where training goes on from it."""
    paths = find_ensemble(OutputPaths(settings.outputs), request)
    mend_config(Layout(request, paths), settings.folders)
    streams = {spec.label: spec.streams for spec in request.runs}
    branch(runs, step, paths, request.steps, settings.folders, streams)
