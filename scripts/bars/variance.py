"""Simulated crossed designs: whether the intervals of the shares hold the planted ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bars.base import Bar, cases

DESIGNS, FIRST = 400, 20
SHAPES = ((5, 5), (8, 8), (4, 4, 4))


def intervals(number: int) -> list[bool]:
    """Whether the 95% interval of each source holds the planted share."""
    from designs import simulate

    from dynalab.analysis.variance import components

    shape = SHAPES[number % len(SHAPES)]
    rng = np.random.default_rng([number, 2])
    planted = rng.dirichlet(np.ones(len(shape) + 1))
    values = simulate(shape, tuple(planted[:-1]), float(planted[-1]), number)
    lambdas = components.draw(components.strata(values), 4000, rng)
    drawn = components.shares(components.solve(shape, lambdas), len(shape))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [bool(hit) for hit in (low <= planted) & (planted <= high)]


def coverage(work: Path) -> tuple[str, bool]:
    """Coverage of all intervals, and of those of the first twenty designs."""
    found = cases(work / "variance.jsonl", range(DESIGNS), intervals)
    every = [hit for item in found for hit in item]
    first = [hit for item in found[:FIRST] for hit in item]
    figure = (
        f"{np.mean(every):.1%} of {len(every)} intervals hold the planted share; of the first {FIRST} designs "
        f"{sum(first)} of {len(first)}"
    )
    return figure, float(np.mean(every)) >= 0.93 and sum(first) >= 0.88 * len(first)


BARS = [
    Bar(
        "variance",
        "shares of variance in 400 simulated crossed designs",
        "93% of the 95% intervals hold the planted share",
        "test_variance.py",
        coverage,
        ("dynalab/analysis/variance",),
    )
]
