"""Convergence steps: direction, persistence, censoring, grids, and how the user's keys meet the task's default."""

import numpy as np
import pytest

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.convergence import ConvergenceKeys, converge, convergence_step, follow, resolve
from dynalab.config import schema
from dynalab.errors import ConfigError

NAN = float("nan")


def ensemble(*series, steps=None, metrics=("test_accuracy",), convergence=None):
    runs = tuple(
        Trajectory(
            f"e/s{i:04d}",
            np.arange(len(x)) * 10 if steps is None else np.array(steps[i]),
            np.array(x, dtype=float).reshape(len(x), -1),
        )
        for i, x in enumerate(series)
    )
    return Trajectories("e", metrics, runs, convergence)


@pytest.mark.parametrize(
    ("values", "threshold", "direction", "persistence", "expected"),
    [
        ([0.1, 0.5, 0.9, 0.95], 0.9, "up", 1, 20),
        ([3.0, 2.0, 1.0, 0.5], 1.0, "down", 1, 20),
        ([0.9, 0.1, 0.9, 0.9], 0.9, "up", 2, 20),
        ([0.9, 0.1, 0.9, 0.9], 0.9, "up", 3, None),
        ([0.9, 0.9, 0.9], 0.9, "up", 3, 0),
        ([0.9, NAN, 0.9, 0.9], 0.9, "up", 2, 20),
        ([NAN, NAN], 0.9, "up", 1, None),
        ([NAN, NAN], 0.9, "down", 1, None),
        ([0.1, 0.2], 0.9, "up", 1, None),
        ([], 0.9, "up", 1, None),
        ([1.0], 0.9, "up", 2, None),
    ],
)
def test_first_window_that_holds(values, threshold, direction, persistence, expected):
    steps = np.arange(len(values)) * 10
    assert convergence_step(steps, np.array(values), threshold, direction, persistence) == expected


def test_matches_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, persistence = int(rng.integers(1, 12)), int(rng.integers(1, 4))
        x = rng.uniform(size=n)
        steps = np.cumsum(rng.integers(1, 9, size=n))
        windows = [i for i in range(n - persistence + 1) if all(x[i : i + persistence] >= 0.5)]
        expected = int(steps[windows[0]]) if windows else None
        assert convergence_step(steps, x, 0.5, "up", persistence) == expected


def test_censored_runs_have_no_step():
    found = converge(ensemble([0.1, 1.0], [0.1, 0.2]), Convergence("test_accuracy", 0.9))
    assert found == [
        {"run": "e/s0000", "step": 10, "censored": False},
        {"run": "e/s0001", "step": None, "censored": True},
    ]


def test_rows_off_the_metrics_own_grid_do_not_break_a_window():
    sparse = [[0.0], [NAN], [0.95], [NAN], [0.96]]
    found = converge(ensemble(sparse, sparse), Convergence("test_accuracy", 0.9, "up", 2))
    assert [one["step"] for one in found] == [20, 20]


def test_a_nan_where_another_run_has_a_value_does_not_hold():
    found = converge(ensemble([0.95, NAN, 0.95], [0.1, 0.1, 0.1]), Convergence("test_accuracy", 0.9, "up", 2))
    assert found[0]["censored"]


def test_task_default_and_overrides():
    task = Convergence("test_accuracy", 0.99, "up", 2)
    both = ensemble([[0.0, 1.0]], metrics=("test_accuracy", "train_loss"), convergence=task)
    assert resolve(ConvergenceKeys(), both) == (task, [])
    assert resolve(ConvergenceKeys(threshold=0.5), both)[0] == Convergence("test_accuracy", 0.5, "up", 2)
    # Another metric does not inherit the task's threshold, direction and persistence.
    keys = ConvergenceKeys(metric="train_loss", threshold=0.1)
    assert resolve(keys, both)[0] == Convergence("train_loss", 0.1, "down", 1)
    with pytest.raises(ConfigError, match=r"convergence\.threshold"):
        resolve(ConvergenceKeys(metric="train_loss"), both)


def test_without_a_task():
    bare = ensemble([1.0], metrics=("val_error",))
    found, notes = resolve(ConvergenceKeys(), bare)
    assert found is None and len(notes) == 1
    found, notes = resolve(ConvergenceKeys(metric="val_error", threshold=0.2), bare)
    assert found == Convergence("val_error", 0.2, "down", 1)
    assert notes == ["convergence.direction=down is taken from the name val_error"]
    with pytest.raises(ConfigError, match=r"convergence\.metric=loss.*val_error"):
        resolve(ConvergenceKeys(metric="loss", threshold=1), bare)
    with pytest.raises(ConfigError, match=r"convergence\.metric"):
        resolve(ConvergenceKeys(threshold=1), bare)


def test_a_direction_is_declared_told_by_the_name_or_asked_for():
    names = ("nll", "train_loss_max", "top1_accuracy")
    series = ensemble([[2.0, 2.0, 0.1], [1.0, 0.5, 0.9]], metrics=names)
    with pytest.raises(ConfigError, match=r"convergence\.metric=nll: needs convergence\.direction"):
        resolve(ConvergenceKeys(metric="nll", threshold=0.5), series)
    found, notes = resolve(ConvergenceKeys(metric="nll", threshold=0.5, direction="down"), series)
    assert found.direction == "down" and notes == []
    for metric, direction, said in (("train_loss_max", "down", 0), ("top1_accuracy", "up", 1)):
        found, notes = resolve(ConvergenceKeys(metric=metric, threshold=0.6), series)
        assert found.direction == direction and len(notes) == said
    with pytest.raises(ConfigError, match=r"convergence\.direction"):
        schema.Convergence(metric="nll", threshold=0.5)


def test_what_holds_in_every_first_row_is_warned_of():
    series = ensemble([2.0, 1.0], [NAN, 3.0, 0.2], metrics=("test_loss",))
    assert resolve(ConvergenceKeys(metric="test_loss", threshold=1.5), series)[1] == []
    (line,) = resolve(ConvergenceKeys(metric="test_loss", threshold=3.0), series)[1]
    assert line == "every run has test_loss <= 3 in its first row: there is nothing to converge"


def test_task_metric_that_was_not_recorded_is_a_warning():
    found, notes = resolve(ConvergenceKeys(), ensemble([0.0], convergence=Convergence("other", 1.0)))
    assert found is None and "other" in notes[0]


@pytest.mark.parametrize(
    "keys", [{"direction": "sideways"}, {"persistence": 0}, {"threshold": NAN}, {"threshold": float("inf")}]
)
def test_keys_without_meaning(keys):
    with pytest.raises(ConfigError, match=r"convergence\."):
        ConvergenceKeys(**keys)


def test_how_far_a_run_was_watched():
    """Up to the metric's own last row, where a window could still have begun."""
    runs = ensemble([[0.1], [NAN], [0.2], [NAN]], [[0.1], [NAN], [0.3], [NAN]])
    rule = Convergence("test_accuracy", 0.9)
    assert [row["last"] for row in follow(runs, rule)] == [20, 20]
    held = ensemble([0.1, 0.2, 0.95], [0.1, 0.2, NAN])
    assert [row["last"] for row in follow(held, Convergence("test_accuracy", 0.9, "up", 2))] == [10, 0]
