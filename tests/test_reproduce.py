"""Claim sheets: what is measured against scipy and by hand, where it lies, what a sheet may not say, what is stored."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import exam_sheets
import msgspec
import numpy as np
import pytest
import yaml
from conftest import TINY
from report_fakes import no_drawing
from scipy import stats

from dynalab import train
from dynalab.config.overrides import Override
from dynalab.core.errors import ConfigError, StoreError
from dynalab.report.reproductions import reproductions, section
from dynalab.reproduce import result
from dynalab.reproduce.commands import Run
from dynalab.reproduce.expression import Expression
from dynalab.reproduce.reading import parse_sheet, read_sheet, sheet_names
from dynalab.reproduce.rows import Document, Row, rows_of, why_none
from dynalab.reproduce.run import reproduce
from dynalab.reproduce.sheet import Claim, Rows
from dynalab.reproduce.statistics import Estimate, estimate
from dynalab.reproduce.verdict import judge
from dynalab.reproduce.words import Words
from dynalab.show.figures import Picture
from dynalab.show.plots.regions import INSIDE, MUTED, OUTSIDE, estimates_in_regions
from dynalab.training import shard as training

SHIPPED = sheet_names(())


def claim(statistic: str = "share", agrees: Any = (0.5, 1), **more: Any) -> Claim:
    rows = more.pop("rows", {"analysis": "train", "value": "value"})
    plain = {"says": "so", "published": 1, "rows": rows, "statistic": statistic, "agrees": agrees, **more}
    return msgspec.convert(plain, Claim)


def rows(values: Any, **keys: Any) -> list[Row]:
    columns = {name: list(value) for name, value in keys.items()}
    return [
        Row(value, {"seed": place, **{name: column[place] for name, column in columns.items()}})
        for place, value in enumerate(values)
    ]


# What is measured.


def test_what_is_in_steps_says_so():
    def unit(statistic: str, **of: Any) -> str:
        two = {"by": "task.n", "of": [1, 2]} if statistic in ("difference", "ratio") else {}
        return claim(statistic, (0, None), rows={"analysis": "train", **of}, **two).unit

    sum_ = {"terms": {"a": "summary.generalised_step", "b": "rows[0].step"}}
    assert (
        unit("median", value="period_steps")
        == unit("difference", value="rows[?x > `1`] | [0].step")
        == "steps"
    )
    assert unit("mean", formula="a - b", **sum_) == "steps"
    for plain in (
        unit("mean", formula="a / b", **sum_),
        unit("ratio", value="summary.generalised_step"),
        unit("share", value="settle_step == null"),
        unit("mean", value="steps.mean"),
        unit("mean", formula="a - b", terms={"a": "summary.generalised_step", "b": "x"}),
        claim("mean", (0, None), rows={"analysis": "train", "value": "step"}, log=True).unit,
    ):
        assert plain == ""


def test_shares_have_exact_intervals_and_null_is_no():
    found = estimate(claim(), rows([True] * 7 + [False] * 2 + [None]))
    exact = stats.binomtest(7, 10).proportion_ci(method="exact")
    assert found.value == 0.7 and found.n == 10
    np.testing.assert_allclose(found.interval, [exact.low, exact.high])
    counted = estimate(claim("count", (1, None)), rows([True] * 7 + [False] * 3))
    np.testing.assert_allclose([counted.value, *counted.interval], [7, 10 * exact.low, 10 * exact.high])
    with pytest.raises(ConfigError, match="true or false"):
        estimate(claim(), rows([True, 3.0]))


def test_means_have_students_interval_and_on_logarithms_are_geometric():
    values = np.random.default_rng(0).lognormal(1, 0.5, 12)
    found = estimate(claim("mean", (0, 1)), rows([*values, None]))
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    np.testing.assert_allclose([found.value, *found.interval], [values.mean(), *expected])
    assert found.n == 12 and "1 row" in found.said
    geometric = estimate(claim("mean", (0, 1), log=True), rows(values))
    np.testing.assert_allclose(geometric.value, stats.gmean(values))
    assert estimate(claim("mean", (0, 1)), rows([2.0, 2.0, 2.0])).interval is None


def test_medians_take_what_never_came_as_later_than_all_others():
    known = estimate(claim("median", (0, None)), rows(range(1, 11)))
    assert known.value == 5.5 and known.interval == (2, 9)  # order statistics of 10
    half = estimate(claim("median", (0, None)), rows([*range(1, 7), None, None, None, None]))
    assert half.value == 5.5 and half.interval[0] == 2 and half.interval[1] is None
    none = estimate(claim("median", (3, 1000)), rows([None] * 8))
    assert none.value is None and judge(claim("median", (3, 1000)), none).verdict == "undecided"
    few = estimate(claim("median", (0, None)), rows([1, 2, 3, 4]))
    assert few.value == 2.5 and few.interval is None


def test_differences_and_ratios_are_of_the_first_against_the_second():
    rng = np.random.default_rng(1)
    x, y = rng.normal(5, 1, 9), rng.normal(3, 2, 11)
    table = rows([*x, *y], lr=[0.1] * 9 + [1] * 11)
    found = estimate(claim("difference", (0, None), by="lr", of=[0.1, 1.0]), table)
    welch = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    np.testing.assert_allclose([found.value, *found.interval], [x.mean() - y.mean(), welch.low, welch.high])
    positive = rows([*np.exp(x), *np.exp(y)], lr=[0.1] * 9 + [1] * 11)
    ratio = estimate(claim("ratio", (0, None), by="lr", of=[0.1, 1.0], log=True), positive)
    expected = np.exp([x.mean() - y.mean(), welch.low, welch.high])
    np.testing.assert_allclose([ratio.value, *ratio.interval], expected)


def test_pairs_are_of_one_seed():
    rng = np.random.default_rng(2)
    base = rng.normal(0, 10, 8)
    x, y = base + rng.normal(1, 0.1, 8), base
    table = rows([*x, *y], optimizer=["adam"] * 8 + ["sgd"] * 8)
    table = [Row(row.value, {**row.keys, "seed": place % 8}) for place, row in enumerate(table)]
    about = {"by": "optimizer", "of": ["adam", "sgd"]}
    paired = estimate(claim("difference", (0, None), pair="seed", **about), table)
    expected = stats.ttest_rel(x, y).confidence_interval()
    np.testing.assert_allclose(
        [paired.value, *paired.interval], [(x - y).mean(), expected.low, expected.high]
    )
    apart = estimate(claim("difference", (0, None), **about), table)
    assert apart.interval[0] < 0 < paired.interval[0]


def test_shares_differ_by_newcombes_interval_and_steps_that_never_came_by_ranks():
    table = rows([True] * 9 + [False] + [False] * 10, command=["a"] * 10 + ["b"] * 10)
    found = estimate(claim("difference", (0, 1), by="command", of=["a", "b"]), table)
    # Newcombe (1998), method 10, from Wilson's limits (.5958, .9821) and (0, .2775).
    low, high = 0.9 - math.hypot(0.9 - 0.5958, 0.2775), 0.9 + math.hypot(0.9821 - 0.9, 0)
    np.testing.assert_allclose([found.value, *found.interval], [0.9, low, high], atol=1e-4)
    steps = rows([10, 11, 12, 13, 14, 15, None, None, None, 30, 40, 50], command=["a"] * 6 + ["b"] * 6)
    later = estimate(claim("ratio", (0, 1), by="command", of=["a", "b"]), steps)
    assert "3 of 12 never came" in later.said and later.interval[1] < 1


def test_slopes_are_theils_and_correlations_spearmans():
    rng = np.random.default_rng(3)
    n = np.repeat([10.0, 20.0, 40.0], 6)
    steps = 3 * n**2 * np.exp(rng.normal(0, 0.1, 18))
    table = [Row(step, {"task.n": size, "seed": 0}) for step, size in zip(steps, n, strict=True)]
    slope = estimate(claim("slope", (1, 3), x="task.n", log=True), table)
    expected = stats.theilslopes(np.log(steps), np.log(n))
    np.testing.assert_allclose([slope.value, *slope.interval], [expected[0], expected[2], expected[3]])
    assert 1.8 < slope.value < 2.2
    correlation = estimate(claim("correlation", (0, 1), x="1 / task.n"), table)
    assert correlation.value == pytest.approx(stats.spearmanr(1 / n, steps).statistic)
    assert -1 < correlation.interval[0] < correlation.value < correlation.interval[1] < -0.5
    assert estimate(claim("slope", (1, 3), x="task.n"), table[:6]).value is None  # one value of x


@pytest.mark.parametrize(
    "region, interval, verdict",
    [
        ((0.5, 1), (0.6, 0.9), "agrees"),
        ((0.5, 1), (0.5, 1), "agrees"),
        ((0.5, 1), (0.4, 0.9), "undecided"),
        ((0.5, 1), (0.1, 0.4), "disagrees"),
        ((2, None), (3, None), "agrees"),
        ((2, None), (None, 1), "disagrees"),
        ((2, 9), (3, None), "undecided"),
        ((None, 2), (3, None), "disagrees"),
        ((None, 2), (None, None), "undecided"),
        ((0.5, 1), None, "undecided"),
    ],
)
def test_where_an_interval_lies(region, interval, verdict):
    assert judge(claim("mean", region), Estimate(0.7, interval, 20)).verdict == verdict


def test_too_few_runs_for_a_region_are_named():
    found = estimate(claim(agrees=(0, 0.1)), rows([False] * 20))
    assert judge(claim(agrees=(0, 0.1)), found).why.startswith("0 of 20; 20 rows are too few")
    assert judge(claim(agrees=(0, 0.2)), found).verdict == "agrees"


# What rows are.


def test_rows_have_the_keys_of_what_they_are_about():
    tree = {
        "ensemble": "aaaaaaaaaa",
        "runs": [
            {"run": "aaaaaaaaaa/s0003", "events": [{"size": 2}, {"size": 5}]},
            {"run": "aaaaaaaaaa/s0004", "events": []},
        ],
    }
    keys = {"aaaaaaaaaa": {"optimizer": "sgd", "optimizer.lr": 0.1, "command": "slow"}}
    document = Document("spikes", tree, keys, {"aaaaaaaaaa/s0003": 3, "aaaaaaaaaa/s0004": 4})
    about = claim(
        "mean",
        (0, 9),
        rows={"analysis": "spikes", "terms": {"n": "length(events)"}, "formula": "n * optimizer.lr"},
    )
    found = rows_of(about, [document])
    assert [row.value for row in found] == [pytest.approx(0.2), 0.0]
    assert found[0].seed == 3 and found[0].keys["command"] == "slow"
    where = {"optimizer": "sgd", "optimizer.lr": 0.1, "seed": 4}
    several = claim("mean", (0, 9), where=where, rows={"analysis": "spikes", "value": "length(events)"})
    assert [row.value for row in rows_of(several, [document])] == [0]
    each = claim("mean", (0, 9), rows={"analysis": "spikes", "each": "runs[].events[]", "value": "size"})
    assert [row.value for row in rows_of(each, [document])] == [2, 5]
    assert rows_of(claim(where={"optimizer.momentum": 0.9}), [document]) == []
    word = claim("mean", (0, 9), rows={"analysis": "spikes", "value": "run"})
    with pytest.raises(ConfigError, match="a word can be compared"):
        rows_of(word, [document])
    rows_about = {"analysis": "spikes", "value": "length(events)"}
    for where, said in (
        (
            {"optimiser": "sgd"},
            "where leaves 0 of 2 rows: none has the key optimiser (did you mean optimizer?)",
        ),
        ({"seed": 3.0, "optimizer.lr": 1}, "where leaves 0 of 2 rows: optimizer.lr is never 1; it is 0.1"),
    ):
        nowhere = claim(where=where, rows=rows_about)
        assert rows_of(nowhere, [document]) == [] and why_none(nowhere, [document]) == said
    empty = claim(rows={"analysis": "spikes", "each": "runs[1:].events[]", "value": "size > `1`"})
    assert why_none(empty, [document]) == "rows.each gives no row in 1 result of spikes"


def test_arithmetic_is_all_that_an_expression_can_say():
    found = Expression("1 / (optimizer.lr * sqrt(optimizer.weight_decay)) - -2 ** 3")
    assert found.value({"optimizer.lr": 0.1, "optimizer.weight_decay": 4}) == pytest.approx(13)
    assert list(found.names) == ["optimizer.lr", "optimizer.weight_decay"]
    assert Expression("a / b").value({"a": 1, "b": 0}) is None
    assert Expression("9 ** 9 ** 9").value({}) is None
    assert Expression("a / b").value({"a": None, "b": 0}) is None
    bad = [
        "__import__('os')",
        "a.__class__",
        "(1).real",
        "a[0]",
        "lambda: 1",
        "a if b else 1",
        "'a' * 9",
        "a < b",
    ]
    bad += [
        "open(a)",
        "sqrt(x=1)",
        "sqrt()",
        "sqrt(*a)",
        "[a]",
        "a and b",
        "a := 1",
        "True",
        "1j",
        "",
        "1 +",
        "1\n2",
    ]
    for text in [*bad, "(" * 200 + "1" + ")" * 200, "1+" * 400 + "1"]:
        with pytest.raises(ConfigError):
            Expression(text)
    with pytest.raises(ConfigError, match=r"did you mean optimizer\.lr"):
        Expression("lr").value({"optimizer.lr": 1})


# What a sheet may say.

OWN = """\
title: Weight decay
main: sooner
claims:
  sooner:
    says: Training accuracy rises
    published: always
    rows: {{analysis: train, value: "rows[-1].train_accuracy > rows[0].train_accuracy"}}
    where: {{command: decay}}
    statistic: share
    agrees: [0.2, 1]
  numbers:
    says: The loss falls
    published: 0.5
    rows: {{analysis: train, value: summary.final.train_loss}}
    by: optimizer.weight_decay
    of: [1, 0]
    statistic: difference
    agrees: [-100, 100]
  later:
    says: It groks
    published: much later
    rows: {{analysis: train, value: summary.generalised_step}}
    statistic: median
    agrees: [1000, null]
    not_at: {{cpu: 60 steps are too few}}
scales:
  cpu:
    minutes: 0.01
    commands:
      decay: train {tiny} seed=0..3
      none: train {tiny} seed=0..3 optimizer.weight_decay=0
    removals:
      - removes: learning
        commands: {{decay: train {tiny} seed=0..3 optimizer.lr={removed}}}
"""


def own(folder: Path, removed: str = "1e-9", name: str = "mine", text: str = OWN) -> Path:
    path = folder / "sheets/reproduce" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(tiny=" ".join(TINY), removed=removed))
    return path


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("says: It groks", "say: It groks", r":\d+: claims.later.say: no such key \(did you mean says\?\)"),
        ("statistic: median", "statistic: medan", r"claims.later.statistic: medan is none .*did you mean median"),
        ("[1000, null]", "[null, null]", r":24: claims.later.agrees: one of its two bounds"),
        ("[1000, null]", "[3, 2]", r":24: claims.later.agrees: 3 is not below 2"),
        ("[0.2, 1]", "[0.2, 1.5]", r":10: claims.sooner.agrees: a share lies between 0 and 1"),
        ("value: summary.generalised_step", "value: 'summary['", r":22: claims.later.rows.value: .* is no JMESPath"),
        ("value: summary.generalised_step", "formula: __import__('os')", ":22: claims.later.rows.formula: .* is no "),
        ("value: summary.generalised_step", "each: runs", "one of value"),
        ("    of: [1, 0]\n", "", r":11: claims.numbers.of: difference and ratio have both by: KEY and of"),
        ("    of: [1, 0]\n", "    of: [1, 1.0]\n", ":16: claims.numbers.of: its two values are the same"),
        ("main: sooner", "main: soner", r":2: main: there is no claim soner \(did you mean sooner"),
        ("statistic: difference", "statistic: difference\n    x: task.n", ":18: claims.numbers.x: slope and corr"),
        ("minutes: 0.01", "minutes: soon", "scales.cpu.minutes: Expected float, got str"),
        ("    minutes: 0.01\n", "", "scales.cpu: minutes is missing"),
        ("  cpu:\n    minutes", "  cup:\n    minutes", r":27: scales: cup is none of its values \(did you mean cpu"),
        ("analysis: train, value: summary.f", "analysis: eos, value: summary.f",
         ":14: claims.numbers.rows.analysis: eos is not computed at scale cpu"),
        ("analysis: train, value: summary.f", "analysis: trian, value: summary.f", r"cpu \(did you mean train"),
        ("decay: train", "decay: trian", "scales.cpu.commands.decay: trian: a command of a sheet is one of"),
        ("decay: train", "decay: rm -rf x; train", "rm: a command of a sheet"),
        ("decay: train", "decay: train outputs=/tmp/x", "outputs is for who runs a sheet"),
        ("decay: train", "decay: train ++outputs=/tmp/x", "outputs is for who runs a sheet"),
        ("decay: train", "decay: train --outputs /tmp/x", "a sheet gives no options"),
        ("decay: train", "decay: train --config-dir=/tmp/x", "a sheet gives no options"),
        ("decay: train", "decay: train launcher=local", "launcher is for who runs"),
        ("decay: train", "decay: train 'task.n=${oc.env:HOME}'", "no interpolations"),
        ("decay: train", "decay: fork none 3", r":30: scales.cpu.commands.decay: none is no train or fork above it"),
        ("    commands:", "    commands:\n      x: [train]", "scales.cpu.commands.x: Expected"),
        ("commands: {{decay: train", "commands: {{decya: train",
         r":34: scales.cpu.removals.0.commands.decya: it stands in the place of no command .*did you mean decay"),
        ("commands: {{decay:", "commands: {{x: analyze eos none, decay:", "x: it stands in the place of no command"),
        ("title: Weight decay\n", "", "mine.yaml: title is missing$"),
        ("title: Weight decay", "title: [", r":\d+: while parsing a flow sequence: expected"),
        ("title: Weight decay", "title: a\ntitle: b", r":2: title stands there twice"),
        ("title: Weight decay", "title: 2022-01-01", "no plain value"),
        (OWN, "3", "expected the keys of a sheet"),
        (OWN, "", "expected the keys of a sheet"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sheet_is_one_line_with_its_place(tmp_path, before, after, said):
    assert before in OWN
    path = tmp_path / "mine.yaml"
    text = OWN.replace("{tiny}", "").replace("{removed}", "1")
    before = text if before is OWN else before
    text, before, after = (item.replace("{{", "{").replace("}}", "}") for item in (text, before, after))
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError, match=said) as error:
        parse_sheet(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_commands_are_words_of_train_fork_and_analyze():
    assert Words.of("fork adam 200 optimizer.lr=1").refs == ("adam",)
    words = Words.of("analyze slingshot adam window=100 --confirm")
    assert (words.kind, words.refs, words.overrides, words.confirm) == (
        "slingshot",
        ("adam",),
        ("window=100",),
        True,
    )
    for text in (
        "",
        "train adam",
        "fork adam",
        "fork adam x",
        "analyze",
        "train '",
        "train --confirm",
        "bench x=1",
    ):
        with pytest.raises(ConfigError):
            Words.of(text)


# What becomes of it.


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """The outputs folder of the own sheet, carried out after a training of one's own."""
    folder = tmp_path_factory.mktemp("carried")
    train([*TINY, "seed=7", "launcher=inline"], outputs=folder / "outputs")
    settings = [Override.of("launcher", "inline"), Override.of("compute.workers", 1)]
    reproduce("mine", parse_sheet(own(folder)), "cpu", Run(folder / "outputs", settings))
    return folder / "outputs"


@pytest.fixture
def mine(here, tmp_path):
    """The own sheet, carried out in this process."""
    own(tmp_path)
    own(tmp_path, "1e-2", "weak")
    words = ["--config-dir", str(tmp_path / "sheets"), "launcher=inline", "compute.workers=1"]
    return lambda *more, name="mine": here("reproduce", name, *words, *more)


@pytest.fixture
def stored(carried, outputs):
    """What was carried out, in the test's own outputs folder."""
    shutil.copytree(carried, outputs)
    return outputs / "reproduce/mine-cpu/result.json"


def test_a_sheet_of_ones_own(mine, outputs, stored, monkeypatch):
    (last,) = json.loads((outputs / "last.json").read_text())["ensembles"]
    whole = training.train_shard
    monkeypatch.setattr(training, "train_shard", lambda *_: pytest.fail("trained again"))
    written = stored.stat().st_mtime_ns
    answer = mine("--json")
    (sheet,) = answer.json["sheets"]
    assert answer.code == 0 and answer.json["schema_version"] == 1
    claims = {item["id"]: item for item in sheet["claims"]}
    assert {*claims["sooner"]} >= {"id", "says", "published", "measured", "interval", "n", "verdict", "why"}
    assert claims["sooner"]["verdict"] == "agrees" and claims["sooner"]["n"] == 4
    # Seed 7 of the same ensemble is stored, and was not asked for.
    assert claims["numbers"]["verdict"] == "agrees" and claims["numbers"]["n"] == 8
    assert claims["later"] == {
        **claims["later"],
        "verdict": "not_at_this_scale",
        "measured": None,
        "why": "60 steps are too few",
    }
    (removal,) = sheet["removals"]
    assert (removal["removes"], removal["claim"]) == ("learning", "sooner") and removal["verdict"] != "agrees"
    assert sheet["failed"] == [] and last in sheet["ensembles"] and len(sheet["removed"]) == 1
    assert json.loads((outputs / "last.json").read_text())["ensembles"] == [last]
    assert json.loads(stored.read_text()) == {"schema_version": 1, **sheet}
    # Nothing was trained anew, and nothing written.
    assert stored.stat().st_mtime_ns == written
    said = mine().out
    assert "agrees" in said and "sooner without" in said and "not at this scale" in said
    # Longer runs of the same ensemble change nothing.
    monkeypatch.setattr(training, "train_shard", whole)
    train([*TINY, "seed=0..3", "train.steps=80", "launcher=inline"])
    assert mine("--json").json == answer.json


def test_a_removal_that_agrees_is_a_failure_of_the_check(mine, stored):
    answer = mine("--json", name="weak")
    (sheet,) = answer.json["sheets"]
    assert answer.code == 3 and sheet["removals"][0]["verdict"] == "agrees"
    assert [item["command"] for item in sheet["failed"]] == ["removal"]
    assert "agrees without its cause" in mine(name="weak").out


def test_what_was_interrupted_goes_on(mine, outputs, monkeypatch):
    done: list[Path] = []

    def first(shard: Any, *more: Any) -> Any:
        done.append(shard.root)
        found = whole(shard, *more)
        os.kill(os.getpid(), signal.SIGINT)
        return found

    whole = training.train_shard
    # Where the tests run in the background of a script, they ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(training, "train_shard", first)
            answer = mine()
    finally:
        signal.signal(signal.SIGINT, before)
    assert answer.code == 130 and "the same command goes on" in answer.err and len(done) == 1
    assert not (outputs / "reproduce").exists()
    again: list[Path] = []
    monkeypatch.setattr(
        training, "train_shard", lambda shard, *more: again.append(shard.root) or whole(shard, *more)
    )
    assert mine().code == 0
    assert again and done[0] not in again


def test_forks_and_analyses_of_what_is_above(here, tmp_path, outputs):
    text = """\
title: Forks
claims:
  shaken:
    says: A shaken run moves
    published: 1
    rows: {{analysis: train, value: "rows[?step == `30`] | [0].train_loss"}}
    by: command
    of: [shaken, base]
    pair: seed
    statistic: ratio
    agrees: [0, null]
  none:
    says: Nothing slingshots
    published: 0
    rows: {{analysis: slingshot, value: verdict == 'slingshot'}}
    where: {{command: base, analysis: events}}
    statistic: share
    agrees: [0, 0.8]
  few:
    says: Nor does what two commands ask for
    published: 0
    rows: {{analysis: slingshot, value: verdict == 'slingshot'}}
    where: {{command: few}}
    statistic: count
    agrees: [0, 2]
scales:
  ci:
    minutes: 0.1
    commands:
      base: train {tiny} seed=0..2 eval.every=3 probes=[weights,gradients]
      shaken: fork base 30 edit=perturb edit.scale={removed} train.steps=40
      few: train {tiny} seed=1 eval.every=3 probes=[weights,gradients]
      events: analyze slingshot base few
      whole: analyze eos base shaken
"""
    own(tmp_path, "1e-3", text=text)
    words = ["--scale", "ci", "--config-dir", str(tmp_path / "sheets"), "launcher=inline"]
    answer = here("reproduce", "mine", "--json", *words)
    (sheet,) = answer.json["sheets"]
    shaken, none, few = sheet["claims"]
    assert (
        shaken["n"] == 3 and 0.9 < shaken["measured"] < 1.1 and shaken["interval"][0] != shaken["interval"][1]
    )
    # The run that two commands ask for is of the one that a claim names.
    assert (none["verdict"], none["n"]) == ("agrees", 3) and few["n"] == 1
    # No sharpness was recorded: a command that failed, which no claim reads.
    (failed,) = sheet["failed"]
    assert answer.code == 3 and failed["command"] == "whole" and "sharpness" in failed["why"]
    # What cannot be stored is no analysis that the record may name.
    assert any(name.startswith("slingshot-") for name in sheet["analyses"])
    shutil.rmtree(outputs / "analysis")
    (tmp_path / "elsewhere").mkdir()
    (outputs / "analysis").symlink_to(tmp_path / "elsewhere")
    answer = here("reproduce", "mine", "--json", *words)
    (sheet,) = answer.json["sheets"]
    why = {item["command"]: item["why"] for item in sheet["failed"]}
    assert answer.code == 3 and "is a link" in why["events"] and not sheet["analyses"]
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_a_run_that_diverges_is_a_failure_unless_it_is_meant_to(here, tmp_path):
    text = """\
title: Too fast
claims:
  diverges:
    says: Runs diverge
    published: all
    rows: {{analysis: train, value: status == 'diverged'}}
    statistic: share
    agrees: [0.1, 1]
scales:
  cpu:
    minutes: 0.1
    commands:
      fast: {{run: train {tiny} optimizer=sgd optimizer.lr=1e8 seed=0..1, ends: {removed}}}
"""
    words = ["--json", "--config-dir", str(tmp_path / "sheets"), "launcher=inline"]
    own(tmp_path, "3", text=text)
    meant = here("reproduce", "mine", *words)
    assert meant.code == 0 and meant.json["sheets"][0]["claims"][0]["verdict"] == "agrees"
    own(tmp_path, "0", text=text)
    unmeant = here("reproduce", "mine", *words)
    (sheet,) = unmeant.json["sheets"]
    assert unmeant.code == 3 and "diverged, which the sheet does not expect" in sheet["failed"][0]["why"]
    assert sheet["claims"][0]["verdict"] == "undecided" and sheet["claims"][0]["measured"] == 1


def test_words_are_refused_in_a_line_before_anything_is_trained(here, mine, tmp_path, outputs):
    said = {
        ("thilak202",): "no such sheet (did you mean thilak2022?)",
        ("thilak2022", "optimizer.lr=1"): "is its own to say",
        ("thilak2022", "devic=cuda"): "did you mean device?",
        ("../mine",): "no such sheet",
        ("thilak2022", "--scale", "large"): "large",
        (): "name a sheet: barak2022",
        ("--list", "thilak2022"): "lists all sheets",
    }
    for words, line in said.items():
        answer = here("reproduce", *words)
        assert answer.code == 2 and line in answer.err, words
    assert "has cpu" in mine("--scale", "ci").err
    own(tmp_path, "x", name="mine")
    assert mine().err == "dynalab: reproduce mine: decay: optimizer.lr=x: expected a number\n"
    assert mine("--dry-run").code == 2 and not outputs.exists()
    aside = tmp_path / "sheets/experiment/aside.yaml"
    aside.parent.mkdir()
    aside.write_text(f"# @package _global_\noutputs: {tmp_path / 'elsewhere'}\n")
    own(tmp_path, "1 experiment=aside")
    assert "elsewhere: is for who runs a sheet to say" in mine().err and not outputs.exists()
    assert not (tmp_path / "elsewhere").exists()
    own(tmp_path)
    planned = mine("--dry-run", "--json").json
    assert planned["dry_run"] and len(planned["sheets"][0]["ensembles"]) == 3 and not outputs.exists()


def test_a_strangers_result_is_data(tmp_path, outputs):
    folder = outputs / "reproduce/mine-cpu"
    folder.mkdir(parents=True)
    for text in ("{", "[]", '{"schema_version": 1}', '{"schema_version": 1, "name": "x"}'):
        (folder / "result.json").write_text(text)
        with pytest.raises(StoreError):
            result.read(folder / "result.json")
    assert result.find(outputs, "mine-cpu") and result.find(outputs, "../x-cpu") is None
    assert result.find(outputs, "mine-large") is None


def test_the_page_has_the_claims_where_it_shows_what_they_are_about(here, outputs, stored, monkeypatch):
    drawn = no_drawing(monkeypatch)
    answer = here("report", "mine-cpu", "--json")
    page = Path(answer.json["path"])
    text = page.read_text("utf-8")
    assert answer.code == 0 and page.parent.name == "mine-cpu" and len(answer.json["ensembles"]) == 2
    # Its title is what it claims, its number how many of the claims hold, whatever the settings' comparison says.
    top = text[text.index("<h1>") : text.index("<nav")]
    assert top.count("<dt>") == 1 and "<dt>claims that agree, mine</dt><dd><strong>2 of 3</strong>" in top
    assert "Of the 3 claims of this sheet, <strong>2 agree and 1 is not at this scale</strong>" in text
    assert "dynalab report mine-cpu" in text and "Training accuracy rises" in text
    (figure,) = [figure for name, figure in drawn.items() if name.startswith("reproduce-mine-cpu")]
    assert [ax.get_yticklabels()[0].get_text() for ax in figure.axes] == ["sooner", "numbers"]
    # A result of before says no unit, and its axis none.
    document = json.loads(stored.read_text())
    assert [item["unit"] for item in document["claims"]] == ["", "", "steps"]
    document["claims"][2] |= {"measured": 1200.0, "n": 4}
    for axis in ("median in steps, n = 4", "median, n = 4"):
        made = msgspec.convert(document, result.Reproduction)
        (drawing,) = [block.figure for block in section(made).blocks if isinstance(block, Picture)]
        assert [ax.get_xlabel() for ax in drawing.axes][::2] == ["share, n = 4", axis]
        document["claims"] = [
            {key: x for key, x in item.items() if key != "unit"} for item in document["claims"]
        ]
    # One of its ensembles alone does not show them, a stranger's file neither.
    one = here("report", answer.json["ensembles"][0]["id"], "--json").json
    assert "Training accuracy rises" not in Path(one["path"]).read_text("utf-8")
    stored.write_text('{"schema_version": 1, "name": "<script>"}')
    found, (line,) = reproductions(outputs, [item["id"] for item in answer.json["ensembles"]])
    assert found == [] and "result.json is damaged" in line
    assert here("report", "mine-cpu").code == 3


def test_intervals_are_drawn_against_their_regions():
    rows = {"labels": ["in", "out", "open", "none"], "values": [0.8, 5, 3, 20]}
    intervals = [(0.6, 1), (4, 400), (2, None), None]
    figure = estimates_in_regions(
        **rows, intervals=intervals, regions=[(0.5, 1), (None, 3), (10, None), (0, 9)]
    )
    shaded = [
        ax.patches[0].get_extents().transformed(ax.transData.inverted()).intervalx for ax in figure.axes
    ]
    np.testing.assert_allclose(shaded[0], [0.5, 1])
    assert [ax.get_xscale() for ax in figure.axes] == ["linear", "log", "linear", "linear"]
    assert shaded[1][1] == pytest.approx(3) and shaded[2][0] == pytest.approx(10)
    colours = [ax.lines[-1].get_color() for ax in figure.axes]
    assert colours[0] == INSIDE and colours[1] == OUTSIDE and colours[2] == colours[3] == MUTED


def test_the_exam_says_what_came_out():
    sheet = {
        "paper": "Thilak et al. 2022", "arxiv": "2206.04817", "title": "T",
        "failed": [{"command": "x", "why": "a | b"}],
        "claims": [
            {"says": "S", "published": "p", "section": "2", "measured": 1.0, "interval": [0.7, None], "n": 9,
             "region": [0.6, 1], "verdict": "disagrees", "why": "w"},
            {"says": "O", "published": None, "section": "", "measured": None, "interval": [0, 0.4], "n": 9,
             "region": [0, 1], "verdict": "agrees", "why": "w"},
        ],
        "removals": [{"claim": "c", "removes": "r", "measured": None, "interval": None, "n": 0, "verdict": "agrees",
                      "why": "v"}],
    }  # fmt: skip
    record = {
        "sheet": sheet,
        "seconds": 90,
        "commit": "abc",
        "machine": "a CPU, 2 cores",
        "date": "2026-01-01",
    }
    text = exam_sheets.page({"thilak2022": record, "power2022": None})
    assert "| O |  | 0 to 0.4, n = 9 | 0 to 1 | agrees: w |" in text
    assert (
        "| [`thilak2022`](#thilak2022) | 1 disagrees and 1 agrees | 1 of 1 | 1 | 1.5 | abc | 2026-01-01 |"
        in text
    )
    assert "| `power2022` | not tried yet |" in text
    assert "| S | p (2) | 1 [at least 0.7], n = 9 | 0.6 to 1 | disagrees: w |" in text
    assert "| `c` without r |  |  |  | agrees: v |" in text and "- Failed: x: a | b" in text


# What is shipped.


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_sheet_says_what_it_was_written_against(name):
    sheet = read_sheet(name, ())
    assert sheet.source and sheet.source.arxiv and sheet.commit and sheet.main in sheet.claims
    # Where the published setting takes minutes, cpu is that of the paper.
    assert {"ci", "cpu"} <= {*sheet.scales} and sheet.scales["cpu"].minutes <= 6
    for scale in sheet.scales.values():
        assert scale.removals
    for scale in sheet.scales:
        assert scale == "ci" or scale not in sheet.claims[sheet.main].not_at


@pytest.mark.parametrize("name", ["barak2022", "thilak2022", "power2022"])
def test_a_shipped_sheet_runs_at_scale_ci(name, here):
    answer = here("reproduce", name, "--scale", "ci", "--json", "launcher=inline")
    (sheet,) = answer.json["sheets"]
    assert answer.code == 0 and sheet["failed"] == []
    assert all(item["verdict"] != "agrees" for item in sheet["removals"])


def test_the_examples_of_the_page_can_be_used(tmp_path):
    text = (Path(__file__).parent.parent / "docs/reproduce.md").read_text("utf-8")
    sheet, rows = re.findall(r"```yaml\n(.*?)```", text, re.S)
    (tmp_path / "mine.yaml").write_text(sheet)
    assert parse_sheet(tmp_path / "mine.yaml").main_claim == "sooner"
    examples = [yaml.safe_load(f"rows:{part}") for part in rows.split("rows:")[1:] if part.strip(" \n")]
    assert len(examples) >= 9 and all(msgspec.convert(item["rows"], Rows) for item in examples)


def test_the_sheets_are_listed(here, tmp_path):
    listed = here("reproduce", "--list", "--json").json["sheets"]
    assert [item["name"] for item in listed] == SHIPPED
    assert all({*item} == {"name", "title", "scales"} for item in listed)
    own(tmp_path, name="broken", text="title: {removed}: {tiny}")
    answer = here("reproduce", "--list", "--config-dir", str(tmp_path / "sheets"))
    assert answer.code == 0 and "broken.yaml:1: " in answer.err and "Thilak et al. 2022" in answer.out
