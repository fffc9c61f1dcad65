"""Excesses of runs over random walks, by `analyze directions`."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
from nulls.directions import KINDS as WALKS

from bars.calibration.base import Errors, Null, Subject, misses


def directed(kind: str, n: int, rows: int, weights: int, seed: int) -> Errors:
    """Runs whose weights walk at random: none has an excess over the walk."""
    from nulls.directions import walk

    from dynalab.analysis.directions.findings import Against, Over
    from dynalab.analysis.directions.path import Path as Walk
    from dynalab.analysis.directions.path import choose

    rng, found = np.random.default_rng(seed), dict[str, list[Any]]()
    for _ in range(n):
        path = Walk.of(walk(kind, rows, weights, rng), choose(rows, 100))
        (nulls, _), measured = path.null(), path.measures()
        for name, value in measured.items():
            found.setdefault(name, []).append(Against.of(value, nulls[name]))
    return {
        f"directions, {name.replace('_', ' ')}: interval of the excess": [
            misses(Over.of(items).interval, 0.0)
        ]
        for name, items in found.items()
    }


SUBJECT = Subject(
    "directions",
    [
        *(
            Null(
                f"{n} runs, {weights:,} weights walk {rows - 1} steps, {kind}",
                partial(directed, kind, n, rows, weights),
            )
            for kind, (n, rows, weights) in product(WALKS, ((5, 12, 120), (10, 60, 1000)))
        ),
        # In so few dimensions walks are drawn, which takes its time.
        Null(f"5 runs, 20 weights walk 29 steps, {WALKS[0]}", partial(directed, WALKS[0], 5, 30, 20), 200),
    ],
    ("dynalab/analysis/directions", "tests/nulls/directions.py"),
)
