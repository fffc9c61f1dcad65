"""Snapshots that would fill the disk are refused before anything is trained, unless they are allowed on purpose."""

from __future__ import annotations

import pytest
from conftest import but

from dynalab.training.cadence import cadence

FEW = ["task=grokking", "task.modulus=11", "model.width=16", "train.steps=4", "snapshots.every=1"]
# Two tables and a layer of 11 x 16 float32; 4 runs, steps 0 to 4.
STATE = 3 * 11 * 16 * 4
ALL = 4 * 5 * STATE


@pytest.mark.parametrize(
    "grid", [cadence(every=7), cadence(at="log"), cadence(at="never"), cadence(at=[0, 3, 40])]
)
def test_a_grid_counts_its_steps(grid):
    for first, last in [(0, 0), (0, 1), (1, 1), (0, 500), (1, 500), (41, 63), (40, 40), (5, 4)]:
        assert grid.count(first, last) == sum(step in grid for step in range(first, last + 1))


def test_a_long_grid_is_counted_at_once():
    # 0, and round(10^(k / 10)) for k up to 90, of which 1, 2 and 3 come twice.
    assert cadence(at="log").count(0, 10**9) == 1 + 91 - 3


def test_too_many_snapshots_are_refused_and_leave_nothing(here, outputs):
    tight = f"compute.snapshot_gb={(ALL - 1) / 1e9:.9f}"
    for more in ([], ["--dry-run"]):
        # What was learnt of the network by the first is known to the second, which starts no worker.
        answer = here("train", *FEW, "seed=0..3", tight, *more)
        assert answer.code == 2 and answer.out == ""
        assert answer.err.count("\n") == 2 and "4 runs" in answer.err and "snapshots.every=" in answer.err
        assert not list(outputs.glob("*/*"))
    assert here("train", *FEW, "seed=0..3", f"compute.snapshot_gb={ALL / 1e9}", "-q").code == 0


def test_only_what_is_not_stored_counts(here):
    assert here("train", *FEW, "seed=0..3", "-q").code == 0
    # One state of each run, and of a new run all.
    more = but(FEW, "train.steps=5", "-q")
    need = (4 + 6) * STATE
    assert here("train", *more, "seed=0..4", f"compute.snapshot_gb={(need - 1) / 1e9}").code == 2
    assert here("train", *more, "seed=0..4", f"compute.snapshot_gb={need / 1e9}").code == 0
    assert here("train", *more, "seed=0..4", "compute.snapshot_gb=1e-12").code == 0
    assert (
        here(
            "train",
            *but(FEW, "snapshots.every=null"),
            "seed=9",
            "snapshots.at=never",
            "compute.snapshot_gb=1e-12",
        ).code
        == 0
    )
    assert "above 0" in here("train", *FEW, "compute.snapshot_gb=0").err


def test_a_fork_that_is_refused_leaves_nothing(here, outputs):
    assert here("train", *FEW, "seed=0..1", "checkpoint.keep=all", "checkpoint.every=2", "-q").code == 0
    (parent,) = outputs.glob("grokking/*")
    tight = ["launcher=inline", "compute.snapshot_gb=1e-9"]
    for step in ("1", "2"):
        assert here("fork", parent.name[-10:], step, "train.steps=6", *tight).code == 2
        assert list(outputs.glob("grokking/*")) == [parent]
    assert here("fork", parent.name[-10:], "2", "train.steps=6", "launcher=inline", "-q").code == 0
    (fork,) = set(outputs.glob("grokking/*")) - {parent}
    assert here("fork", parent.name[-10:], "2", "train.steps=8", *tight).code == 2
    assert fork.is_dir() and here("runs", "list", fork.name[-10:]).out.count(" done ") == 2
