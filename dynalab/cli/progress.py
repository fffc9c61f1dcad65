"""How far a command is that makes many of one thing, in a line on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dynalab.cli.options import is_interactive
from dynalab.core.progress import telling

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds between two drawings: of many small pieces most are not drawn.
SELDOM = 0.1
# Part of the hidden Markov analysis that makes fits -> what they are for.
PARTS = {
    "tasks": "number of states",
    "selection": "number of states",
    "paper": "number of states",
    "stability": "other starts and runs",
    "baselines": "simpler models",
}


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many things of how many are done, a line on a terminal while the block lasts."""
    if not is_interactive():
        yield lambda done, total: None
        return
    with _line() as bar:
        task = bar.add_task("import", total=None, unit=what)
        yield lambda done, total: bar.update(task, completed=done, total=total, refresh=True)


def _line() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}")
    columns = (
        text,
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def pieces(kind: str, shown: ExitStack | None = None, *, quiet: bool = False) -> Iterator[None]:
    """Draw a line of how far a command is while the block lasts; nothing where there is no terminal.

    Args:
        kind: What is done, for the beginning of the line.
        shown: Holds what is drawn at the moment, as `watching` has it: a board of what is trained, or this line. The
            one that begins ends the other.
        quiet: Draw nothing.
    """
    if quiet or not is_interactive():
        yield
        return
    with ExitStack() as own:
        held, drawn = shown or own, -SELDOM
        # Begun with the first piece: many analyses tell of none.
        line: list[tuple[Progress, Any]] = []

        def show(part: str, done: int, total: int, unit: str = "fits") -> None:
            nonlocal drawn
            if not line:
                held.close()
                bar = held.enter_context(_line())
                held.callback(line.clear)
                line.append((bar, bar.add_task(kind, total=total, unit=unit)))
            bar, task = line[0]
            what, now = f"{kind}: {PARTS.get(part, part)}" if part else kind, time.monotonic()
            refresh = now - drawn >= SELDOM
            drawn = now if refresh else drawn
            bar.update(task, description=what, completed=done, total=total, unit=unit, refresh=refresh)

        try:
            with telling(show):
                yield
        finally:
            if line:
                held.close()
