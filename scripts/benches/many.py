"""Thousands of runs: every command on N runs against the same on a tenth of them, in time, memory and bytes.

The runs are of parity, in one ensemble, a second one at another rate beside it for `analyze compare`. Where a command
costs more than its share, something in it grows faster than the runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.base import CACHE, Options, Row, Subject, environment, gather
from benches.parity import WORDS

# Twenty rows of all that is recorded by default: the shape of a study, and few steps.
LENGTH = ("train.steps=200", "eval.every=10")
# Ten times the runs, and a fifth for what does not divide.
BAR = 12.0
SIZES, QUICK_SIZES = (1000, 5000), (40,)


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: From its start to its end.
        cpu: User and system seconds, of its workers too.
        peak: Largest resident memory of any of its processes, bytes.
    """

    seconds: float
    cpu: float
    peak: int


def command(words: Sequence[str], outputs: Path) -> Cost:
    """Run a whole command on some outputs.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "dynalab", *words, "--outputs", str(outputs)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment(),
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"dynalab {' '.join(words)}: {errors.read().decode()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def commands(runs: int) -> dict[str, list[str]]:
    """Return what is measured: name -> words, in the order in which they are run."""
    slow, fast, both = (
        ["train", *WORDS, *LENGTH, f"seed=0..{runs - 1}", f"optimizer.lr={rates}", "-q"]
        for rates in ("0.1", "0.2", "0.1,0.2")
    )
    return {
        "train": slow,
        "runs list": ["runs", "list"],
        "runs list --json": ["runs", "list", "--json"],
        "the same command again": slow,
        "analyze hmm": ["analyze", "hmm"],
        "train, another rate": fast,
        "both rates again": both,
        "analyze compare": ["analyze", "compare"],
        "report": ["report", "@all", "--name", "many"],
    }


def measure_size(runs: int, options: Options) -> tuple[dict[str, Cost], int]:
    """Run all commands on so many runs; what they cost, and the bytes of the page."""
    (CACHE / "dynalab/trials.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        costs = {}
        for name, words in commands(runs).items():
            options.say(f"{runs:,} runs: {name}")
            costs[name] = command(words, Path(folder))
        page = sum(path.stat().st_size for path in Path(folder, "reports/many").glob("*.html"))
    return costs, page


def measure(options: Options) -> list[Row]:
    """Measure every command at every size and at a tenth of it."""
    rows = []
    for runs in QUICK_SIZES if options.quick else SIZES:
        pairs = [
            (measure_size(runs // 10, options), measure_size(runs, options)) for _ in range(options.pairs)
        ]
        bar = None if options.quick else BAR
        for name in commands(runs):
            costs = [(few[name], many[name]) for (few, _), (many, _) in pairs]
            seconds = [
                {f"{runs // 10:,} runs": few.seconds, f"{runs:,} runs": many.seconds} for few, many in costs
            ]
            for item, (_, many) in zip(seconds, costs, strict=True):
                item["CPU seconds"] = many.cpu
                item["GB at most"] = many.peak / 1e9
            what, against = f"{runs:,} runs of parity: {name}", f"{runs // 10:,} runs"
            ratios = [many.seconds / few.seconds for few, many in costs]
            peaks = [many.peak / few.peak for few, many in costs]
            rows.append(Row(what, against, ratios, bar, at_least=False, seconds=gather(seconds)))
            rows.append(Row(f"{what}, memory", against, peaks, bar, at_least=False))
        sizes = [many / few for (_, few), (_, many) in pairs]
        note = f"the page of {runs:,} runs has {pairs[-1][1][1] / 1e6:.1f} MB"
        rows.append(Row(f"{runs:,} runs of parity: bytes of the page", against, sizes, bar, False, note=note))
    return rows


SUBJECT = Subject("many", "1,000 and 5,000 runs: every command against a tenth of the runs", measure)
