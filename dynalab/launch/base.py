"""What every launcher is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dynalab.store.paths import ShardPaths
from dynalab.training.job import Job


@dataclass(frozen=True)
class Work:
    """The shards of a command, how many are trained at a time, and how."""

    shards: list[ShardPaths]
    workers: int
    job: Job


@dataclass
class Events:
    """What a launcher tells while it works, from one thread; `split` is told how the worker died."""

    progress: Callable[[ShardPaths, dict[str, Any]], None] = lambda shard, event: None
    finished: Callable[[ShardPaths, str], None] = lambda shard, status: None
    split: Callable[[ShardPaths, list[ShardPaths], str], None] = lambda shard, parts, how: None
    message: Callable[[str], None] = lambda line: None


@dataclass
class Report:
    """What became of the work.

    Attributes:
        failures: Shard -> one line that says what went wrong and where the log is.
        held: Shards that another process is training -> one line that says which.
        codes: Shard -> exit code that its failure asks for.
        causes: Shard -> what a failure was raised from, where it was raised in this process.
        warnings: Lines to show.
        interrupted: The user stopped it.
    """

    failures: dict[ShardPaths, str] = field(default_factory=dict)
    held: dict[ShardPaths, str] = field(default_factory=dict)
    codes: dict[ShardPaths, int] = field(default_factory=dict)
    causes: dict[ShardPaths, BaseException | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, other: Report) -> None:
        """Add what became of other work."""
        self.failures |= other.failures
        self.held |= other.held
        self.codes |= other.codes
        self.causes |= other.causes
        self.warnings += other.warnings
        self.interrupted |= other.interrupted
