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
from dynalab.core.means import pairs_interval


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
    """Mean over pairs of (S, S), and its 95% interval over runs (`pairs_interval`), within what distances can be."""
    ends = np.column_stack(np.triu_indices(len(distance), 1))
    if not len(ends):
        return Distance(runs=len(distance))
    values = distance[ends[:, 0], ends[:, 1]]
    low, high = pairs_interval(ends, values)
    interval = None if low is None or high is None else [max(low, 0.0), min(high, 1.0)]
    return Distance(value=float(values.mean()), interval=interval, runs=len(distance))
