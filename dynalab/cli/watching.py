"""What commands that train say while they do, and how they are interrupted."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from dynalab.cli.options import is_interactive, note, warn
from dynalab.core.words import count

if TYPE_CHECKING:
    from dynalab.launch.base import Events
    from dynalab.launch.train import Outcome
    from dynalab.store.paths import ShardPaths

# Seconds from which on a training is told of compiled code.
LONG = 60.0


def interruptible(stack: contextlib.ExitStack) -> None:
    """Take a SIGTERM as Ctrl-C until `stack` ends."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, interrupt))


def watching(
    stack: contextlib.ExitStack, quiet: bool, shown: contextlib.ExitStack | None = None
) -> Callable[[Outcome], Events]:
    """Return what training is watched with: it says what is to be done, and shows how it goes until `stack` ends.

    `shown` holds what is drawn at the moment: whatever else is drawn in it, as `progress.pieces`, ends the board.
    """
    from dynalab.cli.board import Board, showing
    from dynalab.launch.base import Events

    held = stack.enter_context(shown or contextlib.ExitStack())

    def watch(outcome: Outcome) -> Events:
        # Several waves follow each other, as of forks that are trained in different ways.
        held.close()
        tell: Callable[[str], None] = note
        if not quiet:
            note(_describe_work(outcome))
            if hint := faster(outcome):
                note(hint)
        warn(outcome.warnings)
        if not quiet:
            shards = [paths for layout in outcome.layouts for paths in layout.work]
            board = Board(outcome.layouts[0].paths.root.parent.parent, shards)
            tell = held.enter_context(showing(board, is_interactive()))

        def finished(paths: ShardPaths, status: str) -> None:
            # Why it failed is said at the end, once for all that failed alike.
            if status not in ("done", "partial"):
                tell(f"{paths.ensemble.digest}/{paths.root.name}: {status}")

        def split(paths: ShardPaths, parts: list[ShardPaths], how: str) -> None:
            names = " and ".join(part.root.name for part in parts)
            tell(
                f"{paths.ensemble.digest}/{paths.root.name}: the worker was {how}. Its seeds go on as {names}"
            )

        return Events(finished, split, tell)

    return watch


def _describe_work(outcome: Outcome) -> str:
    """Return one line that says what will be trained and how."""
    layouts, step = outcome.layouts, outcome.plan.step_seconds
    new, laid, resumed, done = (
        sum(len(getattr(layout, name)) for layout in layouts) for name in ("new", "laid", "resumed", "done")
    )
    there = f"{new + laid} new, {resumed} to go on, {count(done, 'done run')}"
    how = f"; {outcome.plan.reason}" if new else ""
    if step is not None and len(layouts) == 1:
        busy = max(min(outcome.plan.workers, len(layouts[0].work)), 1)
        how += f"; updates take about {_duration(step * layouts[0].steps_left() / busy)}"
    return f"training {count(len(layouts), 'ensemble')}: {there}{how}"


def faster(outcome: Outcome) -> str | None:
    """Return a line on compiled code, where a training of a minute or more is without it for want of a compiler."""
    from dynalab.config.compiling import compiler

    left = sum(layout.steps_left() for layout in outcome.layouts)
    seconds = (outcome.plan.step_seconds or 0.0) * left / max(outcome.plan.workers, 1)
    if not outcome.plan.compilable or seconds < LONG or compiler() is not None:
        return None
    return (
        "with a C++ compiler (apt-get install g++) these updates would be made in compiled code, several times as fast "
        "(docs/bits.md)"
    )


def _duration(seconds: float) -> str:
    """Return a time in the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
