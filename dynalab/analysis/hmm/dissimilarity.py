"""How differently runs spend their training over the states: the mean distance between pairs of runs.

Hu et al. (2023, section 4) define the dissimilarity of trajectories as 2 / (N (N - 1)) sum_{i > j} W(P_i, P_j), the
mean over pairs of runs of Wasserstein's distance between P_i and P_j, the shares of a run's rows in every state. They
name no ground metric, and one on the numbers of the states would depend on their order. Here it is 0 between equal and
1 between different states, so W is the total variation, half the sum of |P_i - P_j|, in [0, 1], in any order of states.

Shares know nothing of time: runs that visit the same states for the same number of rows in another order are at
distance 0, runs that take one path at another pace are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynalab.analysis.hmm.findings import Dissimilarity, Distance
from dynalab.analysis.hmm.visits import shares

# Of two runs there is one distance.
LEAST_RUNS = 3


def describe(paths: Sequence[np.ndarray], n_states: int) -> Dissimilarity:
    """The mean total variation over pairs of runs, of their states of every row, shapes (T,); None for one run."""
    return Dissimilarity(
        total_variation=_summary(total_variation(shares(paths, n_states))),
        published="the formula of Hu et al. (2023), section 4; it states no ground metric, here it is 0/1",
    )


def total_variation(occupancy: np.ndarray) -> np.ndarray:
    """Total variation between every two rows of shares (S, K), shape (S, S)."""
    # State by state: of a thousand runs all at once would take gigabytes.
    gaps = (np.abs(share[:, None] - share) for share in occupancy.T)
    return np.asarray(sum(gaps, start=np.zeros((len(occupancy), len(occupancy)))) / 2)


def _summary(distance: np.ndarray) -> Distance:
    """Mean over pairs of (S, S), and its 95% interval over runs (jackknife; Arvesen, 1969), by Student's law."""
    from scipy.special import stdtrit

    n = len(distance)
    if n < 2:
        return Distance(runs=n)
    value = float(distance.sum() / (n * (n - 1)))
    if n < LEAST_RUNS:
        return Distance(value=value, runs=n)
    without = (distance.sum() - 2 * distance.sum(axis=0)) / ((n - 1) * (n - 2))
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    reach = float(stdtrit(n - 1, 0.975) * error)
    return Distance(value=value, interval=[max(value - reach, 0.0), min(value + reach, 1.0)], runs=n)
