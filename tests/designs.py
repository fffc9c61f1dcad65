"""Simulated crossed designs with planted components of variance: what recovery is tested on."""

from __future__ import annotations

import numpy as np


def simulate(
    shape: tuple[int, ...], main: tuple[float, ...], rest: float, seed: int, *, interaction: float = 0.0
) -> np.ndarray:
    """Return one standardised value a cell, shape `shape`.

    Args:
        shape: Levels of the F factors.
        main: Variance of the effects of each factor.
        rest: Variance of what all factors together decide.
        seed: Of everything.
        interaction: Variance of the joint effect of every smaller set of two factors or more.
    """
    rng = np.random.default_rng([seed, 7])
    count = 2 ** len(shape)
    values = np.zeros(shape)
    for mask in range(1, count):
        inside = [f for f in range(len(shape)) if mask >> f & 1]
        variance = main[inside[0]] if len(inside) == 1 else rest if mask == count - 1 else interaction
        size = [n if f in inside else 1 for f, n in enumerate(shape)]
        values = values + np.sqrt(variance) * rng.normal(size=size)
    return values
