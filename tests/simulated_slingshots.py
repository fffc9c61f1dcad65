"""Simulated series with known slingshots, and decoys: what the detector's figures are measured on.

A case is fixed by its number. A slingshot's loss rises by 2 to 7 decades within a few rows, every 100 to 500 rows, and
falls back over up to two fifths of the way to the next; the last layer's norm grows before and stands still after. The
measurement noise of the loss is .05 to .2 decades, the norm's up to a tenth of that. Decoys are spikes and norms that
are no slingshots, one kind a case:

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
# Cases of this number and more are for settling thresholds, those below for figures.
TUNING = 1000


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


def slingshots(number: int) -> Case:
    """Return a case with two to eight slingshots."""
    rng = np.random.default_rng([1, number])
    period, cadence = float(rng.uniform(100, 500)), int(rng.choice([1, 5, 10, 20]))
    jitter, fall = rng.uniform(0, 0.12), rng.uniform(0.05, 0.4)
    count = int(rng.integers(2, 9))
    fit = int(rng.uniform(0.3, 1.0) * period)
    gaps = period * np.clip(1 + jitter * rng.normal(size=count), 0.6, 1.4)
    begins = (fit + 0.3 * period + np.cumsum(gaps)).astype(int)
    rows = int(begins[-1] + period * rng.uniform(0.3, 0.9))
    loss = _fitted(rng, rows, fit)
    rest, bend = rng.uniform(0.3, 0.8), rng.uniform(1.0, 3.0)
    height = np.zeros(rows)
    now, previous = 0.0, 0
    peaks = []
    for begin in [*begins, begins[-1] + int(period)]:
        # Standing still, then growth that speeds up; the last stretch is cut off.
        share = np.linspace(0, 1, max(begin - previous, 1))
        grown = now + rng.uniform(0.02, 0.3) * (np.clip(share - rest, 0, None) / (1 - rest)) ** bend
        height[previous:begin] = grown[: max(rows - previous, 0)]
        now, previous = float(grown[-1]), begin
    for begin in begins:
        peak = begin + int(rng.integers(1, 9))
        top = rng.uniform(2, 7)
        _bump(loss, begin, min(peak, rows - 1), top, max(fall * period, 4))
        peaks.append(min(peak, rows - 1))
    return _case("slingshot", number, rng, loss, height, cadence, tuple(peaks), tuple(begins), period)


def decoy(number: int) -> Case:
    """Return a case without slingshots; the number decides of which kind."""
    rng = np.random.default_rng([2, number])
    kind, cadence = DECOYS[number % len(DECOYS)], int(rng.choice([1, 5, 10, 20]))
    rows = int(rng.integers(800, 3000))
    fit = int(rng.uniform(50, 200))
    loss = _fitted(rng, rows, fit)
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
        _bump(loss, 0, peak, rng.uniform(1, 3), 20)
        height = height - grown * np.minimum(np.arange(rows) / (2 * peak), 1.0)
    else:
        places = np.array([], int)
        loss = loss + 0.5 * np.sin(np.arange(rows) / rng.uniform(5, 80)) * rng.uniform(0, 1)
        loss = loss + np.cumsum(rng.normal(0, 0.01, rows))
        height = height + grown * t
    for place in places:
        _bump(loss, int(place), int(place) + int(rng.integers(1, 9)), rng.uniform(2, 7), rng.uniform(4, 60))
    return _case(kind, number, rng, loss, height, cadence, (), (), 0.0)


def _fitted(rng: np.random.Generator, rows: int, fit: int) -> np.ndarray:
    """Return log10 of a loss that falls to a floor in `fit` rows, and drifts down slowly from there."""
    floor = rng.uniform(-8, -3)
    share = np.minimum(np.arange(rows) / fit, 1.0)
    return 0.4 + (floor - 0.4) * share - rng.uniform(0, 1) * np.arange(rows) / rows


def _bump(loss: np.ndarray, begin: int, peak: int, top: float, fall: float) -> None:
    """Add a spike to log10 of a loss, in place: a straight rise, and a fall that slows down."""
    peak = min(peak, len(loss) - 1)
    loss[begin : peak + 1] += top * np.linspace(0, 1, peak - begin + 1)
    after = np.arange(1, len(loss) - peak)
    loss[peak + 1 :] += top * np.exp(-3.0 * after / fall)


def _case(
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


@dataclass(frozen=True)
class Score:
    """Counts of events against the truth.

    Attributes:
        hits: Slingshots that were found.
        missed: Slingshots that were not.
        false: Events that were called slingshots and are none.
        verdict: Whether the run was called one of slingshots.
    """

    hits: int
    missed: int
    false: int
    verdict: bool


def score(case: Case, found: list[int], verdict: str) -> Score:
    """Compare onsets that were found with the truth: each may be off by a tenth of the period.

    Args:
        case: The case.
        found: Onset steps of the events that were called slingshots.
        verdict: The run's verdict.
    """
    left = list(found)
    hits = 0
    for begin in case.onsets:
        near = min(left, key=lambda step: abs(step - begin), default=None)
        if near is not None and abs(near - begin) <= 0.1 * case.period:
            left.remove(near)
            hits += 1
    return Score(hits, len(case.onsets) - hits, len(left), verdict == "slingshot")


def f1(scores: list[Score]) -> float:
    """Return the harmonic mean of precision and recall over all events."""
    hits = sum(item.hits for item in scores)
    wrong = sum(item.missed + item.false for item in scores)
    return 2 * hits / (2 * hits + wrong) if hits or wrong else 1.0
