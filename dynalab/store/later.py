"""Files that are written, and synced, on a thread of their own: what waits for the disk does not wait for training."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable
from pathlib import Path

from dynalab.core.atomic import write_bytes

# What waits is held in memory.
_MOST_WAITING = 4


class Later:
    """Replaces files one after another, in the order they were given.

    Args:
        put: What replaces a file by its data.
        require: Called before each is written; raises where it may not be.
    """

    def __init__(
        self, put: Callable[[Path, bytes], None] = write_bytes, require: Callable[[], None] = lambda: None
    ) -> None:
        self._put, self._require = put, require
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "files")
        self._waiting: collections.deque[concurrent.futures.Future[None]] = collections.deque()

    def write(self, path: Path, data: bytes) -> None:
        """Have `path` replaced by `data`; what went wrong with a file before is raised here, or by `wait`."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= _MOST_WAITING):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._write, path, data))

    def _write(self, path: Path, data: bytes) -> None:
        self._require()
        self._put(path, data)

    def wait(self) -> None:
        """Return when all files are safe."""
        while self._waiting:
            self._waiting.popleft().result()
