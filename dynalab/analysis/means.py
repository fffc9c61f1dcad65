"""A number over runs: its mean with an interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.compare.pairs import OPEN, Bounds, mean_interval


def mean_over(values: Iterable[float | None]) -> tuple[int, float | None, Bounds]:
    """Return in how many runs a number is known, its mean there, None where in none, and Student's 95% interval.

    Of one a run, in any order, None or not finite where it is not known.
    """
    known = np.array([value for value in values if value is not None], float)
    known = np.sort(known[np.isfinite(known)])
    return len(known), float(known.mean()) if len(known) else None, mean_interval(known)


@dataclass(frozen=True)
class Mean:
    """A number over runs."""

    runs: int  # in how many it is known
    value: float | None  # its mean
    interval: Bounds = OPEN  # 95% interval of that (Student); null where it is not known or runs do not vary

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Mean:
        """Return it as `mean_over` does."""
        return cls(*mean_over(values))
