"""Canonical order, transitions, edges, intervals and paths."""

import numpy as np

from dynalab.analysis.hmm import states
from dynalab.analysis.hmm.selection import assign_folds, smallest
from dynalab.core.stats import clopper_pearson

A = [np.array(x) for x in ([2, 2, 0, 0, 1], [2, 0, 0, 1, 1], [2, 1, 1, 1, 1])]
STEPS = [np.arange(5) * 10, np.arange(5) * 10, np.array([0, 100, 200, 300, 400])]


def test_order_of_first_entry_over_the_runs_that_visit():
    # State 0 is entered at 20 and 10 (mean 15), state 1 at 40, 30 and 100, state 3 never.
    assert states.canonical_order(A, STEPS, 4) == [2, 0, 1, 3]
    assert states.first_entry(A, STEPS, 0) == 15.0
    assert states.first_entry(A, STEPS, 3) is None


def test_a_straggler_does_not_change_the_order():
    # Most runs begin in state 1; one enters it late, and its mean with it.
    paths = [np.array([1, 0, 0])] * 3 + [np.array([0, 0, 1])]
    steps = [np.array([0, 5, 500])] * 4
    assert states.canonical_order(paths, steps, 2) == [1, 0]


def test_ties_go_by_number():
    paths = [np.array([1, 0]), np.array([0, 1])]
    assert states.canonical_order(paths, [np.array([0, 10])] * 2, 2) == [0, 1]


def test_counts_edges_and_their_features():
    counts = states.transition_counts(A, 3)
    assert counts.tolist() == [[2, 2, 0], [0, 4, 0], [2, 1, 1]]
    means = np.array([[0.0, 0, 0, 0], [1.0, -5, 0.5, 2], [0, 0, 0, 0]])
    found = states.edges(A, ["a", "b", "c", "d"], means)
    assert [(e.start, e.end, e.runs) for e in found] == [(0, 1, 2), (2, 0, 2), (2, 1, 1)]
    assert [(one.name, one.change) for one in found[0].features] == [("b", -5.0), ("d", 2.0), ("a", 1.0)]
    assert found[0].interval == clopper_pearson(2, 3)


def test_an_edge_taken_twice_by_a_run_counts_once():
    found = states.edges([np.array([0, 1, 0, 1])], ["a"], np.zeros((2, 1)))
    assert [(e.start, e.end, e.runs) for e in found] == [(0, 1, 1), (1, 0, 1)]


def test_profiles():
    x = [np.array([[0.0], [1.0], [3.0]]), np.array([[10.0], [10.0], [12.0]])]
    levels, drifts = states.profiles([np.array([0, 0, 1]), np.array([1, 1, 1])], x, 3)
    np.testing.assert_allclose(levels[:, 0], [0.5, 35 / 4, np.nan])
    np.testing.assert_allclose(drifts[:, 0], [1.0, (2 + 0 + 2) / 3, np.nan])


def test_the_smallest_model_within_one_standard_error_or_one_nat_a_run():
    rng = np.random.default_rng(0)
    # Runs differ by far more than models do, and alike under all of them.
    runs = 10 * rng.normal(size=20)
    wobble = rng.normal(size=20)
    wobble = (wobble - wobble.mean()) / wobble.std(ddof=1) * np.sqrt(20)
    best = runs + 5
    # The standard error of the difference to the best is 0.1.
    for gap, expected in ((0.09, 0), (0.11, 1)):
        assert smallest([best - gap + 0.1 * wobble, best, best - 1e-3], 100) == expected
    # Of nine rows .11 nats each are less than one nat, of ten more.
    assert [smallest([best - 0.11 + 0.1 * wobble, best], rows) for rows in (9, 10)] == [0, 1]
    assert smallest([best], 100) == 0
    assert smallest([best, best], 100) == 0, "of equal models the smaller"
    # One run has no error: the best.
    assert smallest([np.array([1.0]), np.array([2.0]), np.array([1.9])], 100) == 1


def test_folds_are_even_seeded_and_single_runs_when_few():
    folds = assign_folds(12, 5, 0)
    assert sorted(np.bincount(folds)) == [2, 2, 2, 3, 3]
    np.testing.assert_array_equal(folds, assign_folds(12, 5, 0))
    assert (folds != assign_folds(12, 5, 1)).any()
    assert sorted(assign_folds(3, 5, 0)) == [0, 1, 2]
