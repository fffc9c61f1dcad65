"""Kernels of random features, which know nothing of the labels and come back in no direction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.signal import lfilter


def unrelated(seed: int, n: int = 30, features: int = 12, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel (n, n), some features of which are far larger than others, and labels (n, C) drawn apart."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, features)) * rng.lognormal(0, 1, features)
    return rows @ rows.T, np.eye(classes)[rng.integers(classes, size=n)]


def wandering(seed: int, steps: int = 8, size: int = 400) -> list[np.ndarray]:
    """Return kernels that walk at random, with steps of a length."""
    return [*np.cumsum(np.random.default_rng(seed).normal(size=(steps, size)), axis=0)]


LAST = 1000


def _at_random(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(np.arange(1, LAST), n, replace=False)


# How weights are kept at steps from 0 to the last: name -> steps between, from draws.
_KEPT: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    **{f"{n} even steps": partial(lambda n, _: np.linspace(0, LAST, n), n) for n in (6, 10, 20)},
    **{f"{n} steps by the logarithm": partial(lambda n, _: np.geomspace(1, LAST, n), n) for n in (9, 19)},
    "powers of two": lambda _: 2.0 ** np.arange(10),
    "12 squares": lambda _: LAST * np.linspace(0, 1, 12) ** 2,
    "8 cubes": lambda _: LAST * np.linspace(0, 1, 8) ** 3,
    **{f"{n} steps at random": partial(_at_random, n) for n in (6, 12)},
}


def _whole(kept: Callable[[np.random.Generator], np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return np.unique([0, *np.round(kept(rng)), LAST]).astype(int)


SPACINGS = {name: partial(_whole, kept) for name, kept in _KEPT.items()}


def _pace(rng: np.random.Generator) -> np.ndarray:
    """Return how fast a kernel turns at every step: evenly, in drift, slower, in bursts, or not any more."""
    t = np.arange(LAST) / LAST

    def bursts(centres: np.ndarray, width: float) -> np.ndarray:
        return np.exp(-(((t[:, None] - centres) / width) ** 2)).sum(1)

    first = rng.uniform(0, 0.5)
    return [
        lambda: np.ones(LAST),
        lambda: np.linspace(1, rng.uniform(0.3, 3), LAST),
        lambda: np.where(t < rng.uniform(0.05, 0.6), 1.0, rng.uniform(0.15, 0.6)),
        lambda: np.where(t < rng.uniform(0.05, 0.9), 1.0, rng.uniform(0, 0.06)),
        lambda: np.exp(-t / rng.uniform(0.05, 0.6)),
        lambda: 1 / (t + 0.005) ** rng.uniform(0.5, 1.5),
        lambda: rng.uniform(0.1, 0.5) + bursts(rng.uniform(0, 1, 3), rng.uniform(0.02, 0.1)),
        lambda: rng.uniform(0, 0.02) + bursts(np.array([first, first + rng.uniform(0.3, 0.5)]), 0.04),
    ][rng.integers(8)]()


def turning(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel at every step (1001, 40), and with noise of single rows; its way is straight or winds."""
    rng = np.random.default_rng(seed)
    pace, turns = _pace(rng), np.radians(rng.uniform(20, 60))
    lasts = (np.inf, 200.0, 40.0)[rng.integers(3)]
    keeps = float(np.exp(-1 / lasts))
    drawn = rng.normal(size=(LAST, 40)) * np.sqrt(1 - keeps**2)
    drawn[0] = rng.normal(size=40)
    ways = lfilter([1.0], [1.0, -keeps], drawn, axis=0)
    ways[:, 0] = 0.0
    away = np.cumsum(pace[:, None] * ways / np.linalg.norm(ways, axis=1, keepdims=True), axis=0)
    rows = np.zeros((LAST + 1, 40))
    rows[1:] = np.tan(turns) * away / np.linalg.norm(away, axis=1).max()
    rows[:, 0] = 1.0
    jitter = (0.0, 0.003, 0.01)[rng.integers(3)] * np.linalg.norm(rows, axis=1, keepdims=True) / np.sqrt(40)
    return rows, rows + jitter * rng.normal(size=rows.shape)
