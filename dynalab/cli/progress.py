"""How far the fits of an analysis are, in a line on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dynalab.cli.options import is_interactive

# Part of the hidden Markov analysis that makes fits -> what they are for.
PARTS = {
    "tasks": "number of states",
    "selection": "number of states",
    "paper": "number of states",
    "stability": "other starts and runs",
    "baselines": "simpler models",
}


@contextmanager
def fits(kind: str) -> Iterator[None]:
    """Draw a line of how far the fits of an analysis are while the block lasts; nothing where there is no terminal.

    Args:
        kind: The analysis, for the beginning of the line.
    """
    if not is_interactive():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from dynalab.analysis.hmm import workers

    text = TextColumn("{task.description}")
    columns = (text, BarColumn(24), MofNCompleteColumn(), TextColumn("fits"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        # Begun with the first fit: most analyses make none.
        line: list[Any] = []

        def show(part: str, done: int, total: int) -> None:
            if not line:
                line.append(bar.add_task(kind, total=total))
            what = f"{kind}: {PARTS.get(part, part)}"
            bar.update(line[0], description=what, completed=done, total=total, refresh=True)

        with workers.telling(show):
            yield
