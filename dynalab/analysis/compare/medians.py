"""Medians of steps of which some are only known to be later, with intervals that hold for few runs."""

from __future__ import annotations

import numpy as np

LEAST = 5  # runs below which no interval of a median is given
TAIL = 0.025
# Limits that should be equal to one half differ by less.
ROUNDING = 1e-9


def median_interval(time: np.ndarray, observed: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 95% interval of the median of times, both (n,), some of which are censored.

    The beta product confidence procedure (Fay, Brittain and Proschan, 2013): the steps at which the interval of the
    share of runs that are not there yet holds one half. Without censoring this is the interval of order statistics,
    which never errs more often than it says. The range of five runs holds the median in 93.75%, and stands for the
    interval there. An end that the runs do not give is None.
    """
    n = len(time)
    if n < LEAST:
        return None, None
    tail = 0.5**n if n == LEAST else TAIL
    moments = np.unique(time)
    risk = (time >= moments[:, None]).sum(axis=1)
    events = ((time == moments[:, None]) & observed).sum(axis=1)
    after = (time > moments[:, None]).sum(axis=1)
    # The share that is left is a product of beta variables. One of the same mean and variance stands for it, which is
    # that product itself where nothing is censored.
    a, b = risk - events + 1.0, events.astype(float)
    first, second = np.cumprod(a / (a + b)), np.cumprod(a * (a + 1) / ((a + b) * (a + b + 1)))
    low = _limit(first * after / (after + 1), second * after / (after + 2), tail)
    high = _limit(first, second, 1 - tail)
    below, beyond = np.flatnonzero(low < 0.5 - ROUNDING), np.flatnonzero(high < 0.5 + ROUNDING)
    ends = (moments[places[0]] if len(places) else None for places in (below, beyond))
    low_end, high_end = (None if end is None else float(end) for end in ends)
    return low_end, high_end


def _limit(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of beta variables with these first and second moments; of one that does not vary, its value."""
    from scipy.special import betaincinv

    spread = second - first**2
    vary = spread > 1e-15
    scale = np.where(vary, first * (1 - first) / np.where(vary, spread, 1.0) - 1, 1.0)
    a, b = np.where(vary, first * scale, 1.0), np.where(vary, (1 - first) * scale, 1.0)
    return np.where(vary, betaincinv(a, b, share), first)
