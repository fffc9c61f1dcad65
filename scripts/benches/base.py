"""What every subject of scripts/bench is made of: rows of a table, pairs of measurements, whole commands timed."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Of dynalab's and the loops' own, so that a user's is neither used nor changed.
CACHE = ROOT / "outputs/bench/cache"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Unavailable(Exception):
    """What a subject is compared with cannot be had on this machine; the others are measured all the same."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        pairs: Repetitions of every comparison.
        quick: Reduced sizes: the table's form, not its figures.
        full: Train every seed of the loops too, instead of some of them.
        say: Told what is being measured.
    """

    pairs: int = 3
    quick: bool = False
    full: bool = False
    say: Callable[[str], None] = lambda line: None


@dataclass
class Row:
    """One comparison.

    Attributes:
        work: What dynalab did.
        against: What it is compared with.
        values: The ratio of every pair.
        bar: What the median must reach; None where nothing is asked.
        at_least: Whether the bar is a lower bound; else an upper one.
        seconds: Name -> seconds of every pair, for whoever wants to know what the ratio is made of.
        note: What was scaled, counted or left out.
    """

    work: str
    against: str
    values: list[float]
    bar: float | None = None
    at_least: bool = True
    seconds: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    @property
    def median(self) -> float:
        """The median ratio."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.median >= self.bar if self.at_least else self.median <= self.bar


@dataclass(frozen=True)
class Subject:
    """A part of the table.

    Attributes:
        name: Word for the command line.
        what: One line for `--list`.
        measure: Makes its rows.
    """

    name: str
    what: str
    measure: Callable[[Options], list[Row]]


@dataclass(frozen=True)
class Run:
    """A whole `dynalab train` command.

    Attributes:
        seconds: From its start to its end.
        train_seconds: Of its busiest worker, in the step loops of its shards.
        steps_per_second: Of the shard that took longest.
        peak_bytes: Sum over worker processes of their peak resident memory, where it was watched.
        widths: Seeds of each shard.
        final: The last row of every run.
    """

    seconds: float
    train_seconds: float
    steps_per_second: float
    peak_bytes: int
    widths: tuple[int, ...]
    final: tuple[dict[str, Any], ...]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a measured process: this source, PyTorch's default of threads."""
    own = {key: value for key, value in os.environ.items() if key not in THREADS}
    paths = [*map(str, (ROOT, ROOT / "scripts", ROOT / "tests")), os.environ.get("PYTHONPATH", "")]
    home = {"XDG_CACHE_HOME": str(CACHE)}
    return {**own, **home, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def alone(module: str, *arguments: object, **more: str) -> Any:
    """Run a module of the benches by itself, on one thread; return the JSON of its last line.

    Args:
        module: Its name below `benches`.
        *arguments: Those of its command line.
        **more: Variables of its environment.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benches.{module}", *map(str, arguments)],
        env=environment(**dict.fromkeys(THREADS, "1"), **more),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benches.{module} {' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def dynalab(words: Sequence[str], watch: Callable[[int], Callable[[], int]] | None = None) -> Run:
    """Run a whole `dynalab train` command in outputs of its own.

    Args:
        words: Its configuration.
        watch: Given the process id, starts watching memory, and returns what ends it and gives the peak.

    Raises:
        RuntimeError: It failed.
    """
    # The planner's trial is part of what a new task costs.
    (CACHE / "dynalab/trials.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "dynalab", "train", *words, "--json", "-q", "--outputs", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        peak = watch(process.pid) if watch else lambda: 0
        answer, errors = process.communicate()
        seconds = time.perf_counter() - began
        peak_bytes = peak()
        if process.returncode:
            raise RuntimeError(f"dynalab train {' '.join(words)}: {errors[-2000:]}")
        records = [json.loads(path.read_text()) for path in Path(folder).glob("*/*/shard-*/run.json")]
    attempts = [record["attempts"][-1] for record in records]
    workers: dict[int, float] = {}
    for attempt in attempts:
        workers[attempt["pid"]] = workers.get(attempt["pid"], 0.0) + attempt["train_seconds"]
    longest = max(attempts, key=lambda attempt: attempt["train_seconds"])
    return Run(
        seconds,
        max(workers.values()),
        longest["step"] / longest["train_seconds"],
        peak_bytes,
        tuple(len(record["runs"]) for record in records),
        tuple(run["summary"]["final"] for item in json.loads(answer)["ensembles"] for run in item["runs"]),
    )


def timed(run: Run) -> dict[str, Any]:
    """Return a run's times for a row: the whole command, and what of it was not training."""
    return {"dynalab": run.seconds, "start-up": run.seconds - run.train_seconds}


def gather(measured: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Turn one mapping a pair into name -> one value a pair."""
    return {name: [item[name] for item in measured] for name in measured[0]}
