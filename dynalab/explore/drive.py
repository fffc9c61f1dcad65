"""Drives an analysis that trains: what it asks for is trained, what was recorded is handed back, until it is done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from dynalab.analysis import command
from dynalab.analysis.command import Inputs, needs_of, trains
from dynalab.config.overrides import Override
from dynalab.config.registry import Part
from dynalab.core.errors import ConfigError, RunsFailed
from dynalab.core.plugins import naming
from dynalab.core.progress import counted
from dynalab.core.records import plain, tables
from dynalab.core.runs import Group
from dynalab.core.waves import Fork
from dynalab.launch.base import Events
from dynalab.launch.fork import Forking, make_forks, plan_forks
from dynalab.launch.train import Options, Outcome, stored_runs
from dynalab.store.carve import kept_before
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, write_result
from dynalab.store.stored import StoredRun

# What an analysis that trains asks for, is sent, and returns.
Waves = Generator[Sequence[Fork], Mapping[str, Sequence[Group]], Any]


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


@dataclass(frozen=True)
class Wave:
    """The forks of a wave, before anything is trained.

    Attributes:
        forking: The plan.
        children: Name of a fork, step of the checkpoint that it goes on from, id of its ensemble, labels of its runs.
    """

    forking: Forking
    children: Sequence[tuple[str, int, str, set[str]]]


def require_confirmable(inputs: Inputs, part: Part, config: Any) -> None:
    """Check that an analysis can be confirmed, before it is made.

    Raises:
        ConfigError: It does not train, or these runs cannot be trained again.
    """
    if trains(part):
        raise ConfigError(f"--confirm: analyze {part.name} trains without it; leave it out")
    if not hasattr(part.module, "explore"):
        raise ConfigError(f"--confirm: analyze {part.name} has nothing to train again")
    _require_whole_runs(inputs, config, "--confirm")


def _require_whole_runs(inputs: Inputs, config: Any, what: str) -> None:
    if len(inputs.ensembles) != 1:
        raise ConfigError(f"{what}: takes one ensemble at a time; leave out pool=true")
    if config.steps is not None:
        raise ConfigError(f"{what}: looks at whole runs; leave out steps={config.steps}")


def analyse(inputs: Inputs, part: Part, config: Any, trainer: Trainer, *, force: bool = False) -> Result:
    """Return the analysis of some inputs, as `dynalab.analysis.command.analyse` does, also one that trains.

    Where some of its forks failed the result is of the others, and `Result.failed` says so.

    Raises:
        ConfigError: These runs cannot be trained again.
        RunsFailed: All forks failed.
        DynalabError: The analysis cannot be made of these runs, or not be stored.
    """
    if not trains(part):
        return command.analyse(inputs, part, config, trainer.outputs, force=force)
    _require_whole_runs(inputs, config, f"analyze {part.name}")

    def find(groups: Sequence[Group], part: Part, config: Any) -> tuple[Any, Sequence[str]]:
        failed: list[str] = []
        waves = part.module.explore(command.prepared(groups, part, config), config)
        findings, _ = _driven(
            waves, part, partial(trained, inputs=inputs, part=part, trainer=trainer, failed=failed)
        )
        return command.checked(findings, part), failed

    return command.analyse(inputs, part, config, trainer.outputs, force=force, find=find)


def first_wave(several: Iterable[Inputs], part: Part, config: Any, trainer: Trainer) -> Forking:
    """Return what an analysis would have trained first, of some inputs; nothing is written.

    Raises:
        DynalabError: As `analyse`.
    """
    whole = Forking([])
    config = command.resolved(config, trainer.outputs)
    for inputs in several:
        _require_whole_runs(inputs, config, f"analyze {part.name}")
        waves = part.module.explore(command.prepared(inputs.groups, part, config), config)
        with naming(part.module.explore):
            whole = whole.beside(plan(next(waves, ()), inputs, trainer).forking)
    return whole


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
        RunsFailed: A shard failed, or another process is training it.
    """
    waves = part.module.explore(list(inputs.groups), config)
    findings, asked = _driven(waves, part, partial(trained, inputs=inputs, part=part, trainer=trainer))
    if not asked:
        return None
    own = tables(findings)
    data = {**result.data, **plain(findings), "tables": sorted(own)}
    return write_result(result.paths, data, own)


def _driven(
    waves: Waves, part: Part, train: Callable[[Sequence[Fork]], Mapping[str, Sequence[Group]]]
) -> tuple[Any, bool]:
    """Return the findings of an analysis that trains, and whether anything was asked for."""
    groups: Any = None
    asked = False
    with naming(part.module.explore):
        while True:
            try:
                wave = waves.send(groups)
            except StopIteration as done:
                return done.value, asked
            groups, asked = train(wave), True


def trained(
    asked: Sequence[Fork], inputs: Inputs, part: Part, trainer: Trainer, failed: list[str] | None = None
) -> dict[str, list[Group]]:
    """Return name -> the runs of a wave's forks, as groups: one for each checkpoint that runs of it go on from.

    All are planned together. A group's `keys` say where it begins: `from_step`, and the id of the parent, `parent`.

    Args:
        asked: The wave.
        inputs: The runs.
        part: The analysis.
        trainer: How forks are trained.
        failed: Takes a line about what failed, so that the others are handed back; None: it is raised.

    Raises:
        ConfigError: The runs have another value of the key than its default already.
        RunsFailed: A shard failed, or another process is training it; with `failed` where no run is done.
    """
    (parent,) = inputs.ensembles
    wave = plan(asked, inputs, trainer)
    options = Options(argv=("dynalab", "analyze", part.name, parent.id), remember=False)
    outcome = make_forks(wave.forking, options, trainer.watch)
    try:
        outcome.require_whole()
    except RunsFailed as error:
        done = any(run.status == "done" for layout in outcome.layouts for run in stored_runs(layout))
        if failed is None or not done:
            raise
        failed.append(str(error))
    paths = {
        layout.request.config.id: layout.paths for layout in outcome.layouts if layout.paths.config.is_file()
    }
    needs = needs_of(part)
    groups: dict[str, list[Group]] = {item.name: [] for item in asked}
    for name, step, digest, labels in wave.children:
        if digest not in paths:
            continue
        child = Ensemble(paths[digest])
        ids = [run.id for run in child.runs if run.label in labels]
        group = child.group(needs.statuses, ids, needs.names)
        groups[name].append(replace(group, keys={"from_step": step, "parent": parent.id}))
    return groups


def plan(asked: Sequence[Fork], inputs: Inputs, trainer: Trainer) -> Wave:
    """Return what a wave comes to.

    Raises:
        ConfigError: The runs have another value of the key than its default already, or cannot be forked so.
    """
    (parent,) = inputs.ensembles
    whole = Forking([])
    children: list[tuple[str, int, str, set[str]]] = []
    for item in counted(asked, "forks", "planning"):
        _require_default(parent, item, trainer.folders)
        begins: dict[int, list[StoredRun]] = {}
        for run in inputs.runs:
            if run.id in item.runs:
                step = item.step[run.id] if isinstance(item.step, Mapping) else item.step
                begins.setdefault(step if "edit" in item.changes else kept_before(run, step), []).append(run)
        changes = [Override.of(key, value) for key, value in item.changes.items()]
        changes += [Override.of("launcher", trainer.launcher)]
        changes += [] if item.steps is None else [Override.of("train.steps", item.steps)]
        for step, runs in sorted(begins.items()):
            forking = plan_forks(parent, runs, step, changes, outputs=trainer.outputs)
            whole = whole.beside(forking)
            labels = {run.label for run in runs}
            children += [(item.name, step, digest, labels) for digest in forking.origins]
    return Wave(whole, children)


def _require_default(parent: Ensemble, item: Fork, folders: Sequence[Path]) -> None:
    """Refuse runs that have what a fork would change already."""
    for key in item.changes:
        section, _, name = key.partition(".")
        if section == "edit":
            continue
        part = getattr(parent.typed_config(folders), section)
        now = getattr(part, name)
        if now != next(field.default for field in fields(part) if field.name == name):
            raise ConfigError(f"--confirm: these runs have {key}={now} already; confirm the runs without")
