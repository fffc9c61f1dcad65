"""Forks: a parent in their identity, the same bits where nothing is changed, and `--confirm`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from stored import assert_same, bits

from dynalab import train
from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.eos import Config
from dynalab.analysis.eos import confirm as edge
from dynalab.analysis.slingshot.confirm import compare, first_onsets
from dynalab.errors import ConfigError, RunsFailed, StoreError
from dynalab.launch.fork import Override, fork
from dynalab.store.branch import kept_before
from dynalab.store.paths import EnsemblePaths

SHORT = ["task=digits", "task.n_train=40", "model=mlp", "model.hidden=[6]", "train.steps=20", "seed=0..1"]
SHORT += ["launcher=inline", "snapshots.at=never", "probes=[gradients]"]
# What a checkpoint has most of: moments, slow weights, order of batches, vectors of the curvature probe.
KEPT = [
    *SHORT,
    "optimizer=lookahead",
    "optimizer.inner=adamw",
    "train.batch_size=16",
    "checkpoint.keep=[7,12]",
]
KEPT += ["probes=[gradients,curvature]", "probe.curvature.every=5", "seed=0..2", "eval.every=5"]

LATE = ["task=regression", "train.steps=1200", "probes=[gradients,curvature]", "probe.curvature.every=40"]


FLOAT64 = Override("train.loss_dtype", "float64", "float64")


class Unchanged(Override):
    """No change at all: what a fork must not do by itself."""

    def __call__(self, config):
        return config


def test_a_fork_without_a_change_has_the_parents_bits_and_its_own_id(tmp_path):
    (parent,) = train(SHORT, outputs=tmp_path)
    before = (tmp_path / "last.json").read_text()
    forked = fork(
        parent, parent.runs, Unchanged("train.loss_dtype", "float64", "float64"), tmp_path, launcher="inline"
    )
    assert forked.id != parent.id and forked.parent == f"{parent.id}@0" and parent.parent is None
    assert bits(forked.path) == bits(parent.path)
    assert (tmp_path / "last.json").read_text() == before
    assert (
        fork(
            parent,
            parent.runs,
            Unchanged("train.loss_dtype", "float64", "float64"),
            tmp_path,
            launcher="inline",
        ).id
        == forked.id
    )


def test_a_fork_from_a_checkpoint_has_the_parents_bits(tmp_path):
    (parent,) = train(KEPT, outputs=tmp_path)
    assert [kept_before(parent.runs[0], step) for step in (3, 7, 11, 19)] == [0, 7, 7, 12]
    # One run of three, without its neighbours.
    for runs in (parent.runs, parent.runs[1:2]):
        forked = fork(
            parent,
            runs,
            Unchanged("train.loss_dtype", "float64", "float64"),
            tmp_path,
            launcher="inline",
            step=7,
        )
        assert forked.parent == f"{parent.id}@7" and [run.steps for run in forked.runs] == [20] * len(runs)
        assert_same(bits(parent.path), bits(forked.path), [run.label for run in runs])
        shutil.rmtree(forked.path)
    with pytest.raises(StoreError, match="no whole checkpoint of step 8"):
        fork(
            parent,
            parent.runs,
            Unchanged("train.loss_dtype", "float64", "float64"),
            tmp_path,
            launcher="inline",
            step=8,
        )


def test_a_fork_that_is_cut_off_goes_on_and_never_starts_before_its_step(tmp_path):
    (parent,) = train(KEPT, outputs=tmp_path)
    whole = fork(parent, parent.runs, FLOAT64, tmp_path, launcher="inline", step=7)
    expected, paths = bits(whole.path), EnsemblePaths(whole.path)
    # As a kill leaves it: half of a shard under its hidden name.
    shard, *_ = paths.shards()
    shard.root.rename(shard.root.with_name(f".{shard.root.name}.tmp"))
    (paths.root / f".{shard.root.name}.tmp" / "run.json").unlink()
    again = fork(parent, parent.runs, FLOAT64, tmp_path, launcher="inline", step=7)
    assert again.id == whole.id and bits(again.path) == expected
    assert not list(paths.root.glob(".shard-*"))
    for checkpoint in shard.checkpoints():
        checkpoint.model.write_bytes(b"damaged")
    with pytest.raises(RunsFailed, match=r"where this fork of .*@7 begins"):
        fork(parent, parent.runs, FLOAT64, tmp_path, launcher="inline", step=7, steps=25)


def test_half_the_rate_from_a_step_on(tmp_path):
    (parent,) = train(KEPT, outputs=tmp_path)
    early, late = (
        fork(
            parent,
            parent.runs,
            Override("train.halve_at", 10, "half-10"),
            tmp_path,
            launcher="inline",
            step=step,
        )
        for step in (0, 7)
    )
    assert early.id != late.id and bits(early.path) == bits(late.path)
    assert bits(early.path, 9) == bits(parent.path, 9)
    assert bits(early.path, 15) != bits(parent.path, 15)
    row = early.steps("stability_threshold").tolist()
    mine, theirs = (item.array("stability_threshold") for item in (early, parent))
    # Row 10 meets the update 10 -> 11, in the fork from the start as well: twice the threshold (but for the decay).
    np.testing.assert_allclose((mine / theirs)[:, row.index(15)], 2.0, rtol=1e-3)
    with pytest.raises(ConfigError, match=r"halve_at=10 already"):
        fork(early, early.runs, Override("train.halve_at", 12, "half-12"), tmp_path, launcher="inline")


def test_a_fork_of_some_runs_with_a_float64_loss(tmp_path):
    (parent,) = train(SHORT, outputs=tmp_path)
    forked = fork(parent, parent.runs[1:], FLOAT64, tmp_path, launcher="inline")
    assert [run.label for run in forked.runs] == ["s0001"] and forked.config["train"][
        "loss_dtype"
    ] == "float64"
    assert bits(forked.path)["s0001"] != bits(parent.path)["s0001"]
    with pytest.raises(ConfigError, match="float64 already"):
        fork(forked, forked.runs, FLOAT64, tmp_path, launcher="inline")


def test_what_is_gone_is_confirmed():
    def entry(run, *onsets):
        return {"run": run, "events": [{"kind": "slingshot", "onset_step": step} for step in onsets]}

    mine = {"runs": [entry("a/s0000", 50, 90), entry("a/s0001", 60), entry("a/s0002")]}
    assert first_onsets(mine) == {"a/s0000": 50, "a/s0001": 60}
    # What stands before the fork's first step is its parent's.
    forks = [({"ensemble": "b", "runs": [entry("b/s0000", 10)]}, 40)]
    forks += [({"ensemble": "c", "runs": [entry("c/s0001", 80)]}, 0)]
    found = compare(mine, forks)
    assert found["forks"] == ["b", "c"] and [row["confirmed"] for row in found["runs"]] == [True, False]
    assert [row["slingshots"] for row in found["runs"]] == [2, 1]
    assert [row["from_step"] for row in found["runs"]] == [40, 0]


def edge_run(name, sharpness, threshold):
    steps = np.arange(0, len(sharpness) * 10, 10)
    values = np.stack([sharpness, np.broadcast_to(threshold, sharpness.shape)], axis=1)
    return Trajectory(name, steps, values)


def test_only_a_sharpness_that_rises_at_half_the_rate_is_confirmed():
    rng = np.random.default_rng(0)
    steps = np.arange(120)
    # Arrives at 5 in row 40; halved in row 50, the threshold is 10 from there on.
    parent = np.minimum(1 + steps / 10, 5.0) * np.exp(0.02 * rng.normal(size=120))
    limit = np.where(steps >= 50, 10.0, 5.0)
    rises = np.where(steps > 50, np.minimum(5 + (steps - 50) / 8, 10.2), parent)
    little = np.where(steps > 50, np.minimum(5 + (steps - 50) / 100, 5.9), parent)
    names = ("sharpness", "stability_threshold")
    parents = Trajectories("a", names, tuple(edge_run(f"a/s{i}", parent, 5.0) for i in range(5)))
    short = edge_run("b/s4", rises[:56], limit[:56])
    forks = [rises, parent, little]
    made = [edge_run(f"b/s{i}", fork, limit) for i, fork in enumerate(forks)]
    # The threshold did not rise: whatever the sharpness did says nothing of it.
    made += [edge_run("b/s3", rises, 5.0), short]
    entries, rows = edge.compare(parents, Trajectories("b", names, tuple(made)), 500, Config())
    said = [entry["verdict"] for entry in entries]
    assert said == ["confirmed", "not_confirmed", "not_confirmed", "not_confirmed", "undecided"]
    assert entries[0]["rise"] == pytest.approx(2.0, abs=0.1) and entries[0]["ratio_after"] < 0.6
    assert 800 <= entries[0]["fork_onset_step"] <= 1000 and entries[1]["fork_onset_step"] is None
    assert {row["run"] for row in rows} == {f"a/s{i}" for i in range(5)}
    assert "confirmed in 1 of 5" in edge.words(entries) and "1 undecided" in edge.words(entries)


def test_runs_share_a_halving_while_they_are_at_the_edge():
    steps = np.arange(0, 1000, 10)

    def curve(onset, leaves=None):
        ratio = np.minimum(steps / onset, 1.0)
        return steps, ratio if leaves is None else np.where(steps > leaves, 0.4, ratio)

    curves = {"a": curve(300), "b": curve(400), "c": curve(200, leaves=350), "d": curve(950)}
    runs = [{"run": name, "onset_step": onset} for name, onset in zip("abc", (300, 400, 200), strict=True)]
    runs += [{"run": "d", "onset_step": 960}]
    found = edge.halvings({"runs": runs}, curves, Config())
    assert [(item.runs, item.at) for item in found] == [(("a", "b"), 450), (("c",), 250)]
    assert all(item.at + 10 < item.steps <= 2 * 990 for item in found)


def test_the_edge_is_confirmed_from_a_kept_checkpoint(cli, here, tmp_path):
    (parent,) = train(
        [*LATE, "seed=0", "launcher=inline", "checkpoint.keep=[400]", "eval.every=40"],
        outputs=tmp_path / "outputs",
    )
    answer = cli("analyze", "eos", "--confirm", "--json")
    assert answer.code == 0, answer.err
    (analysis,) = answer.json["analyses"]
    (row,) = analysis["confirmation"]["runs"]
    assert row["verdict"] == "confirmed" and row["from_step"] == 400 < row["at_step"], row
    assert row["rise"] > 1.25 > row["parent_rise"]
    listed = here("runs", "list", "--json").json["runs"]
    assert {run.get("parent") for run in listed} == {None, f"{parent.id}@400"}
    assert f"{parent.id}@400" in here("runs", "list").out
    # Stored: the same command again trains nothing, and the page tells it.
    assert "confirmed in 1 of 1" in here("analyze", "eos", "--confirm").out
    page = here("report")
    assert page.code == 0 and "Half the rate" in Path(page.out.strip()).read_text()


def test_only_slingshots_and_edges_are_confirmed(here, tmp_path):
    train([*SHORT, "model.hidden=[4]"], outputs=tmp_path / "outputs")
    wrong = here("analyze", "hmm", "--confirm", "max_states=1", "metrics=[param_norm]")
    assert wrong.code == 2 and "confirms slingshots" in wrong.err
    none = here("analyze", "slingshot", "--confirm")
    assert none.code == 0 and "nothing to confirm" in none.err, none.err
