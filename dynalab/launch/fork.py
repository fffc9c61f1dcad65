"""Forks: an ensemble trained again with one thing changed, to see whether what was found goes away.

A fork is an ensemble of its own, with its parent and the step it starts from in its identity. It goes on from a
checkpoint that the parent kept (weights, optimizer, streams), or is trained from the start; the seeds are the
parent's, so that a fork without a change has its bits either way. Rows up to the checkpoint are the parent's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dynalab.config.command import Command, Request, Settings
from dynalab.config.ensemble import RunSpec, from_stored
from dynalab.config.schema import Checkpoint, Compute
from dynalab.core.errors import ConfigError
from dynalab.launch.base import Events
from dynalab.launch.layout import Layout, find_ensemble, mend_config
from dynalab.launch.train import Options, Outcome, train
from dynalab.store.branch import branch
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredRun


@dataclass(frozen=True)
class Override:
    """What a fork does otherwise than its parent: one key (`train.halve_at`), its value there, the folder's suffix."""

    key: str
    value: Any
    suffix: str

    @property
    def said(self) -> str:
        """The override as it is typed."""
        return f"{self.key}={self.value}"

    def __call__(self, config: Any) -> Any:
        """Return the changed configuration; refuses a parent that has another value than the default already."""
        section, name = self.key.split(".")
        part = getattr(config, section)
        default = next(field.default for field in fields(part) if field.name == name)
        now = getattr(part, name)
        if now != default:
            raise ConfigError(
                f"--confirm: these runs have {self.key}={now} already; confirm the runs without"
            )
        return replace(config, **{section: replace(part, **{name: self.value})})


def fork(
    parent: Ensemble,
    runs: Sequence[StoredRun],
    change: Override,
    outputs: Path,
    folders: Sequence[Path] = (),
    watch: Callable[[Outcome], Events] = lambda outcome: Events(),
    launcher: str = "local",
    step: int = 0,
    steps: int | None = None,
) -> Ensemble:
    """Train a fork of some runs of an ensemble, or find it trained; `@last` keeps its meaning.

    Args:
        parent: The ensemble.
        runs: Its runs that are trained again.
        change: What is changed.
        outputs: The outputs folder.
        folders: A user's plug-in folders.
        watch: As `dynalab.launch.train.train` takes it.
        launcher: `local` or `inline`.
        step: Of the checkpoint to go on from, which every run must have kept; 0: from the start.
        steps: Length of the fork; None, and where the schedule depends on the length: as long as the runs.

    Raises:
        DynalabError: The parent was not trained by dynalab, or the change changes nothing; the checkpoint is missing or
            damaged; a shard failed, or another process is training it.
    """
    if not (parent.config.get("optimizer") or {}).get("name"):
        raise ConfigError(f"--confirm: {parent.id} was not trained by dynalab, so it cannot be trained again")
    config = change(from_stored(parent.config, folders))
    said = f"{parent.id}@{step}"
    config = replace(config, parent=said)
    longest = max(run.requested_steps for run in runs)
    if config.depends_on_total:
        steps = int(config.train.steps or longest)
    steps = steps or longest
    config = replace(config, train=replace(config.train, steps=steps))
    specs = [RunSpec(run.label, run.seed, dict(run.record.runs[run.index].streams)) for run in runs]
    stem = parent.path.name.rpartition("-")[0][: 59 - len(change.suffix)]
    slug = f"{stem}-{change.suffix}".strip("-_.")
    request = Request(config, specs, steps, [f"parent={said}", change.said], slug)
    if step:
        # The parent's checkpoint is laid where training goes on from it.
        paths = find_ensemble(OutputPaths(outputs), request)
        mend_config(Layout(request, paths), folders)
        branch(runs, step, paths, request.steps, folders)
    options = Options(argv=("dynalab", "analyze", "--confirm", parent.id), remember=False)
    for (device, compute), some in _by_plan(runs, specs).items():
        settings = Settings(compute, Checkpoint(), device, launcher, outputs, tuple(folders))
        outcome = train(Command([replace(request, runs=some)], settings), options, watch)
        outcome.require_whole()
    return Ensemble(outcome.layouts[0].paths)


def _by_plan(runs: Sequence[StoredRun], specs: Sequence[RunSpec]) -> dict[tuple[str, Compute], list[RunSpec]]:
    """Return runs by how they were trained, as a fork of them is too: device, exactness, threads."""
    found: dict[tuple[str, Compute], list[RunSpec]] = {}
    for run, spec in zip(runs, specs, strict=True):
        plan = run.record.plan
        exact = bool(plan.get("exact", True))
        compute = Compute(exact=exact, threads=None if exact else plan.get("threads"))
        found.setdefault((str(plan.get("device", "auto")), compute), []).append(spec)
    return found
