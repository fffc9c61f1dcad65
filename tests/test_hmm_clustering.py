"""K-means and the adjusted Rand index against scikit-learn's, which they stand in for."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from dynalab.analysis.hmm.clustering import adjusted_rand, k_means


def theirs(points, n_clusters, seed):
    return KMeans(n_clusters, n_init=1, max_iter=50, random_state=seed).fit_predict(points)


@pytest.mark.parametrize("seed", range(12))
def test_clusters_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(int(rng.integers(8, 300)), int(rng.integers(1, 28))))
    if seed % 2:
        points = points.cumsum(axis=0)
    for n_clusters in (1, 2, 5, 8):
        np.testing.assert_array_equal(k_means(points, n_clusters, seed), theirs(points, n_clusters, seed))


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_fewer_distinct_points_than_clusters_are_scikit_learns():
    rng = np.random.default_rng(0)
    few = rng.normal(size=(3, 4))
    for points in (few, few[rng.integers(0, 3, size=40)], np.zeros((5, 2))):
        n_clusters = min(5, len(points))
        found = k_means(points, n_clusters, 1)
        np.testing.assert_array_equal(found, theirs(points, n_clusters, 1))


def test_a_cluster_that_loses_its_points_begins_again_at_the_farthest():
    # Of many seeds some leave a cluster empty on the way.
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(size=(30, 1)), rng.normal(size=(2, 1)) + 40])
    for seed in range(40):
        np.testing.assert_array_equal(k_means(points, 8, seed), theirs(points, 8, seed))


def test_agreement_is_the_adjusted_rand_index():
    rng = np.random.default_rng(0)
    for one, other in [
        *rng.integers(0, 4, size=(20, 2, 30)),
        np.arange(6).reshape(2, 3),
        np.zeros((2, 1), int),
    ]:
        assert adjusted_rand(one, other) == adjusted_rand_score(one, other)
        assert adjusted_rand(one, one + 7) == 1
