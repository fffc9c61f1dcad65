"""Drives an analysis that trains: what it asks for is trained, what was recorded is handed back, until it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dynalab.analysis.command import Inputs, needs_of
from dynalab.config.overrides import Override
from dynalab.config.registry import Part
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import naming
from dynalab.core.records import plain, tables
from dynalab.core.runs import Group
from dynalab.core.waves import Fork
from dynalab.launch.base import Events
from dynalab.launch.fork import Forking, make_forks, plan_forks
from dynalab.launch.train import Options, Outcome
from dynalab.store.carve import kept_before
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, write_result
from dynalab.store.stored import StoredRun


@dataclass(frozen=True)
class Trainer:
    """How forks are trained.

    Attributes:
        outputs: The outputs folder.
        folders: A user's plug-in folders.
        watch: As `dynalab.launch.train.train` takes it.
        launcher: `local` or `inline`.
    """

    outputs: Path
    folders: Sequence[Path] = ()
    watch: Callable[[Outcome], Events] = lambda outcome: Events()
    launcher: str = "local"


def require_confirmable(inputs: Inputs, part: Part, config: Any) -> None:
    """Check that an analysis can be confirmed, before it is made.

    Raises:
        ConfigError: It does not train, or these runs cannot be trained again.
    """
    if not hasattr(part.module, "explore"):
        raise ConfigError(f"--confirm: analyze {part.name} has nothing to train again")
    if len(inputs.ensembles) != 1:
        raise ConfigError("--confirm: takes one ensemble at a time; leave out pool=true")
    if config.steps is not None:
        raise ConfigError(f"--confirm: looks at whole runs; leave out steps={config.steps}")


def confirm(inputs: Inputs, result: Result, part: Part, config: Any, trainer: Trainer) -> Result | None:
    """Return an analysis with the word of forks on what it found, stored; None where there is nothing to train.

    Args:
        inputs: What the analysis was made from; `require_confirmable` has let it pass.
        result: The analysis.
        part: Its part, whose module has `explore(groups, config)`.
        config: Its configuration.
        trainer: How forks are trained.

    Raises:
        ConfigError: These runs cannot be trained again.
    """
    wave = part.module.explore(list(inputs.groups), config)
    asked: Sequence[Fork] = ()
    groups: Mapping[str, Sequence[Group]] | None = None
    with naming(part.module.explore):
        while True:
            try:
                asked = wave.send(groups)
            except StopIteration as done:
                findings = done.value
                break
            groups = trained(asked, inputs, part, trainer)
        if not asked:
            return None
        own = tables(findings)
        data = {**result.data, **plain(findings), "tables": sorted(own)}
        return write_result(result.paths, data, own)


def trained(asked: Sequence[Fork], inputs: Inputs, part: Part, trainer: Trainer) -> dict[str, list[Group]]:
    """Return name -> the runs of a wave's forks, as groups: one for each checkpoint that runs of it go on from.

    All are planned together. A group's `keys` say where it begins: `from_step`, and the id of the parent, `parent`.

    Raises:
        ConfigError: The runs have another value of the key than its default already.
        RunsFailed: A shard failed, or another process is training it.
    """
    (parent,) = inputs.ensembles
    whole = Forking([])
    children: list[tuple[str, int, str, set[str]]] = []
    for item in asked:
        _require_default(parent, item, trainer.folders)
        begins: dict[int, list[StoredRun]] = {}
        for run in inputs.runs:
            if run.id in item.runs:
                step = item.step[run.id] if isinstance(item.step, Mapping) else item.step
                begins.setdefault(kept_before(run, step), []).append(run)
        changes = [Override.of(item.key, item.value), Override.of("launcher", trainer.launcher)]
        changes += [] if item.steps is None else [Override.of("train.steps", item.steps)]
        for step, runs in sorted(begins.items()):
            forking = plan_forks(parent, runs, step, changes, outputs=trainer.outputs)
            whole = whole.beside(forking)
            labels = {run.label for run in runs}
            children += [(item.name, step, digest, labels) for digest in forking.origins]
    options = Options(argv=("dynalab", "analyze", "--confirm", parent.id), remember=False)
    outcome = make_forks(whole, options, trainer.watch)
    outcome.require_whole()
    paths = {layout.request.config.id: layout.paths for layout in outcome.layouts}
    needs = needs_of(part)
    groups: dict[str, list[Group]] = {item.name: [] for item in asked}
    for name, step, digest, labels in children:
        child = Ensemble(paths[digest])
        ids = [run.id for run in child.runs if run.label in labels]
        group = child.group(needs.statuses, ids, needs.names)
        groups[name].append(replace(group, keys={"from_step": step, "parent": parent.id}))
    return groups


def _require_default(parent: Ensemble, item: Fork, folders: Sequence[Path]) -> None:
    """Refuse runs that have what a fork would change already."""
    section, name = item.key.split(".")
    part = getattr(parent.typed_config(folders), section)
    now = getattr(part, name)
    if now != next(field.default for field in fields(part) if field.name == name):
        raise ConfigError(f"--confirm: these runs have {item.key}={now} already; confirm the runs without")
