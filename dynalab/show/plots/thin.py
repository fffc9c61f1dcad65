"""Fewer points and lines, where more would not be seen: what is left out is said in the figure."""

from __future__ import annotations

import numpy as np

from dynalab.core.stats import ROUNDING

POINTS = 2_000
SINGLES = 60
# More points than this in one panel are drawn as pixels, also in an SVG.
DENSE = 30_000


def thin(steps: np.ndarray, values: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about `most` points of a curve (T,), NaN allowed; the extremes of every stretch stay."""
    size = len(steps)
    if size <= most:
        return steps, values
    edges = np.linspace(0, size, max(most // 2, 1) + 1).astype(int)
    low = np.where(np.isfinite(values), values, np.inf)
    high = np.where(np.isfinite(values), values, -np.inf)
    first, last = edges[:-1, None], edges[1:, None]
    # A stretch a row; the shorter ones go on with their last place.
    rows = np.minimum(first + np.arange(np.diff(edges).max()), last - 1)
    extremes = [first[:, 0] + low[rows].argmin(axis=1), first[:, 0] + high[rows].argmax(axis=1)]
    places = np.unique(np.concatenate([[0, size - 1], *extremes]))
    return steps[places], values[places]


def evenly(count: int, most: int) -> np.ndarray:
    """Return at most `most` of `count` places, spread evenly, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def on_columns(steps: np.ndarray, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return runs at some of the steps, shape (S, C): between two of its rows a run's value is interpolated.

    Runs need not share steps, and quantiles over whoever happens to have a row jump from one group of runs to another.
    A run says nothing before its first row and after its last: there it stays NaN. Steps (T,) ascend, values (S, T)
    are NaN where a run has none, and columns (C,) are places among the steps, ascending.
    """
    result, steps = np.array(values[:, columns], dtype=float), np.asarray(steps, dtype=float)
    missing = np.isnan(result)
    for row in np.flatnonzero(missing.any(axis=1)):
        own, holes = np.flatnonzero(~np.isnan(values[row])), missing[row]
        if len(own):
            at, known = steps[columns[holes]], values[row, own]
            result[row, holes] = np.interp(at, steps[own], known, left=np.nan, right=np.nan)
    return result


def breaks(values: np.ndarray) -> np.ndarray:
    """Return before which places in (C,) a line over runs (S, C) must break: no run has a value on both sides."""
    some = np.isfinite(values)
    return np.flatnonzero(~(some[:, 1:] & some[:, :-1]).any(axis=0)) + 1


def quantiles(values: np.ndarray, shares: tuple[float, ...] = (0.25, 0.5, 0.75)) -> np.ndarray:
    """Return Q quantiles over runs (S, T), NaN where one has no value, at every step: (Q, T), NaN where none has.

    They are those of `core.stats.quantile`, so that a band's edges are the quartiles that sentences and tables name.
    """
    # NaN sorts last; one sort is much faster than numpy's nanquantile, which goes column by column.
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)
    count = np.isfinite(ordered).sum(axis=0)
    result = np.full((len(shares), values.shape[1]), np.nan)
    some = np.flatnonzero(count)
    for row, share in enumerate(shares):
        rank = share * count[some]
        low = np.maximum(np.ceil(rank - ROUNDING).astype(int) - 1, 0)
        high = np.minimum(np.floor(rank + ROUNDING).astype(int), count[some] - 1)
        result[row, some] = (ordered[low, some] + ordered[high, some]) / 2
    return result


def singles(values: np.ndarray, diverged: np.ndarray | None, most: int = SINGLES) -> np.ndarray:
    """Return which of the runs (S, T) are drawn as thin lines: spread evenly, with up to 20 of the diverged ones."""
    chosen = evenly(len(values), most)
    if diverged is not None and len(chosen) < len(values):
        ended = np.flatnonzero(np.isfinite(diverged))
        chosen = np.union1d(chosen, ended[evenly(len(ended), 20)])
    return chosen
