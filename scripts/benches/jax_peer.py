"""Many seeds against JAX: whole commands, process start and compilation included, both on all cores.

The program is `jax_train.py`, in an environment of its own: `.venv-jax` in the repository (or the folder that
DYNALAB_JAX names), made at the first use. Either side evaluates on the same grid; JAX keeps one norm, dynalab all that
it records by default. That both learn the same is checked in every pair.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from benches import grokking, parity
from benches.base import ROOT, THREADS, Options, Row, Run, Subject, Unavailable, dynalab, gather, timed

# What is compared with; raise both together.
PINS = ("jax[cpu]==0.10.2", "optax==0.2.8")
# Final accuracies are alike within so many standard errors of their difference, and so much.
ERRORS, MARGIN = 4.0, 0.01


@dataclass(frozen=True)
class Work:
    """What both train.

    Attributes:
        name: Word for the command line, after `jax-`.
        program: Its name in `jax_train.py`.
        what: Its name in the table.
        words: dynalab's configuration, without seeds and length.
        seeds: How many.
        steps: Updates of each.
        bar: How many times faster than JAX dynalab must be.
    """

    name: str
    program: str
    what: str
    words: tuple[str, ...]
    seeds: int
    steps: int
    bar: float


_GROKKING = partial(Work, program="grokking", what=grokking.WORK.what, words=grokking.WORK.words)
_PARITY = partial(Work, program="parity", what=parity.WORK.what, words=parity.WORDS)
WORKS = [
    _GROKKING(name="grokking", seeds=20, steps=4000, bar=1.1),
    _PARITY(name="parity", seeds=20, steps=20000, bar=1.1),
    _PARITY(name="parity-200", seeds=200, steps=20000, bar=1.3),
    _PARITY(name="parity-1000", seeds=1000, steps=2000, bar=1.3),
]


@cache
def python(say: Callable[[str], None]) -> Path | str:
    """Return the Python of the environment that has JAX, made where it is missing; in words, why it cannot be."""
    folder = Path(os.environ.get("DYNALAB_JAX") or ROOT / ".venv-jax").resolve()
    own = folder / "bin/python"
    stamp = folder / f"installed-{hashlib.sha256(' '.join(PINS).encode()).hexdigest()[:10]}"
    if stamp.is_file():
        return own
    say(f"installing {' and '.join(PINS)} into {folder} (about a minute)")
    install = [str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = next(reversed((done.stderr or done.stdout).strip().splitlines()), "no reason given")
            return (
                f"{' and '.join(PINS)} could not be installed into {folder}: {last}\n"
                "PyPI has to be reached once; else DYNALAB_JAX may name an environment that was made elsewhere."
            )
    stamp.touch()
    return own


def jax(own: Path, work: Work, seeds: int, steps: int) -> dict[str, Any]:
    """Run JAX's whole program; what it answers, and `seconds` from its start to its end.

    Raises:
        RuntimeError: It failed.
    """
    program = Path(__file__).with_name("jax_train.py")
    environment = {key: value for key, value in os.environ.items() if key not in (*THREADS, "PYTHONPATH")}
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        words = [work.program, str(seeds), str(steps), str(Path(folder, "runs.npz"))]
        began = time.perf_counter()
        done = subprocess.run(
            [str(own), str(program), *words],
            capture_output=True,
            text=True,
            env={**environment, "JAX_PLATFORMS": "cpu"},
            check=False,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{program.name} {' '.join(words[:3])}: {done.stderr[-2000:]}")
    return json.loads(done.stdout) | {"seconds": seconds}


def alike(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Return whether two samples of final accuracies may be of one law: their means, within chance and a margin."""
    variances = [statistics.variance(sample) / len(sample) for sample in (ours, theirs) if len(sample) > 1]
    apart = abs(statistics.fmean(ours) - statistics.fmean(theirs))
    return apart <= ERRORS * sum(variances) ** 0.5 + MARGIN


def compare(work: Work, options: Options) -> list[Row]:
    """Time dynalab, whose code is compiled once a machine, and JAX, whose program is once a command, in turn.

    Raises:
        Unavailable: There is no JAX.
        RuntimeError: They did not learn the same.
    """
    own = python(options.say)
    if isinstance(own, str):
        raise Unavailable(own)
    seeds, steps = (max(work.seeds // 10, 4), work.steps // 20) if options.quick else (work.seeds, work.steps)
    row = Row(
        f"{seeds:,} seeds of {work.what}, {steps:,} steps, whole command",
        "JAX: jit, vmap, scan, optax",
        [],
        None if options.quick else work.bar,
    )
    seconds: list[dict[str, Any]] = []
    for pair in range(options.pairs):
        options.say(f"{seeds} seeds of {work.what}, round {pair + 1} of {options.pairs}: dynalab, then JAX")
        run = dynalab([*work.words, f"train.steps={steps}", f"seed=0..{seeds - 1}"])
        other = jax(own, work, seeds, steps)
        parts = {f"JAX's {part}": other[part] for part in ("start", "compile", "train")}
        _require_alike(f"{seeds} seeds of {work.what}, {steps} steps", run, other)
        row.values.append(other["seconds"] / run.seconds)
        seconds.append({**timed(run), "JAX": other["seconds"], **parts})
        row.note = f"{' and '.join(PINS)}; {seeds:,} seeds of {work.program} end at a held-out accuracy of "
        row.note += (
            f"{statistics.fmean(other['test_accuracy']):.3f}, dynalab's {_mean(run, 'test_accuracy'):.3f}"
        )
    row.seconds = gather(seconds)
    return [row]


def _mean(run: Run, name: str) -> float:
    return statistics.fmean(final[name] for final in run.final)


def _require_alike(what: str, run: Run, other: dict[str, Any]) -> None:
    for name in ("train_accuracy", "test_accuracy"):
        if not alike([final[name] for final in run.final], other[name]):
            raise RuntimeError(
                f"{what}: {name} is {_mean(run, name):.4f} in dynalab and {statistics.fmean(other[name]):.4f} in JAX, "
                "so the two do not train the same"
            )


SUBJECTS = [
    Subject(
        f"jax-{work.name}",
        f"{work.seeds:,} seeds of {work.program} x {work.steps:,} steps against JAX",
        partial(compare, work),
    )
    for work in WORKS
]
