"""Medians and quartiles of steps of which some never came, the one way that terminal, page and JSON take them.

Only the standard library: the command line uses it when it starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# Ranks that should be whole differ by less.
ROUNDING = 1e-9


def quantile(steps: Iterable[float | None], share: float) -> float | None:
    """Return the first step by which a share of the runs is there, one of the given steps (never between two).

    Args:
        steps: One a run; None (or infinity) for a run that never got there, which counts as later than all others.
        share: Above 0, at most 1.

    Returns:
        The step; None where the quantile falls among runs that never got there, or there are no runs.
    """
    ordered = sorted(math.inf if step is None else float(step) for step in steps)
    if not ordered:
        return None
    found = ordered[max(math.ceil(share * len(ordered) - ROUNDING) - 1, 0)]
    return found if math.isfinite(found) else None


def quartiles(steps: Iterable[float | None]) -> tuple[float | None, float | None, float | None]:
    """Return lower quartile, median and upper quartile as `quantile` has them."""
    some = list(steps)
    return quantile(some, 0.25), quantile(some, 0.5), quantile(some, 0.75)
