"""What averaging the weights costs: its share of the CPU seconds of training, at the default keys of each average.

Weights are taken in between updates, in one process and thread, as wide as one of two workers has them. In compiled
code they are taken in within updates: what these take longer than without, both in turn. Training has its rows at the
default grid; what an average's own evaluation costs is a row's.

    python -m benches.averages PAIRS STEPS SEEDS WORDS...      (answers JSON: average -> its shares, one a pair)
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import torch

from benches.base import Options, Row, Subject, alone
from benches.rows import CASES, WARM, Clock

if TYPE_CHECKING:
    from dynalab.training.loop import Loop

AVERAGES = ("ema", "lawa", "swa")
BAR = 0.03
# Turns of a pair in compiled code.
TURNS = 10
# What the average is a share of.
ALL, UPDATES = "training", "updates"
# Updates without a row.
ALONE = ("probes=[]", "eval.every=1_000_000")


def loop_of(words: list[str], steps: int, seeds: int, compile: bool = False) -> Loop:
    """Return a training, warm."""
    from dynalab.config.command import read_command
    from dynalab.training.loop import Loop
    from dynalab.training.streams import Streams

    (request,) = read_command([*words, f"train.steps={steps}"]).requests
    streams = [Streams.from_seed(seed) for seed in range(seeds)]
    loop = Loop(request.config, streams, steps, torch.device("cpu"), compile=compile)
    while loop.step < WARM:
        go_on(loop, WARM)
    return loop


def go_on(loop: Loop, end: int) -> None:
    """Train up to a step and its row, whichever is first."""
    loop.advance(end)
    loop.rows()
    loop.forced_rows()


def seconds_of(loop: Loop, steps: int) -> float:
    """Return the CPU seconds of some more steps."""
    end, began = loop.step + steps, time.process_time()
    while loop.step < end:
        go_on(loop, end)
    return time.process_time() - began


def shares(pairs: int, steps: int, seeds: int, words: list[str]) -> dict[str, dict[str, list[float]]]:
    """Train with each average in turn."""
    from dynalab.training.averaging import Averaging
    from dynalab.training.updates import Updates

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    clock = Clock()
    clock.count(Updates, "make", lambda *_: "updates")
    clock.count(Averaging, "take", lambda *_: "average")
    total = WARM + pairs * steps
    training = loop_of(words, total, seeds)
    loops = {name: loop_of([*words, *ALONE, f"average={name}"], total, seeds) for name in AVERAGES}
    found: dict[str, dict[str, list[float]]] = {name: {of: [] for of in (ALL, UPDATES)} for name in AVERAGES}
    for _ in range(pairs):
        whole = seconds_of(training, steps)
        for name, loop in loops.items():
            clock.seconds.clear()
            for _ in range(steps):
                loop.update()
            found[name][ALL].append(clock.seconds["average"] / whole)
            found[name][UPDATES].append(clock.seconds["average"] / clock.seconds["updates"])
    return found | compiled_shares(pairs, steps, seeds, words)


def compiled_shares(
    pairs: int, steps: int, seeds: int, words: list[str]
) -> dict[str, dict[str, list[float]]]:
    """Train with each average in turn, and without, in compiled code; nothing where that does not know the work."""
    ways = {"": [], **{f"{name}, compute.compile=true": [f"average={name}"] for name in AVERAGES}}
    total = WARM + pairs * steps
    loops = {way: loop_of([*words, *ALONE, *more], total, seeds, compile=True) for way, more in ways.items()}
    if not loops[""].updates.is_compiled:
        return {}
    training = loop_of(words, total, seeds, compile=True)
    found: dict[str, dict[str, list[float]]] = {way: {of: [] for of in (ALL, UPDATES)} for way in ways if way}
    for _ in range(pairs):
        whole, seconds = 0.0, dict.fromkeys(ways, 0.0)
        for _ in range(TURNS):
            whole += seconds_of(training, steps // TURNS)
            for way, loop in loops.items():
                seconds[way] += seconds_of(loop, steps // TURNS)
        for way, own in found.items():
            own[ALL].append((seconds[way] - seconds[""]) / whole)
            own[UPDATES].append(seconds[way] / seconds[""] - 1)
    return found


def measure(options: Options) -> list[Row]:
    """Measure the tasks of which rows are measured, in processes of their own.

    Raises:
        RuntimeError: A process failed.
    """
    from dynalab.launch.process import kept_memory

    rows = []
    for case in CASES:
        steps = case.steps // 20 if options.quick else case.steps // 4
        options.say(f"averages of {case.name}, {options.pairs} pairs of {steps} steps")
        found = alone("averages", options.pairs, steps, case.seeds, *case.words, **kept_memory())
        for name, own in found.items():
            what = f"average={name}, {case.seeds} seeds of {case.name}"
            bar = None if options.quick else BAR
            beside = {"share of updates alone": own[UPDATES]}
            rows.append(Row(what, "training, CPU time", own[ALL], bar, at_least=False, seconds=beside))
    return rows


SUBJECT = Subject("averages", "the share of training's CPU time that averaging the weights takes", measure)


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(shares(*map(int, given[:3]), given[3:])))
