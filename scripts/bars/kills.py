"""Sweeps that are killed at random moments and repeated."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path

from kills.trials import SOURCES, series, table

from bars.base import Bar

KILLS = {"local": 100, "slurm": 20}


def _measure(launcher: str, work: Path) -> tuple[str, bool, list[list[str]]]:
    """Kill sweeps of a launcher."""
    trials = series(work / "kills", launcher, 0, KILLS[launcher], lambda line: print(f"  {line}", flush=True))
    n_kills, n_whole = sum(len(trial.kills) for trial in trials), sum(not trial.faults for trial in trials)
    figure = f"{n_kills} kills; {n_whole} of {len(trials)} sweeps whole and equal to the bit"
    return figure, n_whole == len(trials), table(trials)


def _without_slurm() -> str:
    if shutil.which("sinfo") and not subprocess.run(["sinfo"], capture_output=True, timeout=30).returncode:
        return ""
    return "no Slurm runs here: scripts/slurm start"


_MUST = (
    "every sweep ends whole after repeating the command, equal to the bit; nothing lost, doubled or left over"
)
BARS = [
    Bar(
        "kills",
        f"{KILLS['local']} SIGKILLs of a worker, the command or its group, at random moments of small sweeps",
        _MUST,
        "test_train_cli.py",
        partial(_measure, "local"),
        sources=SOURCES,
    ),
    Bar(
        "kills-slurm",
        f"{KILLS['slurm']} cancelled jobs, time limits, kills and stops of the node's daemon, under a Slurm",
        _MUST,
        "test_slurm.py",
        partial(_measure, "slurm"),
        sources=SOURCES,
        lacking=_without_slurm,
    ),
]
