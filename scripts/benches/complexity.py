"""What a row of the probe `regions` costs beside the matrix products of plain passes over its points.

A row looks at 26 inputs for every point: itself, and one along each of 25 directions. The products are those of the
network's own pass over all of these inputs, in the same pieces, on buffers of their own; the row is the probe's, with
what it counts. Both in turn, in one process and thread.

    python -m benches.complexity PAIRS WORDS...      (answers JSON: row, products -> CPU seconds of each pair)
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace
from typing import Any

from benches.base import Options, Row, Subject, alone

CASES = {
    "digits, 100-100": ("task=digits",),
    "digits, 200-200-200": ("task=digits", "model.hidden=[200,200,200]"),
    "digits, 500-500": ("task=digits", "model.hidden=[500,500]"),
    "parity, 100": ("task=parity",),
    "digits, ResNet-20, 12 points": ("task=digits", "model=resnet20", "probe.regions.points=4"),
}
SEEDS = 4
BAR = 1.3
# A pair is the least of so many: other work on the machine only adds.
TRIALS = 9


def compare(pairs: int, words: list[str]) -> dict[str, list[float]]:
    """Time both in turn, after one of each that is not counted."""
    import torch
    from torch.func import functional_call

    from benches.floor import products
    from dynalab.config.command import read_command
    from dynalab.probes.regions import Regions
    from dynalab.training.loop import Loop
    from dynalab.training.streams import Streams

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    (request,) = read_command([*words, "probes=[regions]", "train.steps=1"]).requests
    loop = Loop(request.config, [Streams.from_seed(seed) for seed in range(SEEDS)], 1, torch.device("cpu"))
    probe = loop.measuring.items[0].probe
    assert isinstance(probe, Regions) and probe.units is not None and probe.points is not None
    state: Any = SimpleNamespace(params={name: it.detach() for name, it in loop.stack.params.items()})
    weights = {name: tensor[0] for name, tensor in loop.stack.state().items()}
    points = probe.points[0].flatten(0, 1)
    passes = probe.config.directions + 1
    calls = []
    with torch.no_grad():
        for some in probe.units.pieces(points, passes):
            inputs = some.repeat(passes, *(1 for _ in some.shape[1:]))
            own, _ = products(
                lambda inputs=inputs: functional_call(loop.stack.network.eval(), weights, inputs)
            )
            calls += own

    def multiply() -> None:
        with torch.no_grad():
            for call in calls * SEEDS:
                call()

    seconds: dict[str, list[float]] = {"row": [], "products": []}
    for pair in range(pairs + 1):
        for name, work in (("row", lambda: probe.measure(state)), ("products", multiply)):
            took = []
            for _ in range(TRIALS):
                began = time.process_time()
                work()
                took.append(time.process_time() - began)
            if pair:
                seconds[name].append(min(took))
    return seconds


def measure(options: Options) -> list[Row]:
    """Compare on networks of several widths, in processes of their own.

    Raises:
        RuntimeError: A process failed.
    """
    from dynalab.launch.process import kept_memory

    rows = []
    for name, words in [*CASES.items()][: 1 if options.quick else None]:
        options.say(f"a row of the probe regions, {name}")
        seconds = alone("complexity", options.pairs, *words, **kept_memory())
        ratios = [row / one for row, one in zip(seconds["row"], seconds["products"], strict=True)]
        bar = None if options.quick else BAR
        what = f"a row of the probe regions, {SEEDS} seeds of {name}"
        rows.append(
            Row(what, "matrix products of plain passes", ratios, bar, at_least=False, seconds=seconds)
        )
    return rows


SUBJECT = Subject(
    "complexity", "a row of the probe regions against the matrix products of plain passes", measure
)


if __name__ == "__main__":
    print(json.dumps(compare(int(sys.argv[1]), sys.argv[2:])))
