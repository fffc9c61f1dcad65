"""Sweeps that are killed at random moments and repeated."""

from __future__ import annotations

from pathlib import Path

from kills.trials import SOURCES, series, table

from bars.base import Bar

KILLS = 100


def local(work: Path) -> tuple[str, bool, list[list[str]]]:
    """Kill sweeps of the launcher `local`."""
    trials = series(work / "kills", "local", 0, KILLS)
    n_kills, n_whole = sum(len(trial.kills) for trial in trials), sum(not trial.faults for trial in trials)
    figure = f"{n_kills} kills; {n_whole} of {len(trials)} sweeps whole and equal to the bit"
    return figure, n_whole == len(trials), table(trials)


BARS = [
    Bar(
        "kills",
        f"{KILLS} SIGKILLs of a worker, the command or its group, at random moments of small sweeps",
        "every sweep ends whole after repeating the command, equal to the bit; nothing lost, doubled or left over",
        "test_train_cli.py",
        local,
        sources=SOURCES,
    )
]
