"""What pages say of runs is what is stored: sentences, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fakes import ATTEMPT, make_ensemble, make_hmm, no_drawing, steps_of, training
from report_reading import DASH, Shown, Writer, curve

import dynalab
from dynalab.cli.app import run
from dynalab.core import words
from dynalab.core.words import metric_words
from dynalab.curvature.bins import names as bin_names
from dynalab.show.plots.style import ensemble_colours
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import write_result


@pytest.fixture
def page(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    return Writer(outputs, no_drawing(monkeypatch))


def page_facts(shown: Shown) -> list[tuple[str, str]]:
    """Return the table of facts on what was run."""
    (rows,) = [rows for rows in shown.page.tables if rows and rows[0][0] == "ensemble" and len(rows[0]) == 2]
    return [(row[0], row[1]) for row in rows]


# Words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (0, "0"), (-0.0, "0"), (999.5, "999.5"), (1000.5, "1,000.5"), (123456.7, "123,456.7"),
     (1e6, "1,000,000"), (1234567.8, "1.23e+06"), (0.001, "0.001"), (0.00099, "0.00099"), (-0.5, "-0.5"),
     (-2345.6, "-2,345.6"), (np.inf, "never"), (-np.inf, "-inf"), (12.34567, "12.35"), (1e15, "1e+15"), (7, "7")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert words.number(value) == text


def test_counts_lists_and_shares() -> None:
    assert [words.count(n, "run") for n in (0, 1, 2, 1500)] == ["0 runs", "1 run", "2 runs", "1,500 runs"]
    assert (
        words.count(2, "index", "indices") == "2 indices" and words.count(1, "index", "indices") == "1 index"
    )
    eight = list("abcdefgh")
    assert words.listed(eight) == "a, b, c, d, e, f, g and h"
    assert words.listed([*eight, "i"]) == "a, b, c, d, e, f, g, h and 1 more"
    assert [words.listed(eight[:n], 2) for n in (0, 1, 2, 3)] == ["none", "a", "a and b", "a, b and 1 more"]
    shares = [(0, 5, "0%"), (1, 200, "0.5%"), (1, 1000, "0.1%"), (1, 1001, "<0.1%"), (1, 10, "10%"),
              (99, 1000, "9.9%"), (2, 3, "67%"), (5, 5, "100%"), (1, 0, DASH)]  # fmt: skip
    for part, whole, text in shares:
        assert words.share(part, whole) == text


def test_p_values_and_steps() -> None:
    found = {0.0009: "< 0.001", 0.001: "0.001", 0.005: "0.005", 0.0999: "0.1", 0.1: "0.10", 0.123: "0.12"}
    assert {p: words.p_value(p) for p in found} == found
    assert words.p_equals(0.005) == "= 0.005" and words.p_equals(None) == f"= {DASH}"
    assert words.step_phrase([10.0, 1000, None, None]) == (
        "at median step **1,000** [quartiles 505 to never], 2 of 4 runs"
    )
    assert (
        words.step_phrase([10.0, 1000, 20, 30]) == "at median step **25** [quartiles 15 to 515], 4 of 4 runs"
    )
    assert words.step_phrase([None, 30.0, None]) == "in **1 of 3 runs**, the first at step 30"
    assert (
        words.step_phrase([None] * 2) == "in none of 2 runs" and words.step_phrase([]) == "in none of 0 runs"
    )
    assert words.safe("a b/c:<d>") == "a_b_c_d" and words.safe("..") == "x" and words.safe("-a.") == "a"


# An ensemble


def test_an_ensemble_in_sentences_and_its_table(page: Writer, outputs: Path) -> None:
    steps = steps_of()
    values = training(5, steps)
    values["test_accuracy"][1, 15:] = 0.4
    values["test_accuracy"][2, :] = 0.3
    make_ensemble(outputs, n_runs=5, steps=steps, values=values, diverged={4: 150}, shards=2)
    shown = page()
    shown.says(
        "5 runs of grokking (embedding_mlp, adamw): 4 done, 1 diverged, 200 steps, seeds 0..4.",
        "Memorised (train accuracy at least 0.99) at median step 40 [quartiles 40 to 40], 5 of 5 runs.",
        "Generalised (test accuracy at least 0.99) at median step 140 [quartiles 120 to never], 3 of 5 runs; 1 of them "
        "is below it again at the end.",
        "Diverged: s0004 at step 150; their rows from there on are left out.",
        "Loss and accuracy. Line: median over runs; band: quartiles; thin lines: single runs. Dashed: median step at "
        "which runs memorised and generalised. Crosses: where a run diverged.",
    )
    rows = shown.table("run", "seed", "status", "steps", "memorised", "generalised")
    assert [row[:6] for row in rows] == [
        ["s0000", "0", "done", "200", "40", "110"],
        ["s0001", "1", "done", "200", "40", "120"],
        ["s0002", "2", "done", "200", "40", "not by 200"],
        ["s0003", "3", "done", "200", "40", "140"],
        ["s0004", "4", "diverged at 150", "200", "40", "not by 150"],
    ]
    assert [row[-1] for row in rows] == ["1", "0.4", "0.3", "1", words.number(values["test_accuracy"][4, 14])]
    assert shown.tones("bad") == {"diverged at 150"}
    assert {"not by 200", "not by 150"} <= shown.tones("quiet") and not {"not by 200"} & set(shown.sorts())
    assert shown.sorts()["110"] == "110.0"
    # What came after a divergence is left out, as it says.
    stored = {
        name: np.where((np.arange(5)[:, None] == 4) & (steps >= 150), np.nan, values[name]) for name in values
    }
    loss, accuracy = shown.figure("curves-curves").axes
    marked = {
        item.get_text(): item.xy[0] for item in loss.texts if item.get_text() in ("memorised", "generalised")
    }
    assert marked == {"memorised": 40 / 200, "generalised": 140 / 200}
    for ax, names in ((loss, ("train_loss", "test_loss")), (accuracy, ("train_accuracy", "test_accuracy"))):
        thick = [line for line in ax.lines if line.get_linewidth() > 1.5]
        for line, name in zip(thick, names, strict=True):
            np.testing.assert_allclose(curve(line), [steps, np.nanmedian(stored[name], axis=0)])
    dots = [
        np.asarray(item.get_offsets())[:, 0].tolist()
        for item in shown.figure("landmarks").axes[0].collections
    ]
    assert dots == [[40] * 5, [110, 120, 140]]
    assert "Curves of train loss, test loss, train accuracy and test accuracy over training" in shown.alts()
    assert "Steps at which runs memorised and generalised" in shown.alts()
    assert "Panels of 2 metrics over training" in shown.alts()


def test_runs_of_other_lengths_and_what_is_not_done(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=12, shards=3)
    records = sorted(ensemble.path.glob("shard-*/run.json"))
    for record, length in ((records[0], 150), (records[1], 120)):
        text = record.read_text()
        record.write_text(text.replace('"steps": 200', f'"steps": {length}'))
    text = records[2].read_text()
    records[2].write_text(
        re.sub(r'"summary": \{.*?\}\s*\}', '"summary": null', text, flags=re.S).replace('"done"', '"partial"')
    )
    shown = page()
    shown.says(
        "8 done, 4 partial, 120 to 200 steps, seeds 0..11.",
        "The runs differ in length: beyond step 120 medians and bands are of fewer runs.",
        "Without a summary yet, and not counted in these medians: s0008, s0009, s0010 and s0011.",
        "Partial: s0008 (step 200), s0009 (step 200), s0010 (step 200) and s0011 (step 200).",
        "8 of 8 runs.",
    )
    lengths = [row[3].partition(" of ")[0] for row in shown.table("run", "seed")]
    assert lengths[::4] == ["150", "120", "200"] and {"150.0", "120.0"} <= set(shown.sorts().values())
    assert dict(page_facts(shown))["steps"] == "120 to 200"


@pytest.mark.parametrize(
    ("n_runs", "landmarks"),
    [(2, "A dot a run; runs"), (3, "A dot a run; runs"), (4, "A dot a run, with median and quartiles below; runs"),
     (60, "A dot a run, with median"), (61, "Bars of how many runs, with median and quartiles below; runs")],
)  # fmt: skip
def test_captions_name_the_marks_that_are_there(
    page: Writer, outputs: Path, n_runs: int, landmarks: str
) -> None:
    make_ensemble(outputs, n_runs=n_runs, values={"train_loss": np.ones((n_runs, 21)), **{
        name: training(n_runs, steps_of())[name] for name in ("train_accuracy",)
    }})  # fmt: skip
    shown = page()
    shown.says(
        f"When it happened. {landmarks}", "runs in which it did not happen by the end count as later than all"
    )
    assert ("thin lines: single runs" in shown.text) == (n_runs > 2)
    assert "Dashed: median step at which runs memorised." in shown.text
    ax = shown.figure("landmarks").axes[0]
    assert bool(ax.collections) == ("dot" in landmarks) and bool(ax.patches) == ("Bars" in landmarks)
    assert any(line.get_marker() == "|" for line in ax.lines) == ("median" in landmarks)


def test_one_run_has_a_step_and_no_median(page: Writer, outputs: Path) -> None:
    make_ensemble(outputs, n_runs=1)
    shown = page()
    shown.says(
        "1 run of grokking", "Memorised (train accuracy at least 0.99) at step 40.",
        "Loss and accuracy. Dashed: step at which runs memorised and generalised. SVG",
    )  # fmt: skip
    assert not [name for name in shown.figures if name.endswith("landmarks")]


def test_early_landmarks_ask_for_a_logarithmic_axis(page: Writer, outputs: Path) -> None:
    for last, scale in ((800, "linear"), (810, "symlog")):
        steps = steps_of(last)
        ensemble = make_ensemble(outputs, steps=steps, values=training(4, steps), digest=f"{last:010d}")
        assert page(ensemble.id).figure("curves-curves").axes[0].get_xscale() == scale


def test_other_metrics_in_the_order_of_their_groups(page: Writer, outputs: Path) -> None:
    steps = steps_of()
    names = [
        "odd",
        "sharpness",
        "l1",
        "grad_norm",
        "batch_loss",
        "average_train_accuracy",
        "min_margin",
        "train_loss",
    ]
    values = {name: training(3, steps)["l2"] + place for place, name in enumerate(names)}
    values["var_b"] = np.full((3, len(steps)), np.nan)
    make_ensemble(outputs, n_runs=3, steps=steps, values=values)
    shown = page()
    figure = shown.figure("metrics-metrics")
    order = ["average_train_accuracy", "batch_loss", "grad_norm", "l1", "sharpness", "min_margin", "odd"]
    assert [ax.get_title(loc="left").replace("\n", " ") for ax in figure.axes] == [*map(metric_words, order)]
    assert [item.get_text() for item in figure.texts if item.get_text() in GROUPS] == GROUPS
    for ax, name in zip(figure.axes, order, strict=True):
        np.testing.assert_allclose(curve(ax.lines[-1]), [steps, np.median(values[name], axis=0)])
    shown.says("Recorded but without a value: var_b.")


GROUPS = ["accuracy", "loss", "norms", "weights", "curvature", "numerics", "other"]


# What was run


def test_what_was_run(page: Writer, outputs: Path) -> None:
    attempt = {**ATTEMPT, "train_seconds": 300.0, "dirty": False}
    make_ensemble(
        outputs,
        overrides=["task=grokking", "optimizer.lr=0.01", "train.clip=1"],
        slug="x",
        shards=2,
        attempt=attempt,
    )
    shown = page()
    facts = dict(page_facts(shown))
    assert facts["training time"] == "10 min, summed over the workers" and facts["commit"] == "180b60b87a5a"
    assert facts["trained"] == "2026-11-22 01:44:37 UTC to 2026-11-22 01:45:59 UTC"
    assert (
        facts["seeds"] == "0..3 (4 runs)" and facts["steps"] == "200" and facts["cpu"] == "a processor (avx2)"
    )
    assert [facts[key] for key in ("dynalab", "torch", "python", "device", "host")] == [
        "0.1.0", "2.14.1", "3.11.7", "cpu", "a-host",
    ]  # fmt: skip
    assert shown.table("key", "here", "default") == [
        ["optimizer.lr", "0.01", "0.003"],
        ["train.clip", "1.0", "null"],
    ]
    rows = shown.table("shard", "started")
    command = "dynalab train task=grokking seed=0..3"
    assert rows == [
        [shard, "2026-11-22 01:44:37 UTC", "0", "200", "82", "a-host", "cpu", command]
        for shard in ("shard-0000-0001-2", "shard-0002-0003-2")
    ]
    shown.says("dynalab train task=grokking optimizer.lr=0.01 train.clip=1 train.steps=200 seed=0..3")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")],
)  # fmt: skip
def test_durations(page: Writer, outputs: Path, seconds: float, said: str) -> None:
    attempt = {key: value for key, value in ATTEMPT.items() if key != "train_seconds"} | {"seconds": seconds}
    make_ensemble(outputs, n_runs=1, values={"x": np.ones((1, 21))}, attempt=attempt)
    assert dict(page_facts(page()))["training time"] == f"{said}, summed over the workers"


def test_an_imported_table(page: Writer, outputs: Path, tmp_path: Path, capsys: Any) -> None:
    rows = [
        f"{name},{step},{0.8 if step < at else 1.0}"
        for name, at in (("a", 20), ("b", 40))
        for step in range(0, 90, 10)
    ]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["run,step,test_accuracy", *rows]) + "\n")
    assert (
        run(
            [
                "import",
                str(table),
                "--name",
                "mine",
                "--run",
                "run",
                "--step",
                "step",
                "--level",
                "test_accuracy=0.95",
            ]
        )
        == 0
    )
    shown = page()
    shown.says(
        "2 runs of mine: all done, 80 steps.",
        "Generalised (test accuracy at least 0.95) at median step 30 [quartiles 20 to 40]",
        "imported from the file t.csv as mine.", "dynalab import t.csv --name mine --run run --step step",
        "--level test_accuracy=0.95",
    )  # fmt: skip
    assert [row[-2:] for row in shown.table("run", "status")] == [["20", "1"], ["40", "1"]]


# Several ensembles


def test_a_comparison_in_its_table_and_figures(page: Writer, outputs: Path) -> None:
    one = make_ensemble(outputs, n_runs=5)
    late = training(3, steps_of(), 1)
    late["test_accuracy"][1:] = 0.3
    two = make_ensemble(
        outputs, n_runs=3, values=late, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01"
    )
    never = training(2, steps_of(), 2)
    never["test_accuracy"][:] = 0.3
    three = make_ensemble(
        outputs, n_runs=2, values=never, overrides=["task=grokking", "optimizer.lr=0.1"], slug="lr_0.1",
        diverged={1: 150},
    )  # fmt: skip
    result = make_hmm(outputs, two)
    shown = page(one.id, two.id, three.id, found={two.id: [result]})
    rows = shown.table("ensemble", "optimizer.lr", "runs", "status", "steps")
    assert rows == [
        [one.id, "0.003", "5", "5 done", "200", "40 [40 to 40], 5 of 5", "130 [120 to 140], 5 of 5", DASH],
        [two.id, "0.01", "3", "3 done", "200", "40 [40 to 40], 3 of 3", "never [110 to never], 1 of 3", "3"],
        [three.id, "0.1", "2", "1 done, 1 diverged", "200", "40 [40 to 40], 2 of 2", "never, 0 of 2", DASH],
    ]
    shown.says(
        "lr 0.003, 0.01 or 0.1, ", "3 settings, 10 runs",
        "test accuracy of every ensemble: median over runs, quartiles as a band.",
        "When runs generalised, ensemble by ensemble: a dot a run, with median and quartiles below (4 runs or more).",
    )  # fmt: skip
    assert shown.swatches()[:3] == ensemble_colours(3)
    assert shown.tones("bad") >= {"1 done, 1 diverged"} and {DASH, "never, 0 of 2"} <= shown.tones("quiet")
    assert shown.sorts()["130 [120 to 140], 5 of 5"] == "130.0"
    assert not {"never [110 to never], 1 of 3", "never, 0 of 2"} & set(shown.sorts())
    (ax,) = shown.figure("comparison-comparison").axes
    stored = [training(5, steps_of()), late, never]
    for line, values in zip(ax.lines, stored, strict=True):
        np.testing.assert_allclose(curve(line), [steps_of(), np.median(values["test_accuracy"], axis=0)])
    assert {item.get_text() for item in ax.texts} == {"lr 0.003", "lr 0.01", "lr 0.1"}
    (ax,) = shown.figure("comparison-landmarks").axes
    assert [item.get_text() for item in ax.get_yticklabels()] == ["lr 0.003", "lr 0.01"]
    dots = [np.asarray(item.get_offsets())[:, 0].tolist() for item in ax.collections]
    assert dots == [[110, 120, 130, 140, 150], [110]]
    assert "not by 200: 2" in ax.texts[1].get_text()


# Names of ensembles


def small(outputs: Path, *keys: str, n_runs: int = 1, slug: str = "default", **more: Any) -> Ensemble:
    """Store an ensemble of three rows."""
    values = {"test_accuracy": np.linspace(0, 1, n_runs * 3).reshape(n_runs, 3)}
    return make_ensemble(
        outputs, n_runs=n_runs, steps=np.array([0, 10, 20]), values=values, overrides=["task=grokking", *keys],
        slug=slug, **more,
    )  # fmt: skip


def titles(shown: Shown) -> list[str]:
    """Return the headings of the summary."""
    summary = shown.source[: shown.source.index("<nav")]
    return [unescape(item) for item in re.findall(r"<h3>(.*?)</h3>", summary)]


def test_ensembles_are_named_by_the_keys_that_differ(page: Writer, outputs: Path) -> None:
    keys = ["optimizer.lr=0.1", "model.width=16", "train.clip=1.0", "eval.every=20"]
    one, four = small(outputs), small(outputs, *keys, slug="four")
    shown = page(one.id, four.id)
    assert titles(shown)[1] == "width 16, lr 0.1, clip 1, eval every 20"
    (ax,) = shown.figure("comparison-comparison").axes
    assert {item.get_text() for item in ax.texts} == {"width 128", "width 16"}
    five = small(outputs, *keys, "task.modulus=7", slug="five_keys_differ")
    shown = page(one.id, five.id)
    assert titles(shown) == ["modulus 59", "modulus 7"]


def test_more_ensembles_than_are_told_one_by_one(page: Writer, outputs: Path) -> None:
    own = [small(outputs, f"optimizer.lr={k}", n_runs=2 if k < 3 else 3, slug=f"lr{k}") for k in range(1, 8)]
    for n, band in ((2, ""), (6, ", quartiles as a band"), (7, "")):
        shown = page(*(item.id for item in own[:n]))
        assert (shown.source[: shown.source.index("<nav")].count("<li>") > n) == (n < 7)
        shown.says(f"test accuracy of every ensemble: median over runs{band}.")
        (ax,) = shown.figure("comparison-comparison").axes
        assert bool(ax.collections) == bool(band)


def test_what_ensembles_are_compared_by(page: Writer, outputs: Path) -> None:
    steps = steps_of(20, 10)
    shared = {"zz": np.ones((3, 3)), "train_loss": np.array([[100.0, 10, 1]] * 3)}
    one = make_ensemble(outputs, n_runs=3, steps=steps, values={**shared, "test_loss": np.ones((3, 3))})
    two = make_ensemble(
        outputs, n_runs=3, steps=steps, values=shared, overrides=["task=grokking", "optimizer.lr=1"], slug="b"
    )
    last = make_ensemble(
        outputs, n_runs=3, steps=steps, values={"zz": np.ones((3, 3))}, slug="c",
        overrides=["task=grokking", "optimizer.lr=2"],
    )  # fmt: skip
    shown = page(one.id, two.id)
    shown.says("train loss of every ensemble: median")
    assert shown.figure("comparison-comparison").axes[0].get_yscale() == "log"
    assert "train_loss of 2 ensembles over training" in shown.alts()
    page(one.id, two.id, last.id).says("zz of every ensemble: median")


def test_ensembles_that_have_other_landmarks(page: Writer, outputs: Path) -> None:
    whole = training(3, steps_of())
    one = make_ensemble(
        outputs, n_runs=3, values={name: whole[name] for name in ("train_accuracy", "test_accuracy")}
    )
    two = make_ensemble(
        outputs, n_runs=3, values={"train_accuracy": whole["train_accuracy"]}, slug="b",
        overrides=["task=grokking", "optimizer.lr=1"],
    )  # fmt: skip
    shown = page(one.id, two.id)
    shown.says("When runs generalised or memorised, ensemble by ensemble: a dot a run.")
    ax = shown.figure("comparison-landmarks").axes[0]
    assert [np.asarray(item.get_offsets())[:, 0].tolist() for item in ax.collections] == [
        [110, 120, 130], [40] * 3,
    ]  # fmt: skip
    assert [row[5:] for row in shown.table("ensemble", "optimizer.lr")] == [
        ["40 [40 to 40], 3 of 3", "120 [110 to 130], 3 of 3"], ["40 [40 to 40], 3 of 3", DASH],
    ]  # fmt: skip


def test_more_keys_than_a_table_has_room_for(page: Writer, outputs: Path) -> None:
    keys = ["optimizer.lr=0.1", "model.width=16", "train.clip=1.0", "eval.every=20", "task.modulus=7",
            "optimizer.weight_decay=0.5", "task.train_fraction=0.5", "train.batch_size=8"]  # fmt: skip
    one, eight = small(outputs), small(outputs, *keys, slug="eight")
    shown = page(one.id, eight.id)
    shown.says("2 ensembles. all columns ensemble")
    nine = small(outputs, *keys, "task.operation=subtract", slug="nine")
    shown = page(one.id, nine.id)
    shown.says("2 ensembles. Keys in which they differ: 9, the first 8 are shown.")
    header = next(rows[0] for rows in shown.page.tables if rows[0][0] == "ensemble" and len(rows[0]) > 2)
    assert header.index("runs") == 9


# Probes with a part of their own


def test_hidden_progress_on_the_page(page: Writer, outputs: Path) -> None:
    steps = steps_of()

    def stairs(low: float, high: float, at: list[int]) -> np.ndarray:
        return np.where(steps[None] >= np.array(at)[:, None], high, low)

    values = {"test_accuracy": stairs(0.5, 1.0, [100, 120, 140]), "parity_fourier": stairs(1.0, 50.0, [60, 80, 160]),
              "parity_separation": stairs(1.0, 3.0, [70, 90, 100])}  # fmt: skip
    ensemble = make_ensemble(outputs, n_runs=3, steps=steps, values=values)
    page().says(f"Recorded, and not analysed: dynalab analyze progress {ensemble.id}.")
    shown = page(found={ensemble.id: [dynalab.analyze("progress", ensemble)]})
    assert "not analysed" not in shown.text
    above, below = shown.figure("hidden-progress").axes
    marks = {item.get_text(): item.xy[0] for item in above.texts}
    assert marks["Fourier coefficient above 4"] == 80 / 200 and marks["accuracy above 0.55"] == 120 / 200
    thick = [line for line in below.lines if line.get_linewidth() > 1.5]
    for line, name in zip(thick, ("parity_fourier", "parity_separation"), strict=True):
        np.testing.assert_allclose(curve(line)[1], np.median(values[name], axis=0))
    shown.says("the first came earlier in 2 of 3 runs that had either, by 40 steps at the median.")
    assert (
        "Accuracy on held-out examples; below it relevant against other coordinates (Fourier coefficient, movement)"
        in shown.alts()
    )


def test_spectra_on_the_page(page: Writer, outputs: Path) -> None:
    steps = steps_of(100, 10)
    keys = ["probe.spectrum.low=0.1", "probe.spectrum.high=100", "probe.spectrum.per_decade=1"]
    shares = np.random.default_rng(0).dirichlet(np.ones(7), (5, 11))
    shares[1] = np.nan
    values = {name: shares[..., place] for place, name in enumerate(bin_names(7))}
    values |= {"sharpness": np.full((5, 11), 10.0), "stability_threshold": np.full((5, 11), 1.0)}
    ensemble = make_ensemble(
        outputs,
        n_runs=5,
        steps=steps,
        values=values,
        overrides=["task=grokking", "probes=[weights,spectrum]", *keys],
    )
    shown = page(found={ensemble.id: [dynalab.analyze("spectrum", ensemble)]})
    *maps, _ = shown.figure("spectrum").axes
    assert [ax.get_title(loc="left") for ax in maps] == ["s0000", "s0002", "s0003", "s0004"]
    for ax, row in zip(maps, (0, 2, 3, 4), strict=True):
        np.testing.assert_allclose(ax.collections[0].get_array(), shares[row].T)
        assert [set(curve(line)[1]) for line in ax.lines] == [{6.0}, {5.0}]
    shown.says("Spectral density of the Hessian over time (4 of 5 runs).")
    # Its shares are no metrics of their own.
    assert [ax.get_title(loc="left").replace(" ", "_") for ax in shown.figure("metrics-metrics").axes] == [
        "sharpness",
        "stability_threshold",
    ]


def test_spectra_of_the_usual_bins_and_another_top(page: Writer, outputs: Path) -> None:
    steps = steps_of(20, 10)
    values = {name: np.full((1, 3), 1 / 65) for name in bin_names(65)}
    values |= {"eigenvalue_max": np.full((1, 3), 100.0), "stability_threshold": np.ones((1, 3))}
    values |= {"preconditioned_sharpness": np.ones((1, 3))}
    ensemble = make_ensemble(outputs, n_runs=1, steps=steps, values=values)
    shown = page(found={ensemble.id: [dynalab.analyze("spectrum", ensemble)]})
    ax = shown.figure("spectrum").axes[0]
    # A threshold of the preconditioned Hessian is none of this one; six decades of four bins above the middle one.
    assert [set(np.round(curve(line)[1], 9)) for line in ax.lines] == [{33.0 + 6 * 4}]
    shown.says("Spectral density of the Hessian over time. A column")


# Any other analysis


def test_an_analysis_without_a_section(page: Writer, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=2)
    rows = [{"run": k, "long": ["x" * 116] if k else list(range(60)), "ok": k == 0} for k in range(501)]
    data = {
        "id": "1234567890", "kind": "own", "ensemble": ensemble.id, "warnings": [], "inputs": [{"run": "a"}] * 2,
        "n": 3, "name": "x", "rows": rows, "none": None,
    }  # fmt: skip
    result = write_result(OutputPaths(outputs).analysis("own", "1234567890"), data, {})
    shown = page(found={ensemble.id: [result]})
    shown.says("Analysis own of 2 runs: see below.", "rows (the first 500 of 501)")
    table = shown.table("run", "long", "ok")
    assert len(table) == 500 and [table[1][0], table[0][2], table[1][2]] == ["1", "yes", "no"]
    assert len(table[0][1]) == 120 and table[0][1].endswith("...") and table[1][1] == f'["{"x" * 116}"]'
    assert ["n", "3"] in shown.page.tables[[t[0][0] == "n" for t in shown.page.tables].index(True)]
