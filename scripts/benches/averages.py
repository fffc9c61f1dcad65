"""What averaging the weights costs: its share of the CPU seconds of updates, at the default keys of each average.

Weights are taken in between updates, in one process and thread, as wide as one of two workers has them.

    python -m benches.averages PAIRS STEPS SEEDS WORDS...      (answers JSON: average -> its share, one a pair)
"""

from __future__ import annotations

import json
import sys

from benches.base import Options, Row, Subject, alone
from benches.rows import CASES, WARM, Clock

AVERAGES = ("ema", "lawa", "swa")
BAR = 0.03


def shares(pairs: int, steps: int, seeds: int, words: list[str]) -> dict[str, list[float]]:
    """Train with each average in turn."""
    import torch

    from dynalab.config.command import read_command
    from dynalab.training.averaging import Averaging
    from dynalab.training.loop import Loop
    from dynalab.training.streams import Streams
    from dynalab.training.updates import Updates

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    clock = Clock()
    clock.count(Updates, "make", lambda *_: "updates")
    clock.count(Averaging, "take", lambda *_: "average")
    loops = {}
    for name in AVERAGES:
        keys = [f"average={name}", "probes=[]", f"train.steps={WARM + pairs * steps}"]
        (request,) = read_command([*words, *keys]).requests
        streams = [Streams.from_seed(seed) for seed in range(seeds)]
        loops[name] = Loop(request.config, streams, WARM + pairs * steps, torch.device("cpu"))
        for _ in range(WARM):
            loops[name].update()
    found: dict[str, list[float]] = {name: [] for name in AVERAGES}
    for _ in range(pairs):
        for name, loop in loops.items():
            clock.seconds.clear()
            for _ in range(steps):
                loop.update()
            found[name].append(clock.seconds["average"] / clock.seconds["updates"])
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
