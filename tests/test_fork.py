"""Forks: a parent in their identity, the same bits where nothing is changed, and `--confirm`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from stored import assert_same, bits

from dynalab import train
from dynalab.analysis import eos, slingshot
from dynalab.analysis.base import Group, Series
from dynalab.analysis.eos import Config
from dynalab.analysis.eos import confirm as edge
from dynalab.core.errors import ConfigError
from dynalab.launch.fork import make_forks, plan_forks
from dynalab.launch.train import Options
from dynalab.store.carve import kept_before
from dynalab.store.paths import EnsemblePaths
from dynalab.store.reader import Ensemble

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


FLOAT64 = "train.loss_dtype=float64"


def fork(parent, words=(), step=0, runs=None, remember=False):
    """Make the forks of a command in this process, and return them."""
    words = ["launcher=inline", *words]
    forking = plan_forks(
        parent, parent.runs if runs is None else runs, step, words, outputs=str(parent.path.parent.parent)
    )
    outcome = make_forks(forking, Options(remember=remember))
    outcome.require_whole()
    return [Ensemble(layout.paths) for layout in outcome.layouts]


def test_a_fork_without_a_change_has_the_parents_bits_and_its_own_id(tmp_path):
    (parent,) = train(SHORT, outputs=tmp_path)
    before = (tmp_path / "last.json").read_text()
    (forked,) = fork(parent)
    assert forked.id != parent.id and forked.parent == f"{parent.id}@0" and parent.parent is None
    assert bits(forked.path) == bits(parent.path)
    assert (tmp_path / "last.json").read_text() == before
    (again,) = fork(parent)
    assert again.id == forked.id and len(again.runs[0].record.attempts) == 1


@pytest.mark.parametrize("step", [0, 3, 7, 8, 12, 15])
def test_a_fork_without_a_change_has_the_parents_bits_from_any_step(tmp_path, step):
    """Rows stand at every fifth step, checkpoints at 7 and 12: what lies between is trained once more."""
    (parent,) = train(KEPT, outputs=tmp_path)
    assert [kept_before(parent.runs[0], at) for at in (3, 7, 11, 19)] == [0, 7, 7, 12]
    # One run of three, without its neighbours.
    for runs in (parent.runs, parent.runs[1:2]):
        (forked,) = fork(parent, step=step, runs=runs)
        assert forked.parent == f"{parent.id}@{step}" and [run.steps for run in forked.runs] == [20] * len(
            runs
        )
        assert_same(bits(parent.path), bits(forked.path), [run.label for run in runs])
        shutil.rmtree(forked.path)


def test_a_fork_of_a_fork_goes_the_whole_way(tmp_path):
    (parent,) = train(KEPT, outputs=tmp_path)
    (child,) = fork(parent, ["optimizer.lr=0.002"], 8)
    (nothing,) = fork(child, step=10)
    assert bits(nothing.path) == bits(child.path) != bits(parent.path)
    assert bits(child.path, 4) == bits(parent.path, 4)
    with pytest.raises(ConfigError, match=rf"leaves its parent at step 8; .* is {parent.id}: fork that"):
        fork(child, ["optimizer.lr=0.05"], 3)
    # At the very step of the first one: after its change.
    (both,) = fork(child, ["edit=rescale"], 8)
    assert bits(both.path, 5) == bits(child.path, 5) and bits(both.path) != bits(child.path)


def test_a_fork_that_is_cut_off_goes_on_also_from_before_its_step(tmp_path):
    (parent,) = train(KEPT, outputs=tmp_path)
    (whole,) = fork(parent, [FLOAT64, "edit=perturb"], 8)
    expected, rows, paths = bits(whole.path), bits(whole.path, 20), EnsemblePaths(whole.path)
    # As a kill leaves it: half of a shard under its hidden name.
    shard, *_ = paths.shards()
    shard.root.rename(shard.root.with_name(f".{shard.root.name}.tmp"))
    (paths.root / f".{shard.root.name}.tmp" / "run.json").unlink()
    (again,) = fork(parent, [FLOAT64, "edit=perturb"], 8)
    assert again.id == whole.id and bits(again.path) == expected
    assert not list(paths.root.glob(".shard-*"))
    # No checkpoint is whole any more: the way begins at the parent's first step.
    for checkpoint in shard.checkpoints():
        checkpoint.model.write_bytes(b"damaged")
    (again,) = fork(parent, [FLOAT64, "edit=perturb", "train.steps=25"], 8)
    assert bits(again.path, 20) == rows and [run.steps for run in again.runs] == [25] * 3


def test_half_the_rate_from_a_step_on(tmp_path):
    (parent,) = train(KEPT, outputs=tmp_path)
    early, late = (fork(parent, ["train.halve_at=10"], step)[0] for step in (3, 7))
    assert early.id != late.id and bits(early.path) == bits(late.path)
    assert bits(early.path, 9) == bits(parent.path, 9)
    assert bits(early.path, 15) != bits(parent.path, 15)
    row = early.steps("stability_threshold").tolist()
    mine, theirs = (item.array("stability_threshold") for item in (early, parent))
    # Row 10 meets the update 10 -> 11, in the fork from the start as well: twice the threshold (but for the decay).
    np.testing.assert_allclose((mine / theirs)[:, row.index(15)], 2.0, rtol=1e-3)


def test_a_fork_of_some_runs_with_a_float64_loss(tmp_path):
    (parent,) = train(SHORT, outputs=tmp_path)
    (forked,) = fork(parent, [FLOAT64], runs=parent.runs[1:])
    assert [run.label for run in forked.runs] == ["s0001"]
    assert forked.config["train"]["loss_dtype"] == "float64"
    assert bits(forked.path)["s0001"] != bits(parent.path)["s0001"]


def slung(*onsets):
    """What a run with slingshots at some steps recorded."""
    steps = np.arange(0, 2500, 5)
    loss, norm = np.maximum(2.0 * 10 ** (-steps / 60), 1e-8), 20.0 + 0.0 * steps
    for onset in onsets:
        spike = 3.0 * np.exp(-np.maximum(steps - onset, 0) / 20)
        loss = np.maximum(loss, np.where(steps >= onset, spike, 0))
        norm = norm + 2.0 / (1 + np.exp(-np.clip((steps - onset + 40) / 15, -50, 50)))
    return {"train_loss": loss, "last_layer_norm": norm}


def test_what_is_gone_is_confirmed():
    steps = np.arange(0, 2500, 5)
    columns = {"s0000": slung(900, 1500, 2100), "s0001": slung(1000, 1600, 2200), "s0002": slung()}
    wave = slingshot.explore([Group.of(columns, steps, id="a")], slingshot.Config())
    (asked,) = next(wave)
    assert asked.runs == ("a/s0000", "a/s0001")
    assert (
        asked.changes == {"train.loss_dtype": "float64"} and asked.name == "float64" and asked.steps is None
    )
    # Each from before its own first one.
    assert asked.step == {
        name: pytest.approx(at, abs=10) for name, at in {"a/s0000": 899, "a/s0001": 999}.items()
    }
    # What stands before the fork's first step is its parent's.
    one = replace(Group.of({"s0000": slung(900)}, steps, id="b"), keys={"from_step": 1200, "parent": "a"})
    two = replace(Group.of({"s0001": slung(1000, 1600, 2200)}, steps, id="c"), keys={"from_step": 0})
    with pytest.raises(StopIteration) as done:
        wave.send({"float64": [one, two]})
    found = done.value.value.confirmation
    assert found.forks == ("b", "c") and [row.confirmed for row in found.runs] == [True, False]
    assert [(row.slingshots, row.fork_slingshots) for row in found.runs] == [(2, 0), (3, 3)]
    assert [row.from_step for row in found.runs] == [1200, 0]
    # Nothing to train: nothing is asked for.
    quiet = slingshot.explore([Group.of({"s0002": slung()}, steps)], slingshot.Config())
    with pytest.raises(StopIteration) as done:
        next(quiet)
    assert done.value.value.confirmation is None


def test_only_a_sharpness_that_rises_at_half_the_rate_is_confirmed():
    steps = np.arange(120)
    # Arrives at 5 in row 40.
    parent = np.minimum(1 + steps / 10, 5.0) * np.exp(0.02 * np.random.default_rng(0).normal(size=120))

    def group(id, sharpness, limits):
        columns = {
            f"s{i}": {"sharpness": own, "stability_threshold": np.broadcast_to(limit, 120)[: len(own)]}
            for i, (own, limit) in enumerate(zip(sharpness, limits, strict=True))
        }
        return Group.of(columns, {f"s{i}": 10 * steps[: len(own)] for i, own in enumerate(sharpness)}, id=id)

    def forked(row):
        """Halved in this row: the threshold is 10 from there on."""
        limit = np.where(steps >= row, 10.0, 5.0)
        rises = np.where(steps > row, np.minimum(5 + (steps - row) / 8, 10.2), parent)
        little = np.where(steps > row, np.minimum(5 + (steps - row) / 100, 5.9), parent)
        # In the fourth the threshold did not rise: whatever the sharpness did says nothing of it.
        curves = [rises, parent, little, rises, rises[: row + 6]]
        made = group("b", curves, [limit, limit, limit, 5.0, limit])
        return replace(made, keys={"from_step": 300, "parent": "a"})

    parents = group("a", [parent] * 5, [5.0] * 5)
    entries, rows = edge.compare(parents, forked(50), 500, Config())
    verdicts = ["confirmed", "not_confirmed", "not_confirmed", "not_confirmed", "undecided"]
    assert [entry.verdict for entry in entries] == verdicts
    assert entries[0].rise == pytest.approx(2.0, abs=0.1) and entries[0].ratio_after < 0.6
    assert 800 <= entries[0].fork_onset_step <= 1000 and entries[1].fork_onset_step is None
    assert {row["run"] for row in rows} == {f"a/s{i}" for i in range(5)}
    # The analysis asks for the forks, and takes them in.
    wave = eos.explore([parents], Config())
    (asked,) = next(wave)
    assert asked.runs == tuple(f"a/s{i}" for i in range(5))
    assert asked.changes == {"train.halve_at": asked.step} and asked.name == f"half-{asked.step}"
    assert asked.steps >= 1190
    with pytest.raises(StopIteration) as done:
        wave.send({asked.name: [forked(asked.step // 10)]})
    found = done.value.value
    assert found.confirmation.change == "train.halve_at" and found.confirmation.forks == ("b",)
    assert [(entry.verdict, entry.from_step) for entry in found.confirmation.runs] == [
        (v, 300) for v in verdicts
    ]
    assert {*found.forked["run"]} == {f"a/s{i}" for i in range(5)} and len(found.ratios) == 600
    said, table = list(eos.show(found, ()))[-2:]
    assert "Confirmed in 1 of 5 runs" in said.text and "1 undecided" in said.text
    assert table.caption == "Every fork" and len(table.rows) == 5


def test_runs_share_a_halving_while_they_are_at_the_edge():
    steps = np.arange(0, 1000, 10)

    def curve(onset, leaves=None):
        ratio = np.minimum(steps / onset, 1.0)
        return Series(steps, ratio if leaves is None else np.where(steps > leaves, 0.4, ratio))

    curves = {"a": curve(300), "b": curve(400), "c": curve(200, leaves=350), "d": curve(950)}
    runs = [
        eos.RunFindings(run=name, verdict="at_edge", onset_step=onset)
        for name, onset in zip("abcd", (300, 400, 200, 960), strict=True)
    ]
    found = edge.halvings(runs, curves, Config())
    assert [(item.runs, item.step) for item in found] == [(("a", "b"), 450), (("c",), 250)]
    assert all(item.step + 10 < item.steps <= 2 * 990 for item in found)


@pytest.mark.usefixtures("undrawn")
def test_the_edge_is_confirmed_from_a_kept_checkpoint(here, tmp_path):
    (parent,) = train(
        [*LATE, "seed=0", "launcher=inline", "checkpoint.keep=[400]", "eval.every=40"],
        outputs=tmp_path / "outputs",
    )
    answer = here("analyze", "eos", "--confirm", "--json")
    assert answer.code == 0, answer.err
    (analysis,) = answer.json["analyses"]
    (row,) = analysis["confirmation"]["runs"]
    assert row["verdict"] == "confirmed" and row["from_step"] == 400 < row["at_step"], row
    assert row["rise"] > 1.25 > row["parent_rise"]
    listed = here("runs", "list", "--forks", "--json").json["runs"]
    assert {run.get("parent") for run in listed} == {None, f"{parent.id}@400"}
    assert f"{parent.id}@400" in here("runs", "list", "--forks").out
    # Stored: the same command again trains nothing, and the page tells it.
    assert "Confirmed in 1 of 1 run" in here("analyze", "eos", "--confirm").out
    page = here("report")
    assert page.code == 0 and "Half the rate" in Path(page.out.strip()).read_text()


def test_only_what_can_be_trained_again_is_confirmed(here, tmp_path):
    train([*SHORT, "model.hidden=[4]"], outputs=tmp_path / "outputs")
    wrong = here("analyze", "hmm", "--confirm", "max_states=1", "metrics=[param_norm]")
    assert wrong.code == 2 and "analyze hmm has nothing to train again" in wrong.err
    assert here("runs", "list", "--analyses", "--json").json["analyses"] == []
    none = here("analyze", "slingshot", "--confirm")
    assert none.code == 0 and "found nothing that training again could confirm" in none.err, none.err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_fork_of_another_shape_is_refused_before_anything_is_laid_out(here, tmp_path, dry):
    (parent,) = train([*SMALL, "seed=0"], outputs=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    answer = here(
        "fork", parent.id, "10", "model.width=16", "launcher=local", *dry, "--outputs", str(tmp_path)
    )
    assert answer.code == 2 and len(answer.err.splitlines()) == 1
    said = "left.weight is (7, 8) in the parent, (7, 16) in the fork"
    assert said in answer.err and sorted(tmp_path.rglob("*")) == before
    # What keeps all shapes is none.
    same = here("fork", parent.id, "10", "task.operation=subtract", "--dry-run", "--outputs", str(tmp_path))
    assert same.code == 0, same.err
