"""Settings of one law: steps of which some never come, last values, and whole groups of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from dynalab.analysis.base import Convergence, Group
from dynalab.analysis.compare.measures import Measure
from dynalab.analysis.compare.samples import Times, Values

SPACING = 10
# Kinds of last values.
VALUES = (
    *("normal", "skewed", "unequal", "seeds alike", "half at an end", "half at an end, ties"),
    *("the second half at an end", "a third diverge"),
)
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
    """Return last values of two settings of one mean, 5, of which half are at an end in some kinds."""
    rng = np.random.default_rng(seed)
    both = rng.normal(size=max(n, m)) if kind == "seeds alike" else np.zeros(max(n, m))
    made = []
    for size, width in ((n, 1.0), (m, 3.0 if kind == "unequal" else 1.0)):
        own = rng.gamma(4.0, 0.5, size) - 2 if kind == "skewed" else width * rng.normal(size=size)
        if "end" in kind and (made or not kind.startswith("the second")):
            # The mean distance from the end is that of a normal value from 0, of the positive ones; of ties likewise.
            spacing = 0.5 if kind.endswith("ties") else 0.0
            own = np.ceil(own / spacing) * spacing if spacing else own
            places = spacing * np.arange(20)
            away = np.sum(spacing * ndtr(-places)) if spacing else 1 / np.sqrt(2 * np.pi)
            own = away - np.maximum(own, 0)
        first = 0 if kind == "seeds alike" or not made else n
        found = 5 + both[:size] + own
        kept = rng.random(size) > 1 / 3 if kind.endswith("diverge") else np.ones(size, bool)
        labels = tuple(f"s{first + i:04d}" for i in np.flatnonzero(kept))
        made.append(Values(labels, found[kept], int(size - kept.sum())))
    return made[0], made[1]


LAWS = ("normal", "lognormal", "exponential", "t(4)")
# How much is known of the steps of a setting -> the share that comes, the distance of rows, whether runs are cut off.
CENSORED = {
    "all reach": (1.0, SPACING, False),
    "a third never": (2 / 3, SPACING, False),
    "ties": (1.0, 400, False),
    "cut off at lengths of their own": (1.0, SPACING, True),
}


def drawn(law: str, size: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return values of a law, about 0 or above it."""
    if law == "normal":
        return rng.normal(size=size)
    if law == "lognormal":
        return rng.lognormal(size=size)
    return rng.exponential(size=size) if law == "exponential" else rng.standard_t(4, size)


def alike(law: str, kind: str, n: int, seed: int) -> tuple[list[Group], list[Measure]]:
    """Return a setting whose runs are of one law: when they come, and two metrics, of which one goes with that."""
    rng = np.random.default_rng(seed)
    share, grid, cut = CENSORED[kind]
    own, loss, accuracy = drawn(law, (3, n), rng)
    loss = (own + loss) / 2
    away = 4 if law in ("normal", "t(4)") else 0
    found = np.maximum(np.ceil(400 * np.abs(own + away) / grid), 1) * grid
    last = rng.uniform(0.5, 3, n) * np.median(found) if cut else np.full(n, np.inf)
    if share < 1:
        last = np.full(n, float(np.sort(found)[int(share * n)]))
    watched = np.where(np.isinf(last), 1e6, last)
    labels = tuple(f"s{i:04d}" for i in range(n))
    group = Group.of({label: {} for label in labels}, np.arange(2), id="a")
    metrics = [
        Measure(name, [Values(labels, values)], 1) for name, values in (("loss", loss), ("error", accuracy))
    ]
    times = Times(labels, np.where(found <= last, found, np.inf), watched)
    return [group], [Measure("generalised_step", [times], 1), *metrics]


def grid(kind: str, shape: tuple[int, int], n: int, seed: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return settings of two keys that do nothing, n runs each, and their keys.

    `values` are skewed, `steps` lognormal; in `shared seeds` a seed makes its runs alike, in `another number each`
    settings have n, n + 1, ... runs.
    """
    rng = np.random.default_rng(seed)
    keys = [{"lr": a, "decay": b} for a in range(shape[0]) for b in range(shape[1])]
    block = rng.normal(size=n) if "shared" in kind else np.zeros(n)
    of: list[Any] = []
    for place in range(len(keys)):
        size = n + place if "another" in kind else n
        first = 0 if "shared" in kind else 1000 * place
        labels = tuple(f"s{first + i:04d}" for i in range(size))
        own = np.resize(block, size)
        if kind.startswith("steps"):
            times = np.ceil(MEDIAN * np.exp(WIDTH * (own + rng.normal(size=size))) / SPACING) * SPACING
            of.append(Times(labels, times, np.full(size, 9e9)))
        else:
            of.append(Values(labels, own + rng.gamma(4.0, 0.5, size)))
    return of, keys


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
