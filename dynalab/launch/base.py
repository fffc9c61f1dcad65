"""What every launcher is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynalab.store.paths import ShardPaths


@dataclass(frozen=True)
class Work:
    """The shards of a command and how to train them.

    Attributes:
        shards: Their folders.
        workers: Processes at a time.
        threads: Threads of each.
        device: As `device=`.
        exact: As `compute.exact`.
        checkpoint_every: As `checkpoint.every`.
        checkpoint_keep: As `checkpoint.keep`.
        steal: Take over locks.
        argv: The command, for provenance.
        folders: The command's plug-in folders.
    """

    shards: list[ShardPaths]
    workers: int
    threads: int
    device: str
    checkpoint_every: int | None
    checkpoint_keep: Any
    steal: bool = False
    argv: tuple[str, ...] = ()
    exact: bool = True
    folders: tuple[Path, ...] = ()


@dataclass
class Events:
    """What a launcher tells while it works; every callback is called from one thread."""

    progress: Callable[[ShardPaths, dict[str, Any]], None] = lambda shard, event: None
    finished: Callable[[ShardPaths, str], None] = lambda shard, status: None
    # With how the worker died.
    split: Callable[[ShardPaths, list[ShardPaths], str], None] = lambda shard, parts, how: None
    message: Callable[[str], None] = lambda line: None


@dataclass
class Report:
    """What became of the work.

    Attributes:
        failures: Shard -> one line that says what went wrong and where the log is.
        held: Shards that another process is training -> one line that says which.
        codes: Shard -> exit code that its failure asks for.
        warnings: Lines to show.
        interrupted: The user stopped it.
    """

    failures: dict[ShardPaths, str] = field(default_factory=dict)
    held: dict[ShardPaths, str] = field(default_factory=dict)
    codes: dict[ShardPaths, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
