"""Where the step from which forks stay connected lies against landmarks of the same runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from math import factorial

import numpy as np

from dynalab.analysis.butterfly.findings import CANNOT_TELL, Against, RunFindings
from dynalab.analysis.regions.findings import Lag
from dynalab.core.stats import clopper_pearson, holm

DRAWS = 9999
LEAST = 5  # runs that a permutation takes
TIE = 1e-9


def against(runs: Sequence[RunFindings], names: Sequence[str], length: int) -> tuple[Against, ...]:
    """Return where the step lies against each of some landmarks; a run that never gets there is later than all.

    `length` is the step up to which landmarks are seen. A run of which it is not known whether it is connected is left
    out.
    """
    runs = sorted((run for run in runs if run.verdict != CANNOT_TELL), key=lambda run: run.run)
    found = []
    for name in names:
        reached = [(run.connected_step, step) for run in runs if (step := run.landmarks[name]) is not None]
        earlier = sum(own is not None and own <= step for own, step in reached)
        both = [(own, step) for own, step in reached if own is not None]
        share = clopper_pearson(earlier, len(reached)) if reached else (None, None)
        p = nearness(*np.array(both, float).T) if len(both) >= LEAST else None
        lag = Lag.between(
            [(run.connected_step, run.forks[-1].at_step) for run in runs],
            [(run.landmarks[name], length) for run in runs],
        )
        found.append((name, len(reached), earlier, share, lag, p))
    adjusted = iter(holm([p for *_, p in found if p is not None]))
    return tuple(Against(*item, None if item[-1] is None else next(adjusted)) for item in found)


def nearness(steps: np.ndarray, landmarks: np.ndarray) -> float | None:
    """Return p that steps (n,) are no nearer to the landmarks of their own runs than to those of others.

    The mean difference of logarithms, by permutation of the landmarks: exact where the two know nothing of each other.
    None where one of both does not vary.
    """
    if np.ptp(steps) == 0 or np.ptp(landmarks) == 0:
        return None
    gaps = np.abs(np.log1p(steps)[:, None] - np.log1p(landmarks))
    n = len(steps)
    own = float(np.trace(gaps))
    if exact := factorial(n) <= DRAWS:
        orders = np.array([*permutations(range(n))])
    else:
        rng = np.random.default_rng(0)
        orders = rng.permuted(np.broadcast_to(np.arange(n), (DRAWS, n)), axis=1)
    nearer = int((gaps[np.arange(n), orders].sum(1) <= own + TIE).sum())
    return nearer / math.factorial(n) if exact else (1 + nearer) / (1 + DRAWS)
