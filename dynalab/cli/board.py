"""What is trained, drawn: a line an ensemble and one of all, as bars that fit a terminal or as plain lines."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.cli.names import names
from dynalab.cli.options import cell, note
from dynalab.core.errors import DynalabError
from dynalab.core.words import count
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.standing import BAD, Lookout, Standing, Summary, summarise

if TYPE_CHECKING:
    from rich.console import Group

LIVE_SECONDS, PLAIN_SECONDS = 0.25, 10.0
PLANNING = "a command is planning what it trains"
_GAP, _LEAST_BAR, _MOST_BAR = 2, 8, 24
# Left to right.
_ORDER = ("name", "seeds", "bar", "steps", "speed", "metric1", "metric2", "metric0", "state")


class Board:
    """The shards that are followed, and how they stand.

    Args:
        outputs: The outputs folder.
        shards: The first of them.
        find: Called now and then; returns more.

    Attributes:
        standings: How they stood when it was last looked.
        workers: How many at a time the commands that live train.
    """

    def __init__(
        self,
        outputs: Path,
        shards: Sequence[ShardPaths],
        find: Callable[[], Sequence[ShardPaths]] = tuple,
    ) -> None:
        self._lookout, self._shards, self._find = Lookout(OutputPaths(outputs)), dict.fromkeys(shards), find
        self._names: dict[Path, str] = {}
        self.standings: list[Standing] = []
        self.workers = 0

    def look(self, *, more: bool = False) -> None:
        """Look how the shards stand, and for `more` of them."""
        if more:
            self._shards |= dict.fromkeys(self._find())
        self.standings, self.workers = self._lookout.look(self._shards)
        ensembles = {item.paths.ensemble.root: item.paths.ensemble for item in self.standings}
        if ensembles.keys() != self._names.keys():
            self._names = names(list(ensembles.values()))

    @property
    def active(self) -> bool:
        """Whether any is trained, or waits to be."""
        return any(item.active for item in self.standings)

    @property
    def total(self) -> Summary:
        """All of them together."""
        return summarise(self.standings, self.workers)

    def ensembles(self) -> list[tuple[EnsemblePaths, str, Summary]]:
        """Return the ensembles, each with its name and its shards taken together."""
        by_root: dict[Path, list[Standing]] = {}
        for item in self.standings:
            by_root.setdefault(item.paths.ensemble.root, []).append(item)
        return [
            (items[0].paths.ensemble, self._names[root], summarise(items)) for root, items in by_root.items()
        ]

    def lines(self, *, moving: bool = True) -> list[str]:
        """Return a line for each ensemble, or each that moves, and one of all where there are several."""
        rows = self.ensembles()
        lines = [
            _line(f"{name} ({paths.digest})" if paths.digest not in name else name, summary)
            for paths, name, summary in rows
            if summary.states["running"] or not moving
        ]
        # Ensembles have no metric in common that would say something.
        total = replace(self.total, latest={})
        return [*lines, _line(_all(len(rows)), total)] if len(rows) > 1 else lines

    def table(self, width: int, height: int) -> Group:
        """Return the bars; what has no room in `height` lines is summed up in one."""
        from rich.console import Group
        from rich.text import Text

        rows = [(name, summary) for _, name, summary in self.ensembles()]
        room = max(height - 1, 3)
        shown, rest = rows, Counter[str]()
        if len(rows) > 1 and len(rows) + 1 > room:
            order = sorted(range(len(rows)), key=lambda index: _rank(rows[index][1]))
            kept = sorted(order[: max(room - 2, 1)])
            shown = [rows[index] for index in kept]
            for index in set(order) - {*kept}:
                rest[max(rows[index][1].states, key=rows[index][1].states.__getitem__)] += 1
        more = [f"{n:,} {state}" for state, n in rest.most_common()]
        if not rows:
            return Group(Text(PLANNING))
        total = (_all(len(rows)), self.total) if len(rows) > 1 else None
        return _table(shown, total, f"and {rest.total():,} more: {', '.join(more)}" if more else "", width)


def _rank(summary: Summary) -> int:
    return 0 if summary.states["running"] else 1 if summary.states["waiting"] else 2


def _all(n: int) -> str:
    return f"all {n:,} ensembles"


def metrics(summary: Summary) -> list[str]:
    """Return the latest metrics in words, those first that tell most."""
    held_out = "test_accuracy" if "test_accuracy" in summary.latest else "test_loss"
    found = [name for name in (held_out, "train_loss", "train_accuracy") if name in summary.latest]
    return [f"{name.replace('_', ' ')} {summary.latest[name]:.3g}" for name in found]


def shown(summary: Summary) -> str:
    """Return which runs the metrics are of, `2 of them at step 586`; empty where it is all of them."""
    if not summary.latest or summary.shown == summary.runs:
        return ""
    return f"{summary.shown:,} of them at step {summary.shown_step:,}"


def state(summary: Summary) -> str:
    """Return how long it takes yet, or what became of it."""
    states, bad = summary.states, [f"{summary.states[name]:,} {name}" for name in BAD if summary.states[name]]
    if states["running"] or summary.left is not None:
        words = [f"{_clock(summary.left)} left" if summary.left is not None else "starting", *bad]
    elif states["waiting"]:
        words = ["waiting", *bad]
    elif len(states) == 1:
        words = [*states]
        if summary.diverged:
            first, last = summary.diverged[0], summary.diverged[-1]
            words = [f"diverged at step{f's {first:,} to' if last > first else ''} {last:,}"]
    else:
        words = [f"{n:,} {name}" for name, n in states.most_common()]
    return ", ".join(words)


def _line(name: str, summary: Summary) -> str:
    how_far = f"{summary.fraction:.0%}"
    if summary.length:
        how_far = f"step {summary.step:,} of {summary.length:,}"
    parts = [count(summary.runs, "seed"), how_far]
    parts += [f"{summary.rate:,.0f} seed-steps/s"] if summary.rate else []
    latest = ", ".join(metrics(summary))
    latest = f"{shown(summary)}: {latest}" if shown(summary) else latest
    return cell(f"{name}: {', '.join(filter(None, [*parts, latest, state(summary)]))}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _table(
    rows: Sequence[tuple[str, Summary]], total: tuple[str, Summary] | None, rest: str, width: int
) -> Group:
    """Lay rows out in a width: name, steps and time always, the others as far as there is room, the bar in the rest."""
    from rich.cells import cell_len
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    drawn = [*rows, *([total] if total else [])]
    columns = {
        "name": [cell(name) for name, _ in drawn],
        "steps": [
            f"{item.step}/{item.length}" if item.length and index < len(rows) else f"{item.fraction:.0%}"
            for index, (_, item) in enumerate(drawn)
        ],
        "state": [state(item) for _, item in drawn],
        "seeds": [
            ", ".join(filter(None, [count(item.runs, "seed"), shown(item) if index < len(rows) else ""]))
            for index, (_, item) in enumerate(drawn)
        ],
        "speed": [f"{item.rate:,.0f} seed-steps/s" if item.rate else "" for _, item in drawn],
    }
    for place in range(3):
        texts = [(metrics(item)[place:] or [""])[0] for _, item in rows]
        columns[f"metric{place}"] = [*texts, ""]
    widths = {name: max(map(cell_len, texts), default=0) for name, texts in columns.items()}
    widths["state"] = min(widths["state"], max(width // 3, 10))
    full, widths["bar"] = widths["name"], _LEAST_BAR
    widths["name"] = min(full, max(width // 3, 8))
    kept = {"name", "steps", "state"}
    free = width - sum(widths[item] for item in kept) - 2 * _GAP
    for extra in ("bar", "metric0", "seeds", "metric1", "speed", "metric2"):
        if widths[extra] and widths[extra] + _GAP <= free:
            kept.add(extra)
            free -= widths[extra] + _GAP
    wider = min(full - widths["name"], max(free, 0))
    widths["name"] += wider
    widths["bar"] += min(max(free, 0) - wider, _MOST_BAR - _LEAST_BAR)
    order = [item for item in _ORDER if item in kept]
    grids = []
    for first, last in ((0, len(rows)), (len(rows), len(drawn))):
        grid = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        for item in order:
            grid.add_column(width=widths[item], no_wrap=True, overflow="ellipsis")
        for index in range(first, last):
            bar = ProgressBar(total=1.0, completed=drawn[index][1].fraction, width=widths["bar"])
            grid.add_row(*(bar if item == "bar" else Text(columns[item][index]) for item in order))
        grids.append(grid)
    between = [Text(rest, no_wrap=True, overflow="ellipsis")] if rest else []
    return Group(grids[0], *between, *([grids[1]] if total else []))


@contextmanager
def showing(board: Board, live: bool, say: Callable[[str], None] = note) -> Iterator[Callable[[str], None]]:
    """Show a board while the block lasts, and yield what prints a line meanwhile.

    Args:
        board: What is shown.
        live: Whether as bars on standard error, or else as plain lines now and then.
        say: Prints a plain line.
    """
    ended, looked, drawn = threading.Event(), [0.0], [0.0]

    def look() -> None:
        # What cannot be read at this moment is shown as it was.
        with contextlib.suppress(OSError, DynalabError):
            now = time.monotonic()
            more = now - looked[0] > 2.0
            looked[0] = now if more else looked[0]
            board.look(more=more)

    if not live:

        def tell() -> None:
            while not ended.wait(PLAIN_SECONDS):
                look()
                for line in board.lines():
                    say(line)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield say
        finally:
            ended.set()
            thread.join()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=False) as display:

        def draw() -> None:
            began = time.thread_time()
            look()
            display.update(board.table(console.width, console.height), refresh=True)
            drawn[0] = time.thread_time() - began

        def keep_drawing() -> None:
            draw()
            # Where there are thousands of shards, no more than a twentieth of a core.
            while not ended.wait(max(LIVE_SECONDS, 20 * drawn[0])):
                draw()

        thread = threading.Thread(target=keep_drawing, daemon=True)
        thread.start()
        try:
            yield lambda line: console.print(cell(line), markup=False, highlight=False)
        finally:
            ended.set()
            thread.join()
            draw()
