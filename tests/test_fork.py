"""Forks: a parent in their identity, the same bits where nothing is changed, and `--confirm`."""

from __future__ import annotations

import pytest
from stored import bits

from dynalab import train
from dynalab.analysis.slingshot.confirm import compare
from dynalab.errors import ConfigError
from dynalab.launch.fork import Float64, fork

SHORT = ["task=digits", "task.n_train=40", "model=mlp", "model.hidden=[6]", "train.steps=20", "seed=0..1"]
SHORT += ["launcher=inline", "snapshots.at=never", "probes=[gradients]"]


class Unchanged(Float64):
    """No change at all: what a fork must not do by itself."""

    def __call__(self, config):
        return config


def test_a_fork_without_a_change_has_the_parents_bits_and_its_own_id(tmp_path):
    (parent,) = train(SHORT, outputs=tmp_path)
    before = (tmp_path / "last.json").read_text()
    forked = fork(parent, parent.runs, Unchanged(), tmp_path, launcher="inline")
    assert forked.id != parent.id and forked.config["parent"] == f"{parent.id}@0"
    assert bits(forked.path) == bits(parent.path)
    assert (tmp_path / "last.json").read_text() == before
    assert fork(parent, parent.runs, Unchanged(), tmp_path, launcher="inline").id == forked.id


def test_a_fork_of_some_runs_with_a_float64_loss(tmp_path):
    (parent,) = train(SHORT, outputs=tmp_path)
    forked = fork(parent, parent.runs[1:], Float64(), tmp_path, launcher="inline")
    assert [run.label for run in forked.runs] == ["s0001"] and forked.config["train"][
        "loss_dtype"
    ] == "float64"
    assert bits(forked.path)["s0001"] != bits(parent.path)["s0001"]
    with pytest.raises(ConfigError, match="float64 already"):
        fork(forked, forked.runs, Float64(), tmp_path, launcher="inline")


def test_what_is_gone_is_confirmed():
    one = {"kind": "slingshot"}

    def entry(run, *events):
        return {"run": run, "events": list(events)}

    mine = {"runs": [entry("a/s0000", one, one), entry("a/s0001", one), entry("a/s0002")]}
    fork_of = {"ensemble": "b", "runs": [entry("b/s0000"), entry("b/s0001", one)]}
    found = compare(mine, fork_of)
    assert found["fork"] == "b" and [row["confirmed"] for row in found["runs"]] == [True, False]
    assert [row["slingshots"] for row in found["runs"]] == [2, 1]


def test_only_slingshots_are_confirmed(cli, tmp_path):
    train([*SHORT, "model.hidden=[4]"], outputs=tmp_path / "outputs")
    wrong = cli("analyze", "hmm", "--confirm", "max_states=1", "metrics=[param_norm]")
    assert wrong.code == 2 and "confirms slingshots" in wrong.err
    none = cli("analyze", "slingshot", "--confirm")
    assert none.code == 0 and "nothing to confirm" in none.err, none.err
