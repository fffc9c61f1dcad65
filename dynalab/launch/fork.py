"""Forks: an ensemble trained again from the start with one thing changed, to see whether what was found goes away.

A fork is an ensemble of its own, with its parent and the step it starts from in its identity. The seeds are the
parent's, so that a fork without a change would have its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynalab.config.command import Command, Request, Settings
from dynalab.config.ensemble import RunSpec, from_tree
from dynalab.config.schema import Checkpoint, Compute
from dynalab.errors import ConfigError, RunsFailed
from dynalab.launch.base import Events
from dynalab.launch.train import Options, Outcome, train
from dynalab.store.atomic import write_text
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredRun


@dataclass(frozen=True)
class Float64:
    """The change that tells a slingshot from instabilities of the training itself: the loss in float64.

    Where losses rounded to 0 are the cause it goes away, at the edge of stability it stays (Liu et al. 2026, arXiv
    2605.06152).
    """

    suffix: str = "float64"

    def __call__(self, config: Any) -> Any:
        """Return the changed configuration.

        Raises:
            ConfigError: The loss is in float64 already.
        """
        if config.train.loss_dtype == "float64":
            raise ConfigError(
                "--confirm: these runs have train.loss_dtype=float64 already; there is nothing to confirm"
            )
        return replace(config, train=replace(config.train, loss_dtype="float64"))


def fork(
    parent: Ensemble,
    runs: Sequence[StoredRun],
    change: Float64,
    outputs: Path,
    folders: Sequence[Path] = (),
    watch: Callable[[Outcome], Events] = lambda outcome: Events(),
    launcher: str = "local",
) -> Ensemble:
    """Train a fork of some runs from the start, or find it trained; `@last` keeps its meaning.

    Args:
        parent: The ensemble.
        runs: Its runs that are trained again, for as many steps.
        change: What is changed.
        outputs: The outputs folder.
        folders: A user's plug-in folders.
        watch: As `dynalab.launch.train.train` takes it.
        launcher: `local` or `inline`.

    Raises:
        ConfigError: The parent was not trained by dynalab, or the change changes nothing.
        RunsFailed: A shard failed.
    """
    if not (parent.config.get("optimizer") or {}).get("name"):
        raise ConfigError(f"--confirm: {parent.id} was not trained by dynalab, so it cannot be trained again")
    config = change(from_tree(parent.config, list(folders)))
    config = replace(config, parent=f"{parent.id}@0")
    steps = max(run.requested_steps for run in runs)
    if config.depends_on_total():
        steps = int(config.train.steps or steps)
    config = replace(config, train=replace(config.train, steps=steps))
    specs = [RunSpec(run.label, run.seed, dict(run.record.runs[run.index].streams)) for run in runs]
    slug = f"{parent.path.name.rpartition('-')[0]}-{change.suffix}"[-60:].strip("-_.")
    request = Request(
        config, specs, steps, [f"parent={parent.id}@0", f"train.loss_dtype={config.train.loss_dtype}"], slug
    )
    settings = Settings(Compute(), Checkpoint(), "auto", launcher, outputs, tuple(folders))
    last = OutputPaths(outputs).last
    before = last.read_text() if last.is_file() else None
    try:
        outcome = train(
            Command([request], settings), Options(argv=("dynalab", "analyze", "--confirm", parent.id)), watch
        )
    finally:
        if before is not None:
            write_text(last, before)
    if outcome.report.interrupted:
        raise KeyboardInterrupt
    if outcome.report.failures:
        raise RunsFailed("; ".join(outcome.report.failures.values()))
    return Ensemble(outcome.layouts[0].paths)
