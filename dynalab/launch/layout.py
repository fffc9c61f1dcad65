"""What of a request is stored already, what goes on, and which new shards it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from dynalab.config.command import Request
from dynalab.config.ensemble import RunSpec, from_stored
from dynalab.config.seeds import idle_streams
from dynalab.core.atomic import discard, making, storing, sweep, write_text
from dynalab.core.errors import ConfigError, DynalabError, Locked, NothingMatched, StoreError
from dynalab.launch.compare import StoredShard, leave_alone, sort_run
from dynalab.store import runfile
from dynalab.store.carve import is_untrained, undo_unfinished
from dynalab.store.jobs import Task
from dynalab.store.lock import Lock
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training.planner import Plan
from dynalab.training.provenance import bits_of

# For the lay-outs of other commands on the same ensemble; a job array may start hundreds at once.
WAIT_SECONDS = 60.0


@dataclass
class Layout:
    """The shards of one request.

    Attributes:
        request: What was asked.
        paths: The ensemble's folder (which a dry run does not make).
        work: Shards to train, existing ones first.
        done: Labels of runs that need nothing.
        resumed: Labels of runs that go on.
        new: Labels of runs that start, and have no shard yet.
        laid: Labels of runs that start in a shard that is there, as one that was cut out of a fork's parent.
        busy: Labels of runs that another process is training, and by whom; `locks` are those that it holds.
        warnings: What is damaged or odd.
        damaged: Shards that cannot be read.
        stored_steps: Label -> updates stored, of the runs that go on.
        cut_off: Label -> (updates stored, updates once asked for), of the runs in `done` that were cut off, but
            beyond the length that is asked for now.
        queued: Label -> its job, of the runs that a scheduler has a job of; `waiting` are their shards.
    """

    request: Request
    paths: EnsemblePaths
    work: list[ShardPaths] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    laid: list[str] = field(default_factory=list)
    busy: dict[str, str] = field(default_factory=dict)
    locks: set[Path] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    damaged: list[ShardPaths] = field(default_factory=list)
    stored_steps: dict[str, int] = field(default_factory=dict)
    cut_off: dict[str, tuple[int, int]] = field(default_factory=dict)
    queued: dict[str, Task] = field(default_factory=dict)
    waiting: dict[ShardPaths, Task] = field(default_factory=dict)

    def add(self, other: Layout) -> None:
        """Add what another one says of other runs of the same ensemble."""
        self.request = replace(self.request, runs=[*self.request.runs, *other.request.runs])
        for name in ("work", "done", "resumed", "new", "laid", "warnings", "damaged"):
            getattr(self, name).extend(getattr(other, name))
        for name in ("busy", "stored_steps", "cut_off", "locks", "queued", "waiting"):
            getattr(self, name).update(getattr(other, name))

    def steps_left(self) -> int:
        """Return the updates that are left to make, over all runs that were asked for."""
        steps = self.request.steps
        return sum(
            max(steps - self.stored_steps.get(label, 0), 0)
            for label in [*self.new, *self.laid, *self.resumed]
        )


def find_ensemble(outputs: OutputPaths, request: Request) -> EnsemblePaths:
    """Return the ensemble's folder: found by its hash, else the one it would get."""
    task, digest = str(request.config.task.name), request.config.id
    return outputs.of_task(task, digest) or outputs.ensemble(task, request.slug, digest)


def failed_of(outputs: OutputPaths, requests: Sequence[Request]) -> list[Request]:
    """Return what is asked for of the runs that failed or crashed, and of no other.

    Raises:
        NothingMatched: None did.
    """
    found = []
    for request in requests:
        stored = StoredEnsemble(find_ensemble(outputs, request)).by_label
        failed = {label for label, run in stored.items() if run.status in ("failed", "crashed")}
        if runs := [spec for spec in request.runs if spec.label in failed]:
            found.append(replace(request, runs=runs))
    if not found:
        raise NothingMatched(
            "--retry-failed: no run that is asked for failed or crashed (one that diverged would diverge again); "
            "without it the same command trains what is new or was cut off"
        )
    return found


def lay_out(
    outputs: OutputPaths,
    request: Request,
    planned: Callable[[int], Plan],
    *,
    write: bool = True,
    force: bool = False,
    anyway: bool = False,
    steal: bool = False,
    folders: Sequence[Path] = (),
    apart: bool = True,
    elsewhere: bool = False,
    queued: Mapping[ShardPaths, Task] | None = None,
) -> Layout:
    """Compare a request with the store and, unless told not to write, make the new shards' folders.

    Args:
        outputs: The outputs folder.
        request: What is asked.
        planned: Number of new runs -> how they are laid out.
        write: False for a dry run.
        force: Start a new attempt of every run.
        anyway: Go on under other versions than a half-done run began with.
        steal: Take over shards whoever holds them.
        folders: Plug-in folders, for the workers.
        apart: Whether processes of their own train, not this one.
        elsewhere: Whether other machines do: whether bits hold there is theirs to say.
        queued: Shards that a scheduler has a job of -> the job.

    Raises:
        DynalabError: A half-done run began under other versions; the folder cannot be written; another process is
            laying out the ensemble, or took it over from this one.
    """
    layout = Layout(request, find_ensemble(outputs, request), warnings=idle_streams(request.config))
    here = {} if anyway or elsewhere else bits_of(worker=apart)
    queued = queued or {}
    if not write:
        _compare(layout, planned, None, force, here, steal, folders, queued)
        return layout
    _make_folder(layout.paths)
    with Lock(layout.paths.lock, wait=WAIT_SECONDS, steal=steal) as held:
        sweep(layout.paths.root, "shard-*")
        mend_config(layout, folders)
        undo_unfinished(layout.paths)
        _compare(layout, planned, held, force, here, steal, folders, queued)
    return layout


def _make_folder(paths: EnsemblePaths) -> None:
    """Make an ensemble's folder where there is none; refuses a link."""
    paths.refuse_links()
    with storing(paths.root):
        paths.root.mkdir(parents=True, exist_ok=True)


def mend_config(layout: Layout, folders: Sequence[Path] = ()) -> None:
    """Make an ensemble's folder, and write its configuration where it is missing, damaged or another's.

    Raises:
        StoreError: The folder is a link, or cannot be written.
    """
    paths, request = layout.paths, layout.request
    _make_folder(paths)
    if not _is_of(request, paths, folders):
        if paths.shards():
            layout.warnings.append(f"{paths.config} was missing, damaged or another's; it is written again")
        write_text(paths.overrides, yaml.safe_dump(request.overrides, sort_keys=False))
        # Last: a folder is an ensemble once its configuration stands.
        write_text(paths.config, yaml.safe_dump(request.config.as_dict(), sort_keys=False))


def _is_of(request: Request, paths: EnsemblePaths, folders: Sequence[Path]) -> bool:
    """Return whether an ensemble's folder holds the configuration of a request."""
    try:
        tree = StoredEnsemble(paths).tree
        # Typing takes a while, and an older dynalab's file may lack what is neutral by now.
        return tree == request.config.as_dict() or from_stored(tree, folders).id == request.config.id
    except DynalabError:
        return False


def _compare(
    layout: Layout,
    planned: Callable[[int], Plan],
    held: Lock | None,
    force: bool,
    here: Mapping[str, str | None],
    steal: bool,
    folders: Sequence[Path],
    queued: Mapping[ShardPaths, Task],
) -> None:
    """Sort what is asked for into what is there and what is not; where the ensemble's lock is held, make the rest."""
    newest: dict[str, tuple[StoredShard, runfile.Run]] = {}
    there: set[tuple[str, int]] = set()
    lost: list[tuple[ShardPaths, str]] = []
    for paths in layout.paths.shards():
        try:
            found = StoredShard(paths, runfile.read(paths))
        except StoreError as error:
            lost.append((paths, str(error)))
            continue
        for run in found.shard.runs:
            there.add((run.label, found.shard.attempt))
            if run.label not in newest or newest[run.label][0].shard.attempt < found.shard.attempt:
                newest[run.label] = found, run
    wanted = layout.request.runs
    attempts = {label: found.shard.attempt for label, (found, _) in newest.items()}
    hidden = leave_alone(layout, lost, there, attempts, force)
    missing = [spec for spec in wanted if force or spec.label not in (attempts | hidden)]
    for spec in [] if force else wanted:
        if spec.label in newest:
            found, run = newest[spec.label]
            if spec.seed is None and run.streams != spec.streams:
                raise ConfigError(_other_streams(layout.request.config.id, spec, run))
            if found.paths in queued and not found.ended:
                layout.queued[spec.label] = layout.waiting[found.paths] = queued[found.paths]
                continue
            sort_run(layout, found, run, held is not None, here, steal)
    layout.new = [spec.label for spec in missing]
    groups: list[list[RunSpec]] = []
    start = 0
    plan = planned(len(missing))
    for width in plan.widths:
        groups.append(missing[start : start + width])
        start += width
    attempt = 1 + max((made.get(label, 0) for label in layout.new for made in (attempts, hidden)), default=0)
    while any(layout.paths.shard(runfile.folder_name(group, attempt)).root.exists() for group in groups):
        attempt += 1
    for group in groups:
        paths = layout.paths.shard(runfile.folder_name(group, attempt))
        if held is not None:
            held.require()
            _make_shard(paths, group, layout.request.steps, attempt, folders, plan.bits)
        layout.work.append(paths)


def _other_streams(digest: str, spec: RunSpec, run: runfile.Run) -> str:
    """Return what is said of a crossed run whose streams are not those asked for: `seed=` once was in no id of them."""
    apart = {name: seed for name, seed in spec.streams.items() if run.streams.get(name) != seed}
    there = " ".join(f"{name} {run.streams.get(name)}" for name in apart)
    words = " ".join(f"seed_streams.{name}={seed}" for name, seed in apart.items())
    return (
        f"{digest}/{spec.label} was trained with streams {there}; {words} trains what is asked for beside it"
    )


def discard_untrained(ensemble: EnsemblePaths, shards: Sequence[ShardPaths]) -> None:
    """Remove shards that a worker refused before their first row: a configuration that cannot work leaves nothing."""
    refused = [paths for paths in shards if paths.ensemble == ensemble]
    if not refused:
        return
    # What another command has begun to use meanwhile stays.
    with contextlib.suppress(Locked), Lock(ensemble.lock, wait=10.0):
        for paths in refused:
            if not paths.run.is_file():
                continue
            with contextlib.suppress(Locked), Lock(paths.lock, beats=False):
                if is_untrained(paths):
                    discard(paths.root)
        if not ensemble.shards():
            discard(ensemble.root)


def _make_shard(
    paths: ShardPaths,
    members: Sequence[RunSpec],
    steps: int,
    attempt: int,
    folders: Sequence[Path],
    bits: str | None,
) -> None:
    """Make a shard's folder with its run.json in one rename, so that no half-made folder is ever seen."""
    runs = [runfile.Run(item.label, item.seed, dict(item.streams)) for item in members]
    shard = runfile.Shard(
        runs, steps, attempt=attempt, plan={"bits": bits}, folders=[str(folder) for folder in folders]
    )
    with making(paths.root) as folder:
        runfile.write(ShardPaths(folder), shard)
