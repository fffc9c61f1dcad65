"""Settings compared: what is estimated, how surely, and what cannot be told; against scipy, statsmodels and by hand."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from nulls.compare import groups, steps
from scipy import stats

from dynalab.analysis import compare
from dynalab.analysis.base import Convergence, Group
from dynalab.analysis.compare import figures, needed, permutation, tails
from dynalab.analysis.compare import pairs as tests
from dynalab.analysis.compare.effects import effects
from dynalab.analysis.compare.measures import Measure
from dynalab.analysis.compare.medians import median_interval
from dynalab.analysis.compare.samples import Times, Values, finals
from dynalab.analysis.compare.sentences import sentence
from dynalab.analysis.compare.settings import comparable, crossed
from dynalab.config.settings import labels, swept
from dynalab.config.typed import flat
from dynalab.core.convergence import ConvergenceKeys
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.records import plain
from dynalab.core.runs import Series
from dynalab.core.stats import holm
from dynalab.show import terminal
from dynalab.show.blocks import Figure, Number, Ranking, Say, Table
from dynalab.show.plots import draw
from dynalab.show.plots.ranking import ranking, response


def times(found, last=math.inf, first=0):
    found = np.asarray(found, float)
    names = tuple(f"s{first + i:04d}" for i in range(len(found)))
    ends = np.broadcast_to(np.asarray(last, float), found.shape)
    return Times(names, np.where(found <= ends, found, np.inf), np.where(np.isinf(ends), 1e9, ends))


def values(found, first=0):
    return Values(tuple(f"s{first + i:04d}" for i in range(len(found))), np.asarray(found, float))


def test_without_censoring_the_interval_of_a_median_is_that_of_order_statistics():
    # Of 20 the 6th to the 15th (95.9%), of 8 the whole range (99.2%), of 5 as well (93.75%), of 4 none.
    ends = [median_interval(np.arange(1.0, n + 1), np.ones(n, bool)) for n in (20, 8, 5, 4)]
    assert ends == [(6, 15), (1, 8), (1, 5), (None, None)]


def test_the_interval_of_a_median_is_open_where_runs_never_came():
    time, observed = np.array([10.0, 20, 30, 40, 50, 50, 50, 50]), np.arange(8) < 4
    assert median_interval(time, observed) == (10, None)
    assert median_interval(np.full(8, 50.0), np.zeros(8, bool)) == (50, None)


def test_steps_are_compared_as_scipy_does_where_all_are_known():
    rng = np.random.default_rng(3)
    x, y = rng.normal(1000, 100, 6), rng.normal(1150, 100, 5)
    gap = tests.between_times(times(x), times(y, first=6))
    exact = stats.mannwhitneyu(x, y, method="exact")
    assert gap.p == pytest.approx(exact.pvalue, abs=1e-12) and gap.least_p == 1 / math.comb(11, 5)
    # Hodges and Lehmann: the median of all differences.
    assert gap.estimate == pytest.approx(np.median(np.subtract.outer(y, x)))
    low, high = gap.interval
    assert low < gap.estimate < high and (low > 0) == (gap.p <= 0.05)
    assert gap.ratio == pytest.approx(math.exp(np.median(np.subtract.outer(np.log(y), np.log(x)))))


def test_ten_against_ten_are_told_by_all_permutations():
    """Runs that are apart have the least p there is, whatever was drawn; where ways are drawn none is the observed."""
    gap = tests.between_times(times(range(10)), times(range(20, 30), first=10))
    assert gap.p == gap.least_p == gap.log_rank_p == pytest.approx(2 / math.comb(20, 10))
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 10), rng.normal(0.9, 1, 10)
    exact = stats.permutation_test(
        (x, y), _size_of_t, n_resamples=np.inf, vectorized=True, alternative="greater"
    )
    assert tests.between_values(values(x), values(y, 10)).p == pytest.approx(exact.pvalue, abs=1e-12)
    drawn = permutation.Splits(12, 12)
    assert not drawn.exact and not {0.0, 12.0} & {*drawn.members[:, 12:].sum(axis=1)}
    flips = permutation.Flips(24)
    assert not flips.exact and (abs(flips.signs.sum(axis=1)) < 24).all()
    # A fully separated pair that draws tell nothing of has its own chance.
    apart = tests.between_times(times(range(12)), times(range(20, 32), first=12))
    assert apart.p == pytest.approx(2 / math.comb(24, 12))


@pytest.mark.parametrize(
    "test", [permutation.Splits(10, 10), permutation.Splits(12, 12), permutation.Flips(16)]
)
def test_permutations_keep_their_level(test):
    rng = np.random.default_rng(test.n)
    ps = np.array([test.p_of_means(*rng.normal(size=(2, test.n))) for _ in range(300)])
    assert 5 <= (ps <= 0.05).sum() <= 26 and (ps <= 0.002).sum() <= 4


def test_a_pair_that_nothing_can_be_tested_of_takes_nothing_from_the_others():
    result = found(groups(1, n=8, last=1500, delays=(1.0, 9.0, 9.0)))
    first, second, never = (pair for pair in result.pairs if pair.of == "generalised_step")
    assert never.reason == "no run of the two reached it" and not never.tested and first.tested
    assert [first.p_adjusted, second.p_adjusted] == pytest.approx(holm([first.p, second.p]))
    (table,) = (
        item
        for item in compare.show(result, ())
        if isinstance(item, Table) and item.header[2] == "generalises at step, second less first"
    )
    assert table.rows[2][4] is None and table.rows[2][5].text == "not tested"
    nobody = found(groups(1, n=8, last=300, delays=(9.0, 9.0)))
    assert not nobody.pairs[0].tested and nobody.needed_runs["generalised_step"] is None


def test_log_rank_agrees_with_the_textbook():
    """Of two settings of 12 the asymptotic p of statsmodels is near the exact one by permutation."""
    from statsmodels.duration.survfunc import survdiff

    one, other = steps("a third never", 12, 12, 5)
    other = replace(other, steps=other.steps + 150)
    gap = tests.between_times(one, other)
    time, observed = tests.together(one, other)
    _, p = survdiff(time, observed.astype(int), np.repeat([0, 1], 12))
    assert gap.log_rank_p == pytest.approx(p, abs=0.02)


def test_settings_that_never_arrive_are_later_and_by_at_least_what_was_watched():
    gap = tests.between_times(times([100, 110, 120, 130, 140]), times([9e9] * 5, 1000, 5))
    assert gap.p == pytest.approx(2 / math.comb(10, 5))
    # By 860 at least where it is seen, and the fifth of them may be an earlier one.
    assert gap.estimate is None and gap.interval == (870, None)
    both = tests.between_times(times([9e9] * 5, 1000), times([9e9] * 5, 1000, 5))
    assert both.p == 1 and both.estimate is None and both.interval == (None, None)


def test_nothing_beyond_what_both_were_watched_for_counts():
    """The second was watched half as long: that the first's late runs came later on says nothing."""
    late = times([100, 110, 700, 800, 900], 1000)
    early = times([100, 110, 9e9, 9e9, 9e9], 500, 5)
    assert tests.between_times(late, early).p == 1


@pytest.mark.parametrize(("verdict", "leads"), [("differ", True), ("cannot_tell", False)])
def test_settings_that_lead_alike_are_both_told_apart_from_the_same_one(verdict, leads):
    found = [SimpleNamespace(a=one, b="c", verdict=said) for one, said in (("a", "differ"), ("b", verdict))]
    level = compare._level("abc", range(3), "ab", found)
    assert level == (() if leads else ("c",)) and compare._lead("ab", level, found) == leads


def test_seeds_that_make_runs_alike_are_compared_seed_by_seed():
    rng = np.random.default_rng(0)
    base = 1000 * np.exp(0.4 * rng.normal(size=10))
    near = base * 1.1 * np.exp(0.02 * rng.normal(size=10))
    paired, apart = (tests.between_times(times(base), times(near, first=first)) for first in (0, 100))
    assert paired.paired and not apart.paired
    assert paired.p == pytest.approx(2 / 2**10) and apart.p > 0.3
    assert paired.ratio_interval[0] > 1.0
    # Seven seeds are too few, ten too few among many pairs; whether seeds make runs alike is not asked of the values.
    assert [tests.between_times(times(base[:n]), times(near[:n])).paired for n in (7, 8)] == [False, True]
    assert not tests.between_times(times(base), times(near), n_pairs=100).paired
    assert tests.between_times(times(base), times(near[::-1])).paired


def test_the_choice_of_the_test_leaves_it_its_level():
    """Seeds that do nothing: chosen by how much alike the runs of a seed are, 7% of these pairs were below .05."""
    rng = np.random.default_rng(8)
    ps = [tests.between_values(*map(values, rng.normal(size=(2, 8)))).p for _ in range(1500)]
    assert 0.04 < np.mean(np.array(ps) <= 0.05) < 0.0625


def _size_of_t(a, b, axis=-1):
    error = a.var(axis, ddof=1) / a.shape[axis] + b.var(axis, ddof=1) / b.shape[axis]
    return np.abs(a.mean(axis) - b.mean(axis)) / np.sqrt(error)


def test_means_are_compared_as_welch_does():
    rng = np.random.default_rng(1)
    x, y = rng.normal(5, 1, 8), rng.normal(6, 2, 7)
    gap = tests.between_values(values(x), values(y, 8))
    welch = stats.ttest_ind(y, x, equal_var=False)
    assert gap.estimate == pytest.approx(y.mean() - x.mean())
    assert gap.interval == pytest.approx(tuple(welch.confidence_interval()))
    drawn = stats.permutation_test(
        (y, x), _size_of_t, n_resamples=np.inf, alternative="greater", vectorized=True
    )
    assert gap.p == pytest.approx(drawn.pvalue)
    single = stats.t.interval(0.95, 7, x.mean(), stats.sem(x))
    assert tests.mean_interval(x) == pytest.approx(single)


def test_values_that_do_not_vary_have_no_interval():
    equal = tests.between_values(values([1.0] * 6), values([1.0] * 6, 6))
    assert equal.p == 1 and equal.interval == (None, None)
    apart = tests.between_values(values([1.0] * 6), values([0.1] * 6, 6))
    assert apart.p == pytest.approx(2 / math.comb(12, 6)) and apart.interval == (None, None)


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize("n", [5, 12])
def test_groups_of_the_same_values_are_as_alike_as_any_permutation_is(turned, n):
    """In numbers that are exact in no order of addition; of 12 some permutations are drawn, of 5 all are there."""
    for seed in range(8):
        x = np.random.default_rng(seed).lognormal(0, 4, n)
        x[: n // 2] = (0.0, 0.1)[seed % 2]
        for first in (0, n):
            assert tests.between_values(values(x), values(x[::turned], first)).p == 1
            assert tests.between_times(times(1 + x), times(1 + x[::turned], first=first)).p == 1
    # Seed by seed: differences whose sum is 0, but for rounding.
    gaps = np.array([0.1, 0.2, 0.3, -0.6, 0.7, -0.7, 0.4, -0.1, -0.4, 0.1])
    for start in range(10):
        assert tests.Flips(10).p_of_means(rng_values(0)[:10], rng_values(0)[:10] + np.roll(gaps, start)) == 1


@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_tails_beyond_the_draws_are_those_of_all_permutations(law):
    rng = np.random.default_rng(1)
    scores = getattr(rng, law)(size=16)
    scores -= scores.mean()
    sums = np.array([scores[list(places)].sum() for places in itertools.combinations(range(16), 8)])
    for share in (0.99, 0.999, 0.9998):
        total = np.quantile(sums, share)
        exact = np.mean(sums >= total - 1e-12)
        assert tails.split(scores, 8, total) == pytest.approx(exact, rel=0.35)
    flips = np.array([*itertools.product((1, -1), repeat=14)]) @ scores[:14]
    for share in (0.99, 0.999):
        total = np.quantile(flips, share)
        assert tails.flipped(scores[:14], total) == pytest.approx(np.mean(flips >= total - 1e-12), rel=0.2)
    # At the largest sum that there is none is told that is larger than its own chance.
    assert (tails.split(scores, 8, np.sort(scores)[8:].sum()) or 0) < 1 / math.comb(16, 8)


def test_among_a_thousand_pairs_what_is_plain_is_told():
    one, other = times(range(100, 120)), times(range(300, 320), first=20)
    gap = tests.between_times(one, other, 1225)
    assert gap.least_p == 2 / math.comb(40, 20) <= gap.p < 1e-6
    near = tests.between_times(one, times(np.arange(100, 120) + 8, first=20), 1225)
    exact = stats.mannwhitneyu(one.steps, np.arange(100, 120) + 8, method="exact").pvalue
    assert near.p == pytest.approx(exact, rel=0.3)
    x, y = rng_values(0.0), rng_values(4.0)
    means = tests.between_values(values(x), values(y, 20))
    assert means.p < 1e-6


def rng_values(shift):
    return shift + np.random.default_rng(int(shift)).normal(size=20)


def test_holm_against_statsmodels():
    from statsmodels.stats.multitest import multipletests

    ps = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_needed_runs_against_statsmodels():
    from statsmodels.stats.power import TTestIndPower

    x, y = np.array([-1.0, 0.0, 1.0, -1.0, 1.0]), np.array([-0.2, 0.8, 1.8, -0.2, 1.8])
    runs = needed.needed_for_means(values(x), values(y, 5), False, 0.05)
    exact = TTestIndPower().solve_power(0.8 / x.std(ddof=1), power=0.8, alpha=0.05)
    assert runs == math.ceil(exact)
    assert needed.needed_for_means(values(x), values(x, 5), False, 0.05) is None
    # Noether: of two settings of which one is later in three of four pairs of runs, 21 each.
    one, other = times([10, 20, 30, 40]), times([25, 25, 45, 45], first=4)
    assert needed.needed_for_times(one, other, False, 0.05) == math.ceil(7.849 / 6 / 0.25**2)


def test_settings_without_a_run_in_common_need_the_fewest_runs_that_can_tell():
    """Four of four against none of four, among 6 pairs: 2/70 is not .05/6, 2/252 is."""
    level = 0.05 / 6
    one, other = times([100, 110, 120, 130], 1000), times([9e9] * 4, 1000, 4)
    assert needed.needed_for_times(one, other, False, level) == needed.fewest(False, level) == 5
    assert tests.between_times(times([100, 110, 120, 130, 140], 1000), times([9e9] * 5, 1000, 5)).p <= level
    # The chance that one is later is that of Gehan's scores, with ties and runs that were not watched to the end.
    first, second = times([10, 20, 30, 90, 50, 40], 60), times([30, 60, 90, 70, 40, 20], 60, 6)
    time, observed = tests.together(first, second)
    share = needed.gehan_scores(time, observed)[6:].sum() / 72
    rows = [
        [_half(a, b) for b in zip(time[6:], observed[6:], strict=True)]
        for a in zip(time[:6], observed[:6], strict=True)
    ]
    halves = np.array(rows)
    assert halves.mean() == pytest.approx(share)
    spread = math.sqrt(halves.mean(0).var(ddof=1) + halves.mean(1).var(ddof=1))
    # What labels that are exchanged make of it, the number of runs of both taken as they are: 1/6 without ties.
    sums = [
        needed.gehan_scores(time, observed)[[*places]].sum()
        for places in itertools.combinations(range(12), 6)
    ]
    exchanged = np.var(np.array(sums) / 72) * 6 * 12 / 13
    assert exchanged < 1 / 6
    runs = math.ceil((1.95996 * math.sqrt(exchanged) + 0.84162 * spread) ** 2 / share**2)
    assert needed.needed_for_times(first, second, False, 0.05) == runs


@pytest.mark.parametrize("kind", ["means", "times", "seeds"])
def test_the_least_runs_are_those_at_the_far_end_of_the_difference(kind):
    """Over samples of 8 seeds the number that the law needs is hardly ever below."""
    rng, lower, runs = np.random.default_rng(0), [], []
    for _ in range(200):
        x, y = rng.normal(size=8), 0.8 + rng.normal(size=8)
        if kind == "times":
            pair = times(np.exp(x).round(3), 1e9), times(np.exp(y).round(3), 1e9, 8)
            find = needed.needed_for_times
        else:
            pair, find = (values(x), values(y, 0 if kind == "seeds" else 8)), needed.needed_for_means
        lower.append(find(*pair, kind == "seeds", 0.05, True))
        runs.append(find(*pair, kind == "seeds", 0.05) or math.inf)
    assert all(low <= n for low, n in zip(lower, runs, strict=True))
    true = {"means": 26, "times": 27, "seeds": 27}[kind]
    assert np.mean(np.array(lower) > true) <= 0.05 and np.median(lower) < true / 2


def test_needed_runs_are_those_of_the_test_that_so_many_seeds_get():
    """Six seeds that make runs alike are compared between settings; more of them will be seed by seed."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=6)
    near = base + 0.15 + 0.1 * rng.normal(size=6)
    pair = SimpleNamespace(paired=False)
    shared, apart = (
        needed._runs_for(Measure("it", [values(base), values(near, first)], 1), 0, 1, pair, 1)
        for first in (0, 6)
    )
    assert apart[0] > 50 and not apart[1] and shared == (8, True)
    assert needed.needed_for_means(values(base), values(near), True, 0.05) <= 8
    assert tests.seed_by_seed(8, 1) and not tests.seed_by_seed(7, 1)


def _half(a, b):
    """Half of 1 where the second is certainly later, of -1 where it is certainly earlier."""
    (s, came), (t, arrived) = a, b
    later = came and (t > s or (t == s and not arrived))
    earlier = arrived and (s > t or (s == t and not came))
    return (int(later) - int(earlier)) / 2


def test_effects_are_those_of_an_analysis_of_variance():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(0)
    keys = [{"lr": lr, "decay": decay} for lr in (1, 2) for decay in (0.0, 0.1)]
    block = rng.normal(size=6)
    of = [values(block + rng.normal(size=6) + key["lr"]) for key in keys]
    rows = [
        {"y": y, "a": key["lr"], "b": key["decay"], "s": s}
        for key, item in zip(keys, of, strict=True)
        for s, y in enumerate(item.values)
    ]
    table = anova_lm(ols("y ~ C(s) + C(a) * C(b)", pd.DataFrame(rows)).fit(), typ=2)
    found = {effect.keys: effect for effect in effects("test_loss", of, keys)}
    expected = [table["PR(>F)"][name] for name in ("C(a)", "C(b)", "C(a):C(b)")]
    assert [found[name].p for name in (("lr",), ("decay",), ("lr", "decay"))] == pytest.approx(expected)
    means = {key["lr"]: np.mean([row["y"] for row in rows if row["a"] == key["lr"]]) for key in keys}
    assert found["lr",].estimate == pytest.approx(means[2] - means[1])
    low, high = found["lr",].interval
    assert low < found["lr",].estimate < high
    # Of a run that never came nothing is known; of one key there is nothing to tell apart.
    never = [times([10, 20, 9e9], 100), *[times([10, 20, 30], 100)] * 3]
    assert effects("generalised_step", never, keys) == [] == effects("x", of[:2], [{"lr": 1}, {"lr": 2}])


def found(made, **keys):
    return compare.analyse(made, compare.Config(**keys))


def test_a_sweep_is_ranked_and_its_best_value_stands_in_its_range():
    made = groups(1, n=8, last=3000, delays=(2.0, 1.0, 1.2, 3.5))
    result = found(made)
    assert [setting.label for setting in result.settings] == [
        "decay 0.2",
        "decay 0.3",
        "decay 0.1",
        "decay 0.4",
    ]
    assert result.main == "generalised_step" and len(result.pairs) == 6 * 5
    assert result.best["generalised_step"] == made[1].id
    assert result.level_with_best["generalised_step"] == (made[2].id,)
    assert result.response is not None and result.response.best.interval == (0.2, pytest.approx(0.3))
    assert [level.value for level in result.response.values] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    last = result.settings[-1].landmarks["generalised_step"]
    assert last.reached < 8 and last.steps.count(None) == 8 - last.reached
    assert 10 < result.needed_runs["generalised_step"] < 1000
    lines = "\n".join(terminal.lines(compare.show(result, ())))
    assert (
        "seeds a setting, the same in both and compared seed by seed, would tell decay 0.2 and decay 0.3 apart by "
        "generalised in four of five" in lines.replace("decay 0.3 and decay 0.2", "decay 0.2 and decay 0.3")
    )
    least = result.needed_least["generalised_step"]
    assert f"These runs allow any number from {least} on: the two may differ more, or not at all." in lines
    assert 4 <= least < result.needed_runs["generalised_step"]
    assert "decay 0.2 generalises first" in lines and "not told apart from decay 0.3" in lines
    for block in compare.show(result, made):
        if isinstance(block, Figure):
            draw(block)


def test_three_against_three_cannot_be_told_whatever_they_say():
    result = found(groups(0, n=3, last=9000, delays=(1.0, 5.0)))
    (pair,) = (pair for pair in result.pairs if pair.of == "generalised_step")
    assert pair.verdict == "cannot_tell" and pair.p == pytest.approx(0.1)
    assert pair.reason == "3 and 3 runs are too few: no outcome could be told from chance"
    assert result.best["generalised_step"] is None


def test_runs_that_are_equal_are_no_difference_by_chance():
    made = groups(0, n=6, last=3000, delays=(1.0, 1.0))
    twin = replace(
        made[1], runs=tuple(replace(run, series=made[0].runs[i].series) for i, run in enumerate(made[1].runs))
    )
    result = found([made[0], twin])
    assert {pair.reason for pair in result.pairs} == {"no difference is seen"}
    (headline, *lines) = terminal.lines(compare.show(result, ()))
    assert headline == (
        "Comparison of 2 settings with 6 runs each: which setting generalises first cannot be told: no difference is "
        "seen."
    )
    assert "Which setting memorises first cannot be told: no difference is seen." in lines


def test_the_first_screen_of_a_sweep_names_who_leads_by_how_much_and_who_never_did():
    made = groups(1, n=8, last=3000, delays=(2.0, 1.0, 1.2, 3.5))
    ahead, *others = (item for item in compare.show(found(made), ()) if isinstance(item, Number))
    assert ahead.value == "decay 0.2" and ahead.name == "generalises first"
    assert ahead.about.startswith("median step ") and others[-1] == Number(
        "8 runs", "each setting", "4 settings"
    )
    result = found(made)
    pair = next(
        item
        for item in result.pairs
        if item.of == "generalised_step" and {item.a, item.b} == {made[0].id, made[1].id}
    )
    assert others[0].name == "decay 0.1, the next" and pair.estimate is not None
    assert others[0].value == f"{abs(round(pair.estimate)):,} steps later" and "95% [" in others[0].about
    # One that none of its runs reaches is named, in the headline or beside it.
    never = replace(
        result,
        settings=tuple(
            replace(
                item,
                landmarks=item.landmarks
                | {
                    "generalised_step": replace(
                        item.landmarks["generalised_step"], reached=n, median_step=None
                    )
                },
            )
            if (n := {made[3].id: 0, made[0].id: 3}.get(item.ensemble)) is not None
            else item
            for item in result.settings
        ),
    )
    words = [item.text for item in compare.show(never, ()) if isinstance(item, Say) and item.headline]
    assert words[1] == "No run with **decay 0.4** generalises; 3 of 8 runs with **decay 0.1** do."
    # What that means is said once; of convergence too, where it is another rule.
    first, then = (f"at the first row with {which} accuracy at least 0.99" for which in ("test", "train"))
    (said,) = (item.text for item in compare.show(result, ()) if isinstance(item, Say) and item.note)
    assert said == f"A run generalises {first} and memorises {then}."
    own = found(
        made, **{"convergence": ConvergenceKeys(metric="train_accuracy", threshold=0.9, persistence=5)}
    )
    (said,) = (item.text for item in compare.show(own, ()) if isinstance(item, Say) and item.note)
    assert said.endswith(
        "converges at the first row of those with train accuracy at least 0.9 for 5 rows in a row."
    )
    # A rule that was asked for is said also where it watches what another landmark does.
    asked = found(
        made, **{"convergence": ConvergenceKeys(metric="test_accuracy", threshold=0.5, persistence=1)}
    )
    blocks = [*compare.show(asked, ())]
    (said,) = (item.text for item in blocks if isinstance(item, Say) and item.note)
    assert said.endswith("converges at the first row with test accuracy at least 0.5.")
    assert any(isinstance(item, Table) and "converges at" in item.header for item in blocks)


def test_the_next_setting_is_the_nearest_also_where_more_is_better():
    made = groups(1, n=8, last=3000, delays=(2.0, 1.0, 1.2))
    result = found(made, metrics=["test_accuracy"])
    name = "test_accuracy"
    one, two, three = (item.ensemble for item in result.settings)
    means = {one: 0.9, two: 0.7, three: 0.1}
    settings = tuple(
        replace(item, final={name: replace(item.final[name], mean=means[item.ensemble])})
        for item in result.settings
    )
    pairs = tuple(replace(item, verdict="differ") for item in result.pairs if item.of == name)
    made_up = replace(
        result,
        settings=settings,
        pairs=pairs,
        best={name: one},
        level_with_best={name: ()},
        leaders={name: (one,)},
    )
    second = next(item.label for item in settings if item.ensemble == two)
    assert f"; {second} is " in sentence(made_up, name)


@pytest.mark.parametrize(("last", "keys"), [(3000, 1), (700, 1), (3000, 2)])
def test_nothing_depends_on_the_order_of_settings_and_ties_have_no_winner(last, keys):
    """The second and the third have the same runs, turned round; at 700 steps some have not come, of the last none."""
    made = groups(1, n=6, last=last, delays=(2.5, 0.4, 0.4, 9.0))
    series = [run.series for run in made[1].runs]
    twins = tuple(replace(run, series=own) for run, own in zip(made[2].runs, series[::-1], strict=True))
    made[2] = replace(made[2], runs=twins)
    if keys == 2:
        trees = [{"lr": lr, "decay": decay} for lr in (0.1, 0.2) for decay in (0.0, 1.0)]
        made = [
            replace(
                one, runs=tuple(replace(run, config={**run.config, "optimizer": tree}) for run in one.runs)
            )
            for one, tree in zip(made, trees, strict=True)
        ]
    # These have every setting at every place, and every pair either way round.
    orders = (made, made[::-1], [*made[2:], *made[:2]], [made[i] for i in (1, 0, 3, 2)])
    every = [found(some) for some in orders]
    assert all(plain(result) == plain(every[0]) for result in every)
    tied = (made[1].id, made[2].id)
    for name in ("generalised_step", "memorised_step", "test_accuracy"):
        assert every[0].leaders[name] == tied and every[0].best[name] is None
    one, other = (item.label for item in every[0].settings if item.ensemble in tied)
    said = sentence(every[0], "test_accuracy")
    assert said.startswith(f"**{one}** and **{other}** have the best test accuracy, both alike (mean **0.")
    assert "generalise first, both alike (median step **" in sentence(every[0], "generalised_step")
    if keys == 1:
        best = every[0].response.best
        assert best.value is None and best.interval[1] - best.interval[0] == pytest.approx(0.1)
    # Of two with one median one is told to be earlier: it leads.
    pair = next(item for item in every[0].pairs if item.of == "generalised_step")
    pair = replace(pair, a="a", b="b", estimate=-5.0, verdict="differ")
    assert compare._undefeated("ab", [pair], 1) == ("b",) and compare._undefeated("ab", [pair], -1) == ("a",)


def test_within_a_margin_settings_are_equivalent():
    made = groups(2, n=30, last=4000, delays=(1.0, 1.0))
    verdicts = [
        next(pair.verdict for pair in found(made, margin=margin).pairs if pair.of == "generalised_step")
        for margin in (0.02, 0.5)
    ]
    assert verdicts == ["cannot_tell", "equivalent"]


def paired_off(one, other, margin):
    measure, ids = Measure("it", [one, other], 1), [SimpleNamespace(id="a"), SimpleNamespace(id="b")]
    (pair,) = compare._pairs(measure, ids, [(0, 1)], margin)
    return pair.verdict


def test_a_margin_of_a_metric_is_a_difference():
    rng = np.random.default_rng(4)
    x, y = rng.normal(5, 1, 30), rng.normal(5, 1, 30)
    # The interval is some .5 to both sides: across the margin, inside it.
    assert [paired_off(values(x), values(y, 30), m) for m in (0.1, 1.0)] == ["cannot_tell", "equivalent"]
    # Outside, to either side; across, and told to differ.
    for sign in (1, -1):
        assert paired_off(values(x), values(x + 3 * sign, 30), 1.0) == "differ"
        assert paired_off(values(x), values(x + 3 * sign, 30), 3.0) == "differ"
        # A difference is seen, and it is small.
        assert paired_off(values(x), values(x / 20 + 5 * 19 / 20 + 0.3 * sign, 30), 9.0) == "equivalent"
    assert paired_off(values(x[:3]), values(y[:3], 30), 0.1) == "cannot_tell"


def test_a_margin_of_steps_is_a_share():
    base = np.arange(1000.0, 1300, 10)
    # .55 to .65 times as late: a third less is 1 / 1.5 and no more, and 1 / 2 is enough.
    early = times(base * 0.6, first=30)
    assert [paired_off(times(base), early, m) for m in (0.5, 1.0)] == ["differ", "equivalent"]
    late = times(base * 1.6, first=30)
    assert [paired_off(times(base), late, m) for m in (0.5, 0.75)] == ["differ", "equivalent"]
    # A step more or less is far within a hundredth of a thousand, as a difference it would not be.
    assert paired_off(times(base), times(base + 1, first=30), 0.1) == "equivalent"


def test_what_is_open_is_within_no_margin():
    base = np.arange(1000.0, 1300, 10)
    # That the second is later, by how much is open; and of two that never came nothing is known.
    assert paired_off(times(base), times([9e9] * 30, 1400, 30), 100.0) == "differ"
    few = times(base[:4]), times([*base[:3], 9e9], last=1025, first=30)
    assert paired_off(*few, 100.0) == "cannot_tell"
    never = times(base, last=500), times(base, last=500, first=30)
    assert paired_off(*never, 100.0) == "cannot_tell"
    # A tenth that never came leaves the interval closed.
    some = times(base, last=1265), times(base, last=1265, first=30)
    assert paired_off(*some, 0.3) == "equivalent"


def test_needed_runs_are_those_for_the_closest_that_is_not_told_from_the_best():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 10)
    of = [values(base), values(base + 0.9, 10), values(base + 0.5, 20), values(base + 9, 30)]
    pairs = [
        compare.Pair("a", "bcd"[place - 1], "it", 1.0, (None, None), None, (None, None), 0.5, 0.5, None, False,
                     (10, 10), verdict, "")
        for place, verdict in ((1, "cannot_tell"), (2, "cannot_tell"), (3, "differ"))
    ]  # fmt: skip
    measure = Measure("it", of, 1)
    found_needed = needed.needed_runs(measure, "a", "abcd", pairs)
    assert found_needed.pair == ("a", "c")
    assert found_needed.runs == needed.needed_for_means(of[0], of[2], False, 0.05 / 3)
    assert needed.needed_runs(measure, "a", "abcd", pairs[2:]) is None
    many, few = values(np.linspace(0, 1, 20)), values([0.1, 0.8, 1.2])
    assert needed.needed_for_means(many, few, False, 0.05, True) == needed.needed_for_means(
        few, many, False, 0.05, True
    )
    # However large a difference is, fewer than 6 pairs (2 / 2^6) and 4 runs each (2 / 70) tell nothing at 5%.
    assert [needed.fewest(paired, 0.05) for paired in (True, False)] == [6, 4]
    far = Measure("it", [values([0.0, 0.1, 0.2]), values([9.0, 9.1, 9.2], 10)], 1)
    alone = [replace(pairs[0], runs=(3, 3))]
    assert needed.needed_for_means(far.of[0], far.of[1], False, 0.05) < 4
    assert needed.needed_runs(far, "a", "ab", alone) == (("a", "b"), 4, 4, False)
    # Means of what is left say nothing of runs that are lost.
    ends = [Values(tuple("abc"), np.array([1.0, 2, 4]), lost) for lost in (0, 1)]
    asked = [Measure("it", [values([6.0, 7, 9]), item], 1) for item in ends]
    runs = [needed._runs_for(item, 0, 1, SimpleNamespace(paired=False), 1)[0] for item in asked]
    assert runs[0] and runs[1] is None
    # Equal ones are told by no number; and the leader's pairs alone count.
    same = Measure("it", [of[0], values(base, 10), *of[2:]], 1)
    assert needed.needed_runs(same, "a", "abcd", pairs) == (("a", "b"), None, None, False)
    assert needed.needed_runs(measure, "d", "abcd", pairs) is None


def test_runs_that_diverge_never_arrive_and_have_no_last_value():
    made = groups(0, n=6, last=3000, delays=(1.0, 1.0))
    runs = tuple(
        replace(run, status="diverged", diverged_step=500) if i < 4 else run
        for i, run in enumerate(made[1].runs)
    )
    result = found([made[0], replace(made[1], runs=runs)])
    by_id = {setting.ensemble: setting for setting in result.settings}
    assert by_id[made[1].id].diverged == 4 and by_id[made[1].id].landmarks["generalised_step"].reached == 2
    assert len(by_id[made[1].id].final["test_accuracy"].values) == 2
    assert any("diverged" in line for line in result.warnings)


@pytest.mark.parametrize("sign", [1, -1])
def test_runs_that_are_lost_count_as_the_worst(sign):
    """By ranks, of which those of lost runs are last: as scipy does with a value that is worse than all."""
    one = Values(tuple("abcde"), sign * np.array([1.0, 3.0, 4.0, 6.0, 7.0]))
    other = Values(tuple("fghi"), sign * np.array([2.0, 8.0, 9.0, 10.0]), 2)
    gap = tests.between_values(one, other, sign=sign)
    ranks = stats.rankdata([1, 3, 4, 6, 7, 2, 8, 9, 10, 99, 99])
    sums = np.array([ranks[[*places]].sum() for places in itertools.combinations(range(11), 6)])
    assert gap.p == pytest.approx(np.mean(np.abs(sums - 36) >= abs(ranks[5:].sum() - 36) - 1e-9))
    # The median of all differences, those with a lost run as the largest; an interval is open to their side.
    every = np.sort(np.subtract.outer([2, 8, 9, 10, np.inf, np.inf], [1, 3, 4, 6, 7]).ravel())
    assert gap.estimate == pytest.approx(sign * np.median(every)) and gap.runs == (5, 6)
    assert gap.interval[sign == 1] is None and gap.interval[sign == -1] is not None
    turned = tests.between_values(other, one, sign=sign)
    assert turned.p == pytest.approx(gap.p) and turned.estimate == -gap.estimate
    # However good the others are: two of five, and three that are lost.
    few = Values(tuple("fg"), sign * np.array([0.0, 0.1]), 3)
    assert tests.between_values(one, few, sign=sign).p > 0.3
    measure = Measure("it", [few, one], sign)
    assert compare.ranked(measure) == ([1, 0], 1)
    # Of one median the setting is first that lost fewer.
    ones = [Values(tuple("ab"), sign * np.ones(2), 1), Values(tuple("cde"), sign * np.ones(3))]
    assert compare.ranked(Measure("it", ones, sign)) == ([1, 0], 1)
    # Of one median step the setting is first of which more came.
    landmark = Measure(
        "generalised_step", [times([10, 20, 30, math.inf], 100), times([10, 20, 30, 40], 100)], 1
    )
    assert compare.ranked(landmark) == ([1, 0], 1)
    # What differs by rounding is alike, and stands in the order of the settings.
    assert np.mean([0.1, 0.2]) > 0.15
    rounded = Measure("test_loss", [values([0.1, 0.2]), values([0.15, 0.15])], 1)
    assert compare.ranked(rounded) == ([0, 1], 2)
    # Which way is worse is not known: nothing is told.
    assert tests.between_values(one, other).p == 1 == tests.between_values(few, few, sign=sign).p
    assert tests.between_values(Values((), np.empty(0), 5), one, sign=sign).p == pytest.approx(2 / 252)
    assert tests.between_values(Values((), np.empty(0), 5), Values((), np.empty(0), 5), sign=sign).p == 1


def test_where_p_and_interval_part_and_where_there_is_none_is_said():
    """By Welch's interval the means differ, by permutation they need not; half of the runs are at the lowest value."""
    one, other = np.array([0.1, 0.2, 0.1, 0.2, 0.3]), np.array([0.2, 0.3, 0.3, 0.4, 0.4])
    measure = Measure("accuracy", [values(one), values(other, 5)], -1)
    ids = [SimpleNamespace(id="a"), SimpleNamespace(id="b")]
    (pair,) = compare._pairs(measure, ids, [(0, 1)], None)
    assert pair.interval[0] > 0 and pair.p > 0.05 and pair.verdict == "cannot_tell"
    assert pair.reason == (
        f"the difference could be chance (p = {pair.p:.2g} by permutation; the interval, Welch's, leaves out 0)"
    )
    far = replace(measure, of=[values(one), values(one + 0.25, 5), values(one + 0.1, 10)])
    ids = [*ids, SimpleNamespace(id="c")]
    several = compare._pairs(far, ids, [(0, 1), (0, 2), (1, 2)], None)
    assert [item.verdict for item in several] == ["differ", "cannot_tell", "cannot_tell"]
    assert f", of this pair alone {several[2].p:.2g})" in several[2].reason
    captions = [
        block.caption
        for made in ((1.0, 9.0), (1.0, 1.0))
        for block in compare.show(found(groups(1, n=6, last=3000, delays=made)), ())
        if hasattr(block, "caption")
    ]
    none = "95% intervals, none where half of the runs have the lowest or highest value"
    assert f"means of metrics at step 3,000; with {none}" in captions[0]
    assert "by the same test" in captions[1] and any(
        f"corrected for all pairs (Holm); Welch's {none}" in c for c in captions
    )
    assert "Welch's 95% intervals" in captions[-1] and "none" not in captions[-1]


def test_where_there_is_no_interval_none_is_drawn():
    """An arrow head is of an end that is open; two would be of an interval that holds everything."""
    intervals = [(None, None), (2.0, None), (1.0, 3.0)]
    figure = ranking("abc", [[1.0, 1.0], [2.0], [2.0]], [1.0, 2.0, 2.0], intervals)
    drawn = {"<": 0, ">": 0, "None": 0}
    for line in figure.axes[0].lines:
        drawn[line.get_marker()] = drawn.get(line.get_marker(), 0) + 1
    assert (drawn["<"], drawn[">"], drawn["None"], drawn["|"]) == (0, 1, 2, 3)


def test_the_axis_goes_to_where_runs_were_watched_and_dots_in_one_place_are_told_apart():
    steps, none = [450.0] * 5 + [None] * 5, (None, None)
    rows, columns = (
        ranking("ab", [steps, [None]], [None] * 2, [none] * 2, last=500, grain=10).axes[0],
        response([1, 3], [[440.0], steps], [None] * 2, [none] * 2, last=500, grain=10).axes[0],
    )
    assert rows.get_xlim()[1] >= 500 and columns.get_ylim()[1] >= 500
    assert min(np.diff(rows.get_xticks())) == min(np.diff(columns.get_yticks())) == 10
    for ax in (rows, columns):
        assert len({tuple(np.round(dot, 6)) for dots in ax.collections for dot in dots.get_offsets()}) >= 5
    # As beside a row, what stands above an arrow counts the runs that did.
    assert [text.get_text() for text in columns.texts if "of" in text.get_text()][:1] == ["5 of 10"]
    made = groups(1, n=6, last=1500, delays=(1.0, 2.0))
    figure = next(item for item in compare.show(found(made), made) if isinstance(item, Ranking))
    assert (figure.last, figure.grain) == (1500, 10)


def test_a_setting_whose_runs_diverged_is_not_judged_by_the_others():
    made = groups(0, n=6, last=3000, delays=(0.5, 0.5))
    lost = [
        replace(run, status="diverged", diverged_step=2000, series={}) if i < 5 else run
        for i, run in enumerate(made[1].runs)
    ]
    result = found([made[0], replace(made[1], runs=tuple(lost))])
    whole, part = (result.settings[place].final["test_accuracy"] for place in (0, 1))
    assert (whole.lost, part.lost, len(part.values), part.median) == (0, 5, 1, None)
    assert whole.median == pytest.approx(np.median(whole.values))
    text = sentence(result, "test_accuracy")
    assert text.startswith("**decay 0.1** has the best test accuracy (median **0.9")
    assert "; decay 0.2 is worse (p = 0.0" in text
    assert text.endswith("; 5 of 6 runs with **decay 0.2** diverged and count as the worst.")
    lines = "\n".join(terminal.lines(compare.show(result, ())))
    assert ", 1 of 6" in lines and "None" not in lines and "nan" not in lines
    # A last value that is infinite is none either, and an effect of survivors is none of the key.
    values = np.array([1.0, np.inf, np.nan])
    one = Group.of({"s0": {"x": values}, "s1": {"x": values[[0, 0, 0]]}}, np.arange(3))
    ended = finals(one, "x", None)
    assert (ended.lost, ended.labels) == (1, ("s1",))
    keys = [{"lr": lr, "decay": decay} for lr in (1, 2) for decay in (3, 4)]
    of = [Values(tuple("abc"), np.arange(3.0) + np.sqrt(i), int(i == 2)) for i in range(4)]
    assert effects("x", of, keys) == []


def test_metrics_are_read_at_the_last_step_that_all_reached():
    short, long = groups(0, n=6, last=800)[0], groups(0, n=6, last=3000)[1]
    result = found([short, long])
    ends = found([short, long], at="end")
    assert (result.at_step, ends.at_step) == (800, None)

    def accuracy(result):
        return {s.ensemble: s.final["test_accuracy"].mean for s in result.settings}[long.id]

    assert accuracy(result) < accuracy(ends)
    assert any("800 to 3,000 steps" in line for line in result.warnings)


def test_a_run_that_ended_early_has_no_value_at_a_later_step():
    """Its last value is none at the step that the others reached; rows that are merely rare are no early end."""
    made = groups(0, n=6, last=3000, delays=(1.0, 1.0, 1.0))
    cut = [replace(group, runs=(*group.runs[:5], group.runs[5].until(595))) for group in made[:2]]
    result = found([*cut, made[2]])
    assert result.at_step == 3000
    by_id = {setting.ensemble: setting.final["test_loss"] for setting in result.settings}
    for group, n in zip(made, (5, 5, 6), strict=True):
        own = [run.first("test_loss").values[-1] for run in group.runs]
        final = by_id[group.id]
        assert final.values == tuple(own[:n]) and final.mean == pytest.approx(np.mean(own[:n]))
        assert (final.lost, final.short) == (0, 6 - n)
    (line,) = (line for line in result.warnings if "ended before step 3,000" in line)
    assert f"1 of {made[0].id} and 1 of {made[1].id}" in line and made[2].id not in line
    assert "with **decay 0.1** ended before step 3,000 and are left out" in sentence(result, "test_loss")
    assert len(figures._runs(result.settings, "test_loss", [*cut, made[2]], 3000)) == 3
    # Where most ended early the others are not what the setting is.
    most = [
        replace(cut[0], runs=tuple(run.until(595) for run in made[0].runs[1:]) + made[0].runs[:1]),
        *made[1:],
    ]
    assert found(most).at_step == 590 and not any("ended before" in line for line in found(most).warnings)
    rare = Group.of(
        {"a": {"x": np.arange(10.0), "y": np.where(np.arange(10) % 4 == 0, 1.0, np.nan)}}, np.arange(10)
    )
    early = Group.of(
        {"a": {"x": np.arange(10.0), "y": np.where(np.arange(10) < 5, 1.0, np.nan)}}, np.arange(10)
    )
    assert [(len(one.values), one.short) for one in (finals(rare, "y", 9), finals(early, "y", 9))] == [
        (1, 0),
        (0, 1),
    ]
    assert finals(early, "y", None).values.tolist() == [1.0]


def test_one_setting_alone_and_settings_of_two_tasks_are_refused():
    made = groups(0, n=5)
    with pytest.raises(NothingMatched, match="needs two settings"):
        found(made[:1])
    other = tuple(replace(run, config={**run.config, "task": {"name": "parity"}}) for run in made[1].runs)
    with pytest.raises(NothingMatched, match="of one task, and these are of grokking and parity"):
        found([made[0], replace(made[1], runs=other)])
    with pytest.raises(ConfigError, match="converge by different rules"):
        found([made[0], replace(made[1], convergence=Convergence("test_loss", 0.1, "down"))])
    with pytest.raises(ConfigError, match=r"metrics: nosuch was not recorded.*there are .*test_accuracy"):
        found(made, metrics=["nosuch"])
    elsewhere = [
        Group.of({"r0": {"acc": np.ones(3), "size": np.ones(3)}}, np.arange(3), id=name) for name in "ab"
    ]
    with pytest.raises(
        NothingMatched, match=r"metrics=\[acc\] compares one of those that they do: acc and size$"
    ):
        found(elsewhere)
    with pytest.raises(NothingMatched, match="import each under a name of its own"):
        found([replace(elsewhere[0], imported=True)])


def test_imports_are_settings_of_the_columns_that_are_constant_in_each():
    rng, steps, imports = np.random.default_rng(0), np.arange(0, 50, 10), []
    for place, rate in enumerate((0.1, 0.01, 0.001)):
        runs = {
            f"r{i}": {
                "rate": np.full(5, rate),
                "test_loss": np.full(5, place) + rng.normal(size=5),
                "size": np.ones(5),
            }
            for i in range(5)
        }
        about = {"task": {"name": "imported"}, "import": {"names": [f"mine{place}"], "options": [str(place)]}}
        imports.append(replace(Group.of(runs, steps, id=f"e{place}", config=about), imported=True))
    result = found(imports)
    assert {setting.ensemble: (setting.label, setting.keys) for setting in result.settings} == {
        f"e{place}": (f"rate {rate:g}", {"rate": rate}) for place, rate in enumerate((0.1, 0.01, 0.001))
    }
    assert result.response is not None and result.response.key == "rate"
    # Trained here, a column is no key.
    trained = found([replace(group, imported=False) for group in imports])
    assert {setting.label for setting in trained.settings} == {"mine0", "mine1", "mine2"}


def test_what_was_swept_is_told_from_what_follows():
    def tree(name, lr, **optimizer):
        return {
            "task": {"name": "t"},
            "optimizer": {"name": name, "lr": lr, **optimizer},
            "levels": {"a": lr},
        }

    def keys(*trees):
        return swept([*map(flat, trees)])

    assert keys(tree("sgd", 0.1, momentum=0.9), tree("adam", 0.001)) == [
        {"optimizer.name": "sgd"},
        {"optimizer.name": "adam"},
    ]
    grid = keys(tree("sgd", 0.1), tree("sgd", 0.2), tree("adam", 0.1), tree("adam", 0.2))
    assert [*grid[0]] == ["optimizer.name", "optimizer.lr"]
    assert labels(grid, "abcd") == ["sgd, lr 0.1", "sgd, lr 0.2", "adam, lr 0.1", "adam, lr 0.2"]
    # What changes with another key is no key of a design, but a label names both.
    lockstep = [{"lr": 0.1, "weight_decay": 0}, {"lr": 0.2, "weight_decay": 1.5}]
    assert swept(lockstep) == [{"lr": 0.1}, {"lr": 0.2}]
    assert labels(lockstep, "ab") == ["lr 0.1, decay 0", "lr 0.2, decay 1.5"]
    assert labels([{"a": 1}, {"a": 2}, {"a": 2}, {}], "wxyz") == ["a 1", "a 2 (x)", "a 2 (y)", "z"]
    # Six digits are enough where they tell all values apart.
    close = [{"lr": lr, "rho": rho} for lr in (0.1234567, 0.1234568) for rho in (1 / 3, 0.5)]
    assert labels(close, "abcd")[:3] == [
        "lr 0.1234567, rho 0.333333",
        "lr 0.1234567, rho 0.5",
        "lr 0.1234568, rho 0.333333",
    ]
    # With two keys those are compared that differ in one.
    assert [*comparable(grid)] == [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert crossed(grid)


def test_what_a_choice_brings_with_it_is_no_key_beside_it():
    """A parent is compared with each of its forks, forks of one edit with each other; they are no crossed design."""
    forks = [
        {"edit.name": None, "edit.scale": None, "edit.factor": None},
        {"edit.name": "perturb", "edit.scale": 0.1, "edit.factor": None},
        {"edit.name": "perturb", "edit.scale": 0.5, "edit.factor": None},
        {"edit.name": "rescale", "edit.scale": None, "edit.factor": 2.0},
    ]
    assert [*comparable(forks)] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] and not crossed(forks)
    rng = np.random.default_rng(0)
    of = [values(rng.normal(size=6)) for _ in forks]
    assert effects("test_loss", of, forks) == []
    # Beside another key that all have, what differs in both is not compared.
    two = [{**fork, "optimizer.lr": rate} for rate in (0.1, 0.2) for fork in forks[:2]]
    assert [*comparable(two)] == [(0, 1), (0, 2), (1, 3), (2, 3)]
    # A value that is null is a value where no part says that the key is not there.
    clips = [{"train.clip": clip, "optimizer.lr": rate} for clip in (None, 1.0) for rate in (0.1, 0.2)]
    assert [*comparable(clips)] == [(0, 1), (0, 2), (1, 3), (2, 3)] and crossed(clips)


def test_what_all_runs_did_before_they_were_forked_is_not_compared():
    made = groups(1, n=5, last=3000, delays=(1.0, 1.0))
    made = [made[0], replace(made[1], runs=made[0].runs)]
    steps = [run.first("train_accuracy") for run in made[0].runs]
    memorised = max(int(item.steps[item.values >= 0.99][0]) for item in steps)

    def forked(step: int):
        runs = tuple(
            replace(run, config={**run.config, "parent": f"{made[0].id}@{step}"}) for run in made[1].runs
        )
        return found([made[0], replace(made[1], runs=runs)])

    assert "memorised_step" in forked(memorised - 1).settings[0].landmarks
    assert "memorised_step" not in forked(memorised).settings[0].landmarks
    assert "memorised_step" in found(made).settings[0].landmarks
    # A fork of some of the seeds has what its parent has of these.
    made[1] = replace(made[1], runs=made[1].runs[:4])
    assert "memorised_step" not in forked(memorised).settings[0].landmarks


def test_losses_have_no_interval_below_0_and_a_difference_that_is_told_says_where_its_interval_holds_0():
    ends = np.array([1e-3, 0.0, 0.0, 2e-3, 9e-3])
    made = groups(1, n=5, last=3000, delays=(1.0, 2.0))
    names = ("test_loss", "train_margin")

    def ending(run, end):
        series = {name: Series(run.grid, np.full(len(run.grid), end)) for name in names}
        return replace(run, series=run.series | series)

    made = [replace(group, runs=tuple(map(ending, group.runs, ends))) for group in made]
    result = found(made, metrics=[*names])
    final = result.settings[0].final
    assert final["test_loss"].interval[0] == 0 > final["train_margin"].interval[0]
    assert final["test_loss"].interval[1] == final["train_margin"].interval[1]
    one, other = np.array([0.0, 0.1, 0.21, 0.12, 0.05, 0.15]), np.array([0.2, 0.3, 0.25, 3.0, 0.4, 0.35])
    ids = [SimpleNamespace(id="a"), SimpleNamespace(id="b")]
    (pair,) = compare._pairs(Measure("test_loss", [values(one), values(other, 6)], 1), ids, [(0, 1)], None)
    assert pair.p <= 0.05 and pair.interval[0] < 0 < pair.interval[1] and pair.verdict == "differ"
    assert pair.reason == "p by permutation; the interval, Welch's, holds 0"
    ones = [values([0.0, 0.0, 0.0, 1.0, 2.0]), values([7.0, 8.0, 9.0, 9.5, 9.7], 5)]
    (pair,) = compare._pairs(Measure("test_loss", ones, 1), ids, [(0, 1)], None)
    assert pair.interval == (None, None) and pair.verdict == "differ" and not pair.reason


def test_two_keys_have_effects_and_a_figure():
    made = groups(3, n=8, last=9000, delays=(1.0, 2.0, 1.0, 2.0))
    trees = [{"lr": lr, "decay": decay} for lr in (0.1, 0.2) for decay in (0.0, 1.0)]
    made = [
        replace(
            group, runs=tuple(replace(run, config={**run.config, "optimizer": tree}) for run in group.runs)
        )
        for group, tree in zip(made, trees, strict=True)
    ]
    result = found(made)
    effect = {item.keys: item for item in result.effects if item.of == "generalised_step"}
    assert effect["optimizer.decay",].p_adjusted < 0.001 < 0.05 < effect["optimizer.lr",].p_adjusted
    assert 1.5 < effect["optimizer.decay",].estimate < 2.7
    lines = "\n".join(terminal.lines(compare.show(result, ())))
    assert (
        "Effects of the keys on when a run generalises: optimizer.decay (p < 0.001); on when a run" in lines
    )
    assert "on test loss: none can be told" in lines
    (block,) = (block for block in compare.show(result, made) if getattr(block, "name", "") == "effect")
    assert [*block.at] == ["0", "1"] and [*block.lines] == ["lr 0.1", "lr 0.2"]
    # Effects on steps are factors: lines without an interaction are parallel by logarithm.
    assert block.ratios and draw(block).axes[0].get_yscale() == "log"
    # Where some never came the figure is of what effects are known of, and says what it is of.
    cut = [replace(group, runs=tuple(run.until(1000) for run in group.runs)) for group in made]
    (block,) = (block for block in compare.show(found(cut), cut) if getattr(block, "name", "") == "effect")
    assert block.axis == "step at which a run memorises" and draw(block).axes[0].get_yscale() == "log"


def test_findings_are_plain():
    result = plain(found(groups(0, n=5)))
    assert {"settings", "pairs", "best", "needed_runs", "response", "effects"} <= result.keys()
    assert {
        "a",
        "b",
        "of",
        "estimate",
        "interval",
        "p",
        "p_adjusted",
        "paired",
        "verdict",
        "reason",
    } <= result["pairs"][0].keys()
