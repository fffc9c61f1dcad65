"""Series of spikes and norms that are no slingshots, one kind a case; a case is fixed by its number.

isolated    one to three spikes at random places, the norm constant or wandering
growth      spikes at regular distances, the norm growing steadily right through them
saturating  one spike, the norm growing ever more slowly by itself
rate_drop   the loss falls at once, and the norm stops growing
noise       a loss that wanders by up to a decade
catapult    a loss that rises at the beginning and falls again, the norm shrinking
shrinking   regular spikes under weight decay, the norm falling between them
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Group

DECOYS = ("isolated", "growth", "saturating", "rate_drop", "noise", "catapult", "shrinking")


@dataclass(frozen=True)
class Case:
    """A simulated run and the truth behind it.

    Attributes:
        kind: `slingshot`, or a decoy's name.
        group: One run with `train_loss` and `last_layer_norm`.
        peaks: Steps of the slingshots' peaks.
        onsets: Steps at which they begin to rise.
        period: Mean distance of the slingshots in steps; 0 for decoys.
    """

    kind: str
    group: Group
    peaks: tuple[int, ...]
    onsets: tuple[int, ...]
    period: float


def decoy(number: int) -> Case:
    """Return a case without slingshots; the number decides of which kind."""
    rng = np.random.default_rng([2, number])
    kind, cadence = DECOYS[number % len(DECOYS)], int(rng.choice([1, 5, 10, 20]))
    rows = int(rng.integers(800, 3000))
    fit = int(rng.uniform(50, 200))
    loss = fitted(rng, rows, fit)
    t = np.arange(rows) / rows
    height = np.cumsum(rng.normal(0, 2e-4, rows)) * rng.integers(0, 2)
    grown = rng.uniform(0.1, 1.0)
    if kind == "isolated":
        places = rng.integers(fit + 150, rows - 50, int(rng.integers(1, 4)))
    elif kind in ("growth", "shrinking"):
        period = int(rng.uniform(100, 500))
        places = np.arange(fit + period, rows - 50, period)
        height = height + (grown if kind == "growth" else -grown) * t
    elif kind == "saturating":
        places = rng.integers(fit + 150, rows - 50, 1)
        height = height + grown * (1 - np.exp(-t / rng.uniform(0.1, 0.6)))
    elif kind == "rate_drop":
        places, drop = np.array([], int), int(rng.integers(fit + 150, rows - 50))
        loss[drop:] -= rng.uniform(0.5, 3)
        height = height + grown * np.minimum(t, t[drop])
    elif kind == "catapult":
        places, peak = np.array([], int), int(rng.integers(5, 40))
        bump(loss, 0, peak, rng.uniform(1, 3), 20)
        height = height - grown * np.minimum(np.arange(rows) / (2 * peak), 1.0)
    else:
        places = np.array([], int)
        loss = loss + 0.5 * np.sin(np.arange(rows) / rng.uniform(5, 80)) * rng.uniform(0, 1)
        loss = loss + np.cumsum(rng.normal(0, 0.01, rows))
        height = height + grown * t
    for place in places:
        bump(loss, int(place), int(place) + int(rng.integers(1, 9)), rng.uniform(2, 7), rng.uniform(4, 60))
    return recorded(kind, number, rng, loss, height, cadence, (), (), 0.0)


def fitted(rng: np.random.Generator, rows: int, fit: int) -> np.ndarray:
    """Return log10 of a loss that falls to a floor in `fit` rows, and drifts down slowly from there."""
    floor = rng.uniform(-8, -3)
    share = np.minimum(np.arange(rows) / fit, 1.0)
    return 0.4 + (floor - 0.4) * share - rng.uniform(0, 1) * np.arange(rows) / rows


def bump(loss: np.ndarray, begin: int, peak: int, top: float, fall: float) -> None:
    """Add a spike to log10 of a loss, in place: a straight rise, and a fall that slows down."""
    peak = min(peak, len(loss) - 1)
    loss[begin : peak + 1] += top * np.linspace(0, 1, peak - begin + 1)
    after = np.arange(1, len(loss) - peak)
    loss[peak + 1 :] += top * np.exp(-3.0 * after / fall)


def recorded(
    kind: str, number: int, rng: np.random.Generator, loss: np.ndarray, height: np.ndarray, cadence: int,
    peaks: tuple[int, ...], onsets: tuple[int, ...], period: float,
) -> Case:  # fmt: skip
    noise = rng.uniform(0.05, 0.2)
    loss = 10.0 ** (loss + noise * rng.normal(size=len(loss)))
    norm = rng.uniform(2, 40) * np.exp(height + noise * rng.uniform(0.0, 0.1) * rng.normal(size=len(loss)))
    steps = np.arange(len(loss)) * cadence
    columns = {f"{kind}-{number}": {"train_loss": loss, "last_layer_norm": norm}}
    group = Group.of(columns, steps, id="simulated")
    at = [tuple(int(row) * cadence for row in rows) for rows in (peaks, onsets)]
    return Case(kind, group, at[0], at[1], period * cadence)
