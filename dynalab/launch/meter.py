"""How far training is, in a line on standard error that is written over: what a notebook shows while it waits."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dynalab.core.errors import DynalabError
from dynalab.core.words import count
from dynalab.launch.base import Events
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.runfile import FINAL
from dynalab.store.standing import Lookout, summarise

if TYPE_CHECKING:
    from dynalab.launch.train import Outcome

SECONDS = 0.5


def silent(outcome: Outcome) -> Events:
    """Watch training and show nothing."""
    return Events()


def showing(stack: contextlib.ExitStack) -> Callable[[Outcome], Events]:
    """Return what training is watched with: it writes the line, until the stack ends."""

    shards: list[ShardPaths] = []

    def watch(outcome: Outcome) -> Events:
        # Forks may be trained by several commands, one after another.
        begun = bool(shards)
        shards.extend(paths for layout in outcome.layouts for paths in layout.work)
        if shards and not begun:
            stack.enter_context(_written(shards))
        return Events()

    return watch


@contextlib.contextmanager
def _written(shards: Sequence[ShardPaths]) -> Iterator[None]:
    ended, longest = threading.Event(), [0]
    lookout = Lookout(OutputPaths(shards[0].ensemble.root.parent.parent))

    def write() -> None:
        text = line(lookout, shards)
        longest[0] = max(longest[0], len(text))
        sys.stderr.write(f"\r{text:<{longest[0]}}")
        sys.stderr.flush()

    def keep_writing() -> None:
        took = 0.0
        # Where there are thousands of runs, no more than a twentieth of a core.
        while not ended.wait(max(SECONDS, 20 * took)):
            began = time.thread_time()
            # What cannot be read at this moment will be in the next.
            with contextlib.suppress(OSError, ValueError, DynalabError):
                write()
            took = time.thread_time() - began

    thread = threading.Thread(target=keep_writing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError, DynalabError):
            write()
            sys.stderr.write("\n")


def line(lookout: Lookout, shards: Sequence[ShardPaths]) -> str:
    """Return how far some shards are: `training 40 runs: 31% of 120,000 steps, 5 ended`."""
    found = summarise(*lookout.look(shards))
    ended = sum(n for state, n in found.states.items() if state in FINAL)
    return (
        f"training {count(found.runs, 'run')}: {found.fraction:.0%} of {found.steps:,} steps, {ended:,} ended"
    )
