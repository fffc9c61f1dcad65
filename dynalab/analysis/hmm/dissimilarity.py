"""How differently runs spend their training over the states: the mean distance between pairs of runs.

Hu et al. (2023, section 4) define the dissimilarity of trajectories as 2 / (N (N - 1)) sum_{i > j} W(P_i, P_j), the
mean over pairs of runs of Wasserstein's distance between P_i and P_j, the shares of a run's rows in every state. They
name no ground metric, and one on the numbers of the states would depend on their order. Two that do not are used here:

- 0 between equal and 1 between different states: W is the total variation, half the sum of |P_i - P_j|, in [0, 1];
- the distance between the states' means, where states are levels: W says how far apart the runs are, not only that they
  are in different states. States of dynamics have no mean of their own.

Both take any order of the states. Shares know nothing of time: runs that visit the same states for the same number of
rows in another order are at distance 0, runs that take one path at another pace are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.hmm.visits import shares

# Pairs of more runs than these make a linear programme of seconds; a larger ensemble is sampled.
MOST_RUNS = 40
# Of two runs there is one distance.
LEAST_RUNS = 3


def describe(
    paths: Sequence[np.ndarray], n_states: int, means: np.ndarray | None, *, seed: int
) -> dict[str, Any]:
    """Return the key `dissimilarity` of a result.

    Args:
        paths: State of every row of every run, shapes (T,).
        n_states: K.
        means: Mean of every state, shape (K, M), z-units; None where states have none (autoregression).
        seed: Of the runs that stand for many.

    Returns:
        `{total_variation, wasserstein, published}`. `total_variation` is `{value, interval, runs}`: the mean over pairs
        with the ground metric 0/1 (null for one run), its 95% interval over runs (jackknife; null with under three),
        and how many runs entered. `wasserstein` is the same with the distance between means as the ground cost, and the
        `unit` of value and interval, over at most 40 runs drawn by the seed; null without means. `published` says how
        the first relates to the formula in print.
    """
    occupancy = shares(paths, n_states)
    found: dict[str, Any] = {
        "total_variation": _summary(total_variation(occupancy), 1.0),
        "wasserstein": None,
        "published": "the formula of Hu et al. (2023), section 4; it states no ground metric, here it is 0/1",
    }
    if means is not None:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(11,)))
        n = len(occupancy)
        drawn = np.sort(rng.choice(n, MOST_RUNS, replace=False)) if n > MOST_RUNS else np.arange(n)
        cost = np.linalg.norm(means[:, None] - means[None], axis=2)
        found["wasserstein"] = {
            **_summary(wasserstein(occupancy[drawn], cost), float(cost.max())),
            "unit": "z-units, Euclidean distance between the means of the states",
        }
    return found


def total_variation(occupancy: np.ndarray) -> np.ndarray:
    """Total variation between every two rows of shares (S, K), shape (S, S): Wasserstein with the ground metric 0/1."""
    from scipy.spatial.distance import pdist, squareform

    return np.asarray(squareform(pdist(occupancy, "cityblock")) / 2)


def wasserstein(occupancy: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Wasserstein's distance between every two rows of shares, by linear programming, exact.

    What two rows share stays where it is, since the cost is a metric; the programme moves the surplus of one to the
    surplus of the other. All pairs are solved together: their variables are separate, the optimum of the sum is the
    sum of the optima.

    Args:
        occupancy: Shares, shape (S, K); rows sum to 1.
        cost: Distance between states, a metric, shape (K, K).

    Returns:
        Shape (S, S).
    """
    from scipy import optimize, sparse
    from scipy.spatial.distance import squareform

    n, n_states = occupancy.shape
    first, second = np.triu_indices(n, 1)
    surplus = occupancy[first] - occupancy[second]
    pair, source, target = np.nonzero((surplus > 0)[:, :, None] & (surplus < 0)[:, None, :])
    moves = len(pair)
    if not moves:
        return np.zeros((n, n))
    # Of every pair, one balance is the sum of the others up to rounding: the programme may miss by that much there.
    scale = float(cost.max()) or 1.0
    rows = np.concatenate([pair * n_states + source, pair * n_states + target])
    columns = np.tile(np.arange(moves), 2)
    balance = sparse.csr_matrix((np.ones(2 * moves), (rows, columns)), shape=(surplus.size, moves))
    used = np.unique(rows)
    solved = optimize.linprog(
        cost[source, target] / scale, A_eq=balance[used], b_eq=np.abs(surplus).ravel()[used], method="highs"
    )
    assert solved.status == 0, solved.message
    each = np.bincount(pair, weights=solved.x * cost[source, target], minlength=len(first))
    return np.asarray(squareform(each))


def mean_over_pairs(distance: np.ndarray) -> float:
    """Mean distance between different runs, from a symmetric matrix (S, S) with zeros on the diagonal."""
    n = len(distance)
    return float(distance.sum() / (n * (n - 1)))


def _summary(distance: np.ndarray, most: float) -> dict[str, Any]:
    """Mean over pairs, and its 95% interval by leaving out every run in turn (Arvesen, 1969), by Student's law.

    No two runs are farther apart than `most`.
    """
    from scipy import stats

    n = len(distance)
    found: dict[str, Any] = {"value": None, "interval": None, "runs": n}
    if n < 2:
        return found
    value = found["value"] = mean_over_pairs(distance)
    if n >= LEAST_RUNS:
        without = (distance.sum() - 2 * distance.sum(axis=0)) / ((n - 1) * (n - 2))
        error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
        reach = float(stats.t.ppf(0.975, n - 1) * error)
        found["interval"] = [max(value - reach, 0.0), min(value + reach, most)]
    return found
