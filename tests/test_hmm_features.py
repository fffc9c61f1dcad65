"""Features: which columns, logarithms, missing rows, duplicates, and what is said about what was left out."""

import numpy as np
import pytest

from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.features import (
    WEIGHT_METRICS,
    _choose,
    collinearity,
    extract,
    fit_scaler,
    moments,
    with_missing,
)
from dynalab.errors import ConfigError, NothingMatched

NAN = float("nan")


def walk(rows, size, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, size)).cumsum(axis=0)


def ensemble(names, *runs):
    return Trajectories(
        "e",
        tuple(names),
        tuple(Trajectory(f"e/s{i:04d}", np.arange(len(x)) * 10, np.asarray(x)) for i, x in enumerate(runs)),
    )


def features(names, *runs, **keys):
    keys.setdefault("metrics", list(names))
    return extract(ensemble(names, *runs), Config(**keys))


def test_default_columns_are_the_weight_metrics_that_are_there():
    names = ["test_loss", "l2", "mean_w", "l1"]
    found = features(names, np.abs(walk(30, 4)) + 1, metrics=None)
    assert found.names == ("l1", "l2", "mean_w")
    assert "mean_b" in found.warnings[0] and "l1," not in found.warnings[0]


def test_without_weight_metrics_the_error_says_what_to_do():
    with pytest.raises(NothingMatched, match=r"probes=\[weights\].*a, b"):
        features(["a", "b"], walk(10, 2), metrics=None)


def test_unknown_column_names_the_near_one():
    with pytest.raises(ConfigError, match=r"metrics=test_los.*test_loss.*did you mean test_loss"):
        features(["test_loss", "l2"], walk(10, 2), metrics=["test_los"])


def test_no_runs():
    with pytest.raises(NothingMatched):
        extract(Trajectories("e", ("l2",), ()), Config())


def test_logarithm_of_sizes_only():
    x = np.abs(walk(40, 4)) + 1.0
    found = features(["l2", "mean_w", "grad_norm", "var_b"], x)
    assert found.logged == ("l2", "var_b", "grad_norm")
    np.testing.assert_allclose(found.values[0][:, 0], np.log(x[:, 0]))
    np.testing.assert_allclose(found.values[0][:, 1], x[:, 1])


def test_a_size_that_is_zero_somewhere_stays_raw_and_is_named():
    x = np.abs(walk(40, 2)) + 1.0
    x[0, 1] = 0.0
    found = features(["l2", "var_b"], x)
    assert found.logged == ("l2",) and found.values[0][0, 1] == 0.0
    assert any("without the logarithm: var_b" in note for note in found.warnings)


def test_all_fourteen_have_a_rule():
    assert len(WEIGHT_METRICS) == 14
    x = np.exp(walk(60, 14) / 10)
    found = features(WEIGHT_METRICS, x)
    signed = {"mean_w", "median_w", "mean_b", "median_b", "trace", "trace_over_lambda_max"}
    assert set(found.logged) == set(WEIGHT_METRICS) - signed


def test_constant_and_duplicate_columns_are_named():
    x = walk(50, 2)
    x = np.column_stack([x[:, 0], np.full(50, 7.0), -3 * x[:, 0] + 1, x[:, 1]])
    found = features(["a", "b", "c", "d"], x)
    assert found.names == ("a", "d")
    assert any("constant, left out: b" in note for note in found.warnings)
    assert any("c (as a)" in note for note in found.warnings)


def test_a_column_that_never_moves_within_a_run_is_no_feature_of_any_emission():
    runs = [np.column_stack([walk(20, 1, seed=i), np.full(20, float(i))]) for i in range(3)]
    for emission in ("ar", "auto", "level"):
        found = features(["a", "b"], *runs, emission=emission)
        assert found.names == ("a",) and "constant within every run, left out: b" in found.warnings


def elsewhere(names, *runs):
    some = tuple(Trajectory(f"e/{i}", np.arange(len(x)) * 10, x) for i, x in enumerate(runs))
    return extract(Trajectories("e", tuple(names), some, imported=True), Config())


def test_clocks_are_left_out():
    """What is one function of the step in all runs, however late a run begins or ends."""
    clock = np.arange(20.0) // 5
    runs = [np.column_stack([walk(20, 2, seed=i), clock, 0.1 * 0.5**clock])[: 20 - i] for i in range(3)]
    found = elsewhere(["b", "a", "epoch", "lr"], *runs)
    assert found.names == ("a", "b")
    assert "the same function of the step in all runs, as a clock: epoch, lr; left out" in found.warnings
    assert any(note.endswith("all columns are taken, a, b") for note in found.warnings)
    named = features(["b", "epoch"], *[run[:, [0, 2]] for run in runs])
    assert named.names == ("b", "epoch") and any(
        "taken, for metrics= names it" in note for note in named.warnings
    )
    # Copies of one run have no clock, and of a single run nothing is known.
    assert elsewhere(["b", "a", "epoch", "lr"], runs[0], runs[0]).names == ("a", "b", "epoch", "lr")
    assert "epoch" in elsewhere(["b", "a", "epoch", "lr"], runs[0]).names


def test_one_of_the_fourteen_names_does_not_drop_the_others():
    runs = [walk(20, 3, seed=i) for i in range(3)]
    found = elsewhere(["loss", "l2", "accuracy"], *runs)
    assert found.names == ("l2", "accuracy", "loss")
    assert "1 of the fourteen weight metrics: all columns are taken, l2, accuracy, loss" in " ".join(
        found.warnings
    )
    most = elsewhere(["loss", *WEIGHT_METRICS], *[walk(40, 15, seed=i) for i in range(3)])
    assert "loss" not in most.names
    assert "not of the fourteen weight metrics, left out: loss (metrics=[...] chooses)" in most.warnings


def test_nothing_depends_on_the_order_of_the_columns():
    x = walk(30, 3)
    x[:, 2] = 100 * x[:, 0]
    one = elsewhere(["acc", "m", "acc_percent"], x)
    other = elsewhere(["acc_percent", "m", "acc"], x[:, ::-1])
    assert one.names == other.names == ("acc", "m") and one.warnings == other.warnings
    np.testing.assert_array_equal(one.values[0], other.values[0])


def test_rows_with_missing_values_are_left_out_and_counted():
    x = walk(20, 2)
    x[3, 0], x[5, 1], x[7, 0] = NAN, np.inf, NAN
    found = features(["a", "b"], x, walk(20, 2, seed=1))
    assert any("3 of 40 rows" in note for note in found.warnings)
    # Their places are kept: a row that follows a gap does not follow the row before it.
    assert found.steps[0].tolist() == list(range(0, 200, 10))
    assert np.flatnonzero(np.isnan(found.values[0]).all(axis=1)).tolist() == [3, 5, 7]
    assert np.isnan(np.concatenate(found.values)).sum() == 6
    assert any("3 rows missing between others" in note for note in found.warnings)
    assert not any("not evenly spaced" in note for note in found.warnings)


def test_a_row_that_most_other_runs_have_is_missing_and_a_run_on_a_grid_of_its_own_misses_none():
    runs = [walk(20, 2, seed=seed) for seed in range(5)]
    rows = [np.arange(20)] * 3 + [np.delete(np.arange(20), [4, 5, 11]), np.arange(0, 20, 2)]
    made = tuple(
        Trajectory(f"e/s{i}", where * 10, x[where])
        for i, (x, where) in enumerate(zip(runs, rows, strict=True))
    )
    found = extract(Trajectories("e", ("a", "b"), made), Config(metrics=["a", "b"]))
    lost = [np.flatnonzero(np.isnan(x[:, 0])).tolist() for x in found.values]
    assert lost == [[], [], [], [4, 5, 11], []] and [len(x) for x in found.steps] == [20, 20, 20, 20, 10]
    assert any("not evenly spaced" in note for note in found.warnings), "one run has every second row"


@pytest.mark.parametrize("ahead", [True, False])
def test_a_grid_of_its_own_is_told_by_the_places_between_rows(ahead):
    def lost(rows):
        grid, filled = with_missing(np.array(rows), np.ones((len(rows), 2)), np.arange(20), ahead=ahead)
        assert set(grid) >= set(rows) and np.isnan(filled).all(axis=1).sum() == len(grid) - len(rows)
        return sorted(set(grid.tolist()) - set(rows))

    assert lost([0, 2, 4, 6, 8]) == lost([0, 1, 3]) == [] and lost([0, 1, 2, 5, 6]) == [3, 4]
    # Half of the rows and no more: as told from all of them, or from the first of them.
    assert lost([0, 1, 2, 4, 6]) == ([] if ahead else [3])
    assert lost([0, 2, 3, 4, 5]) == ([1] if ahead else [])


def test_rows_of_another_metrics_grid_are_no_loss():
    x = np.full((20, 3), NAN)
    x[:, 0] = walk(20, 1)[:, 0]
    x[::4, 1:] = walk(5, 2)
    found = features(["test_loss", "a", "b"], x, metrics=["a", "b"])
    assert len(found.steps[0]) == 5 and found.warnings == ()


def test_under_half_of_the_rows_is_refused():
    x = walk(20, 2)
    x[:11, 1] = NAN
    with pytest.raises(NothingMatched, match=r"e/s0001.*9 of 20 rows.*b is missing"):
        features(["a", "b"], walk(20, 2, seed=1), x)


def test_a_column_without_values_anywhere_is_named():
    x = walk(20, 2)
    x[:, 1] = NAN
    found = features(["a", "b"], x)
    assert found.names == ("a",) and "without a single value, left out: b" in found.warnings[0]


def test_outliers_are_pointed_at():
    x = walk(300, 2)
    x[17, 1] = 1e6
    assert any("outliers" in note and note.endswith("b") for note in features(["a", "b"], x).warnings)


def test_normalisation_is_pooled_and_of_the_given_runs_only():
    runs = [walk(30, 2, seed=i) + i for i in range(3)]
    scaler = fit_scaler(runs[:2])
    pooled = np.concatenate(runs[:2])
    np.testing.assert_allclose(scaler.mean, pooled.mean(axis=0))
    np.testing.assert_allclose(scaler.sd, pooled.std(axis=0))


def test_moments_near_the_largest_float():
    x = walk(50, 1) / 10
    mean, sd = moments(x * 1e307)
    np.testing.assert_allclose([mean[0] / 1e307, sd[0] / 1e307], [x.mean(), x.std()])


def test_collinearity():
    z = np.random.default_rng(0).normal(size=(4000, 3))
    free = collinearity(z)
    assert free.condition_number < 1.3 and 2.98 < free.effective_rank <= 3
    tied = collinearity(np.column_stack([z[:, 0], z[:, 0] + 1e-4 * z[:, 1]]))
    # Eigenvalues 2 and 1e-8 / 2 of nearly equal columns.
    np.testing.assert_allclose(tied.condition_number, 4e8, rtol=0.1)
    np.testing.assert_allclose(tied.effective_rank, 1, atol=1e-6)


def test_a_network_without_biases_lacks_nothing():
    without = tuple(name for name in WEIGHT_METRICS if not name.endswith("_b"))
    assert _choose(without, None) == ([*without], [])
    # One of the three alone, or another metric, is a gap.
    for gone in ("mean_b", "trace"):
        kept, warnings = _choose(tuple(name for name in WEIGHT_METRICS if name != gone), None)
        assert gone not in kept and warnings == [f"metrics not recorded, left out: {gone}"]
    _, warnings = _choose(tuple(name for name in without if name != "trace"), None)
    assert warnings == ["metrics not recorded, left out: mean_b, median_b, var_b, trace"]
