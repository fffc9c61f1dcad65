"""Which commands train in an outputs folder at this moment, and what: a hidden file for each while it lives.

A shard's own lock says that it is trained; that one waits for a worker, or that a command is still planning, is known
to the command alone. So it holds a lock, and writes beside it which shards it trains and how many at a time. What a
killed one left names a dead process and counts for nothing; the next command removes it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dynalab.core.atomic import storing, write_json
from dynalab.core.errors import StoreError
from dynalab.store import jobs, lock
from dynalab.store.lock import Lock
from dynalab.store.names import inside, is_shard, refuse_links
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.read import check, positive, read_json, text

_NAME = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Training:
    """What a living command trains; `shards` is empty while it plans."""

    shards: tuple[ShardPaths, ...] = ()
    workers: int = 1  # How many shards at a time.
    began: str = ""  # When it had them laid out, ISO 8601, UTC, in seconds.


class Announcement:
    """Says to all who look into an outputs folder that a command trains there, for as long as the block lasts."""

    def __init__(self, outputs: OutputPaths) -> None:
        self._root, self._folder = outputs.root, outputs.commands
        self._place = self._folder / secrets.token_hex(6)

    def __enter__(self) -> Announcement:
        refuse_links(self._folder)
        sweep(OutputPaths(self._root))
        with storing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self._place.with_suffix(".lock"))
        self._lock.__enter__()
        return self

    def of(self, shards: Sequence[ShardPaths], workers: int) -> None:
        """Say which shards are trained, and how many at a time.

        Raises:
            StoreError: It cannot be written.
        """
        names = [str(paths.root.relative_to(self._root)) for paths in shards]
        began = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"schema_version": 1, "shards": names, "workers": max(workers, 1), "began": began}
        write_json(self._place.with_suffix(".json"), about)

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(OSError):
            self._place.with_suffix(".json").unlink(missing_ok=True)
        self._lock.__exit__()
        # Where no other command trains.
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def locks(outputs: OutputPaths) -> list[Path]:
    """Return the locks of commands, living and dead."""
    return list(inside(outputs.commands, _NAME, ".lock"))


def sweep(outputs: OutputPaths) -> None:
    """Remove what dead commands left, as far as it can be told and removed."""
    for path in [] if outputs.commands.is_symlink() else locks(outputs):
        with contextlib.suppress(OSError):
            if lock.holder(path) is None:
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.sweep_guards(outputs.commands)
        # Where no other command trains.
        outputs.commands.rmdir()


def living(outputs: OutputPaths) -> list[Training]:
    """Return what the commands that live train, parts in the place of shards that were split."""
    found = [_read(outputs, path) for path in locks(outputs) if lock.holder(path) is not None]
    if queued := jobs.glance(outputs):
        # Behind every date: what its last attempt says is not the last word on a shard that is in the queue.
        found.append(Training(tuple(with_parts([*queued])), len(queued), began="~"))
    return found


def _read(outputs: OutputPaths, path: Path) -> Training:
    """Read what a command says it trains; nothing where it has not said it yet, or nothing that can be used."""
    try:
        about = read_json(path.with_suffix(".json"))
        check(about, {"shards": [is_shard], "workers": positive, "began": text})
        shards = [ShardPaths(outputs.root / name) for name in about["shards"]]
        return Training(tuple(with_parts(shards)), about["workers"], about["began"])
    except (StoreError, ValueError, LookupError, TypeError):
        return Training()


def with_parts(shards: Sequence[ShardPaths]) -> Iterator[ShardPaths]:
    """Yield shards, and in the place of one that was split and is gone its parts."""
    for paths in shards:
        yield from [paths] if paths.run.is_file() else _parts(paths)


def _parts(gone: ShardPaths) -> Iterator[ShardPaths]:
    for paths in gone.ensemble.shards():
        with contextlib.suppress(StoreError, LookupError, TypeError):
            if read_json(paths.run)["plan"]["split_from"] == gone.root.name:
                yield paths
