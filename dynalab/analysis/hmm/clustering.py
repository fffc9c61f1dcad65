"""K-means and the agreement of clusterings as scikit-learn has them, which takes a second of every process to import.

Draws and steps are those of `sklearn.cluster.KMeans` (one start, greedy k-means++, Lloyd's iterations), so that labels
are the same; tests hold both functions against scikit-learn's.
"""

from __future__ import annotations

import numpy as np

MOST_ITERATIONS = 50
# Of the mean variance: a squared shift of all centres below it ends the iterations.
TOLERANCE = 1e-4


def k_means(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Return the cluster of every point (N, Q), integers of shape (N,); clusters are at most N."""
    points = points - points.mean(axis=0)
    enough = TOLERANCE * points.var(axis=0).mean()
    centres = _spread_out(points, n_clusters, np.random.RandomState(seed))
    labels = np.full(len(points), -1)
    for _ in range(MOST_ITERATIONS):
        before, labels = labels, _nearest(points, centres)
        moved = _means(points, labels, centres)
        shift = np.square(moved - centres).sum()
        centres = moved
        if np.array_equal(labels, before):
            return labels
        if shift <= enough:
            break
    return _nearest(points, centres)


def _spread_out(points: np.ndarray, n_clusters: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw centres (K, Q) far from each other (Arthur and Vassilvitskii, 2007), of a few tries each the best."""
    n, tries = len(points), 2 + int(np.log(n_clusters))
    norms = np.einsum("ij,ij->i", points, points)

    def distances(chosen: np.ndarray) -> np.ndarray:
        """Squared distances of all points to some of them, shape (some, N)."""
        between = -2 * (points[chosen] @ points.T) + norms[chosen][:, None] + norms
        return np.asarray(np.maximum(between, 0))

    centres = [int(rng.choice(n, p=np.full(n, 1.0) / n))]
    (nearest,) = distances(np.array(centres))
    total = nearest.sum()
    for _ in range(1, n_clusters):
        drawn = np.searchsorted(np.cumsum(nearest), rng.uniform(size=tries) * total)
        drawn = np.minimum(drawn, n - 1)
        closer = np.minimum(nearest, distances(drawn))
        totals = closer.sum(axis=1)
        best = int(np.argmin(totals))
        total, nearest = totals[best], closer[best]
        centres.append(int(drawn[best]))
    return points[centres]


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray(np.argmin(np.square(centres).sum(axis=1) - 2 * (points @ centres.T), axis=1))


def _means(points: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the clusters' means (K, Q); one without points takes the point that is farthest from its own centre."""
    inside = np.eye(len(centres))[labels]
    sums, counts = inside.T @ points, inside.sum(axis=0)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        away = np.square(points - centres[labels]).sum(axis=1)
        if away.max() > 0:
            farthest = np.argpartition(away, -len(empty))[: -len(empty) - 1 : -1]
            for cluster, point in zip(empty, farthest, strict=True):
                sums[labels[point]] -= points[point]
                counts[labels[point]] -= 1
                sums[cluster], counts[cluster] = points[point], 1
    means = sums / np.where(counts > 0, counts, 1)[:, None]
    # Where all points lie on centres, one without any stands on that of most.
    return np.asarray(np.where(counts[:, None] > 0, means, means[np.argmax(counts)]))


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """Return the adjusted Rand index (Hubert and Arabie, 1985) of two labellings of the same things, shapes (N,)."""
    (_, one), (_, other) = (np.unique(labels, return_inverse=True) for labels in (one, other))
    table = np.zeros((one.max() + 1, other.max() + 1), dtype=np.int64)
    np.add.at(table, (one, other), 1)
    # Ordered pairs of different things: together in both, in the first or second alone, in neither.
    squares, n = int(np.square(table).sum()), len(one)
    both = squares - n
    first, second = (int(np.square(table.sum(axis=axis)).sum()) - squares for axis in (1, 0))
    if first == second == 0:
        return 1.0
    neither = n**2 - first - second - squares
    most = (both + first) * (first + neither) + (both + second) * (second + neither)
    return 2 * (both * neither - first * second) / most
