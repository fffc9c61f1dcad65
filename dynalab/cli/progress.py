"""Progress on standard error: live bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dynalab.cli.options import clean, is_interactive, note
from dynalab.launch.base import Events
from dynalab.store.paths import ShardPaths

if TYPE_CHECKING:
    from dynalab.launch.train import Outcome

PLAIN_SECONDS = 10.0
# Part of the hidden Markov analysis that makes fits -> what they are for.
PARTS = {
    "tasks": "number of states",
    "selection": "number of states",
    "paper": "number of states",
    "stability": "other starts and runs",
    "baselines": "simpler models",
}


class Watch:
    """Follows the shards of a command.

    Args:
        outcome: The plan.
        live: Whether to draw bars.
    """

    def __init__(self, outcome: Outcome, live: bool) -> None:
        self._ensembles = {layout.paths.root: layout for layout in outcome.layouts if layout.work}
        self._state: dict[ShardPaths, dict[str, Any]] = {}
        for layout in outcome.layouts:
            for paths in layout.work:
                self._add(paths)
        self._said = time.monotonic()
        self._live = live
        self._display: Any = None

    def _add(self, paths: ShardPaths) -> None:
        from dynalab.store import runfile

        shard = runfile.read(paths)
        self._state[paths] = {
            "step": shard.steps,
            "steps": shard.requested_steps,
            "runs": len(shard.runs),
            "rate": 0.0,
            "latest": {},
        }

    def events(self) -> Events:
        """Return the callbacks for a launcher."""
        return Events(self._progress, self._finished, self._split, self._message)

    def _message(self, line: str) -> None:
        if self._display is not None:
            self._display.console.print(clean(line), markup=False, highlight=False)
        else:
            note(line)

    def _progress(self, paths: ShardPaths, event: dict[str, Any]) -> None:
        self._state[paths] |= {
            key: event[key] for key in ("step", "rate", "latest") if event.get(key) is not None
        }
        self._show()

    def _split(self, paths: ShardPaths, parts: list[ShardPaths], how: str) -> None:
        del self._state[paths]
        for part in parts:
            self._add(part)
        names = " and ".join(part.root.name for part in parts)
        self._message(
            f"{paths.ensemble.digest}/{paths.root.name}: the worker was {how}. Its seeds go on as {names}"
        )
        self._show()

    def _finished(self, paths: ShardPaths, status: str) -> None:
        state = self._state[paths]
        if status in ("done", "diverged"):
            state["step"] = state["steps"]
        state["rate"] = 0.0
        if status not in ("done", "partial"):
            self._message(f"{paths.ensemble.digest}/{paths.root.name}: {status}")
        self._show()

    def _show(self) -> None:
        if self._display is not None:
            self._display.update(self._table())
        elif self._live is False and time.monotonic() - self._said > PLAIN_SECONDS:
            self._said = time.monotonic()
            for root in self._ensembles:
                note(self._line(root))

    def _summary(self, root: Any) -> dict[str, Any]:
        states = [state for paths, state in self._state.items() if paths.root.parent == root]
        runs = sum(state["runs"] for state in states)
        done = sum(state["step"] * state["runs"] for state in states)
        total = sum(state["steps"] * state["runs"] for state in states)
        latest: dict[str, float] = {}
        for name in ("train_loss", "train_accuracy", "test_accuracy"):
            values = [state["latest"][name] for state in states if name in state["latest"]]
            if values:
                latest[name] = sorted(values)[len(values) // 2]
        # By the workers' own rates: the time they took to start says nothing about what is left.
        speed = sum(state["rate"] * state["runs"] for state in states)
        return {
            "runs": runs,
            "fraction": done / total if total else 1.0,
            "step": done // runs if runs else 0,
            "steps": total // runs if runs else 0,
            "speed": speed,
            "eta": (total - done) / speed if speed > 0 else None,
            "latest": latest,
        }

    def _line(self, root: Any) -> str:
        s = self._summary(root)
        eta = f", {_clock(s['eta'])} left" if s["eta"] is not None else ""
        latest = "".join(f", {name} {value:.4g}" for name, value in s["latest"].items())
        return (
            f"{root.parent.name}/{root.name}: {s['runs']} seeds, step {s['step']} of {s['steps']}, "
            f"{s['speed']:.0f} seed-steps/s{latest}{eta}"
        )

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for root in self._ensembles:
            s = self._summary(root)
            latest = "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in s["latest"].items())
            table.add_row(
                Text(clean(f"{root.parent.name}/{root.name[:36]}")),
                f"{s['runs']} seeds",
                ProgressBar(total=1.0, completed=s["fraction"], width=24),
                f"{s['step']}/{s['steps']}",
                f"{s['speed']:.0f} seed-steps/s",
                Text(clean(latest)),
                f"{_clock(s['eta'])} left" if s["eta"] is not None else "",
            )
        return table


@contextmanager
def live(watch: Watch) -> Iterator[None]:
    """Draw a watch's bars while the block lasts."""
    if not watch._live:
        yield
        return
    from rich.console import Console
    from rich.live import Live

    with Live(watch._table(), console=Console(stderr=True), refresh_per_second=8, transient=False) as display:
        watch._display = display
        try:
            yield
        finally:
            display.update(watch._table())
            watch._display = None


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


def wants_live(quiet: bool) -> bool | None:
    """Return True for bars, False for plain lines, None for silence."""
    return None if quiet else is_interactive()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
