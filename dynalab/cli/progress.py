"""How far a command is that makes many of one thing, in a line on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dynalab.cli.options import is_interactive
from dynalab.core.progress import telling

if TYPE_CHECKING:
    from rich.progress import Progress

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
def pieces(kind: str) -> Iterator[None]:
    """Draw a line of how far an analysis is while the block lasts; nothing where there is no terminal.

    Args:
        kind: The analysis, for the beginning of the line.
    """
    if not is_interactive():
        yield
        return
    with _line() as bar:
        # Begun with the first piece: many analyses tell of none.
        line: list[Any] = []

        def show(part: str, done: int, total: int, unit: str = "fits") -> None:
            if not line:
                line.append(bar.add_task(kind, total=total, unit=unit))
            what = f"{kind}: {PARTS.get(part, part)}" if part else kind
            bar.update(line[0], description=what, completed=done, total=total, unit=unit, refresh=True)

        with telling(show):
            yield
