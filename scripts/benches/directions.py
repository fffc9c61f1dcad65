"""What `analyze directions` takes of ten million weights at two hundred steps: memory against a gigabyte, and time.

Training and analysis are whole commands; the weights are 8 GB on disk for as long as it lasts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benches.base import Options, Row, Subject, environment

GIGABYTE = 1e9


def command(*words: str) -> tuple[float, int]:
    """Run a whole command; return its seconds of processor time and the peak of its resident memory, in bytes.

    Raises:
        RuntimeError: It failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "dynalab", *words],
        stdout=subprocess.DEVNULL,
        env=environment(OMP_NUM_THREADS="1"),
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"dynalab {' '.join(words)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def analysed(options: Options, width: int, rows: int, *words: str) -> tuple[int, float, int]:
    """Keep the weights of every step of a wide network, and analyse them.

    Returns:
        The number of weights, and seconds of processor time and peak of the resident memory of the analysis.
    """
    weights = 64 * width + width + width**2 + width + 10 * width + 10
    keys = ["task=digits", f"model.hidden=[{width},{width}]", f"train.steps={rows - 1}", "snapshots.every=1"]
    keys += ["train.batch_size=4", "eval.every=1000", "eval.size=10", "probes=[]"]
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        options.say(f"{weights:,} weights, {rows} steps: training")
        command("train", *keys, "-q", "--outputs", folder)
        options.say(f"{weights:,} weights, {rows} steps: {words[0]}")
        return weights, *command("analyze", *words, "--json", "--outputs", folder)


def measure(options: Options) -> list[Row]:
    """Measure the directions of a wide network."""
    width, rows = (100, 20) if options.quick else (3125, 200)
    weights, seconds, peak = analysed(options, width, rows, "directions")
    what = f"directions of {weights:,} weights at {rows} steps, memory"
    bar = None if options.quick else 1.0
    note = f"{peak / 2**20:,.0f} MiB, {seconds:.0f} s of processor time with one thread"
    return [Row(what, "a gigabyte", [peak / GIGABYTE], bar, at_least=False, note=note)]


SUBJECT = Subject("directions", "memory of analyze directions on ten million weights at 200 steps", measure)
