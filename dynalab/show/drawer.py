"""A second process that draws, for pages: of each figure what stands beside its main drawing.

It is given the calls that draw figures, as these are made, and makes the same bytes as this process would. What it has
not begun when it is needed is drawn here, and so is what it cannot be sent. Imports nothing that is slow to import, so
that it can be started before anything else.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dynalab.core.machine import cores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynalab.show.plots.style import Call

T = TypeVar("T")
# Figures of more bytes are not sent: they would be held twice.
MOST = 50_000_000


class Drawer:
    """The second process, as a context: it ends with that, whatever it is at."""

    def __init__(self) -> None:
        """Start it; it imports while this process does."""
        self._process = subprocess.Popen(
            # Nothing is imported from the folder that the command is given in.
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # One conversation at a time.
        self._line = ThreadPoolExecutor(1)
        self._jobs: dict[tuple[int, str], Future[Any]] = {}
        # As long as they are there, no other figure has their ids.
        self._figures: list[Figure] = []

    def __enter__(self) -> Drawer:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._line.shutdown(cancel_futures=True)
        self._process.communicate()

    def add(self, figure: Figure, call: Call) -> None:
        """Have it make of a figure what its page will need of it."""
        from dynalab.show import svg

        buffers: list[pickle.PickleBuffer] = []
        try:
            head = pickle.dumps(call, protocol=5, buffer_callback=buffers.append)
        except (pickle.PicklingError, AttributeError, TypeError):
            # A plug-in's function, or what it was given.
            return
        if len(head) + sum(buffer.raw().nbytes for buffer in buffers) > MOST:
            return
        self._figures.append(figure)
        for job in ("narrow", "png") if svg.is_wide(figure) else ("png",):
            self._jobs[id(figure), job] = self._line.submit(self._ask, job, head, buffers)

    def _ask(self, job: str, head: bytes, buffers: list[pickle.PickleBuffer]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((job, head, buffers), self._process.stdin, protocol=5)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def take(self, figure: Figure, job: str, make: Callable[[], T]) -> T:
        """Return what it made of a figure, or what is made here where it has not begun or has failed."""
        asked = self._jobs.pop((id(figure), job), None)
        if asked is not None and not asked.cancel():
            try:
                made: T | None = asked.result()
            except (OSError, EOFError, pickle.UnpicklingError):
                # It is gone.
                made = None
            if made is not None:
                return made
        return make()


def second() -> AbstractContextManager[Drawer | None]:
    """Return a second process where there is a processor for it, and room for a process, else None, as a context."""
    with suppress(OSError):
        if cores() > 1:
            return Drawer()
    return nullcontext()


def main() -> None:
    """Answer until nobody asks any more; what fails here fails where it was asked for as well, and is said there."""
    from dynalab.show import svg

    gc.set_threshold(100_000)
    jobs: dict[str, Callable[[Call], Any]] = {"narrow": svg.narrow, "png": lambda call: svg.png(call.draw())}
    # What anything here prints is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            job, head, buffers = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            made = jobs[job](pickle.loads(head, buffers=buffers))
        except Exception:
            made = None
        pickle.dump(made, answers)
        answers.flush()


if __name__ == "__main__":
    main()
