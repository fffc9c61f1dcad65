"""Processes that run dynalab's own modules, and the workers among them."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from dynalab.store.paths import ShardPaths

_LOG_LINES = 60
# glibc hands every temporary of a few megabytes back to the kernel and faults it in again at the next step; kept,
# a full-batch step was 5 to 14% faster.
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
# Started as a file's text, with the package at the place where this process has it: whatever lies in the working
# directory or is installed elsewhere under this name is no part of a worker.
_START = """
import importlib.util, runpy, sys
name, home, module = sys.argv[1:4]
del sys.argv[1:4]
spec = importlib.util.spec_from_file_location(name, f"{home}/__init__.py", submodule_search_locations=[home])
package = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module(module, run_name="__main__")
"""


def python(module: str) -> list[str]:
    """Return the words that run a module of dynalab in a process of its own, as `python -m` does."""
    package = Path(__file__).resolve().parent.parent
    # -P: the working directory is no place to import from.
    return [sys.executable, "-P", "-c", _START, package.name, str(package), module]


def environment(threads: int) -> dict[str, str]:
    """Return the variables that a process needs which trains with so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that trains with so many threads."""
    return {
        **os.environ,
        **environment(threads),
        **kept_memory(),
    }


def spawn(threads: int) -> subprocess.Popen[str]:
    """Start the process of a worker that trains with so many threads."""
    # In the command's own process group: Ctrl-C and a kill of the group reach the workers as well.
    return subprocess.Popen(
        python("dynalab.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=worker_environment(threads),
    )


def kept_memory() -> dict[str, str]:
    """Return the variables by which a process keeps the memory that it frees, but for those that the user has set."""
    return {key: value for key, value in _ALLOCATOR.items() if key not in os.environ}


class Process(Protocol):
    """What a worker runs in: a `subprocess.Popen`, or a fork that behaves as one."""

    stdin: IO[str] | None
    stdout: IO[str] | None
    stderr: IO[str] | None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(eq=False)
class Worker:
    """A child process that trains: what it was handed, whether it has said that it can begin, was ended from here.

    Attributes:
        card: Its number among the living, which says which card `device=cuda` is for it.
        reader: What reads its answers.
        said: The last lines that it wrote beside them.
    """

    process: Process
    card: int = 0
    shard: ShardPaths | None = None
    ready: bool = False
    killed: bool = False
    reader: threading.Thread | None = None
    said: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=_LOG_LINES))

    def send(self, **values: Any) -> None:
        """Write a line of JSON to it; paths are their text there."""
        assert self.process.stdin is not None
        # Where it died, its `gone` event says so.
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(values, default=str) + "\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self.process.kill()

    def release(self) -> None:
        """Let it end once its work is saved."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.close()
