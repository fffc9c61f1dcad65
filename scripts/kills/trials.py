"""One sweep: started, killed, repeated, and held against one that nobody killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kills.base import MOMENTS, SWEEPS, Backend, Running
from kills.checks import faults
from kills.local import Local
from kills.slurm import Slurm

BACKENDS: dict[str, Backend] = {"local": Local(), "slurm": Slurm()}
# What the outcome depends on.
SOURCES = ("dynalab", "conf", "scripts/kills", "tests/stored.py")
_MOST_REPEATS = 12


@dataclass
class Trial:
    """What became of one sweep.

    Attributes:
        number: Its number, which with the seed says all that is drawn.
        sweep: What was trained.
        kills: [victim, moment] of each kill that struck.
        codes: Exit codes of all its commands, signals as negative numbers.
        faults: What was wrong in the end.
        seconds: How long it took.
    """

    number: int
    sweep: str
    kills: list[tuple[str, str]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def reference(work: Path, name: str) -> Path:
    """Return the outputs folder of a sweep that nobody killed, and beside it what it began from; made once."""
    place = work / "reference" / name
    if place.is_dir():
        return place
    made = work / "reference" / f".{name}"
    shutil.rmtree(made, ignore_errors=True)
    outputs = made / "outputs"
    outputs.mkdir(parents=True)
    sweep = SWEEPS[name]
    for words in sweep.before:
        _dynalab(*words, outputs=outputs)
    shutil.copytree(outputs, made / "before")
    _dynalab(*sweep.command(outputs), outputs=outputs)
    made.rename(place)
    return place


def _dynalab(*words: str, outputs: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "dynalab", *words, "-q", "--outputs", str(outputs)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def series(
    work: Path, backend: str, seed: int, kills: int, tell: Callable[[str], object] = lambda line: None
) -> list[Trial]:
    """Make trials until so many kills have struck.

    What stands in the folder's file is not made again, however it was interrupted.
    """
    path = work / f"{backend}-{seed}.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.is_file() else []
    trials = [Trial(**json.loads(line)) for line in lines if line.endswith("}")]
    while sum(len(trial.kills) for trial in trials) < kills:
        trials.append(last := _attempt(work, backend, seed, len(trials)))
        with path.open("a") as file:
            file.write(json.dumps(asdict(last)) + "\n")
        struck = ", ".join(f"{victim} at {moment}" for victim, moment in last.kills) or "none"
        tell(
            f"{last.number}: {last.sweep}: {struck}; exit codes {last.codes}; {last.seconds} s {last.faults or ''}"
        )
    return trials


def table(trials: Sequence[Trial]) -> list[list[str]]:
    """Return how many kills struck whom at which moment: a header, a row a victim, and their sum."""
    counts = Counter(tuple(kill) for trial in trials for kill in trial.kills)
    victims, moments = (sorted({kill[place] for kill in counts}) for place in (0, 1))
    rows = [[victim, *(counts[victim, moment] for moment in moments)] for victim in victims]
    rows.append(["all", *(sum(row[place + 1] for row in rows) for place in range(len(moments)))])
    return [["killed", *moments, "sum"], *([*map(str, row), str(sum(row[1:]))] for row in rows)]


def _attempt(work: Path, backend: str, seed: int, number: int) -> Trial:
    """Make one trial: two kills, now and then three, then repetitions until all is done."""
    began = time.monotonic()
    rng = random.Random(f"{backend} {seed} {number}")
    names = sorted(SWEEPS)
    trial = Trial(number, names[number % len(names)])
    sweep = SWEEPS[trial.sweep]
    place = reference(work, trial.sweep)
    outputs = work / f"trial-{os.getpid()}-{number}"
    shutil.rmtree(outputs, ignore_errors=True)
    shutil.copytree(place / "before", outputs)
    wanted = rng.choice([2, 2, 3])
    way = BACKENDS[backend]
    while len(trial.codes) < _MOST_REPEATS:
        running = way.start(sweep.command(outputs), outputs, rng)
        if len(trial.kills) < wanted:
            victim, moment = rng.choice(way.victims), rng.choice(sorted(MOMENTS))
            if _kill(running, victim, moment, outputs, rng):
                trial.kills.append((victim, moment))
        trial.codes.append(running.wait())
        # Half the time at once, while orphans of a killed command may still be saving.
        if rng.random() < 0.5:
            running.settle()
            trial.faults += _seen_running(outputs)
        if trial.codes[-1] == 0:
            break
    running.settle()
    if trial.codes[-1]:
        trial.faults.append(f"repeated {len(trial.codes)} times and still exit code {trial.codes[-1]}")
    trial.faults += faults(outputs, place / "outputs")
    trial.seconds = round(time.monotonic() - began, 1)
    if trial.faults:
        kept = work / f"kept-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        outputs.rename(kept)
    else:
        shutil.rmtree(outputs)
    return trial


def _kill(running: Running, victim: str, name: str, outputs: Path, rng: random.Random) -> bool:
    """Wait for a moment and kill; whether there was something to kill."""
    moment = MOMENTS[name]
    there = {*moment.seen(outputs)} if moment.seen else set()
    while moment.seen and not running.over():
        if {*moment.seen(outputs)} - there:
            break
        time.sleep(0.001)
    time.sleep(rng.uniform(0, moment.most))
    return running.strike(victim, rng)


def _seen_running(outputs: Path) -> list[str]:
    """Return a line for each run that is said to be running when nobody runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "dynalab", "runs", "list", "--forks", "--json", "--outputs", str(outputs)],
        capture_output=True,
        text=True,
    )
    if done.returncode == 4:
        return []
    if done.returncode not in (0, 3):
        return [f"runs list: exit code {done.returncode}: {done.stderr.strip()[-300:]}"]
    runs = json.loads(done.stdout)["runs"]
    return [f"{run['id']} is said to be running" for run in runs if run["status"] == "running"]
