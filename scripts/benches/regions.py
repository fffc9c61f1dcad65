"""The exact partition of a slice against regioncam (Rust, float32), whole calls in turn, one thread each.

Ours is NumPy alone and, where numba is installed (the extra `regions`), with compiled cuts as well: at a thousand
regions a call takes milliseconds, almost half of it the fixed cost of NumPy's calls, some 40 us for each unit.

As a program it makes the partition of a network of three hidden layers so many times by all, and answers one line of
JSON:

    python -m benches.regions WIDTH PAIRS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benches.base import Options, Row, Subject, Unavailable, alone

# Width of the hidden layers -> about how many regions a square has.
SIZES = {20: "1,000", 75: "15,000", 130: "50,000"}
# The share of regioncam's rate that is due: of compiled cuts at all sizes, of NumPy's from some thousands on.
SHARE = 0.8
NUMPY_FROM = 75
# Regions a second that are asked for without any other measure.
RATE = 30_000
# Float32 sees fewer of the smallest.
APART = 0.01


def compare(width: int, pairs: int) -> dict[str, Any]:
    """Time all in turn; the first of each is not counted.

    Raises:
        ModuleNotFoundError: There is no regioncam.
    """
    import numpy as np
    import regioncam
    import torch
    from torch import nn

    from dynalab.partition import Partition, Plane
    from dynalab.partition.compiled import installed

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (2, width, width):
        linear = nn.Linear(inputs, width)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.normal_(linear.bias, std=0.3)
        layers += [linear, nn.ReLU()]
    network = nn.Sequential(*layers)
    square = Plane(np.zeros(2), np.eye(2))
    weights = [
        (it.weight.detach().numpy().T.copy(), it.bias.detach().numpy())
        for it in layers
        if isinstance(it, nn.Linear)
    ]

    def ours(compiled: bool) -> int:
        return len(Partition.of(network, square, compiled=compiled).polygons)

    def theirs() -> int:
        regions = regioncam.Regioncam(size=1)
        for weight, bias in weights:
            regions.linear(weight, bias)
            regions.relu()
        return len([face.vertex_ids for face in regions.faces])

    makers: dict[str, Callable[[], int]] = {"NumPy": lambda: ours(False), "regioncam": theirs}
    if installed():
        makers["numba"] = lambda: ours(True)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    found = {}
    for pair in range(pairs + 1):
        for name, make in makers.items():
            began = time.process_time()
            found[name] = make()
            if pair:
                seconds[name].append(time.process_time() - began)
    return {"regions": found, "seconds": seconds}


def measure(options: Options) -> list[Row]:
    """Compare at three sizes.

    Raises:
        Unavailable: There is no regioncam.
        RuntimeError: It failed, or the two do not find as many regions.
    """
    rows = []
    for width, about in [*SIZES.items()][: 1 if options.quick else None]:
        options.say(f"about {about} regions, {options.pairs} pairs")
        try:
            answer = alone("regions", width, options.pairs)
        except RuntimeError as error:
            if "No module named 'regioncam'" not in str(error):
                raise
            raise Unavailable(
                "regioncam is not installed (it is one of the dev dependencies of pyproject.toml)"
            ) from error
        seconds, regions = answer["seconds"], answer["regions"]
        theirs = regions["regioncam"]
        for name in [name for name in ("NumPy", "numba") if name in seconds]:
            ours = regions[name]
            if abs(ours - theirs) > APART * theirs:
                raise RuntimeError(f"benches.regions {width}: {ours} regions, and {theirs} by regioncam")
            what = f"exact partition, {ours:,} regions, {name}"
            ratios = [b / a for a, b in zip(seconds[name], seconds["regioncam"], strict=True)]
            note = f"with the corners of every region; regioncam, in float32, finds {theirs:,}"
            due = SHARE if name == "numba" or width >= NUMPY_FROM else None
            own = {name: seconds[name], "regioncam": seconds["regioncam"]}
            rows.append(
                Row(what, "regioncam 0.5.2", ratios, None if options.quick else due, seconds=own, note=note)
            )
            rates = [ours / took / RATE for took in seconds[name]]
            rows.append(Row(what, f"{RATE:,} regions a second", rates, None if options.quick else 1.0))
    return rows


SUBJECT = Subject("regions", "the exact partition of a slice against regioncam at three sizes", measure)

if __name__ == "__main__":
    print(json.dumps(compare(int(sys.argv[1]), int(sys.argv[2]))))
