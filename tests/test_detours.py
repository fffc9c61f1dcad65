"""Detours and paths: simulated ensembles whose truth is known, and small tables by hand."""

import json

import hmm_cases as cases
import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from dynalab.analysis import hmm
from dynalab.analysis.convergence import converge
from dynalab.analysis.hmm import detours
from dynalab.analysis.hmm.detours import explained, published
from dynalab.analysis.hmm.features import is_size
from dynalab.analysis.hmm.outcome import infer
from dynalab.analysis.hmm.paths import compare, path_table
from dynalab.analysis.hmm.visits import before_convergence, entries, shares
from dynalab.core import survival
from dynalab.core.records import plain


def with_true_states(number, delay=None):
    planted = cases.make(cases.describe_case(number, delay=delay))
    steps = [run.steps for run in planted.trajectories.runs]
    found = detours.find(planted.states, steps, planted.convergence, planted.case.n_states)
    return planted, found


def test_cases_are_what_they_promise():
    for number in range(20):
        case = cases.describe_case(number)
        planted = cases.make(case)
        assert case == cases.describe_case(number) and 2 <= case.delay <= 4
        assert case.n_runs in (20, 40) and 100 <= case.n_rows <= 300
        assert set(np.concatenate(planted.states)) == set(range(case.n_states))
        assert 0.25 <= planted.visits.mean() <= 0.75
        assert sum(row["censored"] for row in planted.convergence) == case.n_runs // 10
        # The convergence of the runs is what the metric says.
        assert converge(planted.trajectories, planted.trajectories.convergence) == planted.convergence
        features = np.concatenate([run.values[:, :14] for run in planted.trajectories.runs])
        sizes = [is_size(name) for name in planted.trajectories.metrics[:14]]
        features[:, sizes] = np.log(features[:, sizes])
        assert np.linalg.cond(np.cov(features.T)) >= 1e4
    assert {cases.describe_case(n).kind for n in range(10)} == {"level", "ar"}
    assert {cases.describe_case(n).shape for n in range(40)} == {"loop", "insertion", "branch"}
    again = cases.make(cases.describe_case(7)).trajectories.runs[3].values
    assert (again == cases.make(cases.describe_case(7)).trajectories.runs[3].values).all()


def test_states_of_level_are_2_to_6_deviations_apart():
    for number in (0, 1, 2, 3, 4):
        gaps = []
        planted = cases.make(cases.describe_case(number))
        x = np.stack([run.values[:, :14] for run in planted.trajectories.runs])
        sizes = [is_size(name) for name in planted.trajectories.metrics[:14]]
        x[..., sizes] = np.log(x[..., sizes])
        states = np.stack(planted.states)
        k = planted.case.n_states
        means = np.array([x[states == state].mean(axis=0) for state in range(k)])
        rest = x - means[states]
        inside = np.cov(rest.reshape(-1, 14).T)
        for a in range(k):
            for b in range(a):
                gap = means[a] - means[b]
                gaps.append(np.sqrt(gap @ np.linalg.solve(inside, gap)))
        assert min(gaps) > 1.8 and max(gaps) < 6.3


def test_curves_of_dynamics_are_continuous():
    planted = cases.make(cases.describe_case(8))
    change = np.concatenate([np.abs(np.diff(run.values[:, 3])) for run in planted.trajectories.runs])
    column = np.concatenate([run.values[:, 3] for run in planted.trajectories.runs])
    assert change.max() < 0.3 * np.ptp(column)


def test_planted_detours_are_found_and_others_are_not():
    found = [with_true_states(number) for number in range(15)]
    hits = [d.rows[p.case.optional].verdict for p, d in found]
    assert sum(hits) >= 14
    for planted, d in found:
        row = d.rows[planted.case.optional]
        assert row.interval[0] <= row.effect_steps <= row.interval[1]
    false = [any(r.verdict for r in with_true_states(n, delay=0)[1].rows) for n in range(20)]
    # 5% and two standard errors.
    assert sum(false) <= 3


def test_the_published_rule_calls_states_without_a_cost_detours():
    found = [with_true_states(number, delay=0) for number in range(10)]
    called = [p.case.optional in d.model.published.detours for p, d in found]
    assert sum(called) >= 8
    for planted, d in found:
        # What it explains, accounting explains as well (a run that converges in the state it began in has no shares
        # that could add up).
        said = d.model.published
        if planted.case.n_states > 2:
            assert said.accounting_r2 > 0.95 and said.r2 < said.accounting_r2_95 + 0.02


def test_runs_that_visit_because_they_take_long_are_no_detour():
    rng = np.random.default_rng(0)
    steps = [np.arange(0, 1000, 10)] * 30
    times = rng.integers(20, 90, 30)
    # Whoever is still training at row 50 enters state 1 there, to no effect.
    paths = [np.where(np.arange(100) < time, np.arange(100) >= 50, 2).astype(int) for time in times]
    convergence = [{"run": str(i), "step": int(t) * 10, "censored": False} for i, t in enumerate(times)]
    found = detours.find(paths, steps, convergence, 3)
    row = found.rows[1]
    assert row.p > 0.05 and row.p_adjusted > 0.05 and row.effect_steps > 0 and not row.verdict
    assert row.reason == detours.LATE and any("take long" in line for line in found.warnings)


def test_states_with_too_few_visits_are_named_not_tested():
    steps = [np.arange(10) * 10] * 12
    paths = [np.array([0, 0, 0, 1 if run < 2 else 0, 0, 0, 2, 2, 2, 2]) for run in range(12)]
    convergence = [{"run": str(run), "step": 60 + run % 3, "censored": False} for run in range(12)]
    found = detours.find(paths, steps, convergence, 3)
    assert found.rows[1].visits == 2 and found.rows[1].p is None and not found.rows[1].tested
    assert any("fewer than 3 runs" in line and "1 (2 of 12)" in line for line in found.warnings)
    few = detours.find(paths[:4], steps[:4], convergence[:4], 3)
    assert "too few" in few.warnings[0]
    none = [{"run": str(run), "step": None, "censored": True} for run in range(12)]
    assert "no run converged" in detours.find(paths, steps, none, 3).warnings[0]


def test_p_values_are_adjusted_over_the_tested_states():
    rng = np.random.default_rng(1)
    steps = [np.arange(60) * 10] * 40
    ways = rng.integers(0, 8, 40)
    paths, convergence = [], []
    for run, way in enumerate(ways):
        route = [0, *(k for k in (1, 2, 3) if way >> (k - 1) & 1), 4]
        paths.append(np.repeat(route, np.diff([*np.linspace(0, 40, len(route)).astype(int), 60])))
        convergence.append(
            {"run": str(run), "step": int(rng.normal(460, 15)) + 60 * (way & 1), "censored": False}
        )
    rows = detours.find(paths, steps, convergence, 5).rows
    tested = [row for row in rows if row.tested]
    assert [row.state for row in tested] == [1, 2, 3]
    time = np.array([row["step"] for row in convergence], float)
    ranks = [survival.two_sample(time, np.ones(40, bool), ways >> (k - 1) & 1 == 1, 0)[1] for k in (1, 2, 3)]
    since = [row.p_time_dependent for row in tested]
    np.testing.assert_array_equal([row.p for row in tested], np.maximum(ranks, since))
    # Both tests are adjusted, and the larger p-value counts.
    expected = np.maximum(*map(stats.false_discovery_control, (ranks, since)))
    np.testing.assert_allclose([row.p_adjusted for row in tested], expected)
    assert [row.verdict for row in tested] == [True, False, False]
    assert abs(rows[1].effect_steps - 60) < 25
    logged = detours.find(paths, steps, convergence, 5, log_time=True).rows[1]
    assert logged.p == rows[1].p and abs(logged.effect_ratio - 520 / 460) < 0.07
    assert abs(logged.effect_steps - 60) < 25


def test_visits_end_with_convergence():
    path, rows = np.array([0, 0, 1, 2, 2]), np.arange(5) * 10
    early = before_convergence([path, path], [rows, rows], np.array([30.0, 40.0]), np.array([True, False]))
    assert [one.tolist() for one in early] == [[0, 0, 1], [0, 0, 1, 2, 2]]
    assert entries(early, [rows, rows], 3).tolist() == [[0, 20, np.inf], [0, 20, 30]]
    np.testing.assert_allclose(shares(early, 3), [[2 / 3, 1 / 3, 0], [0.4, 0.2, 0.4]])


def test_the_published_regression_is_least_squares_on_shares():
    planted, found = with_true_states(3)
    time = np.array([row["step"] or planted.case.n_rows * 10 - 10 for row in planted.convergence], float)
    occupancy = shares(planted.states, 5)
    said = found.model.published
    np.testing.assert_allclose(said.coefficients, np.linalg.pinv(occupancy) @ time)
    assert said.r2 == explained(occupancy, time)
    # The shares sum to 1: they hold the intercept.
    np.testing.assert_allclose(said.r2, OLS(time, occupancy, hasconst=True).fit().rsquared)
    observed = np.ones(6, bool)
    random = [np.repeat([0, 1], [n, 12 - n]) for n in (3, 4, 5, 6, 7, 8)]
    exact = published(random, [p[p == 0] for p in random], np.arange(3.0, 9.0), observed, 2)
    np.testing.assert_allclose([exact.r2, exact.accounting_r2], 1)


def test_the_table_of_paths():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    rows = [np.array([0, 10, 20, 30])] * 6
    steps = [30, 30, None, 20, 30, 10]
    convergence = [{"run": str(i), "step": s, "censored": s is None} for i, s in enumerate(steps)]
    table = path_table([a, a, a, b, b, b], rows, list("uvwxyz"), convergence)
    # Up to the row of convergence; what never converged is shown as far as it goes.
    assert [(row.states, row.members, row.censored) for row in table] == [
        ([0, 1], ["u", "v", "w"], 1),
        ([0], ["z"], 0),
        ([0, 2], ["x"], 0),
        ([0, 2, 1], ["y"], 0),
    ]
    # Who has converged on the way of most has not left it.
    assert [row.along for row in table] == [True, True, False, False]
    further = path_table(
        [a[:1], a[:1], a],
        [row[: len(way)] for row, way in zip(rows, [a[:1], a[:1], a], strict=False)],
        list("uvw"),
        None,
    )
    assert [(row.states, row.along) for row in further] == [([0], True), ([0, 1], True)]
    assert table[0].median_step == 30 and table[0].quartiles == [30, None]
    assert table[2].median_step == 20
    found, notes = compare([a, a, a, b, b, b], rows, convergence)
    assert found.paths == [0, 2, 3] and (found.runs, found.left_out) == (4, 1)
    assert [(one.after, one.to) for one in found.partings] == [([0], [1, 2])]
    assert "fewer than 5" in notes[0]
    assert path_table([a, b], rows[:2], ["v", "w"], None)[0].median_step is None
    assert compare([a, a, b], rows[:3], None) == (None, [])


def test_paths_that_differ_are_told_apart():
    planted, _ = with_true_states(27)
    steps = [run.steps for run in planted.trajectories.runs]
    found, _ = compare(planted.states, steps, planted.convergence)
    assert found.p < 0.01


@pytest.fixture(scope="module")
def whole():
    planted = cases.make(cases.describe_case(7))
    config = hmm.Config(n_states=4, restarts=3, folds=2, workers=1)
    return planted, infer(planted.trajectories, config)


def test_the_whole_analysis_finds_the_planted_detour(whole):
    planted, outcome = whole
    result = plain(outcome)
    json.dumps(result, allow_nan=False)
    assert [row["state"] for row in result["detours"]] == [0, 1, 2, 3]
    flagged = [row["state"] for row in result["detours"] if row["verdict"]]
    assert flagged == [planted.case.optional]
    assert result["path_comparison"]["p"] < 0.01
    assert sum(path["runs"] for path in result["paths"]) == planted.case.n_runs
    assert all(path["interval"][0] <= path["runs"] / 20 <= path["interval"][1] for path in result["paths"])


def test_without_convergence_nothing_is_tested():
    planted = cases.make(cases.describe_case(0))
    bare = type(planted.trajectories)("e", planted.trajectories.metrics, planted.trajectories.runs[:4])
    result = plain(infer(bare, hmm.Config(n_states=2, restarts=1, folds=2, workers=1)))
    assert result["detours"] is None and result["path_comparison"] is None
