"""Runs that are unlike the others: how far, how surely, and that nothing is said where nothing can be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hmm_simulate import simulate
from nulls.compare import groups
from nulls.hmm import said
from scipy import stats

from dynalab.analysis import compare, hmm
from dynalab.analysis.hmm import odd
from dynalab.analysis.hmm.outcome import infer
from dynalab.core import outliers
from dynalab.core.outliers import unlike
from dynalab.core.records import plain
from dynalab.show import terminal

BARE = {"workers": 1, "stability": False, "baselines": False}


def normal(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def lines(module, findings):
    return "\n".join(terminal.lines(module.show(findings, ())))


def test_a_value_is_standardised_by_the_others():
    x = normal(9)
    distance, _ = unlike(x)
    rest = np.delete(x, 4)
    assert distance[4] == pytest.approx(abs(x[4] - rest.mean()) / (rest.std(ddof=1) * math.sqrt(1 + 1 / 8)))
    # Of normal values it is Student's t.
    drawn = outliers._standardised(normal(80_000).reshape(-1, 8), normal(80_000).reshape(-1, 8)).ravel()
    assert stats.kstest(drawn[::8], stats.t(6).cdf).pvalue > 0.01


def test_what_falls_by_a_square_is_no_alarm():
    """Runs of one law whose time constants are lognormal: likelihoods fall by the square of what they differ by."""
    values = -(np.expm1(0.2 * np.random.default_rng(7).normal(size=(1000, 20))) ** 2)
    alarms = np.mean([unlike(row, below=True)[1].min() * 20 < 0.05 for row in values])
    assert alarms <= 0.07
    assert np.mean([unlike(row)[1].min() * 20 < 0.05 for row in values[:200]]) > 0.15, "of two laws it is one"


def test_the_law_is_the_longer_of_two():
    law = outliers._law(12, False)
    for values in (
        np.random.default_rng(5).standard_t(4, (4000, 12)),
        np.random.default_rng(6).exponential(size=(4000, 12)),
    ):
        far = np.abs(outliers._standardised(values, values)).max(axis=1)
        p = 1 - np.searchsorted(law, far) / len(law)
        assert np.mean(p * 12 < 0.05) < 0.06


def test_a_far_value_is_told_and_a_near_one_is_not():
    x = normal(20)
    for size, told in ((4.0, False), (12.0, True), (-12.0, True)):
        p = unlike(np.append(x[1:], size))[1]
        assert (p[-1] * 20 < 0.05) == told and p[:-1].min() * 20 > 0.05
    # Only what lies below, where that is asked.
    assert unlike(np.append(x[1:], 12.0), below=True)[1][-1] == 1
    # What falls by a square has the longest tails.
    near, far = (unlike(np.append(x[1:], -size), below=True)[1][-1] * 20 for size in (12.0, 20.0))
    assert far < 0.05 < near


def test_one_far_value_does_not_hide_another():
    x = np.append(normal(8), [-15.0, -14.0])
    distance, p = unlike(x)
    assert (p[-2:] * 10 < 0.05).all() and p[:-2].min() > 0.05
    assert distance[-1] > 8
    # More than a fifth are no longer the odd ones.
    assert unlike(np.append(normal(7), [-15.0, -14.0, -16.0]))[1].min() > 0.05


def test_what_is_far_only_on_one_scale_is_not_told():
    wide = np.exp(1.5 * normal(20, 3))
    values = np.append(wide, 30 * wide.max())
    assert unlike(values - 100)[1][-1] * 21 < 0.05 < unlike(np.append(wide, 3 * wide.max()))[1][-1] * 21
    assert unlike(values)[1][-1] * 21 > 0.0005


def test_values_that_are_nearly_equal_are_told_apart_by_what_can_be_seen():
    equal = np.array([900.0] * 9)
    assert unlike(np.append(equal, 1200.0), resolution=300.0)[1].min() > 0.05
    assert unlike(np.append(equal, 90_000.0), resolution=300.0)[1][-1] * 10 < 0.05
    assert (unlike(equal)[1] == 1).all()


def test_of_four_values_nothing_is_said():
    for x in (normal(4), np.append(normal(4), math.nan), np.empty(0)):
        assert np.isnan(unlike(x)[1]).all()
    assert np.isfinite(unlike(np.append(normal(5), math.inf))[1]).sum() == 5


def delayed(at: float, n: int = 12, last: int = 4000, seed: int = 3):
    """Return two settings, in the first of which one run comes at another step than the others."""
    made = groups(seed, n=n, last=last, delays=(1.0, 1.0))
    rows = np.arange(0, last + 1, 10)
    series = dict(made[0].runs[7].series)
    accuracy = series["test_accuracy"]
    series["test_accuracy"] = replace(accuracy, values=np.where(rows >= at, 0.996, 0.1))
    runs = list(made[0].runs)
    runs[7] = replace(runs[7], series=series)
    return [replace(made[0], runs=tuple(runs)), made[1]]


def found(made, **keys):
    return compare.analyse(made, compare.Config(**keys))


def test_an_odd_seed_is_named_with_what_sets_it_apart():
    result = found(delayed(30_000, last=60_000))
    assert len(result.odd) == 24
    rows = [row for row in result.odd if row.p_adjusted < 0.05]
    assert [(row.ensemble, row.run) for row in rows] == [("0000000000", "0000000000/s0007")]
    (row,) = rows
    assert row.of == "generalised_step" and row.value == 30_000 and row.distance > 10
    assert row.others[1] < 3000
    text = lines(compare, result)
    assert "Seed 7 of decay 0.1 is unlike the other 11: it generalises at step 30,000, they at " in text
    # Two landmarks, and three metrics.
    assert {"ensemble", "run", "distance", "p", "p_adjusted"} <= plain(result)["odd"][0].keys()


def test_a_run_that_never_came_counts_from_where_it_was_watched():
    # Watched to 60,000 where the others come by 2,000 it is odd; watched to 1,900 who can tell.
    told = {row.run: row for row in found(delayed(1e9, last=60_000)).odd}["0000000000/s0007"]
    assert told.p_adjusted < 0.05 and told.value is None
    assert "it never generalises, they at" in lines(compare, found(delayed(1e9, last=60_000)))
    short = {row.run: row for row in found(delayed(1e9, last=1900)).odd}
    assert short["0000000000/s0007"].of != "generalised_step" or short["0000000000/s0007"].p_adjusted > 0.05


def test_where_most_never_come_the_few_that_do_are_not_odd():
    result = found(groups(2, n=12, last=700, delays=(1.0, 1.0)))
    assert any(0 < setting.landmarks["generalised_step"].reached < 6 for setting in result.settings)
    assert "generalised_step" not in {row.of for row in result.odd}


def test_what_follows_from_a_late_landmark_is_not_odd():
    """A tenth of the runs are cut off before they generalise, at a tenth of the accuracy of the others."""
    odd_ones = [
        row
        for seed in range(15)
        for row in found(groups(seed, n=8, last=1500)).odd
        if row.p_adjusted is not None and row.p_adjusted < 0.05
    ]
    assert len(odd_ones) <= 2
    # Nor is one that does so before the step at which metrics are read, where the others do not.
    short = [replace(group, runs=tuple(run.until(900) for run in group.runs)) for group in groups(3, n=8)]
    assert all(row.p_adjusted > 0.05 for row in found(short).odd if row.p_adjusted is not None)


def test_an_accuracy_near_1_is_odd_by_what_is_wrong():
    def accuracies(errors):
        made = groups(1, n=12, last=4000, delays=(1.0, 1.0))
        runs = []
        for run, error in zip(made[0].runs, errors, strict=True):
            series = run.series["test_accuracy"]
            end = np.where(series.values > 0.9, 1 - error, series.values)
            runs.append(replace(run, series={**run.series, "test_accuracy": replace(series, values=end)}))
        rows = found([replace(made[0], runs=tuple(runs)), made[1]], metrics=["test_accuracy"]).odd[:12]
        return [row.run for row in rows if row.of == "test_accuracy" and row.p_adjusted < 0.05]

    errors = 0.0004 * np.exp(0.8 * normal(12, 4))
    # Lognormal errors, the largest of which is as far from the others as it may be; and one that is much farther.
    assert not accuracies(np.append(errors[1:], 0.0075))
    assert accuracies(np.append(np.full(11, 0.0004) + 1e-5 * normal(11), 0.0099)) == ["0000000000/s0011"]


def test_nothing_in_words_where_no_seed_is_odd_and_null_where_it_cannot_be_told():
    assert "unlike" not in lines(compare, found(groups(1, n=12, last=4000)))
    few = found(groups(1, n=4, last=4000)).odd
    assert {(row.p, row.p_adjusted, row.reason) for row in few} == {(None, None, "4 runs are too few")}


def strange(n: int, bad: int):
    """Return runs of one law, the last of which follow another."""
    truth = simulate("ar", 2, n_runs=n, n_rows=40, seed=0).trajectories
    other = simulate("ar", 2, n_runs=2, n_rows=40, seed=5).trajectories
    runs = [
        replace(run, run=f"e/s{place:04d}", values=other.runs[0].values if place >= n - bad else run.values)
        for place, run in enumerate(truth.runs)
    ]
    return replace(truth, runs=tuple(runs))


def test_a_run_of_other_dynamics_is_odd():
    config = hmm.Config(emission="ar", n_states=2, restarts=1, n_iter=15, folds=5, **BARE)
    result = infer(strange(20, 1), config)
    rows = {row.run: row for row in result.odd}
    assert [run for run, row in rows.items() if row.p_adjusted < 0.05] == ["e/s0019"]
    below = rows["e/s0019"].below
    others = np.median([row.ll_per_frame for run, row in rows.items()])
    # Of runs of one length it is what the likelihoods differ by, up to how their medians are taken.
    assert below == pytest.approx(others - rows["e/s0019"].ll_per_frame, rel=0.1)
    chosen = next(row for row in result.selection if row.n_states == 2)
    assert np.mean([row.ll_per_frame for row in result.odd]) == pytest.approx(chosen.heldout_ll_per_frame)
    text = lines(hmm, result)
    assert "Seed 19 is unlike the other 19: its log-likelihood a frame is" in text
    assert "unlike" not in lines(hmm, infer(strange(20, 0), config))


def test_runs_that_are_cut_off_are_compared_at_their_own_steps():
    table = said("normal", False, 12, 1)
    table[3, 20:] = np.nan
    below, p = odd.compared(table)
    whole, _ = odd.compared(said("normal", False, 12, 1))
    # Its rows are early ones, which say 20 nats less than the mean of all rows.
    assert abs(below[3]) < 3 and below[3] == pytest.approx(whole[3], abs=1.5) and p[3] > 0.05
    # A mean over few rows varies more: what is far for a long run is less far for a short one.
    low = said("normal", False, 12, 1)
    low[3] -= 12
    high = low.copy()
    high[3, 8:] = np.nan
    assert odd.compared(low)[1][3] < odd.compared(high)[1][3]


def test_without_unseen_runs_no_run_is_odd():
    config = hmm.Config(emission="ar", n_states=2, restarts=1, n_iter=5, folds=5, **BARE)
    few = infer(strange(4, 1), config).odd
    assert [(row.p, row.reason) for row in few] == [(None, "4 runs are too few")] * 4
    assert infer(strange(1, 0), config).odd is None
    assert (
        infer(strange(4, 0), hmm.Config(preset="paper", n_states=2, n_iter=2, restarts=1, **BARE)).odd is None
    )


def test_of_many_values_few_laws_are_drawn_and_the_odd_ones_are_told():
    outliers._law.cache_clear()
    values = np.random.default_rng(3).normal(size=2000)
    values[:3] = 40.0
    _, p = unlike(values)
    # A stage for every fifth value, each of one value fewer: 2,000 to 1,601.
    assert outliers._law.cache_info().misses <= 20
    assert (p[:3] * 2000 < 0.05).all() and (p[3:] * 2000 > 0.05).all()
    # The law of a few values fewer is hardly another: p of the farthest of 127 by that of 126.
    farthest = np.array([3.0, 5.0])
    near = outliers._long_tails(farthest, 127, False)
    law = outliers._law(127, False)
    exact = (1 + (law[:, None] >= farthest).sum(axis=0)) / (1 + len(law))
    np.testing.assert_allclose(near, exact, rtol=0.1)
