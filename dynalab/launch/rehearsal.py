"""What a dry run tells beside the plan: whether training could begin. A worker begins it, on two examples.

Of a fork it goes the way from its parent's configuration to its own, edit included, with weights as they are drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dynalab.config.command import Settings
from dynalab.config.compose import Composer
from dynalab.config.ensemble import EnsembleConfig, canonical
from dynalab.core.errors import DynalabError
from dynalab.launch.base import launcher
from dynalab.launch.layout import Layout
from dynalab.store import runfile
from dynalab.store.paths import ShardPaths


def refusals(
    settings: Settings, layouts: Sequence[Layout], threads: int
) -> tuple[dict[ShardPaths, str], dict[ShardPaths, int]]:
    """Return what training would refuse of new ensembles, in its words, and the exit codes; nothing is written.

    Of those that are there, too, where a run to go on with failed: whoever asks wants to know why.
    A training of each kind is begun where it would be trained, on so many threads: a sweep over a rate is of one kind.
    What other machines would train is begun here, on a CPU.

    Raises:
        ConfigError: The device is absent.
    """
    lines: dict[ShardPaths, str] = {}
    codes: dict[ShardPaths, int] = {}
    fresh = [
        layout
        for layout in layouts
        if (layout.new and not layout.paths.shards()) or any(shard.error.is_file() for shard in layout.work)
    ]
    kinds = {_kind(layout.request.config.as_dict()): layout for layout in reversed(fresh)}
    kinds = {kind: item for kind, item in kinds.items() if not _is_usual(kind, item.request.config)}
    elsewhere = launcher(settings.launcher).elsewhere
    asked = "cpu" if elsewhere else settings.device
    if not kinds and not asked.startswith("cuda"):
        return lines, codes
    trainer = launcher("local" if elsewhere else settings.launcher)(1, threads)
    try:
        device = trainer.device(asked)
        refused = {
            kind: trainer.trial(
                "rehearse",
                config=layout.request.config.as_dict(),
                runs=[dict(run.streams) for run in layout.request.runs[:2]],
                steps=layout.request.steps,
                device=device,
                folders=settings.folders,
                exact=settings.compute.exact,
            )
            for kind, layout in kinds.items()
        }
    finally:
        trainer.close()
    for layout in fresh:
        # A worker that died of it says nothing: in training that is met with narrower shards.
        answer = refused.get(_kind(layout.request.config.as_dict())) or {}
        for shard in layout.work if "message" in answer else ():
            lines[shard], codes[shard] = answer["message"], answer["exit_code"]
    return lines, codes


def failed_before(layouts: Sequence[Layout], told: Collection[ShardPaths]) -> list[str]:
    """Return a line for each shard that goes on where its last attempt failed, in the words of what it left.

    Args:
        layouts: What would be trained.
        told: Shards of which more is known: they would fail at once.
    """
    return [
        f"{paths.root.parent.name}/{paths.root.name} failed before: {words}; traceback in {paths.error}"
        for layout in layouts
        for paths in layout.work
        if paths not in told and (words := _last_words(paths))
    ]


def _last_words(paths: ShardPaths) -> str:
    """Return what the last attempt at a shard failed of, as it noted it; empty where it did not fail."""
    with contextlib.suppress(DynalabError):
        attempts = runfile.read(paths).attempts
        words = str(attempts[-1].get("error") or "") if attempts else ""
        return "".join(letter for letter in words if letter.isprintable())
    return ""


def _kind(tree: Mapping[str, Any]) -> str:
    """Name what decides whether training can begin: of dynalab's own optimizers and schedules any can."""
    sources = tree.get("sources") or {}
    own = ["task", "model", "train", "eval", "probes", "probe", "edit"]
    own += [
        group
        for group in ("optimizer", "schedule", "average")
        if any(name.startswith(group) for name in sources)
    ]
    chosen = {key: tree.get(key) for key in own}
    chosen["train"] = {key: value for key, value in tree["train"].items() if key != "steps"}
    return canonical(
        [chosen, {name: source for name, source in sources.items() if not name.startswith("task.")}]
    )


def _is_usual(kind: str, config: EnsembleConfig) -> bool:
    """Return whether a kind is known to train: its fork's parent's, or a task of dynalab's that needs no file."""
    if config.origin is not None:
        return kind == _kind(config.origin)
    if "task" in config.sources or hasattr(config.task, "check_data"):
        return False
    return kind == _kind(Composer().defaults(config.task.name).as_dict())
