"""What averaging the weights costs: its share of the CPU seconds of updates, at the default keys of each average.

Weights are taken in between updates, in one process and thread, as wide as one of two workers has them. In compiled
code they are taken in within updates: what these take longer than without, both in turn.

    python -m benches.averages PAIRS STEPS SEEDS WORDS...      (answers JSON: average -> its share, one a pair)
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


def loop_of(words: list[str], steps: int, seeds: int, compile: bool = False) -> Loop:
    """Return a training without probes, warm."""
    from dynalab.config.command import read_command
    from dynalab.training.loop import Loop
    from dynalab.training.streams import Streams

    (request,) = read_command([*words, "probes=[]", f"train.steps={steps}"]).requests
    streams = [Streams.from_seed(seed) for seed in range(seeds)]
    loop = Loop(request.config, streams, steps, torch.device("cpu"), compile=compile)
    while loop.step < WARM:
        loop.advance(WARM)
    return loop


def shares(pairs: int, steps: int, seeds: int, words: list[str]) -> dict[str, list[float]]:
    """Train with each average in turn."""
    from dynalab.training.averaging import Averaging
    from dynalab.training.updates import Updates

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    clock = Clock()
    clock.count(Updates, "make", lambda *_: "updates")
    clock.count(Averaging, "take", lambda *_: "average")
    loops = {name: loop_of([*words, f"average={name}"], WARM + pairs * steps, seeds) for name in AVERAGES}
    found: dict[str, list[float]] = {name: [] for name in AVERAGES}
    for _ in range(pairs):
        for name, loop in loops.items():
            clock.seconds.clear()
            for _ in range(steps):
                loop.update()
            found[name].append(clock.seconds["average"] / clock.seconds["updates"])
    return found | compiled_shares(pairs, steps, seeds, words)


def compiled_shares(pairs: int, steps: int, seeds: int, words: list[str]) -> dict[str, list[float]]:
    """Train with each average in turn, and without, in compiled code; nothing where that does not know the work."""
    ways = {"": [], **{f"{name}, compute.compile=true": [f"average={name}"] for name in AVERAGES}}
    total = WARM + pairs * steps
    loops = {way: loop_of([*words, *more], total, seeds, compile=True) for way, more in ways.items()}
    if not loops[""].updates.is_compiled:
        return {}
    found: dict[str, list[float]] = {way: [] for way in ways if way}
    for _ in range(pairs):
        seconds = dict.fromkeys(ways, 0.0)
        for _ in range(TURNS):
            for way, loop in loops.items():
                end, began = loop.step + steps // TURNS, time.process_time()
                while loop.step < end:
                    loop.advance(end)
                seconds[way] += time.process_time() - began
        for way, own in found.items():
            own.append(seconds[way] / seconds[""] - 1)
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
            rows.append(Row(what, "updates, CPU time", own, bar, at_least=False))
    return rows


SUBJECT = Subject("averages", "the share of updates' CPU time that averaging the weights takes", measure)


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(shares(*map(int, given[:3]), given[3:])))
