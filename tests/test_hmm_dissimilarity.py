"""The distance between runs: closed forms, the jackknife, any order of the states."""

import itertools
import time

import numpy as np
import pytest
from hmm_simulate import simulate
from scipy.stats import t, wasserstein_distance_nd

from dynalab.analysis import hmm
from dynalab.analysis.hmm import dissimilarity
from dynalab.analysis.hmm.outcome import infer
from dynalab.core.records import plain
from dynalab.show import terminal


def drawn(n, k, seed=0):
    """Shares of n runs over k states, some of them empty."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(k, 0.7), n) * (rng.uniform(size=(n, k)) < 0.8)
    shares[:, 0] += 0.01
    return shares / shares.sum(axis=1, keepdims=True)


def test_it_is_wassersteins_distance_with_the_ground_metric_of_0_and_1():
    shares = drawn(6, 5)
    tv = dissimilarity.total_variation(shares)
    np.testing.assert_allclose(tv, np.abs(shares[:, None] - shares[None]).sum(axis=2) / 2, atol=1e-15)
    # Points that are all 1 apart.
    corners = np.eye(5) / np.sqrt(2)
    for i, j in itertools.combinations(range(6), 2):
        theirs = wasserstein_distance_nd(corners, corners, shares[i], shares[j])
        assert tv[i, j] == pytest.approx(theirs, abs=1e-7)


def test_the_order_of_states_does_not_matter():
    rng = np.random.default_rng(0)
    paths = [np.sort(rng.integers(0, 4, 50)) for _ in range(7)]
    order = np.array([2, 0, 3, 1])
    old = dissimilarity.describe(paths, 4).total_variation
    new = dissimilarity.describe([order[path] for path in paths], 4).total_variation
    assert old.value == pytest.approx(new.value, abs=1e-9)
    np.testing.assert_allclose(old.interval, new.interval, atol=1e-9)


def test_the_published_mean_over_pairs():
    shares = drawn(5, 3)
    distance = dissimilarity.total_variation(shares)
    n = len(shares)
    # As printed: j runs to i, where the distance is 0.
    printed = 2 / (n * (n - 1)) * sum(distance[i, j] for i in range(n) for j in range(i + 1))
    assert dissimilarity._summary(distance).value == pytest.approx(printed)
    # Upwards the interval is that of the jackknife, every run left out by hand; downwards it goes further.
    n = 12
    distance = dissimilarity.total_variation(drawn(n, 3))
    left = [np.delete(np.delete(distance, i, 0), i, 1) for i in range(n)]
    each = np.array([one[np.triu_indices(n - 1, 1)].mean() for one in left])
    reach = t.ppf(0.975, n - 1) * np.sqrt((n - 1) * each.var())
    found = dissimilarity._summary(distance)
    assert found.interval[1] - found.value == pytest.approx(reach) and found.value - found.interval[0] > reach
    # Never below 0, nor above what two runs can differ by.
    near = np.array([[0.01, 0.99], [0.02, 0.98], [0.03, 0.97], [0.05, 0.95], [0.9, 0.1]])
    apart = np.diag([0.99, 0.98, 0.97, 0.95, 0.3])
    apart[:, 0] += 1 - apart.sum(1)
    bounds = [dissimilarity._summary(dissimilarity.total_variation(one)).interval for one in (near, apart)]
    assert bounds[0][0] == 0 and bounds[1][1] == 1 and np.ptp(bounds[1]) < 1


def test_known_ensembles_and_few_runs():
    def value(*paths):
        found = dissimilarity.describe([np.array(p) for p in paths], 2).total_variation
        return found.value, found.interval, found.runs

    assert value([0, 1], [1, 0], [0, 0, 1, 1]) == (0.0, None, 3)
    # Alike or of two kinds, all of them: nothing says how far away another run could be.
    assert value(*[[0, 1]] * 9) == (0.0, None, 9)
    assert value(*[[0, 0]] * 5, *[[1, 1]] * 5) == (pytest.approx(5 / 9), None, 10)
    assert value([0, 0], [1, 1]) == (1.0, None, 2)
    assert value([0, 1]) == (None, None, 1)


def test_a_thousand_runs_cost_a_second():
    rng = np.random.default_rng(0)
    paths = [np.sort(rng.integers(0, 5, 300)) for _ in range(1000)]
    begun = time.process_time()
    assert dissimilarity.describe(paths, 5).total_variation.runs == 1000
    assert time.process_time() - begun < 1


def test_in_the_result():
    truth = simulate("level", 3, n_runs=6, n_rows=40, seed=3, detour=1, share=0.5)
    bare = {"n_states": 3, "restarts": 2, "workers": 1, "stability": False, "baselines": False}
    for keys in ({"emission": "level"}, {"emission": "ar"}, {"preset": "paper"}):
        findings = infer(truth.trajectories, hmm.Config(**bare, **keys))
        result = plain(findings)
        found = result["dissimilarity"]
        shares = np.array([np.bincount(one["states"], minlength=3) / 40 for one in result["states"]])
        pairs = [np.abs(shares[i] - shares[j]).sum() / 2 for i in range(6) for j in range(i)]
        assert found["total_variation"]["value"] == pytest.approx(np.mean(pairs))
        assert "0/1" in found["published"]
        assert any("Dissimilarity of the runs: 0." in line for line in terminal.lines(hmm.show(findings, ())))
