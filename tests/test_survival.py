"""Censored times: scores, permutation tests, shifts and the censored regression, against other libraries."""

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import survdiff

from dynalab.analysis.hmm import tobit
from dynalab.core import survival
from dynalab.core.stats import quantile


def sample(seed, n=24, censored=True):
    rng = np.random.default_rng(seed)
    group = np.arange(n) < n // 3
    time = np.round(rng.normal(100, 15, n) + 20 * group)
    end = 125.0 if censored else np.inf
    return np.minimum(time, end), time < end, group


def test_gehan_is_wilcoxon_without_censoring_and_the_permutation_test_is_exact():
    rng = np.random.default_rng(0)
    time = rng.normal(size=11)
    group = np.arange(11) < 4
    statistic, p, _ = survival.two_sample(time, np.ones(11, bool), group, seed=0)
    u = stats.mannwhitneyu(time[group], time[~group], method="exact")
    np.testing.assert_allclose(p, u.pvalue)
    # Gehan's sum is twice the Mann-Whitney count less its middle.
    np.testing.assert_allclose(statistic, 2 * u.statistic - 4 * 7)


def test_gehan_by_pairs():
    time, observed = np.array([3.0, 5.0, 5.0, 7.0]), np.array([True, True, False, True])
    # 3 < 5, 5+, 7; 5 < 5+, 7; nothing is known of 5+ and 7.
    assert survival.gehan_scores(time, observed).tolist() == [-3, -1, 2, 2]


def test_the_spread_under_permutation_in_closed_form():
    time, observed, _ = sample(1, 9)
    scores = survival.gehan_scores(time, observed)
    sums, exact = survival.permutation_sums(scores, 3, seed=0)
    assert exact and len(sums) == 84
    np.testing.assert_allclose(survival.permutation_sd(scores, 3), sums.std())


@pytest.fixture
def drawn(monkeypatch):
    """Permutations are drawn where there are more than 999."""
    monkeypatch.setattr(survival, "DRAWS", 999)
    monkeypatch.setattr(survival, "ENTRIES", 999)


def test_drawn_permutations_agree_with_all_of_them(request):
    scores = np.random.default_rng(1).normal(size=14)
    every, _ = survival.permutation_sums(scores, 5, 0)
    request.getfixturevalue("drawn")
    some, exact = survival.permutation_sums(scores, 5, 0)
    assert len(every) == 2002 and not exact
    whole, drawn = survival.permutation_p(3.0, every, True), survival.permutation_p(3.0, some, False)
    assert abs(whole - drawn) < 0.05


def test_the_shift_is_that_of_hodges_and_lehmann():
    time, observed, group = sample(2, censored=False)
    time = time + np.random.default_rng(3).uniform(size=len(time))
    estimate, (low, high) = survival.shift(time, observed, group)
    pairs = time[group][:, None] - time[~group][None]
    np.testing.assert_allclose(estimate, np.median(pairs), atol=1e-3)
    assert low < estimate < high


def test_the_interval_of_a_shift_covers_and_refuses_as_the_test_does(drawn):
    covered = agreed = 0
    for seed in range(60):
        time, observed, group = sample([seed, 1])
        _, p, critical = survival.two_sample(time, observed, group, seed)
        _, (low, high) = survival.shift(time, observed, group, critical)
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        covered += low <= 20 <= high
        agreed += (p >= 0.05) == (low <= 0 <= high)
    # 95% less three standard errors; permuted p-values at the limit may differ by a draw.
    assert covered >= 52 and agreed >= 58


def test_a_group_that_never_converges_has_no_upper_bound():
    time = np.array([10.0, 12, 14, 16, 18, 50, 50, 50, 50, 50])
    observed = time < 50
    _, (low, high) = survival.shift(time, observed, ~observed)
    assert high is None and low is not None and low > 0


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_by_kaplan_and_meier(seed):
    time, observed, _ = sample(seed, 30)
    for share in (0.25, 0.5):
        # The product limit, by hand.
        alive, reached, passed = 1.0, None, None
        for moment in np.unique(time):
            alive *= 1 - (observed & (time == moment)).sum() / (time >= moment).sum()
            if reached is None and alive < 1 - share + 1e-9:
                reached = moment
            if passed is None and alive < 1 - share - 1e-9:
                passed = moment
        assert survival.quantile(time, observed, share) == (reached + (passed or reached)) / 2
        # A weight of two is a run twice.
        twice = np.repeat(time, 2), np.repeat(observed, 2)
        assert (
            survival.quantiles(time, observed, share, np.full((3, 30), 2)).tolist()
            == [survival.quantile(*twice, share)] * 3
        )
    assert survival.quantile(time, np.zeros(30, bool), 0.5) is None
    for share in (0.25, 0.3, 0.5, 0.75):
        numpys = float(np.quantile(time, share, method="averaged_inverted_cdf"))
        assert survival.quantile(time, np.ones(30, bool), share) == quantile(time, share) == numpys
    # Runs that were watched to the end and never got there count as later than all.
    last = np.where(observed, time, 1e6)
    steps = [t if seen else None for t, seen in zip(time, observed, strict=True)]
    assert survival.quantile(last, observed, 0.5) == quantile(steps, 0.5)
    assert quantile([1, None], 0.75) is None and quantile([], 0.5) is None


def test_the_time_dependent_test_is_the_score_test_of_cox():
    rng = np.random.default_rng(5)
    time = rng.permutation(np.arange(10.0, 40.0)) + rng.uniform(size=30)
    observed = rng.uniform(size=30) < 0.8
    entry = np.where(rng.uniform(size=30) < 0.5, rng.uniform(5, 25, 30), np.inf)
    entry = np.where(entry < time, entry, np.inf)
    rows = []
    for end, event, enter in zip(time, observed, entry, strict=True):
        if np.isfinite(enter):
            rows += [(0.0, enter, False, 0.0), (enter, end, event, 1.0)]
        else:
            rows += [(0.0, end, event, 0.0)]
    start, stop, status, covariate = map(np.array, zip(*rows, strict=True))
    model = PHReg(stop, covariate[:, None], status=status.astype(int), entry=start, ties="breslow")
    score = float(model.score(np.zeros(1))[0])
    information = -float(model.hessian(np.zeros(1))[0, 0])
    expected = stats.norm.cdf(score / np.sqrt(information))
    np.testing.assert_allclose(survival.time_dependent_p(time, observed, entry), expected, rtol=1e-6)


def test_several_samples_are_two_samples_where_there_are_two():
    time, observed, group = sample(4, 15)
    _, p, _ = survival.two_sample(time, observed, group, 0)
    several, log_rank = survival.several_samples(time, observed, group.astype(int), 0)
    strata = np.arange(len(time)) % 2
    within = survival.several_samples(time, observed, group.astype(int), 0, strata=strata)[1]
    assert within == pytest.approx(survdiff(time, observed.astype(int), group, strata=strata)[1])
    # Both go through all ways.
    assert several == pytest.approx(p, abs=1e-12)
    assert log_rank is not None and log_rank < 0.2


def test_the_censored_regression_is_the_maximum_of_its_likelihood():
    time, observed, group = sample(6, 40)
    x = np.column_stack([np.ones(40), group])
    beta, sigma = tobit.fit(x, time, observed)

    def loss(at):
        z = (time - x @ at[:2]) / np.exp(at[2])
        return -(stats.norm.logpdf(z[observed]) - at[2]).sum() - stats.norm.logsf(z[~observed]).sum()

    best = optimize.minimize(
        loss, [100, 0, 3], method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-6}
    )
    assert observed.sum() < 40
    np.testing.assert_allclose([*beta, sigma], [*best.x[:2], np.exp(best.x[2])], rtol=1e-3)


def test_members_that_are_drawn_in_parts_are_those_drawn_at_once(monkeypatch):
    whole = survival._drawn_splits.__wrapped__(30, 12, 0, 99)
    monkeypatch.setattr(survival, "ENTRIES", 30 * 20 + 1)
    parts = survival._drawn_splits.__wrapped__(30, 12, 0, 99)
    assert len(whole) == 99 and (whole == parts).all() and (whole.sum(axis=1) == 12).all()
