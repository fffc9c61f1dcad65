"""Means over runs and over pairs that share runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dynalab.core.means import (
    OPEN,
    heaped,
    intervals_words,
    mean_interval,
    mean_over,
    mean_over_pairs,
    welch_interval,
)


def test_a_caption_says_why_intervals_are_missing():
    known, none = (0.1, 0.2), (None, None)
    assert intervals_words([(5, known), (5, (None, 0.2)), (0, none)]) == "95% intervals"
    heaped_words = "95% intervals, none where half of the runs have the lowest or highest value"
    assert intervals_words([(5, known), (5, none)]) == heaped_words
    assert intervals_words([(5, none), (1, none)]) == f"{heaped_words} or there is one run"
    assert intervals_words([(1, none)]) == "95% intervals, none where there is one run"


def test_student_and_where_many_are_at_an_end():
    values = [0.0, 0.1, 0.4, None, float("nan"), 0.2, 0.2]
    runs, mean, interval = mean_over(values)
    known = [0.0, 0.1, 0.2, 0.2, 0.4]
    expected = stats.t.interval(0.95, 4, np.mean(known), stats.sem(known))
    assert (runs, mean) == (5, pytest.approx(0.18)) and interval == pytest.approx(expected)
    assert mean_over([0, 0, 0.1, 0.4]) == (4, 0.125, (None, None))
    assert mean_over([1, 1, 0.5, 1])[2] == mean_over([3, 3])[2] == mean_over([3])[2] == (None, None)
    assert mean_over([]) == (0, None, (None, None))
    # Two values are each at an end, and none is there with another.
    assert not heaped(np.array([0.0, 1.0])) and mean_over([0, 1])[2][0] < -5


def test_what_is_at_an_end_has_no_interval_beside_another_sample_either():
    x, y = np.array([0.7, 0.8, 0.75, 0.9]), np.array([0.5, 0.2, 0.6, 0.4])
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    assert welch_interval([x, y]) == pytest.approx(tuple(expected))
    at_end = np.array([1.0, 1.0, 0.9, 0.95])
    assert (
        welch_interval([x, at_end]) == welch_interval([at_end, x]) == welch_interval([x, np.ones(4)]) == OPEN
    )
    # Differences that should be equal differ in the last digit; zeros amid others are at no end.
    gaps = np.array([0.4, 0.9, 0.8, 0.95]) - np.array([0.3, 0.8, 0.75, 0.85])
    assert len(set(gaps.tolist())) > 2 and mean_interval(gaps) == OPEN
    assert mean_interval(np.array([-0.1, 0.0, 0.0, 0.0, 0.1]))[0] is not None
    assert heaped(np.zeros(3)) and not heaped(np.zeros(1)) and mean_interval(np.ones(1)) == OPEN


def test_pairs_that_share_runs():
    rng = np.random.default_rng(0)
    names = "abcdef"
    every = [(a, b, float(rng.random())) for i, a in enumerate(names) for b in names[i + 1 :]]
    n, mean, interval = mean_over_pairs(every[::-1])
    left = [np.mean([v for a, b, v in every if name not in (a, b)]) for name in names]
    error = np.sqrt(5 / 6 * np.square(np.array(left) - np.mean(left)).sum())
    assert n == 15 and mean == pytest.approx(np.mean([v for *_, v in every]))
    # To the side of alike pairs by what they have beyond their runs, which is all that these have.
    t, spread = stats.t.ppf(0.975, 5), np.var([v for *_, v in every], ddof=1)
    near = t * error + t**2 / 6 * np.sqrt(spread - 3 * error**2)
    assert interval == pytest.approx((mean - near, mean + t * error))
    assert mean_over_pairs(every, likeness=True)[2] == pytest.approx((mean - t * error, mean + near))
    # What runs add to all their pairs is the jackknife's alone: nothing is left beyond them.
    added = dict(zip(names, rng.random(6) ** 3, strict=True))
    sums = [(a, b, added[a] + added[b]) for a, b, _ in every]
    left = [np.mean([v for a, b, v in sums if name not in (a, b)]) for name in names]
    error = np.sqrt(5 / 6 * np.square(np.array(left) - np.mean(left)).sum())
    assert mean_over_pairs(sums)[2] == pytest.approx(
        stats.t.interval(0.95, 5, 2 * np.mean([*added.values()]), error)
    )
    # What pairs have beyond their runs counts by the share of all pairs that are there.
    some = [pair for pair in every if pair[:2] not in (("a", "d"), ("b", "e"), ("c", "f"))]
    left = [np.mean([v for a, b, v in some if name not in (a, b)]) for name in names]
    values = np.array([v for *_, v in some])
    error = np.sqrt(5 / 6 * np.square(np.array(left) - np.mean(left)).sum())
    near = t * error + t**2 / 6 * np.sqrt(values.var(ddof=1) - 3 * error**2) * 12 / 15
    assert mean_over_pairs(some)[2] == pytest.approx((values.mean() - near, values.mean() + t * error))
    assert None not in mean_over_pairs([pair for pair in every if "f" not in pair[:2]])[2]
    # Each run with itself at another step, and pairs that share no run, are as many runs.
    values = [value for *_, value in every[:6]]
    for alone in (
        [(str(i), str(i), value) for i, value in enumerate(values)],
        [(str(i), f"{i}'", value) for i, value in enumerate(values)],
    ):
        assert mean_over_pairs(alone)[2] == pytest.approx(mean_over(values)[2])
    assert (
        mean_over_pairs(every[:1])[2]
        == mean_over_pairs([("a", "b", 1.0), ("b", "c", 2.0)])[2]
        == mean_over_pairs([pair for pair in every if not {"e", "f"} & {*pair[:2]}])[2]
        == (None, None)
    )
    assert mean_over_pairs([(a, b, float(v > 0.9)) for a, b, v in every])[2] == (None, None)
    assert mean_over_pairs([]) == (0, None, (None, None))


def test_runs_of_two_kinds_half_of_each():
    """Where the mean is at its largest the jackknife finds no error: leaving any run out lowers it as much."""
    noise = np.random.default_rng(0).normal(size=(6, 6)) / 1000
    pairs = [(str(i), str(j), (i % 2 != j % 2) + noise[i, j]) for i in range(6) for j in range(i)]
    n, mean, (low, high) = mean_over_pairs(pairs)
    values = np.array([value for *_, value in pairs])
    # That of 15 pairs which share no run; runs of one kind and the other are 0.5 apart, on the mean over all runs.
    assert (n, mean) == (15, pytest.approx(0.6, abs=1e-3))
    assert high - mean == pytest.approx(stats.t.ppf(0.975, 5) * stats.sem(values))
    assert low < mean - (high - mean) and low < 0.5 < high
