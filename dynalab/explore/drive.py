"""Drives an analysis that trains: what it asks for is trained, what was recorded is handed back, until it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynalab.analysis.command import Inputs, needs_of
from dynalab.config.registry import Part
from dynalab.core.errors import ConfigError
from dynalab.core.records import plain, tables
from dynalab.core.runs import Group
from dynalab.core.waves import Fork
from dynalab.launch.base import Events
from dynalab.launch.fork import Override, fork
from dynalab.launch.train import Outcome
from dynalab.store.branch import kept_before
from dynalab.store.results import Result, write_result
from dynalab.store.stored import StoredRun


@dataclass(frozen=True)
class Trainer:
    """How forks are trained: `watch` is as `dynalab.launch.train.train` takes it."""

    outputs: Path
    folders: Sequence[Path] = ()
    watch: Callable[[Outcome], Events] = lambda outcome: Events()


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
    while True:
        try:
            asked = wave.send(groups)
        except StopIteration as done:
            findings = done.value
            break
        groups = {item.name: trained(item, inputs, part, trainer) for item in asked}
    if not asked:
        return None
    own = tables(findings)
    data = {**result.data, **plain(findings), "tables": sorted(own)}
    return write_result(result.paths, data, own)


def trained(item: Fork, inputs: Inputs, part: Part, trainer: Trainer) -> list[Group]:
    """Return the runs of a fork as groups: one for each checkpoint that runs of it go on from.

    A group's `keys` say where: `from_step`, and the id of the parent, `parent`.
    """
    (parent,) = inputs.ensembles
    begins: dict[int, list[StoredRun]] = {}
    for run in inputs.runs:
        if run.id in item.runs:
            step = item.step[run.id] if isinstance(item.step, Mapping) else item.step
            begins.setdefault(kept_before(run, step), []).append(run)
    change, groups = Override(item.key, item.value, item.name), []
    for step, runs in sorted(begins.items()):
        child = fork(
            parent, runs, change, trainer.outputs, trainer.folders, trainer.watch, step=step, steps=item.steps
        )
        labels = {run.label for run in runs}
        ids = [run.id for run in child.runs if run.label in labels]
        needs = needs_of(part)
        group = child.group(needs.statuses, ids, needs.names)
        groups.append(replace(group, keys={"from_step": step, "parent": parent.id}))
    return groups
