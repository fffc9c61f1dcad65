"""Hybrids: what is told of them, and the forks that are trained for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from stored import bits

import dynalab
from dynalab.analysis import hybrid
from dynalab.analysis.hybrid.findings import Over, Point, first_step, verdict_of
from dynalab.core.progress import telling
from dynalab.core.records import plain, restore, tables
from dynalab.explore import drive
from dynalab.launch.fork import make_forks
from dynalab.show.blocks import Figure, Response, Say

STEPS = 20
WORDS = ["task=digits", "task.n_train=60", "task.n_test=100", "model.hidden=[8]", "train.batch_size=20"]
WORDS += [f"train.steps={STEPS}", "eval.every=5", "launcher=inline", "snapshots.at=never"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Runs with batch normalisation, the last, and one without."""
    outputs = tmp_path_factory.mktemp("hybrid") / "outputs"
    dynalab.train([*WORDS, "seed=0"], outputs=outputs)
    dynalab.train([*WORDS, "model.norm=batch", "seed=0..2"], outputs=outputs)
    return outputs


@pytest.fixture
def outputs(stored, tmp_path, monkeypatch) -> Path:
    """A copy of them."""
    shutil.copytree(stored, tmp_path / "outputs")
    return tmp_path / "outputs"


def normed(outputs: Path):
    return dynalab.load("@last", outputs=outputs)


def test_what_is_told_of_differences():
    over = Over.of(np.array([0.9, 0.92, np.nan]), np.array([0.91, 0.95, 0.99]))
    assert (over.runs, over.hybrid, over.full) == (2, pytest.approx(0.91), pytest.approx(0.93))
    assert over.interval == pytest.approx((-0.02 - 12.706 * 0.01, -0.02 + 12.706 * 0.01), rel=1e-3)
    # Equal differences of six runs need no spread, those of five tell nothing.
    assert Over.of(np.full(6, 0.5), np.full(6, 0.5)).interval == (0.0, 0.0)
    assert Over.of(np.full(5, 0.5), np.full(5, 0.5)).interval == (None, None)
    assert Over.of(np.full(3, np.nan), np.ones(3)) == Over(0, None, None, None)

    def told(low, high, up=True, runs=4):
        return verdict_of(Over(4, 0.0, 0.0, 0.0, (low, high)), runs, 0.01, up)

    assert [told(-0.009, 0.5), told(-0.5, -0.011), told(-0.02, 0.0), told(None, None)] == [
        *("within", "worse", "cannot_tell", "cannot_tell")
    ]
    # Of a loss, more is worse; and a run without a hybrid is not as good.
    assert [told(-0.5, 0.009, False), told(0.011, 0.5, False), told(0.0, 0.0, runs=5)] == [
        *("within", "worse", "cannot_tell")
    ]


@pytest.mark.parametrize(
    ("verdicts", "gaps", "expected"),
    [
        ("worse worse cannot_tell within", (-0.5, -0.1, -0.005, 0.0), (20, 10, 30)),
        # One that fails ends the row, whatever lies beyond it.
        ("within cannot_tell within within", (0.0, -0.02, 0.0, 0.0), (20, None, 20)),
        ("worse worse worse worse", (-1, -1, -1, -1), (None, 30, None)),
        ("cannot_tell cannot_tell within cannot_tell", (0, 0, 0, None), (None, None, None)),
    ],
)
def test_the_first_step_that_will_do(verdicts, gaps, expected):
    points = [
        Point(step, verdict, {"a": Over(3, 1.0, 1.0, gap)})
        for step, verdict, gap in zip((0, 10, 20, 30), verdicts.split(), gaps, strict=True)
    ]
    assert first_step(points, "a", 0.01, True) == expected


def test_forks_are_those_of_the_command_and_are_trained_once(outputs, here):
    parent = normed(outputs)
    listing = sorted(path for path in outputs.rglob("*"))
    words = ("analyze", "hybrid", parent.id, "at=[20,5,10]", "launcher=inline")
    plan = here(*words, "--dry-run", "--json")
    assert plan.code == 0, plan.err
    assert sorted(path for path in outputs.rglob("*")) == listing
    told: list[tuple] = []
    with telling(lambda *what: told.append(what)):
        first = here(*words, "--json")
    assert first.code == 0, first.err
    began = [what for what, done, *_ in told if not done]
    assert began[-1] == "their ends" and {"planning", f"reading {parent.id}"} <= {*began}
    assert told[-1] == ("their ends", 3, 3, "runs")
    (found,) = first.json["analyses"]
    ids = [item["id"] for item in plan.json["ensembles"]]
    assert found["forks"] == ids and len(ids) == 2
    typed = dynalab.fork(parent, 5, ["edit=freeze", "edit.keep=norm", "launcher=inline"])
    assert typed[0].id == ids[0]
    # Numbers, by hand.
    summary = found["summary"]
    assert (summary["trained"], summary["weights"]) == (16, 64 * 8 + 8 + 16 + 8 * 10 + 10)
    assert [point["at_step"] for point in summary["points"]] == [5, 10, 20]
    full, hybrids = (item.array("test_loss")[:, -1] for item in (parent, typed[0]))
    point = summary["points"][0]["metrics"]["test_loss"]
    assert point["difference"] == pytest.approx(float((hybrids - full).mean()))
    assert [run["hybrids"][0]["final"]["test_loss"] for run in found["runs"]] == pytest.approx(list(hybrids))
    end = summary["points"][2]
    assert end["verdict"] == "within" and end["metrics"]["train_loss"]["interval"] == [0, 0]
    assert {over["difference"] for over in end["metrics"].values()} == {0}
    assert [run["hybrids"][2]["fork"] for run in found["runs"]] == [run["run"] for run in found["runs"]]
    # Nothing is trained again: neither where the result is stored, nor where the forks are.
    before = bits(typed[0].path)
    for more in ([], ["--force"]):
        again = here(*words, *more)
        assert again.code == 0 and "training" not in again.err and "Hybrid:" in again.out, again.err
    assert bits(typed[0].path) == before
    # What is gone is trained again, alone.
    shutil.rmtree(outputs / "digits" / typed[0].path.name)
    assert "3 new, 0 to go on, 3 done runs" in here(*words, "--force").err
    assert bits(typed[0].path) == before


@pytest.mark.usefixtures("undrawn")
def test_what_it_says(outputs, here):
    parent = normed(outputs)
    answer = here("analyze", "hybrid", parent.id, "at=[10]", "launcher=inline")
    assert "with the normalisation alone trained from step 10 on (16 of 626 weights, 2.6%)" in answer.out
    result = dynalab.analyze("hybrid", parent, at=[10])
    assert result.id in answer.out and result.failed == []
    findings = result.value
    again = restore(hybrid.Findings, json.loads(json.dumps(plain(findings))), tables(findings).get)
    assert plain(again) == plain(findings) and len(findings.finals) == 3 * 4
    alone, beside = (list(hybrid.show(findings, groups)) for groups in ([], [parent.group()]))
    assert not any(isinstance(block, Figure) for block in alone) and isinstance(beside[1], Response)
    assert sum(isinstance(block, Say) and block.headline for block in alone) == 1
    report = here("report", parent.id)
    text = Path(report.out.strip()).read_text()
    assert "Training a part alone" in text and "full training" in text
    assert "analyze hybrid" not in here("report", parent.id).err


def test_nothing_is_lost_where_nothing_else_is_trained(outputs, here):
    """The rest of these runs is held already, so that their hybrids are themselves: by training, not by definition."""
    (held,) = dynalab.fork(normed(outputs), 5, ["edit=freeze", "edit.keep=norm", "launcher=inline"])
    answer = here("analyze", "hybrid", held.id, "at=[10]", "launcher=inline", "--json")
    assert answer.code == 0, answer.err
    (point,) = answer.json["analyses"][0]["summary"]["points"]
    assert {over["difference"] for over in point["metrics"].values()} == {0}
    assert answer.json["analyses"][0]["runs"][0]["hybrids"][0]["fork"].partition("/")[0] != held.id
    wrong = here("analyze", "hybrid", held.id, "at=[2]", "launcher=inline")
    assert wrong.code == 2 and "at=2: expected steps of these runs, from 5 to 20" in wrong.err


def test_what_cannot_be_told_is_a_line(outputs, here):
    parent = normed(outputs)
    (plain_one,) = (
        item for item in dynalab.load_all(where="task=digits", outputs=outputs) if item.id != parent.id
    )
    for words, code, said in (
        ([plain_one.id], 4, "model=mlp has no normalisation with scalars of its own"),
        ([plain_one.id, "keep=[head]", "at=[21]"], 2, "at=21: expected steps of these runs, from 0 to 20"),
        ([parent.id, "keep=nrom"], 2, "keep=nrom: model=mlp has no such part (did you mean norm?)"),
        ([parent.id, "keep=[]"], 2, "for example keep=[norm]"),
        ([parent.id, "keep=[norm,layers]"], 2, "every trained weight is among these parts"),
        ([parent.id, "metric=param_norm"], 2, "ends in loss, error or accuracy"),
        ([parent.id, "metric=top5_accuracy"], 4, "no top5_accuracy recorded"),
        ([parent.id, "steps=10"], 2, "looks at whole runs; leave out steps=10"),
        ([parent.id, "--confirm"], 2, "analyze hybrid trains without it"),
        ([parent.id, "launcher=inlien"], 2, "inline"),
    ):
        answer = here("analyze", "hybrid", *words)
        assert answer.code == code and said in answer.err, answer.err
        assert len([line for line in answer.err.splitlines() if line.startswith("dynalab")]) == 1
    assert not (outputs / "analysis").exists() and len(list((outputs / "digits").iterdir())) == 2
    refused = here("analyze", "directions", parent.id, "--dry-run")
    assert refused.code == 2 and "--dry-run: analyze directions trains nothing" in refused.err


def test_where_a_fork_fails_the_others_are_told_of(outputs, here, monkeypatch):
    def last_fails(*args):
        outcome = make_forks(*args)
        root = outcome.layouts[-1].paths.root
        shutil.rmtree(root)
        outcome.report.failures[root] = "the worker died"
        return outcome

    words = ("analyze", "hybrid", normed(outputs).id, "at=[5,10]", "launcher=inline")
    with monkeypatch.context() as patched:
        patched.setattr(drive, "make_forks", last_fails)
        answer = here(*words)
        assert answer.code == 3 and "the worker died" in answer.err
        assert "cannot be told" in answer.out and "no hybrid ended well" in answer.out
    answer = here(*words, "--json")
    assert answer.code == 0 and "failed" not in answer.json["analyses"][0], answer.err
    points = answer.json["analyses"][0]["summary"]["points"]
    assert [point["metrics"]["test_loss"]["runs"] for point in points] == [3, 3]


def test_differences_that_cancel_leave_no_rounding():
    own = np.array([0.7, 0.1, 0.3])
    assert (own - own[[1, 2, 0]]).mean() != 0
    assert Over.of(own, own[[1, 2, 0]]).difference == 0
    assert Over.of(own, own + 1e-6).difference == pytest.approx(-1e-6)
