"""How often p-values and intervals err where there is nothing to find: runs cut off, of unequal lengths, with ties."""

from __future__ import annotations

import numpy as np
import pytest
from nulls import setting, walks

from dynalab.analysis import claims
from dynalab.analysis.claims import _runs, _shares, _speed, _spread, off_path
from dynalab.analysis.claims import compare as compare_settings
from dynalab.analysis.hmm import cases, detours, survival
from dynalab.analysis.hmm.paths import compare


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RESAMPLES", 199)
    monkeypatch.setattr(survival, "DRAWS", 499)
    monkeypatch.setattr(survival.two_sample, "__defaults__", (499, None))


def rate(hits: int, of: int) -> float:
    """Share of p-values below .05, with two standard errors of chance granted to the few."""
    return hits / of - 2 * (0.05 * 0.95 / of) ** 0.5


@pytest.mark.parametrize("kind", ["clock", "forward", "random", "lengths", "late"])
def test_paths_that_do_not_delay(kind):
    found = [compare(*walks(seed, kind))[0] for seed in range(40)]
    assert rate(sum(one is not None and one["p"] < 0.05 for one in found), 40) < 0.02


def test_optional_states_without_a_cost():
    hits = 0
    for number in range(40):
        planted = cases.make(cases.describe_case(number, delay=0.0))
        steps = [run.steps for run in planted.trajectories.runs]
        found, _ = compare(list(planted.states), steps, planted.convergence)
        hits += found is not None and found["p"] < 0.05
    assert rate(hits, 40) < 0.02


@pytest.mark.parametrize(("n", "share"), [(20, [1.0]), (24, [0.5, 0.5]), (40, [0.25] * 4), (30, [0.1] * 10)])
def test_the_interval_of_the_common_path_covers(n, share):
    """Although which path is the most common one is read off the same runs."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        low, high = off_path([(int(way),) for way in rng.choice(len(share), n, p=share)])["interval"]
        hits += low <= 1 - max(share) <= high
    assert hits >= 0.93 * 400


@pytest.mark.parametrize("sizes", [(24, 24), (15, 60), (200, 20)])
@pytest.mark.parametrize("ways", [2, 4, 10])
def test_shares_of_two_settings_of_one_law(sizes, ways):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        a, b = (off_path([(int(way),) for way in rng.integers(ways, size=n)]) for n in sizes)
        hits += _shares(a, b)["p"] < 0.05
    assert rate(hits, 200) < 0.05


@pytest.mark.parametrize(
    ("one", "other"), [({}, {}), ({}, {"watched": 450}), ({"n": 40, "watched": 600}, {"n": 15})]
)
def test_medians_of_two_settings_of_one_law(one, other):
    """One trained for half as long, of other sizes, with ties on the grid; the whole comparison at a few."""
    hits = 0
    for seed in range(300):
        a, b = (_runs(setting(2 * seed + k, grid=50, **keys)) for k, keys in ((2000, one), (2001, other)))
        hits += _speed(a, b)["p"] < 0.05
    assert rate(hits, 300) < 0.05
    found = compare_settings(setting(1, **one), setting(2, **other))
    assert found["spread"] is None or not found["left_out"]


def test_spreads_of_two_settings_of_one_law():
    rng = np.random.default_rng(2)
    hits = sum(_spread(*np.exp(6 + 0.5 * rng.normal(size=(2, 12))))["p"] < 0.05 for _ in range(200))
    assert rate(hits, 200) < 0.05


@pytest.mark.parametrize("kind", ["clock", "forward", "random", "lengths", "late"])
def test_states_that_do_not_delay_are_no_detours(kind):
    """Long runs visit more states: counted from the entry on, over all states that are tested, they are no later."""
    hits = 0
    for seed in range(30):
        paths, steps, rows = walks(seed, kind)
        hits += any(row["verdict"] for row in detours.find(paths, steps, rows, 4).rows)
    assert rate(hits, 30) < 0.05
