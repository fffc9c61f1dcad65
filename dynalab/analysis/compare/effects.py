"""What each of several swept keys does, and what they do together, with the seeds as blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from dynalab.analysis.compare.findings import Effect
from dynalab.analysis.compare.samples import Times, Values
from dynalab.analysis.compare.settings import crossed, rank_of
from dynalab.core.means import OPEN, Bounds, heaped
from dynalab.core.stats import holm
from dynalab.core.survival import LEVEL


def effects(name: str, of: Sequence[Times | Values], keys: Sequence[Mapping[str, Any]]) -> list[Effect]:
    """Return the effect of each key, and of each two together, on a landmark or metric of N settings.

    Analysis of variance with sums of squares of type II, of the logarithms of steps; seeds are blocks where every
    setting has the same ones. Of a key of two values the estimate is the difference between them (of steps: how many
    times as late), of two such keys by how much (how many times) the one changes what the other does.

    No interval is given of a metric of which half of a setting's runs have the lowest or highest value (`heaped`).
    None is given with fewer than two keys, where not every setting has them all, where a run never reached the
    landmark (its step is not known) or lost the metric, or where too few runs are left to tell an error.
    """
    from scipy.special import fdtrc

    names = list(keys[0]) if keys else []
    if len(names) < 2 or not crossed(keys) or any(isinstance(item, Values) and item.lost for item in of):
        return []
    steps = isinstance(of[0], Times)
    rows = [item.steps if isinstance(item, Times) else item.values for item in of]
    y = np.concatenate(rows)
    if not np.isfinite(y).all() or (steps and y.min() <= 0):
        return []
    y = np.log(y) if steps else y
    cell = np.repeat(np.arange(len(of)), [len(row) for row in rows])
    codes = {key: _codes([item[key] for item in keys])[cell] for key in names}
    terms: dict[tuple[str, ...], np.ndarray] = {(key,): codes[key] for key in names}
    terms |= {
        (a, b): (codes[a][:, :, None] * codes[b][:, None, :]).reshape(len(y), -1)
        for a, b in combinations(names, 2)
    }
    base = np.ones((len(y), 1))
    if len({item.labels for item in of}) == 1:
        base = np.hstack([base, _codes([label for item in of for label in item.labels])])
    full = np.hstack([base, *terms.values()])
    left, rank = _residual(full, y)
    freedom = len(y) - rank
    if freedom < 2 or left <= 1e-12 * max(float(((y - y.mean()) ** 2).sum()), 1e-300):
        return []
    found = []
    for term, columns in terms.items():
        # Of type II: beside all terms that do not contain it.
        others = [own for other, own in terms.items() if other != term and not {*term} <= {*other}]
        without, rank_without = _residual(np.hstack([base, *others]), y)
        beside, rank_beside = _residual(np.hstack([base, *others, columns]), y)
        if rank_beside == rank_without:
            continue
        size = max(without - beside, 0.0) / (rank_beside - rank_without)
        p = float(fdtrc(rank_beside - rank_without, freedom, size / (left / freedom)))
        design = np.hstack([base, *others, columns])
        estimate, interval = _difference(design, columns, y, left / freedom, freedom, len(term))
        if not steps and any(map(heaped, rows)):
            interval = OPEN
        if steps and estimate is not None:
            estimate, interval = math.exp(estimate), _exp(interval)
        found.append(Effect(term, name, estimate, interval, p, p))
    adjusted = holm([effect.p for effect in found])
    return [replace(effect, p_adjusted=p) for effect, p in zip(found, adjusted, strict=True)]


def _codes(values: Sequence[object]) -> np.ndarray:
    """Return columns that add up to 0 over the L levels of a factor, the least first, shape (N, L - 1)."""
    levels = [*map(repr, sorted({repr(value): value for value in values}.values(), key=rank_of))]
    coded = np.vstack([np.eye(len(levels) - 1), -np.ones(len(levels) - 1)])
    return np.asarray(coded[[levels.index(repr(value)) for value in values]])


def _residual(design: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """Return the sum of squares that a design leaves, and its rank."""
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=1e-10)
    return float(((y - design @ solution) ** 2).sum()), int(rank)


def _difference(
    design: np.ndarray, columns: np.ndarray, y: np.ndarray, error: float, freedom: int, order: int
) -> tuple[float | None, Bounds]:
    """Return the contrast of a term of one column, the last of a design, and its 95% interval."""
    from scipy.special import stdtrit

    if columns.shape[1] != 1:
        return None, OPEN
    solution, *_ = np.linalg.lstsq(design, y, rcond=1e-10)
    spread = float(np.linalg.pinv(design.T @ design, rcond=1e-10)[-1, -1])
    # The first level is coded 1, the last -1: the second less the first is -2 of the coefficient; of two keys, 4.
    size = (-2.0) ** order
    estimate = size * float(solution[-1])
    reach = float(stdtrit(freedom, 1 - LEVEL / 2)) * abs(size) * math.sqrt(error * spread)
    return estimate, (estimate - reach, estimate + reach)


def _exp(interval: Bounds) -> Bounds:
    low, high = (None if end is None else math.exp(end) for end in interval)
    return low, high
