"""Forks that are moved a little: what is told of their ends, and the forks that are trained for it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collisions import collisions_of
from nulls.hmm import states_of
from stored import bits

import dynalab
from dynalab.analysis import butterfly
from dynalab.analysis.butterfly import landmarks, summary
from dynalab.analysis.butterfly.findings import Apart, Fork, Mean, RunFindings
from dynalab.config.keys import Stored
from dynalab.core.errors import ConfigError
from dynalab.core.progress import telling
from dynalab.core.records import plain, restore, tables
from dynalab.explore import drive
from dynalab.show.blocks import Figure, Response, Say

STEPS = 20
WORDS = ["task=digits", "task.n_train=60", "task.n_test=50", "train.batch_size=20", "optimizer=sgd"]
WORDS += [f"train.steps={STEPS}", "eval.every=5", "launcher=inline", "snapshots.at=never", "seed=0..2"]
LINEAR = {
    "linear.py": """
from dataclasses import dataclass

from dynalab.config.keys import Section


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    name: str = "linear"


def build(config, spec):
    from torch import nn

    return nn.Linear(spec.symbols, spec.classes)
""",
    "linear.yaml": "name: linear\n",
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("butterfly") / "outputs"
    dynalab.train([*WORDS, "model.hidden=[8]", "model.norm=batch", "optimizer.lr=0.1"], outputs=outputs)
    return outputs


@pytest.fixture
def outputs(stored, tmp_path, monkeypatch) -> Path:
    shutil.copytree(stored, tmp_path / "outputs")
    return tmp_path / "outputs"


def test_forks_are_those_of_the_command_and_what_is_not_moved_is_the_run(outputs, here):
    parent = dynalab.load("@last", outputs=outputs)
    listing = sorted(outputs.rglob("*"))
    words = ("analyze", "butterfly", parent.id, "at=[10,0]", "scale=0.5", "launcher=inline")
    plan = here(*words, "--dry-run", "--json")
    assert plan.code == 0, plan.err
    assert sorted(outputs.rglob("*")) == listing
    told: list[tuple] = []
    with telling(lambda *what: told.append(what)):
        answer = here(*words, "--json")
    assert answer.code == 0, answer.err
    ends = ["forks from step 0", "forks from step 10", "control", "two seeds"]
    assert [what for what, done, *_ in told if not done][-4:] == ends
    assert {what: total for what, _, total, _ in told if what in ends} == dict.fromkeys(ends, 11)
    (found,) = answer.json["analyses"]
    assert found["forks"] == [item["id"] for item in plan.json["ensembles"]] and len(found["forks"]) == 3
    summary = found["summary"]
    # To the bit, and where statistics of a norm are estimated anew.
    assert summary["control"] == 0 and not found["warnings"]
    assert [point["at_step"] for point in summary["points"]] == [0, 10]
    edit = ["edit=perturb", "edit.scale=0.5", "launcher=inline"]
    (typed,) = dynalab.fork(parent, 10, edit)
    assert typed.id == found["forks"][1]
    # By hand.
    one, other = (
        np.concatenate(
            [x.ravel() for name, x in run.model(1, STEPS).named_parameters() for x in [x.detach().numpy()]]
        )
        for run in (parent, typed)
    )
    apart = found["runs"][1]["forks"][1]["apart"]
    assert apart["distance"] == pytest.approx(np.linalg.norm(one - other) / np.linalg.norm(one), rel=1e-5)
    inputs, _ = parent.group().runs[1].examples("test", 50)
    classes = [_classes(run, inputs) for run in (parent, typed)]
    assert apart["churn"] == pytest.approx(np.mean(classes[0] != classes[1]))
    path = dynalab.load(f"butterfly-{found['id']}", outputs=outputs).value.paths
    own = path[(path["run"] == f"{parent.id}/s0001") & (path["at_step"] == 10)]
    over = own["loss"].to_numpy() - np.interp(own["share"], [0, 1], own["loss"].to_numpy()[[0, -1]])
    assert apart["barrier"] == pytest.approx(over.max(), abs=1e-12) and len(own) == 11
    # Nothing is trained again, and what is gone alone.
    before = bits(typed.path)
    assert "training" not in here(*words, "--force").err
    shutil.rmtree(typed.path)
    assert "3 new, 0 to go on, 6 done runs" in here(*words, "--force").err and bits(typed.path) == before


def _classes(run, inputs):
    import torch

    with torch.no_grad():
        return run.model(1, STEPS).eval()(torch.from_numpy(inputs)).argmax(1).numpy()


def test_what_it_says(outputs, here):
    parent = dynalab.load("@last", outputs=outputs)
    assert here("analyze", "butterfly", parent.id, "at=[10]", "scale=0.1", "launcher=inline").code == 0
    result = dynalab.analyze("butterfly", parent, at=[10], scale=0.1)
    findings = result.value
    again = restore(butterfly.Findings, json.loads(json.dumps(plain(findings))), tables(findings).get)
    assert plain(again) == plain(findings)
    alone, beside = (list(butterfly.show(findings, groups)) for groups in ([], [parent.group()]))
    assert not any(isinstance(block, Figure) for block in alone) and isinstance(beside[1], Response)
    assert collisions_of(beside) == []
    assert sum(isinstance(block, Say) and block.headline for block in alone) == 1
    words = " ".join(block.text for block in alone if isinstance(block, Say))
    assert "every number of theirs is 0" in words and "every weight moved by 0.1 standard deviations" in words


def test_a_convex_problem_has_no_barrier_from_the_first_step_on(tmp_path, here, monkeypatch):
    (tmp_path / "parts" / "model").mkdir(parents=True)
    for name, content in LINEAR.items():
        (tmp_path / "parts" / "model" / name).write_text(content)
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path / "parts"))
    (runs,) = dynalab.train([*WORDS, "model=linear", "optimizer.lr=0.05"], outputs=tmp_path / "outputs")
    words = ("at=[0,5]", "scale=3", "measure=loss", "control=false", "launcher=inline", "--json")
    answer = here("analyze", "butterfly", runs.id, *words)
    assert answer.code == 0, answer.err
    (found,) = answer.json["analyses"]
    points = [fork for run in found["runs"] for fork in run["forks"]]
    assert {point["apart"]["barrier"] for point in points} == {0} and all(
        point["apart"]["distance"] > 0.1 for point in points
    )
    assert [run["connected_step"] for run in found["runs"]] == [0, 0, 0]
    # So are two seeds.
    result = dynalab.load(f"butterfly-{found['id']}", outputs=tmp_path / "outputs")
    headline = next(iter(butterfly.show(result.value, [])))
    assert isinstance(headline, Say) and "this does not tell basins apart" in headline.text
    assert found["summary"]["connected"] == {"reached": 3, "median_step": 0, "interval": [None, None]}
    # Nor have seeds one between them, on the line or on a curve that is trained.
    words = ("curve=true", "curve_steps=20", "points=5", "layer_examples=0", "--json")
    (found,) = here("analyze", "connectivity", runs.id, *words).json["analyses"]
    pairs = [pair for pair in found["pairs"] if pair["curve"]]
    assert len(pairs) == 3 and {pair[way]["loss"] for pair in pairs for way in ("line", "curve")} == {0}


def test_a_failed_fork_leaves_a_result_of_the_others(outputs, here, monkeypatch):
    parent = dynalab.load("@last", outputs=outputs)
    real = drive.make_forks

    def without_last(forking, *rest):
        outcome = real(forking, *rest)
        shutil.rmtree(outcome.layouts[0].paths.root)
        return outcome

    monkeypatch.setattr(drive, "make_forks", without_last)
    answer = here("analyze", "butterfly", parent.id, "at=[0,10]", "launcher=inline", "--json")
    assert answer.code == 0, answer.err
    (found,) = answer.json["analyses"]
    assert [point["runs"] for point in found["summary"]["points"]] == [0, 3]
    assert found["runs"][0]["forks"][0]["fork"] is None and found["runs"][0]["connected_step"] in (None, 10)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["at=[20]"], 2, "at=20: expected steps of these runs, from 0 to 19"),
        (["at=[]"], 2, "at=[]"),
        (["at=5"], 2, "at=5: expected a list of integers ([0,100]) or null"),
        (["kind=gausian"], 2, "did you mean"),
        (["steps=10"], 2, "looks at whole runs"),
        (["hmm=nothing"], 4, "nothing"),
        (["hmm=nothing", "--dry-run"], 4, "nothing"),
        (["hmm=@last"], 4, "hmm=@last: no analysis hmm is stored; `dynalab analyze hmm` makes one"),
    ],
)
def test_what_is_refused(outputs, here, words, code, line):
    listing = sorted(outputs.rglob("*"))
    answer = here("analyze", "butterfly", "@last", *words, "launcher=inline")
    assert answer.code == code and line in answer.err.splitlines()[-1], answer.err
    assert sorted(path for path in outputs.rglob("*") if "logs" not in str(path)) == listing


def test_states_of_other_runs_are_refused_before_training(outputs):
    group = dynalab.load("@last", outputs=outputs).group()
    course = {"run": "other/s0000", "steps": [0, 10], "states": [0, 1]}
    config = butterfly.Config(hmm=Stored.of("hmm-0123456789", states_of(states=[course])))
    with pytest.raises(
        ConfigError, match=f"hmm=hmm-0123456789: expected an analysis of these runs, of {group.id}"
    ):
        next(butterfly.explore([group], config))


def test_where_it_lies_against_landmarks():
    def run(i, connected, landmark, verdict=None):
        verdict = verdict or ("apart" if connected is None else "connected")
        last = (Fork(400, None, verdict == "connected", Apart()),)
        return RunFindings(f"e/s{i}", verdict, connected, {"generalised_step": landmark}, last)

    pairs = [(1, 2), (3, 7), (20, 30), (54, 40), (400, 800), (None, 9), (7, None)]
    runs = [run(i, *pair) for i, pair in enumerate(pairs)]
    (item,) = landmarks.against([*runs, run(7, None, 9, "cannot_tell")], ["generalised_step"], 1000)
    # Of the run that stays apart the lag is above 391, of that which has no landmark below -993: the middle is known.
    assert (item.runs, item.earlier, item.lag.runs, item.lag.median) == (6, 4, 5, -4)
    # The order of the runs is that of the landmarks: one of 120, and those that are as near.
    assert item.p == item.p_adjusted == pytest.approx(1 / 120)
    # With two more that stay apart the middle is known to be no lower than the lags that are known.
    (item,) = landmarks.against([*runs, run(8, None, 600), run(9, None, 600)], ["generalised_step"], 1000)
    assert item.lag.runs == 5 and item.lag.median is None
    assert summary._signed((None, -4.0)) == "at most -4" and summary._signed((0.0, None)) == "at least +0"
    assert summary._signed((-7.0, 4.0)) == "-7 to +4" and summary._signed((None, None)) == ""
    assert landmarks.nearness(np.ones(5), np.arange(5.0)) is None
    assert landmarks.nearness(np.arange(5.0), np.arange(5.0)[::-1]) > 0.9


def test_two_runs_are_one_pair_and_no_distance_is_below_0(outputs):
    parent = dynalab.load("@last", outputs=outputs)
    group = parent.group()
    two = replace(group, runs=group.runs[:2])
    between = butterfly._between(two, STEPS, [0.0, 0.5, 1.0], 50)
    assert between["barrier"].runs == 1 and between["barrier"].interval == (None, None)
    assert summary._cell(Mean(4, 0.0003, (-0.0005, 0.0011)), "barrier") == "0.0003 [0, 0.0011]"
    assert summary._interval(Mean(4, 0.0003, (-0.0005, 0.0011)), "barrier") == (0.0, 0.0011)
    wide = Mean(6, 0.67, (-0.2, 1.6))
    assert summary._interval(wide, "churn") == (0.0, 1.0) and summary._interval(wide, "barrier") == (0.0, 1.6)
