"""How far a command is that makes many of one thing, in a line on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dynalab.cli.options import is_interactive

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
    with _line(what) as bar:
        task = bar.add_task("import", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total, refresh=True)


def _line(unit: str) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}")
    columns = (text, BarColumn(24), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def fits(kind: str) -> Iterator[None]:
    """Draw a line of how far the fits of an analysis are while the block lasts; nothing where there is no terminal.

    Args:
        kind: The analysis, for the beginning of the line.
    """
    if not is_interactive():
        yield
        return
    from dynalab.analysis.hmm import workers

    with _line("fits") as bar:
        # Begun with the first fit: most analyses make none.
        line: list[Any] = []

        def show(part: str, done: int, total: int) -> None:
            if not line:
                line.append(bar.add_task(kind, total=total))
            what = f"{kind}: {PARTS.get(part, part)}"
            bar.update(line[0], description=what, completed=done, total=total, refresh=True)

        with workers.telling(show):
            yield
