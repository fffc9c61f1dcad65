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
from dynalab.store.stored import StoredEnsemble

if TYPE_CHECKING:
    from dynalab.launch.layout import Layout
    from dynalab.launch.train import Outcome

SECONDS = 0.5


def silent(outcome: Outcome) -> Events:
    """Watch training and show nothing."""
    return Events()


def showing(stack: contextlib.ExitStack) -> Callable[[Outcome], Events]:
    """Return what training is watched with: it writes the line, until the stack ends."""

    layouts: list[Layout] = []

    def watch(outcome: Outcome) -> Events:
        # Forks may be trained by several commands, one after another.
        layouts.extend(outcome.layouts)
        if len(layouts) == len(outcome.layouts):
            stack.enter_context(_written(layouts))
        return Events()

    return watch


@contextlib.contextmanager
def _written(layouts: Sequence[Layout]) -> Iterator[None]:
    ended, longest = threading.Event(), [0]

    def write() -> None:
        text = line(layouts)
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


def line(layouts: Sequence[Layout]) -> str:
    """Return how far the runs of some ensembles are, by what is stored: `training 40 runs: 31% of 120,000 steps`."""
    done = total = ended = runs = 0
    for layout in layouts:
        asked, wanted = layout.request.steps, {run.label for run in layout.request.runs}
        own = [run for run in StoredEnsemble(layout.paths).runs if run.label in wanted]
        runs, total = runs + len(wanted), total + asked * len(wanted)
        # A run that diverged is done, wherever it did.
        over = [run.status in ("done", "diverged") and run.requested_steps >= asked for run in own]
        done += sum(asked if end else min(run.steps, asked) for run, end in zip(own, over, strict=True))
        ended += sum(over)
    share = done / total if total else 1.0
    return f"training {count(runs, 'run')}: {share:.0%} of {total:,} steps, {ended:,} ended"
