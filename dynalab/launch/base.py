"""What a launcher is, what it is given and what it answers; each is a module of this folder, found by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from dynalab.config.schema import Slurm
from dynalab.store.jobs import Task
from dynalab.store.paths import ShardPaths
from dynalab.training.job import Job


@dataclass(frozen=True)
class Work:
    """What a command has trained, and how.

    Attributes:
        shards: The shards.
        workers: How many are trained at a time.
        job: How each is trained.
        stop: Whether the first that fails stops the rest.
        slurm: What the jobs of a cluster ask for.
        wait: Whether jobs of a cluster are waited for; other launchers return when all is trained.
        queued: Shards that have a job already, which is waited for as well.
    """

    shards: list[ShardPaths]
    workers: int
    job: Job
    stop: bool = False
    slurm: Slurm = field(default_factory=Slurm)
    wait: bool = True
    queued: Mapping[ShardPaths, Task] = field(default_factory=dict)


@dataclass
class Events:
    """What a launcher tells while it works, from one thread; `split` is told how the worker died.

    How far a shard is stands beside its run.json (`dynalab.store.progress`), for whoever asks.
    """

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
        stopped: A shard that failed did, as `on_error=stop` asks.
        jobs: Shards that a scheduler has a job of -> the job.
    """

    failures: dict[ShardPaths, str] = field(default_factory=dict)
    held: dict[ShardPaths, str] = field(default_factory=dict)
    codes: dict[ShardPaths, int] = field(default_factory=dict)
    causes: dict[ShardPaths, BaseException | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
    stopped: bool = False
    jobs: dict[ShardPaths, Task] = field(default_factory=dict)

    @property
    def ending(self) -> bool:
        """Whether nothing more is begun."""
        return self.interrupted or self.stopped

    def add(self, other: Report) -> None:
        """Add what became of other work."""
        self.failures |= other.failures
        self.held |= other.held
        self.codes |= other.codes
        self.causes |= other.causes
        self.warnings += other.warnings
        self.jobs |= other.jobs
        self.interrupted |= other.interrupted
        self.stopped |= other.stopped


class Launcher(Protocol):
    """Has the shards of one command trained.

    Attributes:
        apart: Whether processes of their own train, which choose the environment that bits depend on.
        elsewhere: Whether other machines train, of which nothing is known here.
        cards: How many cards `device=cuda` is, a worker each; known once `device` was asked.
    """

    apart: ClassVar[bool]
    elsewhere: ClassVar[bool]
    cards: int

    def __init__(self, workers: int, threads: int) -> None:
        """Begin to make ready for so many shards at a time, on so many threads each."""

    def device(self, asked: str) -> str:
        """Return what `device=` means where it trains.

        Raises:
            DynalabError: The device is absent, or nothing can be trained at all.
        """

    def trial(self, task: str, **request: Any) -> dict[str, Any] | None:
        """Do one of `dynalab.training.trial.TRIALS` where it trains.

        Returns:
            The answer: `found`, or `message` and `exit_code` where it was refused or failed. None where a worker died
            of it: whatever killed it will show again in training, where it is reported.
        """

    def run(self, work: Work, events: Events) -> Report:
        """Train the shards, whatever becomes of single ones.

        Raises:
            DynalabError: As `device`.
        """

    def close(self) -> None:
        """Let go of what it holds, once what is under way is saved."""


def launcher(name: str) -> type[Launcher]:
    """Return the launcher of a name, one of `dynalab.config.command.LAUNCHERS`."""
    found: type[Launcher] = importlib.import_module(f"{__package__}.{name}").Launcher
    return found
