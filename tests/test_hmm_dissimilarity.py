"""The distance between runs: closed forms, scipy's own Wasserstein distance, any order of the states."""

import time

import numpy as np
import pytest
from hmm_simulate import simulate
from scipy.stats import t, wasserstein_distance, wasserstein_distance_nd

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
    return shares / shares.sum(axis=1, keepdims=True), rng.normal(size=(k, 3))


def between(means):
    return np.linalg.norm(means[:, None] - means[None], axis=2)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_against_scipy(k):
    shares, means = drawn(6, k, k)
    ours = dissimilarity.wasserstein(shares, between(means))
    for i in range(6):
        for j in range(6):
            theirs = 0.0 if i == j else wasserstein_distance_nd(means, means, shares[i], shares[j])
            assert ours[i, j] == pytest.approx(theirs, abs=1e-7)


def test_closed_forms():
    shares, means = drawn(8, 5)
    tv = dissimilarity.total_variation(shares)
    half = np.abs(shares[:, None] - shares[None]).sum(axis=2) / 2
    np.testing.assert_allclose(tv, half, atol=1e-15)
    # The ground metric 0/1 is the total variation.
    np.testing.assert_allclose(dissimilarity.wasserstein(shares, 1 - np.eye(5)), tv, atol=1e-9)
    # On a line: the area between the distribution functions.
    line = np.sort(means[:, :1], axis=0)
    ours = dissimilarity.wasserstein(shares, between(line))
    cdf = np.cumsum(shares, axis=1)[:, :-1]
    area = (np.abs(cdf[:, None] - cdf[None]) * np.diff(line[:, 0])).sum(axis=2)
    np.testing.assert_allclose(ours, area, atol=1e-9)
    assert ours[0, 1] == pytest.approx(wasserstein_distance(line[:, 0], line[:, 0], shares[0], shares[1]))


def test_the_order_of_states_does_not_matter():
    rng = np.random.default_rng(0)
    paths = [np.sort(rng.integers(0, 4, 50)) for _ in range(7)]
    means, order = rng.normal(size=(4, 3)), np.array([2, 0, 3, 1])
    old = dissimilarity.describe(paths, 4, means, seed=0)
    renamed = np.empty_like(means)
    renamed[order] = means
    new = dissimilarity.describe([order[path] for path in paths], 4, renamed, seed=0)
    for key in ("total_variation", "wasserstein"):
        assert old[key]["value"] == pytest.approx(new[key]["value"], abs=1e-9)
        np.testing.assert_allclose(old[key]["interval"], new[key]["interval"], atol=1e-9)


def test_the_published_mean_over_pairs():
    shares, _ = drawn(5, 3)
    distance = dissimilarity.total_variation(shares)
    n = len(shares)
    # As printed: j runs to i, where the distance is 0.
    printed = 2 / (n * (n - 1)) * sum(distance[i, j] for i in range(n) for j in range(i + 1))
    assert dissimilarity.mean_over_pairs(distance) == pytest.approx(printed)
    # The interval is that of the jackknife, every run left out by hand.
    n = 12
    distance = dissimilarity.total_variation(drawn(n, 3)[0])
    left = [np.delete(np.delete(distance, i, 0), i, 1) for i in range(n)]
    each = np.array([one[np.triu_indices(n - 1, 1)].mean() for one in left])
    error = np.sqrt((n - 1) * each.var())
    found = dissimilarity._summary(distance, 1.0)
    around = t.ppf(0.975, n - 1) * error * np.array([-1, 1])
    np.testing.assert_allclose(found["interval"], found["value"] + around)
    # Never below 0, nor above what two runs can differ by.
    assert dissimilarity._summary(1 - np.eye(4), 1.0)["interval"] == [1, 1]
    assert dissimilarity._summary(dissimilarity.total_variation(np.eye(2)[[0, 0, 1]]), 1.0)["interval"] == [
        0,
        1,
    ]


def test_known_ensembles_and_few_runs():
    def value(*paths):
        return dissimilarity.describe([np.array(p) for p in paths], 2, np.array([[0.0], [3.0]]), seed=0)

    same = value([0, 1], [1, 0], [0, 0, 1, 1])
    assert same["total_variation"] == {"value": 0.0, "interval": [0.0, 0.0], "runs": 3}
    assert same["wasserstein"]["value"] == 0.0
    two = value([0, 0], [1, 1])
    assert two["total_variation"] == {"value": 1.0, "interval": None, "runs": 2}
    assert two["wasserstein"]["value"] == pytest.approx(3.0)
    alone = value([0, 1])
    assert alone["total_variation"] == {"value": None, "interval": None, "runs": 1}
    assert dissimilarity.describe([np.array([0])], 1, None, seed=0)["wasserstein"] is None


def test_twenty_runs_cost_a_tenth_of_a_second_and_a_thousand_are_bounded():
    rng = np.random.default_rng(0)

    def seconds(n):
        paths = [np.sort(rng.integers(0, 5, 300)) for _ in range(n)]
        begun = time.process_time()
        found = dissimilarity.describe(paths, 5, rng.normal(size=(5, 14)), seed=0)
        return time.process_time() - begun, found

    seconds(3)
    assert min(seconds(20)[0] for _ in range(3)) < 0.1
    spent, found = seconds(1000)
    assert spent < 3
    assert (found["total_variation"]["runs"], found["wasserstein"]["runs"]) == (1000, 40)


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
        assert (found["wasserstein"] is None) == (result["emission"] == "ar")
        if result["emission"] == "level":
            cost = between(np.array(result["model"]["means"]))
            means = dissimilarity.mean_over_pairs(dissimilarity.wasserstein(shares, cost))
            assert found["wasserstein"]["value"] == pytest.approx(means)
        assert any("Dissimilarity of the runs: 0." in line for line in terminal.lines(hmm.show(findings, ())))
