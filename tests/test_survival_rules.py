"""Small rules of times, detours, paths and claims: ties, boundaries, corrections, against counts by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from nulls.hmm import convergence, passages, states_of
from scipy import optimize, stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.convergence import ConvergenceKeys, follow, resolve
from dynalab.analysis.hmm import (
    claims,
    comparison,
    detours,
    outcome,
    paths,
    tobit,
    visits,
)
from dynalab.analysis.hmm.config import Config
from dynalab.core import survival
from dynalab.core.stats import fallen, quantile

# Events that share steps with each other and with censorings.
TIME = np.array([10.0, 10, 10, 20, 20, 20, 30, 30, 40, 40])
SEEN = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1, 0], bool)
GROUP = np.array([0, 0, 1, 0, 1, 1, 0, 1, 1, 1], bool)
STRATA = np.array([0, 1] * 5)


def test_times_of_rows_with_and_without_a_last_step():
    rows = [
        {"step": 30, "censored": False, "last": 90},
        {"step": None, "censored": True, "last": 70},
        {"step": None, "censored": True},
    ]
    time, seen = survival.censored_times(rows, [100, 100, 100])
    assert time.tolist() == [30, 70, 100] and seen.tolist() == [True, False, False]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.5, 0.55, 0.75])
def test_quantiles_with_ties_are_kaplan_and_meiers(share):
    """The middle of the steps at which 1 - share and fewer are left; statsmodels' own takes the latter."""
    theirs = SurvfuncRight(TIME, SEEN.astype(int))
    reached = theirs.surv_times[theirs.surv_prob <= 1 - share + 1e-9]
    passed = theirs.surv_times[theirs.surv_prob < 1 - share - 1e-9]
    expected = (reached[0] + [*passed, reached[0]][0]) / 2 if len(reached) else None
    assert survival.quantile(TIME, SEEN, share) == expected
    assert survival.quantile(TIME[::-1], SEEN[::-1], share) == expected


def test_quantiles_of_nothing_and_of_nobody():
    assert survival.quantile(np.empty(0), np.empty(0, bool), 0.5) is None
    drawn = np.array([[2, 0, 0], [0, 0, 3], [1, 1, 1]])
    found = survival.quantiles(np.array([5.0, 6, 7]), np.array([True, True, False]), 0.5, drawn)
    assert found.tolist() == [5, np.inf, 6]


def test_ensembles_are_what_stands_before_the_slash():
    assert survival.strata_of(["b/1", "a/1", "b/2", "alone"]).tolist() == [2, 1, 2, 0]
    assert survival.strata_of([]).tolist() == []
    labels, strata = np.array([1, 1, 0, 1, 2]), np.array([0, 0, 1, 1, 2])
    assert survival.mixed(labels, strata).tolist() == [False, False, True, True, False]


def certainly_before(i, j, strata):
    if not SEEN[i] or (strata is not None and strata[i] != strata[j]):
        return False
    return TIME[i] < TIME[j] or (TIME[i] == TIME[j] and not SEEN[j])


@pytest.mark.parametrize("strata", [None, STRATA])
def test_gehans_scores_count_pairs(strata):
    runs = range(len(TIME))
    expected = [
        sum(int(certainly_before(j, i, strata)) - int(certainly_before(i, j, strata)) for j in runs)
        for i in runs
    ]
    assert survival.gehan_scores(TIME, SEEN, strata).tolist() == expected


def every_sum(scores, size, strata=None):
    """Sums of all choices of as many scores an ensemble as the group has there, by enumeration."""
    parts = []
    for one in np.unique(strata) if strata is not None else [None]:
        rows = np.arange(len(scores)) if strata is None else np.flatnonzero(strata == one)
        n = size if strata is None else int(GROUP[rows].sum())
        parts.append([sum(scores[list(some)]) for some in itertools.combinations(rows, n)])
    return np.array([sum(one) for one in itertools.product(*parts)])


@pytest.mark.parametrize("strata", [None, STRATA])
def test_the_two_sample_test_is_the_count_over_all_labels(strata):
    statistic, p, critical = survival.two_sample(TIME, SEEN, GROUP, 0, strata=strata)
    scores = survival.gehan_scores(TIME, SEEN, strata)
    sums = every_sum(scores, 6, strata)
    assert statistic == scores[GROUP].sum()
    assert p == np.mean(np.abs(sums) >= abs(statistic))
    # From there on p is at most .05, and of the next smaller size it is more.
    beyond = np.abs(sums) > critical * sums.std()
    assert 0 < beyond.mean() <= 0.05 < np.mean(np.abs(sums) >= np.abs(sums[~beyond]).max())


@pytest.fixture
def most(monkeypatch):
    """Set how many permutations are drawn, and gone through."""

    def most(draws):
        monkeypatch.setattr(survival, "DRAWS", draws)
        monkeypatch.setattr(survival, "ENTRIES", draws)

    return most


def test_permutations_are_all_while_they_are_no_more_than_the_draws(most):
    scores = np.array([3.0, -1, 0, 2, -4])
    most(10)
    sums, exact = survival.permutation_sums(scores, 2, 0)
    assert exact and sorted(sums) == sorted(a + b for a, b in itertools.combinations(scores, 2))
    most(9)
    members, exact = survival.splits(5, 2)
    # What was observed is counted with those that are drawn, and is none of them.
    assert not exact and len(members) <= 9 and not members[:, 3:].all(axis=1).any()
    members, exact = survival.splits(6, 3)
    assert not exact and not {0.0, 3.0} & {*members[:, 3:].sum(axis=1)}
    sums, exact = survival.permutation_sums(scores + 7, 2, 0)
    # Centred, and sums of two different scores.
    pairs = {a + b for a, b in itertools.combinations(scores, 2)}
    assert {round(one) for one in sums} <= pairs and len(set(sums.round())) > 2
    # Of two ensembles, all pairs of sums while they are few.
    time, label, strata = np.arange(8.0), np.tile([True, False], 4), np.repeat([0, 1], 4)
    seen = np.ones(8, bool)
    scores = survival.gehan_scores(time, seen, strata)
    most(36)
    every = survival._sums(scores, label, strata, 0)
    most(35)
    some = survival._sums(scores, label, strata, 0)
    assert every[1] and len(every[0]) == 36 and not some[1] and len(some[0]) == 35


def test_a_drawn_p_value_counts_the_observed_labels():
    assert survival.permutation_p(5.0, np.array([0.0, 1, -1]), exact=False) == 1 / 4
    assert survival.permutation_p(-1.0, np.array([0.0, 1, -1]), exact=False) == 3 / 4
    assert survival.permutation_p(1.0, np.array([0.0, 1, -1]), exact=True) == 2 / 3
    # Rounding makes no difference of equal sums.
    assert survival.permutation_p(1e6 + 1e-4, np.array([1e6, 0.0]), exact=True) == 0.5


def test_one_run_has_no_spread_and_two_have():
    assert survival.permutation_sd(np.array([3.0]), 1) == 0
    np.testing.assert_allclose(survival.permutation_sd(np.array([1.0, -3.0]), 1), 2)
    alone = survival.two_sample(np.array([5.0]), np.ones(1, bool), np.ones(1, bool), 0)
    assert alone == (0.0, 1.0, survival.Z95)
    np.testing.assert_allclose(survival.Z95, stats.norm.ppf(0.975), rtol=1e-15)


def test_a_shift_as_long_as_what_was_seen_and_one_among_ties():
    group = np.repeat([True, False], 5)
    apart = np.where(group, 70.0, 20.0)
    assert survival.shift(apart, np.ones(10, bool), group)[0] == pytest.approx(50, abs=1e-3)
    rng = np.random.default_rng(0)
    time = np.round(rng.normal(100, 20, 21), -1)
    some = np.arange(21) < 8
    gaps = time[some][:, None] - time[~some][None]
    estimate, bounds = survival.shift(time, np.ones(21, bool), some)
    assert estimate == pytest.approx(np.median(gaps), abs=1e-3)
    # Inside the interval the standardised statistic is within the critical value, outside it is not.
    for bound, inward in zip(bounds, (0.01, -0.01), strict=True):
        for by, within in ((bound + inward, True), (bound - inward, False)):
            u = stats.mannwhitneyu(
                time[some] - by, time[~some], method="asymptotic", use_continuity=False
            ).pvalue
            assert (u > 0.05) == within
    assert survival.shift(np.full(4, 3.0), np.ones(4, bool), np.arange(4) < 2)[0] == 0


def test_a_bound_that_nothing_refuses_is_open():
    """Of three and three even the farthest shift has a p-value of .1: no number says how late they may be."""

    def bounds(late, soon, end=1e9):
        time = np.array([*late, *soon])
        seen, group = time < end, np.arange(len(time)) < len(late)
        _, p, critical = survival.two_sample(time, seen, group, 0)
        return p, *survival.shift(time, seen, group, critical)

    p, estimate, interval = bounds([310.0, 320, 330], [100.0, 110, 120])
    assert p == 0.1 and estimate == pytest.approx(210, abs=1e-3) and interval == [None, None]
    # With four and four a shift can be refused: by the most extreme sums, 2 of 70; the next, 4 of them, are too many.
    p, estimate, interval = bounds([310.0, 320, 330, 340], [100.0, 110, 120, 130])
    assert p == 2 / 70 and interval == pytest.approx([180, 240], abs=1e-3)
    # Who converged while the others never did is earlier by at least so much; how much nobody knows. And the other way.
    _, estimate, (low, high) = bounds([310.0, 320, 330, 340], [500.0] * 4, end=500)
    assert estimate is None and low is None and high == pytest.approx(-160, abs=11)
    _, estimate, (low, high) = bounds([500.0] * 4, [100.0, 110, 120, 130], end=500)
    assert estimate is None and low == pytest.approx(370, abs=1e-3) and high is None


@pytest.mark.parametrize("strata", [None, STRATA])
def test_the_time_dependent_test_with_ties_is_the_log_rank_test(strata):
    entry = np.where(GROUP, 0.0, np.inf)
    chi = survdiff(TIME, SEEN.astype(int), GROUP, strata=strata)[0]
    p = survival.time_dependent_p(TIME, SEEN, entry, strata)
    assert min(p, 1 - p) == pytest.approx(stats.norm.sf(np.sqrt(chi)), rel=1e-9)
    # The group is the later one.
    assert p < 0.5
    # A run that enters where it converges never was at risk as one that has.
    late = np.where(GROUP, TIME, np.inf)
    late[5] = 5.0
    never = np.where(np.arange(10) == 5, 5.0, np.inf)
    assert survival.time_dependent_p(TIME, SEEN, late, strata) == pytest.approx(
        survival.time_dependent_p(TIME, SEEN, np.where(GROUP & SEEN & (TIME == 40), late, never), strata)
    )
    assert survival.time_dependent_p(TIME, SEEN, np.full(10, np.inf), strata) == 1


def test_several_samples_are_kruskal_and_wallis_under_permutation(most):
    time = np.array([1.0, 2, 9, 4, 5, 6, 8])
    groups = np.array([0, 0, 0, 1, 1, 2, 2])
    seen = np.ones(7, bool)

    def statistic(label):
        return stats.kruskal(*(time[np.array(label) == k] for k in range(3))).statistic

    every = [statistic(label) for label in set(itertools.permutations(groups.tolist()))]
    exact = np.mean(np.array(every) >= statistic(groups) - 1e-9)
    p, log_rank = survival.several_samples(time, seen, groups, 0)
    assert p == pytest.approx(exact, abs=1e-12)
    most(99)
    drawn, _ = survival.several_samples(time, seen, groups, 0)
    assert p != drawn == pytest.approx(exact, abs=0.15)
    assert log_rank == pytest.approx(survdiff(time, np.ones(7, int), groups)[1])
    # The labels as they are count among the drawn ones; where all are alike nothing is unusual.
    far = np.concatenate([np.arange(8.0), 100 + np.arange(8)])
    label = np.repeat([0, 1], 8)
    most(49)
    assert survival.several_samples(far, np.ones(16, bool), label, 0)[0] == 1 / 50
    assert survival.several_samples(np.ones(16), np.ones(16, bool), label, 0) == (1.0, None)


def test_several_samples_of_two_ensembles_are_all_ways_within_them():
    """Labels of three and of two groups, one of which an ensemble lacks: Kruskal and Wallis' sums by enumeration."""
    time = np.array([5.0, 1, 7, 2, 8, 4, 4, 9, 3])
    seen = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1], bool)
    groups = np.array([0, 0, 1, 1, 2, 0, 1, 1, 0])
    strata = np.repeat([0, 1], [5, 4])
    scores = survival.gehan_scores(time, seen, strata)

    def statistic(label):
        return sum(scores[np.array(label) == k].sum() ** 2 / (groups == k).sum() for k in range(3))

    ways = [set(itertools.permutations(groups[strata == one].tolist())) for one in (0, 1)]
    every = np.array([statistic(one + other) for one, other in itertools.product(*ways)])
    assert len(every) == 30 * 6
    p, _ = survival.several_samples(time, seen, groups, 0, strata=strata)
    assert p == np.mean(every >= statistic(groups) - 1e-9)


def test_the_log_rank_test_takes_entries_and_ensembles():
    entry = np.array([0.0, 5, 0, 15, 0, 10, 25, 0, 15, 35])
    groups = GROUP.astype(int)
    found = survival.several_samples(TIME, SEEN, groups, 0, entry=entry, strata=STRATA)[1]
    fewer = variance = 0.0
    for one in (0, 1):
        for moment in set(TIME[SEEN & (one == STRATA)]):
            risk = (one == STRATA) & (entry < moment) & (moment <= TIME)
            met = risk & SEEN & (moment == TIME)
            n, d, share = risk.sum(), met.sum(), groups[risk].mean()
            fewer += groups[met].sum() - d * share
            variance += d * share * (1 - share) * (n - d) / max(n - 1, 1)
    assert found == pytest.approx(stats.chi2.sf(fewer**2 / variance, 1))
    # Runs of both ensembles at the ends of their ranges: none is at risk at an event of the other.
    time, strata = np.array([1.0, 2, 3, 4, 1, 2, 3, 4]), np.repeat([0, 1], 4)
    label = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    found = survival.several_samples(time, np.ones(8, bool), label, 0, strata=strata)[1]
    assert found == pytest.approx(survdiff(time, np.ones(8, int), label, strata=strata)[1])


def visiting(visitors, others, early=10, entry=10, last=500):
    """Paths 0, (1 for some), 2 of runs that converge at the given steps; entered at row `entry`."""
    rows = np.arange(0, last, 10)
    walked, met = [], []
    for state, times in ((1, visitors), (0, others)):
        for at in times:
            path = np.where(rows >= entry, state, 0)
            path[rows >= (last if at is None else at)] = 2
            walked.append(path)
            met.append(at)
    return walked, [rows] * len(walked), convergence(met)


def test_a_state_is_tested_where_three_visit_it_and_three_do_not():
    late, soon = [310, 320, 330, 340], [100, 110, 120, 130]
    for visitors, others, tested in ((3, 4, True), (4, 3, True), (2, 4, False), (4, 2, False)):
        walked, steps, met = visiting(late[:visitors], soon[:others])
        found = detours.find(walked, steps, met, 3)
        row = found.rows[1]
        assert (row.tested, row.visits, row.optional) == (tested, visitors, True)
        time = np.array([row["step"] for row in met], float)
        if tested:
            group = np.arange(len(time)) < visitors
            p = stats.mannwhitneyu(time[group], time[~group], method="exact").pvalue
            assert row.p == pytest.approx(p) and row.p_adjusted == row.p
            assert row.median_visitors == quantile(late[:visitors], 0.5)
            assert row.median_others == quantile(soon[:others], 0.5)
            assert "fewer than 5 runs on a side of state 1" in " ".join(found.warnings)
        else:
            assert "fewer than 3 runs on a side" in " ".join(found.warnings) or len(time) < 6
    assert detours.find(*visiting(late[:3], soon[:3]), 3, min_visits=4).warnings == [
        "detours not tested: 6 runs are too few for 4 on each side"
    ]
    assert detours.find(*visiting(late[:3], soon[:3]), 3).rows[1].tested
    # Five on each side are no longer few.
    five = detours.find(*visiting([*late, 350], [*soon, 140]), 3)
    assert not any("fewer than 5" in line for line in five.warnings) and five.rows[1].verdict


def test_a_run_whose_only_row_before_convergence_is_decoded_from_that_row_is_no_visitor_and_no_other():
    # All begin in state 0; under `ar` three that converge in their second row bear its state in the first already.
    walked = [np.array([1, 1, 0, 0])] * 3 + [np.array([0, 0, 0, 0, 0])] * 8
    steps = [10 * np.arange(len(path)) for path in walked]
    met = convergence([10] * 3 + [20, 30, 40, 30, 40, 20, 30, 40])
    mistaken = detours.find(walked, steps, met, 2).rows
    assert mistaken[0].tested and mistaken[0].verdict
    sound = detours.find(walked, steps, met, 2, undecided=1)
    assert not any(row.tested or row.reason for row in sound.rows)
    for emission, tested in (("ar", False), ("level", True)):
        keys, _ = outcome.consequences(walked, steps, met, 2, Config(emission=emission))
        assert keys["detours"][0].tested is tested
    # Nor does one that converges in its first row say anything, whatever the emission.
    met = convergence([0] * 3 + [20, 30, 40, 30, 40, 20, 30, 40])
    assert not any(row.tested for row in detours.find(walked, steps, met, 2).rows)


def test_an_optional_state_is_one_that_a_converged_run_does_without():
    censored = detours.find(*visiting([310, 320, 330], [None, None, None]), 3)
    assert not censored.rows[1].optional and censored.rows[1].tested
    assert detours.find(*visiting([310, 320, 330], [None, None, 100]), 3).rows[1].optional
    assert not detours.find(*visiting([], [100, 110]), 3).rows[1].optional
    everybody = detours.find(*visiting([310, 320, 330], []), 3)
    assert not everybody.rows[1].optional and everybody.warnings[0].startswith("detours not tested")


def test_the_verdict_needs_both_tests_and_a_delay(monkeypatch):
    walked, steps, met = visiting([310, 320, 330, 340, 350], [100, 110, 120, 130, 140])

    def verdict(statistic, p, since):
        monkeypatch.setattr(survival, "two_sample", lambda *a, **k: (statistic, p, 2.0))
        monkeypatch.setattr(survival, "time_dependent_p", lambda *a: since)
        found = detours.find(walked, steps, met, 3)
        return found.rows[1].verdict, any("take long" in line for line in found.warnings)

    assert verdict(9.0, 0.049, 0.049) == (True, False)
    assert verdict(9.0, 0.05, 0.01) == (False, False)
    assert verdict(9.0, 0.01, 0.05) == (False, True)
    # Where the curves cross a state of early runs can pass the second test.
    assert verdict(-9.0, 0.01, 0.01) == (False, False)
    assert verdict(0.0, 0.01, 0.01) == (False, False)


def test_the_model_of_visits_is_least_squares_and_its_null_is_time_to_visit():
    late, soon = [210, 320, 250, 340], [100, 180, 220, 130]
    found = detours.find(*visiting(late, soon, entry=100), 3, seed=4)
    model = found.model
    ones = np.repeat([1.0, 0.0], 4)
    fitted = sm.OLS([*late, *soon], sm.add_constant(ones)).fit()
    assert model.r2 == pytest.approx(fitted.rsquared) and model.states == [1]
    # At step 100, where state 1 is entered, four of the seven that have not converged enter it. Who has cannot.
    time = np.array([*late, *soon], float)
    visits = np.random.default_rng(4).random((199, 8)) < np.where(time > 100, 4 / 7, 0.0)
    null = [np.corrcoef(some, time)[0, 1] ** 2 if np.ptp(some) else 0.0 for some in visits.astype(float)]
    assert model.null_r2 == pytest.approx(np.median(null))
    assert model.null_r2_95 == pytest.approx(np.quantile(null, 0.95))
    assert (model.runs, model.censored) == (8, 0)
    logged = detours.find(*visiting(late, soon), 3, log_time=True)
    fitted = sm.OLS(np.log([*late, *soon]), sm.add_constant(ones)).fit()
    assert logged.model.r2 == pytest.approx(fitted.rsquared)
    # The factor between the others' median and the visitors', in steps.
    row = logged.rows[1]
    ratios = np.array(late)[:, None] / np.array(soon)
    assert row.effect_ratio == pytest.approx(np.exp(np.median(np.log(ratios))), rel=1e-3)
    assert row.effect_steps == pytest.approx((row.effect_ratio - 1) * quantile(soon, 0.5))
    few = detours.find(*visiting([310, 320, None], [None, None, None]), 3)
    assert few.rows[1].tested and few.model.r2 is None and few.model.censored == 4


def test_delays_as_factors_stay_open_and_take_the_first_step():
    row = detours.find(*visiting([310, 320, 330], [100, 110, 120]), 3, log_time=True).rows[1]
    assert row.effect_steps == pytest.approx((320 / 110 - 1) * 110, rel=1e-3)
    assert row.interval == [None, None]
    # No median of the others: the factor has no steps.
    found = detours.find(*visiting([310, 320, 330], [100, None, None, None]), 3, log_time=True)
    assert found.rows[1].tested and found.rows[1].effect_steps is None
    zero = detours.find(*visiting([310, 320, 330, 340], [0, 110, 120, 130]), 3, log_time=True)
    assert zero.rows[1].effect_ratio > 1 and zero.model.r2 > 0


def test_least_squares_is_statsmodels():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 2)), rng.normal(size=9)
    theirs = sm.OLS(y, sm.add_constant(x)).fit()
    assert detours.explained(x, y) == pytest.approx(theirs.rsquared)
    # A covariate twice is one covariate, and a constant one is the intercept.
    assert detours.explained(np.column_stack([x, x[:, 0]]), y) == pytest.approx(theirs.rsquared)
    assert detours.explained(np.ones((9, 1)), y) == pytest.approx(0)
    assert detours.explained(rng.normal(size=(4, 2)), y[:4]) < 1, "one degree of freedom is left"
    assert detours.explained(rng.normal(size=(3, 2)), y[:3]) == pytest.approx(1)
    assert detours.explained(x, x @ [1.0, 2.0]) == pytest.approx(1)
    # Of times that do not differ nothing is explained.
    assert detours.explained(x, np.full(9, 2.0)) == 0


def test_the_published_rule_by_hand():
    walked = [np.repeat([0, 1, 2], n) for n in ([5, 0, 5], [4, 0, 6], [2, 6, 2], [3, 5, 2], [6, 0, 4])]
    time = np.array([50.0, 40, 80, 80, 60])
    early = [path[:8] for path in walked]
    seen = np.array([True, True, True, False, True])
    found = detours.published(walked, early, time, seen, 3, seed=1)
    share = np.array([[5, 0, 5], [4, 0, 6], [2, 6, 2], [3, 5, 2], [6, 0, 4]]) / 10
    np.testing.assert_allclose(found.coefficients, np.linalg.pinv(share) @ time, atol=1e-9)
    # The shares sum to 1: they hold the intercept.
    assert found.r2 == pytest.approx(sm.OLS(time, sm.add_constant(share[:, :2])).fit().rsquared)
    assert found.detours == [1]
    # The null: the run's own rows until convergence, spent as another run spent them.
    before = np.array([np.bincount(path, minlength=3) for path in early]) / 8
    rng, null = np.random.default_rng(1), []
    for _ in range(199):
        other = before[rng.permutation(5)]
        x = np.column_stack([np.ones(5), share - 0.8 * before + 0.8 * other])
        left = time - x @ np.linalg.pinv(x, rcond=1e-9) @ time
        null.append(1 - left @ left / ((time - time.mean()) ** 2).sum())
    np.testing.assert_allclose(
        [found.accounting_r2, found.accounting_r2_95], np.quantile(null, [0.5, 0.95]), rtol=1e-6
    )
    # Nobody does without the state that a run that never converged lacks, nor with one that nobody visits.
    only = detours.published(walked, early, time, np.array([False, False, True, True, False]), 4)
    assert only.detours == [] and only.coefficients[1] > 0


def test_the_censored_likelihood_has_these_slopes():
    rng = np.random.default_rng(1)
    design = np.column_stack([-np.ones(12), -rng.normal(size=12), rng.normal(size=12)])
    seen, at = np.arange(12) < 8, np.array([0.3, -0.4, 1.7])
    gradient, curvature = tobit._derivatives(design, seen, at)
    numeric = optimize.approx_fprime(at, lambda a: tobit._objective(design, seen, a), 1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)
    hessian = optimize.approx_fprime(at, lambda a: tobit._derivatives(design, seen, a)[0], 1e-6)
    np.testing.assert_allclose(-curvature, hessian, rtol=1e-4, atol=1e-4)
    # Up to constants the likelihood of y = x beta + sigma e.
    beta, sigma = at[:2] / at[2], 1 / at[2]
    mean = -design[:, :2] @ beta
    z = (design[:, 2] - mean) / sigma
    expected = (stats.norm.logpdf(z) - np.log(sigma))[seen].sum() + stats.norm.logsf(z)[~seen].sum()
    constant = 8 * 0.5 * np.log(2 * np.pi)
    assert tobit._objective(design, seen, at) == pytest.approx(expected + constant, abs=1e-6)
    assert tobit._objective(design, seen, np.array([0.0, 0, 0])) == -np.inf


def test_the_censored_regression_takes_any_unit_and_no_noise():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(20), np.arange(20) < 10])
    y = 5 + 2 * x[:, 1] + rng.normal(size=20)
    seen = y < np.quantile(y, 0.8)
    y = np.minimum(y, np.quantile(y, 0.8))
    beta, sigma = tobit.fit(x, y, seen)
    for unit in (1e-7, 1e9):
        other, wide = tobit.fit(x, unit * y, seen)
        np.testing.assert_allclose([*other, wide], unit * np.array([*beta, sigma]), rtol=1e-5)
    exact, none = tobit.fit(x, x @ [3.0, 4.0], np.arange(20) > 0)
    np.testing.assert_allclose(exact, [3, 4], atol=1e-4)
    assert none < 1e-3
    # Without censoring the noise is the root of the mean square.
    beta, sigma = tobit.fit(x, y, np.ones(20, bool))
    np.testing.assert_allclose(beta, np.linalg.lstsq(x, y)[0])
    assert sigma == pytest.approx(np.sqrt(np.mean((y - x @ beta) ** 2)))


def test_visits_and_shares_of_runs_without_rows():
    rows = np.arange(4) * 10
    path = np.array([1, 1, 0, 0])
    seen = np.array([True, True])
    early = visits.before_convergence([path, path], [rows, rows], np.array([0.0, 20.0]), seen)
    assert [one.tolist() for one in early] == [[], [1, 1]]
    assert visits.entries(early, [rows, rows], 2).tolist() == [[np.inf, np.inf], [np.inf, 0]]
    assert visits.shares(early, 2).tolist() == [[0, 0], [0, 1]]


def ways(*runs):
    """Paths of one row a state, ten steps apart, and convergence after the last state; None for never."""
    walked = [np.array(way) for way, _ in runs]
    return walked, [np.arange(len(way)) * 10 for way in walked], convergence([at for _, at in runs])


def test_partings_are_where_two_runs_each_go_on_in_different_ways():
    walked = [
        np.array(way) for way in ([0, 1, 2], [0, 1, 3], [0, 1, 2], [0, 1, 3], [0, 2], [0, 2], [0, 3], [4])
    ]
    found = paths._partings(walked, np.arange(8))
    assert found == [((0,), {1: [0, 1, 2, 3], 2: [4, 5]}), ((0, 1), {2: [0, 2], 3: [1, 3]})]
    assert paths._partings(walked[:3], np.arange(3)) == []


def two_tests(time, label, entry):
    """P-values of two ways: of ranks, by all choices of the second's runs; of the log-rank test from the entry on."""
    ranks, n = stats.rankdata(time), int(label.sum())
    sums = [ranks[list(some)].sum() for some in itertools.combinations(range(len(time)), n)]
    apart = np.abs(np.array(sums) - np.mean(sums))
    exact = np.mean(apart >= abs(ranks[label == 1].sum() - np.mean(sums)) - 1e-9)
    return exact, survdiff(time, np.ones(len(time), int), label, entry=entry)[1]


def test_the_comparison_of_paths_is_the_worst_test_at_the_best_place_times_the_places():
    runs = [([0, 0, 1, 1, 1, 1, 1, 3, 5], 80)] * 5 + [([0, 0, 1, 1, 1, 1, 1, 4, 5], 80)] * 4
    runs += [([0, 0, 0, 2, 5, 5, 5, 5, 5], at) for at in (30, 40, 50, 60, 80, 80)]
    runs += [([0, 0, 1, 1, 1, 1, 1, 3, 5], None), ([6, 6, 6, 6, 6, 6, 6, 6, 6], 80)]
    walked, steps, met = ways(*runs)
    found, notes = paths.compare(walked, steps, met, seed=3)
    assert [(one.after, one.to) for one in found.partings] == [([0], [1, 2]), ([0, 1], [3, 4])]
    # The run that converges in the row in which it would enter 2 has not parted.
    time = np.array([at for _, at in [*runs[:9], *runs[10:15]]], float)
    label = np.repeat([0, 1], [9, 5])
    ranks, since = two_tests(time, label, np.repeat([20.0, 30.0], [9, 5]))
    assert since < 0.8 * ranks
    first, second = found.partings
    assert first.p == pytest.approx(ranks, abs=0.005) and second.p == 1
    assert found.p == 2 * first.p
    assert (found.runs, found.left_out) == (14, 1) and first.after == [0]
    assert "fewer than 5 runs" in notes[0]
    # Five a side are not few; a p-value is no more than 1.
    one = [([0, 1, 2], 20)] * 5 + [([0, 2, 2], 20)] * 5
    whole, notes = paths.compare(*ways(*one))
    assert notes == [] and whole.p == 1
    table = paths.path_table(*ways(*one)[:2], [f"e/{i}" for i in range(10)], ways(*one)[2])
    assert [table[i].states for i in whole.paths] == [[0, 1], [0, 2]]


def test_runs_that_part_late_are_not_slower_for_it():
    """Their convergence steps are later by ranks; the log-rank test counts them from the parting on, and decides."""
    early, late = [30, 35, 40, 45, 50, 75, 80], [70, 70, 80, 80, 90]
    runs = [([0, 0, *[1] * 8], at) for at in early] + [([*[0] * 6, *[2] * 4], at) for at in late]
    found, _ = paths.compare(*ways(*runs))
    ranks, since = two_tests(
        np.array([*early, *late], float), np.repeat([0, 1], [7, 5]), np.repeat([20.0, 60.0], [7, 5])
    )
    assert ranks < 0.05 < since and found.p == pytest.approx(since)


def test_p_values_over_several_places_are_no_more_than_one():
    twice = [([0, 1, 3, 3], 30), ([0, 1, 4, 4], 31), ([0, 2, 2, 2], 30), ([0, 2, 2, 2], 31)] * 2
    twice += [([0, 1, 3, 3], 31), ([0, 1, 4, 4], 30)]
    found, _ = paths.compare(*ways(*twice))
    assert len(found.partings) == 2 and min(one.p for one in found.partings) > 0.5
    assert found.p == 1


def test_paths_that_do_not_part_are_not_compared():
    assert paths.compare(*ways(*[([0, 1], 20)] * 4)) == (None, [])
    never = ways(*[([0, 1], None)] * 2, *[([0, 2], None)] * 2)
    assert paths.compare(*never) == (None, ["paths not compared: none of their runs converged"])
    single = ways(*[([0, 1], 20)] * 3, ([0, 2], 20))
    assert "at no place do two runs each" in paths.compare(*single)[1][0]
    # Convergence in the first row leaves that row.
    table = paths.path_table(*ways(([0, 1], 0))[:2], ["e/0"], ways(([0, 1], 0))[2])
    assert table[0].states == [0]


def test_consequences_hand_on_the_seed_and_the_scale():
    walked, steps, met = visiting([210, 320, 250, 340], [100, 180, 220, 130])
    keys, notes = outcome.consequences(walked, steps, met, 3, Config(seed=5, log_time=True))
    found = detours.find(walked, steps, met, 3, log_time=True, seed=5)
    assert keys["detours"] == found.rows and keys["detour_model"] == found.model
    assert keys["path_comparison"] == paths.compare(walked, steps, met, 5)[0]
    assert set(found.warnings) <= set(notes)
    assert outcome.consequences(walked, steps, None, 3, Config()) == (
        {"path_comparison": None, "detours": None, "detour_model": None},
        [],
    )


def analysed(states, met, last=None, steps=None):
    rows = convergence(met)
    for row, end in zip(rows, last or [None] * len(rows), strict=True):
        if end is not None:
            row["last"] = end
    at = steps or [list(range(0, 10 * len(path), 10)) for path in states]
    runs = [
        {"run": f"e/{i}", "states": path, "steps": s}
        for i, (path, s) in enumerate(zip(states, at, strict=True))
    ]
    return states_of(states=runs, convergence=rows)


def test_runs_of_a_result_are_cut_where_they_converge():
    found = claims.ways_of(analysed([[0, 1, 2], [0, 1, 2], [0, 1, 2]], [20, 0, None], [50, 50, 40]))
    assert [run.path for run in found] == [(0, 1), (0,), (0, 1, 2)]
    assert [(run.step, run.last) for run in found] == [(20, 50), (0, 50), (np.inf, 40)]
    # Results of before do not say how far: as far as the last that converged, for ever where all did.
    old = claims.ways_of(analysed([[0, 1]] * 3, [10, 70, None]))
    assert [run.last for run in old] == [70, 70, 70]
    assert [run.last for run in claims.ways_of(analysed([[0, 1]] * 2, [10, 70]))] == [np.inf, np.inf]
    unwatched = replace(analysed([[0, 0, 1]], [None]), convergence=None)
    assert claims.ways_of(unwatched) == [claims.Way((0, 1), 0.0, np.inf)]


def test_settings_compare_as_far_as_most_runs_of_both_were_watched():
    def run(step, last):
        return claims.Way((0,), step, last)

    one = [run(10, 100), run(50, 100), run(90, 100)]
    other = [run(20, 60), run(60, 60), run(np.inf, 60)]
    # At 60 two of each had converged, at 100 none of the other was watched.
    assert comparison._common(one, other) == 60
    assert comparison._common(one, one) == 100


def test_the_ratio_of_medians_and_its_test():
    def run(step, last):
        return claims.Way((0,), step, last)

    rng = np.random.default_rng(0)
    first, second = (np.round(rng.uniform(50, 150, 8)) for _ in range(2))
    second += 30
    found = comparison._speed([run(t, 1e9) for t in first], [run(t, 1e9) for t in second])
    assert found.ratio == quantile(second, 0.5) / quantile(first, 0.5)
    u = stats.mannwhitneyu(
        second, first, method="exact" if len(np.unique([*first, *second])) == 16 else "auto"
    )
    assert found.p == pytest.approx(u.pvalue, abs=0.01)
    # Cut where the shorter setting ends, both are censored alike; an event at the end is one.
    cut = comparison._speed(
        [run(t, 1e9) for t in first], [run(t if t <= 120 else np.inf, 120) for t in second]
    )
    both = np.concatenate([first, second])
    label = np.repeat([False, True], 8)
    expected = survival.two_sample(np.minimum(both, 120), both <= 120, label, 0)[1]
    assert cut.p == expected


def test_the_ratio_of_spreads_and_its_test():
    narrow, wide = [100.0, 101, 103, 106, 104], [50.0, 90, 140, 300, 70]
    found = comparison._spread(narrow, wide)
    cv = [np.std(x, ddof=1) / np.mean(x) for x in (narrow, wide)]
    assert found.ratio == pytest.approx(cv[1] / cv[0])
    # All 252 ways to deal ten deviations of the logarithms out again.
    logs = [np.log(x) - np.median(np.log(x)) for x in (narrow, wide)]
    pool = np.concatenate(logs)

    def apart(some):
        rest = [i for i in range(10) if i not in some]
        return abs(np.subtract(*(np.abs(x - np.median(x)).mean() for x in (pool[list(some)], pool[rest]))))

    every = np.array([apart(some) for some in itertools.combinations(range(10), 5)])
    assert found.p == pytest.approx(np.mean(every >= apart(range(5)) - 1e-12))
    # From the intervals of the two (Zou and Donner, 2008), on logarithms.
    (l1, u1), (l2, u2) = (np.log(claims.spread(passages(x)).cv_interval) for x in (narrow, wide))
    one, two = np.log(cv)
    low = two - one - np.sqrt((two - l2) ** 2 + (u1 - one) ** 2)
    high = two - one + np.sqrt((u2 - two) ** 2 + (one - l1) ** 2)
    # A bound as large as this one is none to cut off.
    assert np.log(found.interval) == pytest.approx([low, high]) and high > np.log(1000)
    # The other way round it is the other way round.
    assert comparison._spread(wide, narrow).interval == pytest.approx([np.exp(-high), np.exp(-low)])
    # Three steps of which one is far from two alike bound next to nothing, next to any others.
    far, near = [10.0, 10, 4000], [1e9, 1e9, 1e9 + 1]
    down, up = comparison._spread(far, narrow).interval[0], comparison._spread(near, far).interval[1]
    assert 0 < down < 1e-99 and 1e99 < up < np.inf
    assert comparison._spread([5.0, 5, 5], wide) is None and comparison._spread([0.0, 5, 7], wide) is None


def test_bounds_of_a_ratio_that_rest_on_unknown_values_are_open():
    top, bottom = np.arange(1.0, 1001), np.ones(1000)
    assert comparison._ratio(top, bottom) == [25, 975]
    some = np.where(top > 960, np.inf, top)
    assert comparison._ratio(some, bottom) == [25, None]
    unknown = np.where(top < 31, np.inf, bottom)
    assert comparison._ratio(np.where(top < 31, np.inf, top), unknown) == [None, None]
    # A divisor of 0 is as unknown.
    assert comparison._ratio(top, np.where(top > 960, 0.0, 1.0)) == [None, None]


def test_few_runs_have_no_interval_and_no_comparison():
    pair, trio = (claims.spread(passages(steps)) for steps in ([1, 2], [1, 2, 4]))
    assert pair.cv is not None and pair.cv_interval is None and trio.cv_interval is not None
    assert claims.coefficient_of_variation([3.0]) is None
    assert claims.coefficient_of_variation([-1.0, 1.0]) is None
    assert claims.coefficient_of_variation([1.0, 3.0]) == pytest.approx(np.sqrt(2) / 2)
    two, three = (analysed([[0, 1]] * n, [10, 20, 30][:n]) for n in (2, 3))
    assert comparison.compare(two, three).reasons["speed"] == "fewer than 3 runs"
    assert comparison.compare(three, three).speed.ratio == 1
    flat = comparison.compare(three, analysed([[0, 1]] * 3, [10, 10, 10]))
    assert flat.spread is None and "all converge at one step" in flat.reasons["spread"]
    tested = states_of(
        detours=[{"state": 1, "p_adjusted": 0.0, "verdict": True}, {"state": 0, "verdict": False}]
    )
    assert claims.claims(replace(three, detours=tested.detours)).detours == claims.DetourCount(1, [1])


def test_a_window_that_could_still_begin():
    def run(values, steps=None):
        values = np.array(values, float)
        return Trajectory(
            "e/0", np.arange(len(values)) * 10 if steps is None else np.array(steps), values[:, None]
        )

    def last(*runs, persistence=1):
        rule = Convergence("m", 0.9, "up", persistence)
        return [row["last"] for row in follow(Trajectories("e", ("m",), runs), rule)]

    assert last(run([0, 0, 0, 0])) == [30] and last(run([0, 0, 0, 0]), persistence=3) == [10]
    assert last(run([0, 0, 0]), persistence=3) == [0] and last(run([0, 0]), persistence=3) == [0]
    # Up to its own last value, on the grid of all runs.
    assert last(run([0, np.nan, 0, np.nan]), run([0, 0, 0, 0])) == [20, 30]
    assert last(run([np.nan, np.nan]), run([0, 0])) == [0, 10]
    assert last(run([0.0], [0])) == [0]
    rows = follow(
        Trajectories("e", ("m",), (run([0, 0.9]), run([1, 0.8]), run([np.nan]))), Convergence("m", 0.9)
    )
    assert [row["held"] for row in rows] == [True, False, None]
    down = follow(Trajectories("e", ("m",), (run([1, 0.9]), run([1, 0.91]))), Convergence("m", 0.9, "down"))
    assert [(row["step"], row["held"]) for row in down] == [(10, True), (None, False)]


def test_keys_of_convergence_stand_over_the_tasks():
    task = Convergence("m", 0.5, "down", 4)
    runs = Trajectories("e", ("m", "n"), (Trajectory("e/0", np.arange(2), np.ones((2, 2))),), task)
    assert resolve(ConvergenceKeys(metric="m", persistence=1, direction="up"), runs)[0] == Convergence(
        "m", 0.5, "up", 1
    )
    assert resolve(ConvergenceKeys(metric="n", threshold=0, direction="up"), runs)[0] == Convergence(
        "n", 0.0, "up", 1
    )
    assert resolve(ConvergenceKeys(threshold=0), runs)[0].threshold == 0
    line = "every run has m >= 1 in its first row: there is nothing to converge"
    assert resolve(ConvergenceKeys(threshold=1, direction="up"), runs)[1] == [line]
    half = Trajectories(
        "e", ("m",), (*runs.runs, Trajectory("e/1", np.arange(2), np.full((2, 1), 3.0))), task
    )
    assert resolve(ConvergenceKeys(threshold=2, direction="up"), half)[1] == []
    # Nothing is known of a run without a value.
    empty = Trajectory("e/1", np.arange(2), np.full((2, 1), np.nan))
    some = Trajectories("e", ("m",), (Trajectory("e/0", np.arange(2), np.ones((2, 1))), empty), task)
    assert resolve(ConvergenceKeys(threshold=1, direction="up"), some)[1] == []


def test_shares_of_runs_reach_whole_ranks():
    # A tenth of thirty runs is a whole number of them, though 0.1 * 30 is above 3 in floats.
    assert quantile(range(1, 31), 0.1) == 3.5 and quantile(range(1, 11), 1.0) == 10
    assert (
        quantile([7.0], 0.01) == 7
        and quantile([3, 1, None, 2], 0.75) == 3
        and quantile([3, 1, None, 2], 0.5) == 2.5
    )
    one = [{"x": 0, "final": {"m": 0.5}}, {"x": 5, "final": {"m": 0.49}}]
    assert fallen(one, "x", "m", 0.5) == 1
