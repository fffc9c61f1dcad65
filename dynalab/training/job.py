"""What launchers hand to whoever trains a shard. Without torch, so that the command line can make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """How the shards of a command are trained.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`; before a launcher resolves it, as `device=`.
        checkpoint_every: Steps between checkpoints, or None for the clock.
        checkpoint_keep: As `checkpoint.keep`.
        steal: Take over a lock whoever holds it.
        argv: The command, for provenance.
        threads: Threads to train with; None leaves them as they are.
        exact: Whether a seed's bits are to be its own.
        graph: As `compute.graph`.
        folders: The command's plug-in folders.
    """

    device: str = "cpu"
    checkpoint_every: int | None = None
    checkpoint_keep: Any = 2
    steal: bool = False
    argv: tuple[str, ...] = ()
    threads: int | None = None
    exact: bool = True
    graph: bool = False
    folders: tuple[Path, ...] = ()


@dataclass
class Control:
    """How a job is watched and stopped.

    Attributes:
        stop: Returns whether to save and end.
        warnings: Lines for the user, added on the way.
    """

    stop: Callable[[], bool] = lambda: False
    warnings: list[str] = field(default_factory=list)
