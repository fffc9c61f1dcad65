"""Settings of one law: steps of which some never come, last values, and whole groups of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dynalab.analysis.base import Convergence, Group
from dynalab.analysis.compare.samples import Times, Values

SPACING = 10
MEDIAN = 1000.0
WIDTH = 0.3
# What is to be known of the steps -> last step of (the first, the second) setting's runs.
KINDS = {
    "all reach": (9e9, 9e9),
    "a third never": (1120.0, 1120.0),
    "one watched half as long": (2000.0, 1000.0),
    "cut off at lengths of their own": (None, None),
    "ties of 300 steps": (9e9, 9e9),
    "seeds alike": (9e9, 9e9),
    "seeds alike, a third never": (1120.0, 1120.0),
}


def steps(kind: str, n: int, m: int, seed: int) -> tuple[Times, Times]:
    """Return when the runs of two settings of one law reach a landmark."""
    rng = np.random.default_rng(seed)
    alike = kind.startswith("seeds alike")
    both = rng.normal(size=max(n, m)) if alike else np.zeros(max(n, m))
    grid = 300 if kind.startswith("ties") else SPACING
    made = []
    for size, watched, first in ((n, KINDS[kind][0], 0), (m, KINDS[kind][1], 0 if alike else n)):
        own = rng.normal(size=size)
        draws = (both[:size] + own) / np.sqrt(2) if alike else own
        found = np.ceil(MEDIAN * np.exp(WIDTH * draws) / grid) * grid
        last = rng.uniform(500, 3000, size).round(-1) if watched is None else np.full(size, float(watched))
        labels = tuple(f"s{first + i:04d}" for i in range(size))
        made.append(Times(labels, np.where(found <= last, found, np.inf), last))
    return made[0], made[1]


def values(kind: str, n: int, m: int, seed: int) -> tuple[Values, Values]:
    """Return last values of two settings of one mean, 5: `normal`, `skewed`, `unequal` or `seeds alike`."""
    rng = np.random.default_rng(seed)
    both = rng.normal(size=max(n, m)) if kind == "seeds alike" else np.zeros(max(n, m))
    made = []
    for size, width in ((n, 1.0), (m, 3.0 if kind == "unequal" else 1.0)):
        own = rng.gamma(4.0, 0.5, size) - 2 if kind == "skewed" else width * rng.normal(size=size)
        first = 0 if kind == "seeds alike" or not made else n
        made.append(Values(tuple(f"s{first + i:04d}" for i in range(size)), 5 + both[:size] + own))
    return made[0], made[1]


def groups(
    seed: int, n: int = 8, last: int = 1500, delays: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
) -> list[Group]:
    """Return settings of one weight decay each, whose runs generalise at lognormal steps, or never."""
    rng = np.random.default_rng(seed)
    rows = np.arange(0, last + 1, SPACING)
    made = []
    for place, delay in enumerate(delays):
        at = delay * MEDIAN * np.exp(WIDTH * rng.normal(size=n))
        end = 0.995 + 0.002 * rng.random(n)
        runs = {
            f"s{i:04d}": {
                "train_accuracy": np.where(rows >= at[i] / 4, 1.0, 0.5),
                "test_accuracy": np.where(rows >= at[i], end[i], 0.1),
                "test_loss": np.where(rows >= at[i], 1 - end[i], 3.0),
            }
            for i in range(n)
        }
        config = {
            "task": {"name": "grokking"},
            "optimizer": {"name": "adamw", "weight_decay": 0.1 * (place + 1)},
            "levels": {"train_accuracy": 0.99, "test_accuracy": 0.99},
        }
        group = Group.of(runs, rows, id=f"{place:010d}", config=config)
        runs_of = tuple(replace(run, seed=i, id=f"{place:010d}/s{i:04d}") for i, run in enumerate(group.runs))
        made.append(replace(group, runs=runs_of, convergence=Convergence("test_accuracy", 0.99)))
    return made
