"""What launchers hand to whoever trains a shard. Without torch, so that the command line can make it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dynalab.core.atomic import write_json
from dynalab.core.errors import StoreError
from dynalab.store.paths import ShardPaths
from dynalab.store.read import check, flag, positive, read_json, text, whole

SCHEMA_VERSION = 1
_MOST_THREADS = 1024
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,4})?")


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
        compile: As `compute.compile`.
        folders: The command's plug-in folders.
        anyway: Whether a job of a scheduler goes on under other versions than its shard began with.
    """

    device: str = "cpu"
    checkpoint_every: int | None = None
    checkpoint_keep: Any = 2
    steal: bool = False
    argv: tuple[str, ...] = ()
    threads: int | None = None
    exact: bool = True
    graph: bool = False
    compile: bool | None = None
    folders: tuple[Path, ...] = ()
    anyway: bool = False

    def write(self, paths: ShardPaths) -> None:
        """Write down how a shard is to be trained, for whoever is handed its folder.

        What is the worker's own to say, where plug-ins are and whether a lock is taken over, stays out: an outputs
        folder may be a stranger's.
        """
        values = asdict(self)
        write_json(paths.job, {"schema_version": SCHEMA_VERSION, **{name: values[name] for name in _WRITTEN}})

    @classmethod
    def read(cls, paths: ShardPaths, **own: Any) -> Job:
        """Return how a shard is to be trained, as it was written down, else as `train` does without a word.

        Args:
            paths: The shard.
            own: Fields that are the worker's own to say.

        Raises:
            StoreError: What is written down is damaged.
        """
        if not paths.job.exists():
            return cls(device="auto", **own)
        document = read_json(paths.job)
        try:
            check(document, {"schema_version": whole, **_WRITTEN})
        except ValueError as error:
            raise StoreError(f"{paths.job} is damaged: {error}") from error
        if document.get("schema_version", 0) > SCHEMA_VERSION:
            raise StoreError(f"{paths.job}: written by a newer dynalab (schema {document['schema_version']})")
        values = {name: document[name] for name in _WRITTEN if name in document}
        return cls(**{**values, "argv": tuple(values.get("argv", ()))}, **own)


def _threads(value: Any) -> bool:
    """Return whether a value is one of `threads`; OpenMP ends the process where it is given many thousands."""
    return value is None or (positive(value) and value <= _MOST_THREADS)


def _kept(value: Any) -> bool:
    """Return whether a value is one of `checkpoint.keep`."""
    return value == "all" or positive(value) or (isinstance(value, list) and all(map(whole, value)))


_WRITTEN: dict[str, Any] = {
    "device": lambda value: _DEVICE.fullmatch(str(value)) is not None,
    "checkpoint_every": (positive,),
    "checkpoint_keep": _kept,
    "argv": [text],
    "threads": _threads,
    "exact": flag,
    "graph": flag,
    "compile": (flag,),
}


@dataclass
class Control:
    """How a job is watched and stopped.

    Attributes:
        stop: Returns whether to save and end.
        warnings: Lines for the user, added on the way.
    """

    stop: Callable[[], bool] = lambda: False
    warnings: list[str] = field(default_factory=list)
