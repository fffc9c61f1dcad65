"""`dynalab runs watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from dynalab.cli.board import PLANNING, Board, showing, state
from dynalab.cli.options import (
    columns,
    echo,
    emit_json,
    filter_option,
    is_interactive,
    note,
    result_options,
    warn,
)
from dynalab.config.places import outputs_root
from dynalab.core.errors import NothingMatched
from dynalab.core.words import listed
from dynalab.store import commands, lock
from dynalab.store.find import Selection, select
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.standing import BAD, Lookout, Summary
from dynalab.store.stored import StoredEnsemble

LOOK_SECONDS = 0.5
# A shard may be between two hands for a moment: so many looks in a row must find nothing that is trained.
ENDED = 3


@click.command("watch")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_option
@click.option("--once", is_flag=True, help="Print how far they are, and end.")
@result_options
def watch_runs(
    refs: tuple[str, ...], filter_text: str | None, once: bool, as_json: bool, outputs: str | None
) -> int:
    """Follow what is trained, from any terminal.

    Without a name: what is trained in the outputs folder at this moment, forks as well, and what joins it meanwhile.
    Ends when all is done, with 3 where a run failed. Ctrl-C ends the watching alone. Without a terminal it prints
    lines; --json is one object that says how far they are now.

    \b
    dynalab runs watch
    dynalab runs watch cb7150eb3e
    dynalab runs watch -f 'task=parity optimizer.lr>0.01'
    dynalab runs watch --json
    """
    root = outputs_root(outputs)
    paths, target = OutputPaths(root), _Target(root, refs, filter_text)
    lock.watch([*commands.locks(paths), *(shard.lock for shard in target.find())], note)
    # Of another machine that is gone: to be waited for once.
    commands.sweep(paths)
    board = Board(root, target.find(), target.find)
    board.look()
    if target.everything and not (board.active or commands.living(paths)):
        board, target.idle = _idle(root, filter_text), True
    warn(target.warnings)
    if as_json:
        emit_json(_json(board))
    elif once and board.standings:
        echo(_table(board))
    elif once:
        note(PLANNING)
    elif not target.idle:
        try:
            _follow(board, lambda: target.everything and bool(commands.living(paths)))
        except KeyboardInterrupt:
            note("no longer watched; training goes on")
            return 130
    return 0 if target.idle else 3 if target.warnings else _code(board)


class _Target:
    """What is followed.

    Attributes:
        everything: Whether that is all that is trained, as far as it fits the filter.
        idle: Whether that is nothing.
        warnings: What of it is damaged.
    """

    def __init__(self, root: Path, refs: Sequence[str], filter_text: str | None) -> None:
        self._root, self._filter, self._lookout = root, filter_text, Lookout(OutputPaths(root))
        self.everything, self.idle = not refs, False
        if "@last" in refs:
            # It moves on when another command begins.
            last = [ensemble.id for ensemble, _ in select(root, ["@last"], None, StoredEnsemble)]
            refs = [name for ref in refs for name in (last if ref == "@last" else [ref])]
        self._refs = refs
        found = self._select() if refs or filter_text is not None else []
        self.warnings = [line for ensemble, _ in found for line in ensemble.warnings]

    def _select(self) -> Selection[StoredEnsemble]:
        return select(self._root, self._refs or ["@all"], self._filter, StoredEnsemble, forks=True)

    def find(self) -> list[ShardPaths]:
        """Return the shards that it is about now."""
        trained = self._lookout.trained() if self.everything else []
        if self.everything and self._filter is None:
            return trained
        try:
            chosen = dict.fromkeys(run.shard for _, runs in self._select() for run in runs)
        except NothingMatched:
            return []
        return [paths for paths in trained if paths in chosen] if self.everything else [*chosen]


def _idle(root: Path, filter_text: str | None) -> Board:
    """Say that nothing is trained, and what is done; return how that stands.

    Raises:
        NothingMatched: There is nothing.
    """
    refs = ["@last"] if filter_text is None else ["@all"]
    found = select(root, refs, filter_text, StoredEnsemble, forks=True)
    board = Board(root, [run.shard for _, runs in found for run in runs])
    board.look()
    of = "the last" if filter_text is None else "of what fits"
    states = ", ".join(f"{n:,} {name}" for name, n in board.total.states.most_common())
    ids = listed([ensemble.id for ensemble, _ in found], 3)
    note(f"nothing is being trained in {root}; {of}, {ids}: {states or 'no runs'}")
    return board


def _follow(board: Board, planning: Callable[[], bool]) -> None:
    """Show a board until nothing of it is trained; `planning` is whether more may come."""
    live, looks, ended = is_interactive() and sys.stdout.isatty(), 0, 0
    for line in [] if live else board.lines():
        echo(line)
    with showing(board, live, echo):
        while ended < ENDED:
            ended = 0 if board.active or planning() else ended + 1
            time.sleep(LOOK_SECONDS)
            looks += 1
            if not live:
                board.look(more=looks % 4 == 0 or not board.active)
    for line in [] if live else board.lines(moving=False):
        echo(line)


def _code(board: Board) -> int:
    """Return 3 where a run failed, or nobody trains what is not done."""
    states = board.total.states
    failed = any(states[name] for name in BAD)
    return 3 if failed or (not board.active and states.keys() - {"done"}) else 0


def _json(board: Board) -> dict[str, Any]:
    ensembles = [
        {"id": paths.digest, "task": paths.task, "name": name, "path": str(paths.root), **_fields(summary)}
        for paths, name, summary in board.ensembles()
    ]
    return {"training": board.active, "ensembles": ensembles, "total": _fields(board.total)}


def _fields(summary: Summary) -> dict[str, Any]:
    return {
        "runs": dict(summary.states),
        "step": summary.step,
        "steps": summary.length,
        "fraction": summary.fraction,
        "seed_steps_per_second": summary.rate,
        "seconds_left": summary.left,
        "latest": summary.latest,
    }


def _table(board: Board) -> str:
    rows = [[paths.digest, name, *_cells(summary)] for paths, name, summary in board.ensembles()]
    total = [["all", "-", *_cells(board.total)]] if len(rows) > 1 else []
    return columns(["ensemble", "name", "seeds", "steps", "done", "state", "seed-steps/s"], [*rows, *total])


def _cells(summary: Summary) -> list[Any]:
    step = f"{summary.step}/{summary.length}" if summary.length else summary.step
    rate = f"{summary.rate:,.0f}" if summary.rate else None
    return [summary.runs, step, f"{summary.fraction:.0%}", state(summary), rate]
