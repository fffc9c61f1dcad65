"""Series of sharpness that never arrive at the edge of stability, one kind a case; a case is fixed by its number.

below        it rises and comes to rest at .2 to .75 of the threshold
beyond       it rises through the threshold and on, as if the threshold were wrong
catapult     it begins above the threshold, falls and stays below
near         it is near the threshold from the beginning, and never rises
flat         it is constant, below
collapse     it rises to .3 to .75 and falls by decades, as with cross-entropy
unconverged  eigenvalues that were not found: a random share of the true one in most rows
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Group

DECOYS = ("below", "beyond", "catapult", "near", "flat", "collapse", "unconverged")


@dataclass(frozen=True)
class Case:
    """A simulated run and the truth behind it.

    Attributes:
        kind: `edge`, or a decoy's name.
        group: One run with `sharpness` and `stability_threshold`.
        onset: Step at which the sharpness without noise reaches the threshold; None for decoys.
        steps: Length of the run.
    """

    kind: str
    group: Group
    onset: int | None
    steps: int


def decoy(number: int) -> Case:
    """Return a case that does not arrive; the number decides of which kind."""
    rng = np.random.default_rng([4, number])
    kind, cadence = DECOYS[number % len(DECOYS)], int(rng.choice([1, 10, 20, 50]))
    rows = int(rng.integers(200, 2000))
    turn = int(rows * rng.uniform(0.2, 0.7))
    rise = np.concatenate([curve(rng, turn), np.ones(rows - turn)])
    start, top = np.log(rng.uniform(0.02, 0.15)), np.log(rng.uniform(0.2, 0.75))
    if kind == "below":
        x = start + (top - start) * rise
    elif kind == "beyond":
        x = start + (np.log(rng.uniform(3, 30)) - start) * rise
    elif kind == "catapult":
        x = np.full(rows, top) + np.log(rng.uniform(2, 20)) * np.exp(-np.arange(rows) / rng.uniform(3, 20))
    elif kind == "near":
        x = np.full(rows, np.log(rng.uniform(0.95, 1.05)))
    elif kind == "flat":
        x = np.full(rows, top)
    elif kind == "collapse":
        peak = np.log(rng.uniform(0.3, 0.75))
        x = start + (peak - start) * rise
        x[turn:] -= rng.uniform(1, 4) * np.linspace(0, 1, rows - turn)
    else:
        x = np.log(rng.uniform(0.9, 1.2)) + np.where(
            rng.random(rows) < 0.7, np.log(rng.uniform(0.01, 1, rows)), 0.0
        )
    return recorded(kind, number, rng, x, cadence, None)


def curve(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return a curve from 0 to 1, (rows,): straight, slowing down or speeding up."""
    share = np.linspace(0, 1, rows)
    return share ** rng.choice([0.6, 1.0, 1.6])


def recorded(
    kind: str, number: int, rng: np.random.Generator, x: np.ndarray, cadence: int, onset: int | None
) -> Case:
    threshold = float(10 ** rng.uniform(0, 4))
    noise = rng.uniform(0.05, 0.2) * np.log(10)
    sharpness = threshold * np.exp(x + noise * rng.normal(size=len(x)))
    steps = np.arange(len(x)) * cadence
    columns = {"sharpness": sharpness, "stability_threshold": np.full(len(x), threshold)}
    group = Group.of({f"{kind}-{number}": columns}, steps, id="simulated")
    return Case(kind, group, None if onset is None else onset * cadence, int(steps[-1]))
