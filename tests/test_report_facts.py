"""The page's sentences, tables and commands, each of a shown ensemble whose runs are written by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from report_fakes import make_ensemble, no_drawing, read_page

from dynalab.analysis.base import Convergence
from dynalab.analysis.command import Needs
from dynalab.errors import ConfigError, NothingMatched, StoreError
from dynalab.report import choice, ensemble, gather, overview, provenance, sections, write
from dynalab.report.blocks import Section
from dynalab.report.gather import Shown, stale
from dynalab.report.page import walk
from dynalab.report.sections import contrasts as beside
from dynalab.report.sections import render
from dynalab.report.sections.context import Context
from dynalab.show import plots
from dynalab.show.blocks import Cell, Code, Picture, Raster, Say, Table, Warnings
from dynalab.show.plots.style import ensemble_colours
from dynalab.store import runfile
from dynalab.store.find import select
from dynalab.store.paths import AnalysisPaths, EnsemblePaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result
from dynalab.store.stored import StoredRun

DIGEST = "0123456789"
HOME = Path("/outputs/reports/mine")


def text_of(error: type[Exception], call: Callable[[], object]) -> str:
    """Return what an error says."""
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def stored_run(seed: int | None, status: str = "done", steps: int = 200, **about: Any) -> StoredRun:
    """A run in a shard of its own, with landmarks where `summary` has them."""
    label = about.pop("label", f"s{seed:04d}" if seed is not None else "a")
    summary, attempts = about.pop("summary", {}), about.pop("attempts", [])
    asked, folders = about.pop("asked", steps), about.pop("folders", [])
    shard = EnsemblePaths(Path(f"/outputs/grokking/some-{DIGEST}")).shard(f"shard-{label}-1")
    record = runfile.Shard(
        [runfile.Run(label, seed, about.pop("streams", {}))], asked, attempts=attempts, folders=folders
    )
    assert not about
    return StoredRun(f"{DIGEST}/{label}", seed, status, steps, asked, summary, shard, 0, 1, None, record)


def shown(runs: Sequence[StoredRun], digest: str = DIGEST, slug: str = "some", **about: Any) -> Shown:
    """An ensemble as the page shows it; what is not of `Shown` is the ensemble's."""
    own = {name: about.pop(name) for name in (*Shown.__dataclass_fields__,) if name in about}
    task = about.pop("task", "grokking")
    path = Path(f"/outputs/{task}/{slug}-{digest}")
    kept = {
        "config": {},
        "metrics": list(own.get("values", {})),
        "names": [],
        "convergence": None,
        "damaged": [],
    }
    kept |= {
        "id": digest,
        "path": path,
        "paths": EnsemblePaths(path),
        "task": task,
        "imported": False,
        "parent": None,
    }
    kept |= {"warnings": [], "runs": list(runs), **about}
    own = {"steps": {}, "values": {}, "results": [], "total": len(runs), **own}
    return Shown(SimpleNamespace(**kept), list(runs), **own)  # type: ignore[arg-type]


def result(kind: str = "odd", digest: str = "1" * 10, value: Any = None, **data: Any) -> Result:
    paths = AnalysisPaths(Path(f"/outputs/analysis/{kind}-{digest}"))
    made = Result(paths, {"ensemble": DIGEST, "warnings": [], "keys": {}, **data})
    made.__dict__["value"] = value
    return made


# What was run.


def test_seeds_are_told_in_the_grammar_and_labels_where_there_are_none():
    runs = [stored_run(seed) for seed in (0, 1, 2, 7)]
    assert provenance.seeds_of(runs) == "0..2,7"
    crossed = [stored_run(None, label=label) for label in ("init0", "init1")]
    assert (
        provenance.seeds_of(crossed) == "init0 and init1" and provenance.seeds_of([*crossed, runs[3]]) == "7"
    )


def test_the_facts_of_a_training():
    one = {"dynalab": "1.0", "torch": "2", "python": "3.11", "device": "cpu", "cpu": "x", "host": "a"}
    one |= {"started": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:06:05+00:00", "seconds": 70.0}
    one |= {"train_seconds": 60.0, "commit": "0123456789abcdef", "dirty": True}
    two = {"dynalab": "1.1", "started": "2026-01-02T03:00:00+00:00", "ended": "2026-01-02T04:00:00+00:00"}
    two |= {"seconds": 65.0, "commit": "0123456789abcdef", "host": None}
    runs = [
        stored_run(0, steps=1000, attempts=[two, one]),
        stored_run(1, steps=2000, attempts=[{"seconds": None}]),
    ]
    made = result("eos")

    def facts(some: Sequence[StoredRun], *results: Result) -> dict[str, Any]:
        return dict(provenance._facts(shown(some, results=list(results)), HOME))

    assert facts(runs[:1], made) == {
        "ensemble": DIGEST,
        "seeds": "0 (1 run)",
        "steps": "1,000",
        "dynalab": "1.1 and 1.0",
        **{key: one[key] for key in ("torch", "python", "device", "cpu", "host")},
        "commit": "0123456789ab and 0123456789ab with local changes",
        "trained": "2026-01-02 03:00:00 UTC to 2026-01-02 03:06:05 UTC",
        "training time": "2 min, summed over the workers",
        "data": Cell(f"../../grokking/some-{DIGEST}", link=f"../../grokking/some-{DIGEST}"),
        "eos result": Cell(f"../../analysis/eos-{'1' * 10}", link=f"../../analysis/eos-{'1' * 10}"),
    }
    # Two, one of which is at it or was killed: it has not ended.
    both = facts(runs)
    assert (both["seeds"], both["steps"]) == ("0..1 (2 runs)", "1,000 to 2,000")
    assert both["trained"] == "from 2026-01-02 03:00:00 UTC" and both["training time"].startswith("2 min")
    bare = facts([stored_run(None)])
    assert [*bare] == ["ensemble", "runs", "steps", "data"] and bare["runs"] == "a (1 run)"
    assert [*facts([])] == ["ensemble", "runs", "data"]
    later = facts([stored_run(0, attempts=[one]), stored_run(1, attempts=[two])])
    assert later["trained"] == "2026-01-02 03:00:00 UTC to 2026-01-02 04:00:00 UTC"
    assert later["training time"] == "2 min, summed over the workers"
    coded = facts([stored_run(0, attempts=[{"code": [{"name": "mine", "commit": "0123456789abcdef"}]}])])
    assert coded["code"] == Cell("mine at commit 0123456789ab")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119.4, "119 s"), (120, "2 min"), (90 * 60, "90 min"), (7199, "120 min"), (7200, "2.0 h"),
     (9000, "2.5 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert provenance._duration(seconds) == text


def test_every_process_that_worked_on_it_is_listed():
    argv = ["/usr/bin/dynalab", "train", "task=a b"]
    full = {"argv": argv, "started": "2026-01-02T03:04:05+00:00", "first_step": 3, "step": 20}
    full |= {"seconds": 1.26, "host": "a", "device": "cpu"}
    (table,) = provenance._history(shown([stored_run(0, attempts=[full, {}]), stored_run(1)]))
    header = ["shard", "started", "from step", "to step", "seconds", "host", "device", "command"]
    rows = [
        ["shard-s0000-1", "2026-01-02 03:04:05 UTC", 3, 20, 1.3, "a", "cpu", "dynalab train 'task=a b'"],
        ["shard-s0000-1", *[None] * 7],
    ]
    assert table == Table(header, rows, "Every process that worked on it", folded=True, sortable=False)
    assert list(provenance._history(shown([stored_run(1)]))) == []


def test_the_command_that_trains_it_again(tmp_path):
    def command(runs: Sequence[StoredRun], overrides: Any = ("task=grokking",), **config: Any) -> str | None:
        item = shown(runs, config=config)
        item.ensemble.paths = EnsemblePaths(tmp_path)
        (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(overrides))
        return provenance.train_command(item)

    runs = [stored_run(seed, asked=steps) for seed, steps in ((0, 200), (1, 300), (5, 100))]
    words = ["task=grokking", "train.steps=7", "optimizer.lr=0.1", "train.epochs=2"]
    assert command(runs, words) == "dynalab train task=grokking optimizer.lr=0.1 train.steps=300 seed=0..1,5"
    streams = {"init": [0, 1, 2], "order": None, "noise": 4, "split": [3]}
    crossed = [stored_run(None, label="a", streams={"init": 0, "order": 9, "noise": 4, "split": 3})]
    typed = ["task=grokking", "seed_streams.split=[3]"]
    assert command(crossed, typed, seed_streams=streams) == (
        "dynalab train task=grokking 'seed_streams.split=[3]' seed_streams.init=0..2 train.steps=200 seed=9"
    )
    # Of several streams that are free the first tells.
    assert str(command(crossed, seed_streams={"init": [0]})).endswith(
        "seed_streams.init=0 train.steps=200 seed=3"
    )
    fixed = {"init": 1, "split": 1, "order": 1, "noise": 1}
    assert command(crossed, seed_streams=fixed) == "dynalab train task=grokking train.steps=200"
    plugged = [stored_run(0, folders=["/p q", "/r"]), stored_run(1, folders=["/r"])]
    assert (
        command(plugged)
        == "dynalab train task=grokking train.steps=200 seed=0..1 --config-dir '/p q' --config-dir /r"
    )
    assert command([]) is None and command(runs, {"a": 1}) is None
    (tmp_path / "overrides.yaml").unlink()
    item = shown(runs)
    item.ensemble.paths = EnsemblePaths(tmp_path)
    assert provenance.train_command(item) is None


def test_what_was_imported_is_said_and_imported_again():
    def item(names: Sequence[str] = ("mine",), **about: Any) -> Shown:
        return shown(
            [], imported=True, names=list(names), config={"import": about, "levels": {"acc": 0.9, "b": 1}}
        )

    levels = "--level acc=0.9 --level b=1"
    files = item(("mine", "other"), files=["a b.csv", "c.csv"], options=["--x", 1])
    assert provenance.train_command(files) == f"dynalab import 'a b.csv' c.csv --name mine --x 1 {levels}"
    assert provenance._settings(files.ensemble) == Say(
        "These runs were trained elsewhere and imported from the files **a b.csv and c.csv** as **mine and other**."
    )
    for n, listed in ((6, "0, 1, 2, 3, 4 and 5"), (7, "0, 1, 2, 3, 4, 5 and 1 more")):
        many = item([str(k) for k in range(n)], files=[str(k) for k in range(n)])
        assert provenance._imported(many.ensemble) == (
            f"These runs were trained elsewhere and imported from the files **{listed}** as **{listed}**."
        )
    wide = item(file="a.csv", form="wide", step="t")
    assert provenance.train_command(wide) == f"dynalab import a.csv --name mine --wide --step t {levels}"
    assert "imported from the file **a.csv** as **mine**." in provenance._settings(wide.ensemble).text  # type: ignore[union-attr]
    long = item(file="a.csv", form="long", step="t", run="r")
    assert provenance.train_command(long) == f"dynalab import a.csv --name mine --run r --step t {levels}"
    frame = item(())
    assert (
        provenance.train_command(frame) is None and provenance.train_command(item((), file="a.csv")) is None
    )
    assert provenance._settings(frame.ensemble) == Say(
        f"These runs were trained elsewhere and imported from a data frame as **{DIGEST}**."
    )


def test_the_section_on_what_was_run(monkeypatch):
    monkeypatch.setattr(provenance, "_defaults", {"grokking": {"a.b": 1, "c": 2}, "empty": {}}.get)
    monkeypatch.setattr(provenance, "train_command", lambda item: "dynalab train x")
    item = shown(
        [stored_run(0, asked=70)], config={"a": {"b": 3}, "d": [1], "sources": {"x": "é"}}, results=[result()]
    )
    settings, facts, again, whole = provenance.section(item, HOME).blocks
    assert settings == Table(
        ["key", "here", "default"],
        [["a.b", "3", Cell("1", tone="quiet")], ["d", "[1]", Cell("null", tone="quiet")],
         ["c", "null", Cell("2", tone="quiet")]],
        "Differences to the defaults of task=grokking", sortable=False,
    )  # fmt: skip
    assert facts == Table(["", ""], provenance._facts(item, HOME), sortable=False)
    assert again == Code(f"dynalab train x\ndynalab analyze odd {DIGEST}", "To repeat it")
    assert whole == Code("a:\n  b: 3\nd:\n- 1\nsources:\n  x: é", "The whole configuration", folded=True)
    # Of an ensemble that is shown with the configuration of its longest run, in the order of its keys.
    asked: list[Any] = []
    monkeypatch.setattr(provenance, "shown_stored", lambda *words: asked.append(words) or {"b": 1, "a": 2})
    longer = replace(item, runs=[stored_run(0, asked=70), stored_run(1, asked=90), stored_run(2, asked=80)])
    assert provenance.section(longer, HOME).blocks[3] == Code(
        "b: 1\na: 2", "The whole configuration", folded=True
    )
    assert (
        [words[1] for words in asked] == [90] and provenance.section(shown([]), HOME) and asked[1][1] is None
    )
    section = provenance.section(item, HOME)
    assert (section.title, section.anchor) == ("What was run", f"e-{DIGEST}-run")
    same, unknown = (
        shown([], config=config, task=task).ensemble for config, task in (({}, "empty"), ({}, "none"))
    )
    assert provenance._settings(same) == Say("Every key stands at the default of task=empty.")
    assert provenance._settings(unknown) == Say(
        "There is no configuration of the task **none** here to compare with."
    )
    assert provenance.differences(unknown) is None and provenance.differences(same) == {}
    monkeypatch.undo()
    assert (
        provenance._defaults("no_such_task") is None
        and provenance._defaults("grokking")["task.name"] == "grokking"
    )  # type: ignore[index]


# An ensemble's part.


def recorder(calls: list[Any]) -> Callable[..., str]:
    return lambda *args, **keys: calls.append((args, keys)) or "drawn"


STEPS = np.arange(0, 201, 10)


def with_values(runs: Sequence[StoredRun], *metrics: str, **about: Any) -> Shown:
    values = {name: np.ones((len(runs), len(STEPS))) for name in metrics}
    return shown(runs, steps=dict.fromkeys(metrics, STEPS), values=values, **about)


def test_the_summary_of_runs_that_are_done():
    runs = [stored_run(seed, summary={"generalised_step": step, "memorised_step": 40, "final": {"test_accuracy": last}})
            for seed, step, last in ((0, 100, 1.0), (1, 120, 0.5), (2, None, 0.2))]  # fmt: skip
    config = {"model": {"name": "mlp"}, "optimizer": {"name": "adam"}, "levels": {"test_accuracy": 0.99}}
    item = with_values(runs, "test_accuracy", config=config, total=4)
    assert ensemble.summary(item) == [
        "**3 runs** of **grokking** (mlp, adam) (of 4 stored): all done, 200 steps, seeds 0..2.",
        "Memorised at median step **40** [quartiles 40 to 40], 3 of 3 runs.",
        "Generalised (test accuracy at least 0.99) at median step **120** [quartiles 100 to never], 2 of 3 runs; "
        "**1** of them is below it again at the end.",
    ]
    runs[0].summary["final"]["test_accuracy"] = 0.9  # type: ignore[index]
    assert ensemble.summary(item)[-1].endswith("**2** of them are below it again at the end.")
    item = shown([stored_run(None)], config={"model": {"name": "mlp"}, "optimizer": {}})
    assert ensemble.summary(item) == ["**1 run** of **grokking** (mlp): all done, 200 steps."]


def test_the_summary_of_runs_that_differ():
    runs = [
        stored_run(0, steps=1200), stored_run(1, steps=1500),
        stored_run(2, "diverged", 1000, summary={"diverged_step": 900}),
        stored_run(3, "failed", 1300, summary=None), stored_run(4, "planned", 1300, summary=None),
    ]  # fmt: skip
    late = STEPS + 1000
    item = shown(
        runs, steps={"a": late, "b": late[:5]}, values={"a": np.ones((5, 21))}, fewer={"a": 4000, "c": 90000}
    )
    assert ensemble.summary(item) == [
        "**5 runs** of **grokking**: 2 done, 1 diverged, 1 failed, 1 planned, 1,200 to 1,500 steps, seeds 0..4.",
        "The runs differ in length: beyond step 1,200 medians and bands are of fewer runs.",
        "Nothing was recorded before step 1,000.",
        "Figures show 21 of 4,000 recorded steps: each row at the nearest of them.",
        "Without a summary yet, and not counted in these medians: s0003 and s0004.",
        "**Diverged:** s0002 at step 900; their rows from there on are left out.",
        "**Failed:** s0003 (step 1,300).",
        "**Planned:** s0004 (step 1,300).",
    ]
    gone = [stored_run(0, "diverged", 50, summary={"diverged_step": 7})]
    assert ensemble.summary(shown(gone))[0] == "**1 run** of **grokking**: 1 diverged, 50 steps, seed 0."


def test_captions_of_the_curves(monkeypatch):
    curves, landmarks = [], []
    monkeypatch.setattr(plots, "training_curves", recorder(curves))
    monkeypatch.setattr(plots, "landmark_steps", recorder(landmarks))
    runs = [
        stored_run(0, summary={"generalised_step": 100, "memorised_step": 20}),
        stored_run(1, summary={"generalised_step": 120, "memorised_step": 30}),
        stored_run(2, "diverged", 90, summary={"diverged_step": 80, "memorised_step": None}),
    ]
    rule = {"metric": "test_accuracy", "threshold": 0.9, "direction": "up", "persistence": 3}
    rows = [{"run": f"{DIGEST}/s0000", "step": 110}, {"run": f"{DIGEST}/s0001", "step": None}]
    made = result("hmm", "2" * 10, convergence=rows, convergence_rule=rule)
    item = with_values(runs, "train_loss", "train_accuracy", "test_accuracy", results=[made])
    item.steps["test_accuracy"] = STEPS * 2
    one, two = ensemble._curves(item)
    assert isinstance(one, Picture) and isinstance(two, Picture)
    assert one.caption == (
        "**Loss and accuracy.** Line: median over runs; band: quartiles; thin lines: single runs. "
        "Dashed: median step at which runs memorised and generalised. Crosses: where a run diverged."
    )
    assert (one.name, one.alt) == ("curves", "Curves of train loss and train accuracy over training")
    ((grid, losses, accuracies), keys) = curves[0]
    assert grid.tolist() == STEPS.tolist() and [*losses] == [*accuracies] == ["train"]
    assert keys["marked"] == {"memorised": 30.0, "generalised": 120.0} and keys["log_steps"] is False
    assert np.array_equal(keys["diverged"], [np.nan, np.nan, 80], equal_nan=True)
    # On one grid with the losses, or not beside them.
    assert two.caption == (
        "**When it happened.** A dot a run; runs in which it did not happen by the "
        "end count as later than all others."
    )
    assert (two.name, two.alt) == ("landmarks", "Steps at which runs memorised, generalised and converged")
    ((drawn,), keys) = landmarks[0]
    assert np.array_equal(drawn["converged"], [110, np.nan], equal_nan=True) and keys == {
        "first": 0,
        "last": 200,
    }
    assert [*drawn] == ["memorised", "generalised", "converged"]
    few = with_values(runs[:1], "train_loss")
    (only,) = ensemble._curves(few)
    assert curves[-1][1]["marked"] == {"memorised": 20.0, "generalised": 100.0}
    assert isinstance(only, Picture)
    assert only.caption == "**Loss and accuracy.**  Dashed: step at which runs memorised and generalised."
    assert ensemble._curves(shown(runs))[0] == Say("Nothing has been recorded yet.")
    never = with_values([stored_run(0, summary={}), stored_run(1, summary={})], "train_loss")
    (only,) = ensemble._curves(never)
    assert isinstance(only, Picture) and only.caption == "**Loss and accuracy.** "


def test_captions_of_the_other_metrics(monkeypatch):
    panels: list[Any] = []
    monkeypatch.setattr(plots, "metric_panels", recorder(panels))
    runs = [stored_run(seed) for seed in range(3)]
    item = with_values(
        runs, "odd", "l2", "train_loss", "grad_norm", "test_loss", "eigenvalue_share_000", "curvature_probe_size",
        metrics=["odd", "l2", "none", "eigenvalue_share_000", "eigenvalue_share_001"],
    )  # fmt: skip
    item.steps["test_loss"] = STEPS * 2
    (block,) = ensemble._metrics(item)
    assert isinstance(block, Picture) and block.caption == (
        "**Everything else that was recorded.** Line: median over runs; band: quartiles; thin lines: single runs. "
        "Recorded but without a value: none."
    )
    assert (block.name, block.alt) == ("metrics", "Panels of 4 metrics over training")
    groups = {"test_loss": "loss", "grad_norm": "norms", "l2": "weights", "odd": "other"}
    assert panels[0][1]["groups"] == groups and [*panels[0][0][0]] == [*groups]
    (block,) = ensemble._metrics(with_values(runs[:2], "odd"))
    assert isinstance(block, Picture) and block.caption == "**What was recorded.** "
    assert ensemble._metrics(with_values(runs, "train_loss")) == []
    assert gather.group_of("my_accuracy") == "accuracy" and gather.group_of("sharpness") == "curvature"
    assert gather.group_of("min_margin") == "numerics"


def test_the_table_of_runs():
    rule = {"metric": "loss", "threshold": 0.5, "direction": "down", "persistence": 1}
    rows = [{"run": f"{DIGEST}/s0000", "step": 110}, {"run": f"{DIGEST}/s0002", "step": None}]
    made = result("hmm", "2" * 10, convergence=rows, convergence_rule=rule)
    runs = [
        stored_run(0, summary={"generalised_step": 100, "final": {"test_loss": 0.25, "step": 200}}),
        stored_run(1, "diverged", 90, summary={"diverged_step": 80}),
        stored_run(2, "partial", 1500, asked=3000, summary=None),
        stored_run(3, "failed", 200, summary={}, label="x" * 31),
    ]
    item = with_values(runs, "test_accuracy", results=[made])
    table = ensemble.run_table(item)
    assert table.header == ["run", "seed", "status", "steps", "generalised", "converged", "final test loss"]
    assert table.caption == (
        "Every run. Converged: loss at most 0.5 for 1 row on end (hmm-2222222222). A click on a head sorts."
    )

    def named(label: str, tone: str = "whole") -> Cell:
        return Cell(f"{DIGEST}/{label}", label, tone, run=f"{DIGEST}/{label}")

    assert table.rows == [
        [named("s0000"), 0, Cell("done"), Cell(200), Cell(100), Cell(110), 0.25],
        [named("s0001"), 1, Cell("diverged at 80", tone="bad"), Cell(90),
         Cell(None, "not by 80"), Cell(None), None],
        [named("s0002"), 2, Cell("partial"), Cell(1500, "1,500 of 3,000"),
         Cell(None), Cell(None, "not by 1,500"), None],
        [named("x" * 31, ""), 3, Cell("failed", tone="bad"), Cell(200), Cell(None, "not by 200"), Cell(None), None],
    ]  # fmt: skip
    made.data["convergence_rule"].update(direction="up", persistence=2)  # type: ignore[union-attr]
    assert ensemble.run_table(item).caption.startswith(
        "Every run. Converged: loss at least 0.5 for 2 rows on end"
    )
    bare = ensemble.run_table(shown([stored_run(None, label="b" * 30)]))
    assert bare.header == ["run", "status", "steps"] and bare.caption == "Every run. A click on a head sorts."
    assert bare.rows == [[named("b" * 30), Cell("done"), Cell(200)]]


def test_the_parts_of_an_ensemble(monkeypatch):
    monkeypatch.setattr(provenance, "train_command", lambda item: None)
    item = shown([stored_run(0)], warnings=["beware"], title="mine")
    monkeypatch.setattr(choice, "others", lambda *args: Section("Other analyses", "x", ()))
    part = ensemble.section(item, [Section("A", "a", [Say("x")])], HOME)
    # What is odd stands at the top of the page, once.
    assert (part.title, part.anchor, part.blocks) == ("mine", f"e-{DIGEST}", ())
    assert [(one.title, one.anchor) for one in part.sections] == [
        ("A", "a"), ("Training", f"e-{DIGEST}-curves"), ("Runs", f"e-{DIGEST}-runs"),
        ("What was run", f"e-{DIGEST}-run"),
    ]  # fmt: skip
    picture = Picture(name="p", figure=None, caption="", alt="")  # type: ignore[arg-type]
    inner = Section("B", "b", [Say("x"), picture])
    outer = Section("A", "a", [picture], [inner])
    assert list(walk([outer, inner])) == [(outer, picture), (inner, picture), (inner, picture)]


# From the store to arrays.


def test_when_something_happened_and_on_which_axis():
    runs = [stored_run(0, summary={"generalised_step": 8}), stored_run(1, summary={"generalised_step": 10})]
    item = with_values(runs, "test_accuracy")
    assert item.landmarks() == {"generalised": [8, 10]} and item.medians() == {"generalised": 9}
    assert (item.log_steps, item.last_step, item.first_step) == (True, 200, 0)
    # The earliest of several decides.
    early = [stored_run(0, summary={"memorised_step": 9, "generalised_step": 150})]
    assert with_values(early, "test_accuracy").log_steps
    runs[0].summary["generalised_step"] = 10  # type: ignore[index]
    assert item.medians() == {"generalised": 10} and not item.log_steps
    log = np.array([1, 2, 3, 4, 5, 100, 200])
    assert shown(runs, steps={"a": log}).log_steps and shown(runs, steps={"a": log}).first_step == 1
    never = with_values([stored_run(0, summary={}), stored_run(1, summary={})], "test_accuracy")
    assert never.landmarks() == {"generalised": [None, None]} and not never.log_steps
    # Of imported runs those whose level was given.
    assert with_values(runs, "test_accuracy", imported=True).landmarks() == {}
    levels = {"levels": {"test_accuracy": 0.9}}
    assert with_values(runs, "test_accuracy", imported=True, config=levels).landmarks() == {
        "generalised": [10, 10]
    }
    assert shown([stored_run(0, summary=None)], values={"test_accuracy": np.ones((1, 1))}).landmarks() == {}
    assert (shown([]).last_step, shown([]).first_step, shown([]).statuses()) == (0, 0, {})
    two = [stored_run(0, "failed"), stored_run(1), stored_run(2)]
    assert [*shown(two).statuses().items()] == [("done", 2), ("failed", 1)]


def test_convergence_is_of_the_first_analysis_that_says_it():
    runs = [stored_run(0), stored_run(1)]
    rows = [{"run": f"{DIGEST}/s0000", "step": 3}, {"run": f"{DIGEST}/s0009", "step": 4}]
    for wrong in (None, [], {"run": "a"}, [1], [{"run": 1, "step": 2}], [{"run": "a", "step": "b"}]):
        made = result("eos", convergence=rows)
        item = shown(runs, results=[result(convergence=wrong), made, result(convergence=[])])
        assert item.convergence() == ({f"{DIGEST}/s0000": 3}, made)
    assert shown(runs, results=[result()]).convergence() is None


def test_what_changed_since_an_analysis_was_made():
    late, early = ([{"ended": f"2026-01-0{day}T00:00:00+00:00"}] for day in (3, 1))
    runs = [
        stored_run(0, attempts=late), stored_run(1, attempts=early), stored_run(2, "failed", attempts=late),
        stored_run(3, steps=200), stored_run(4, steps=201), stored_run(5, steps=199),
        stored_run(6, "partial", steps=199),
        *(stored_run(seed, attempts=late) for seed in (7, 8, 9)), stored_run(10),
    ]  # fmt: skip
    inputs = [{"run": f"{DIGEST}/s000{seed}", "steps": 200, "attempt": 1} for seed in (3, 4, 5, 6)]
    made = result("eos", created="2026-01-02T00:00:00+00:00", inputs=inputs)
    tail = f"this analysis was made: `dynalab analyze eos {DIGEST}` makes a new one"
    item = shown(runs)
    assert stale(item, made) == [
        f"4 runs (s0000, s0007, s0008 ...) were trained after {tail}",
        f"2 runs (s0004, s0005) have other steps than when {tail}",
    ]
    item.ensemble.damaged += [runs[4].shard.root.name, runs[9].shard.root.name]
    assert stale(item, made)[0].startswith("3 runs (s0000, s0007, s0008) were")
    assert stale(item, made)[1].startswith("1 run (s0005) has")
    # Only the first rows entered, which all still have.
    made.data["config"] = {"steps": 199}  # type: ignore[index]
    assert len(stale(item, made)) == 1
    made.data["config"] = {"steps": 200}  # type: ignore[index]
    assert stale(item, made)[1].startswith("1 run (s0005)")
    made.data["inputs"][0]["attempt"] = 2
    made.data["config"] = None  # type: ignore[index]
    assert stale(item, made)[1].startswith("2 runs (s0003, s0005)")
    # What does not say how many rows entered is not compared.
    made.data["inputs"][0]["steps"] = None
    assert stale(item, made)[1].startswith("1 run (s0005)")


def test_of_imported_runs_with_many_steps_some_are_drawn(outputs, monkeypatch):
    made = make_ensemble(outputs, n_runs=2, shards=2)
    # Of float64, 32 MB a metric.
    assert gather.CELLS * 8 == 32e6
    monkeypatch.setattr(gather, "CELLS", 16)
    monkeypatch.setattr(gather.thin, "POINTS", 7)
    assert gather.gather(made, made.runs, []).fewer == {}
    monkeypatch.setattr(type(made), "imported", True)
    item = gather.gather(made, made.runs[1:], [])
    # Two runs share sixteen cells: eight steps each, the first and the last among them.
    assert item.fewer == dict.fromkeys(made.metrics, 21) and len(item.steps["test_loss"]) == 8
    assert item.steps["test_loss"][[0, -1]].tolist() == [0, 200] and item.values["test_loss"].shape == (1, 8)
    monkeypatch.setattr(gather, "CELLS", 12)
    item = gather.gather(made, made.runs, [])
    assert len(item.steps["test_loss"]) == 7 and [run.label for run in item.runs] == ["s0000", "s0001"]
    assert item.total == 2


def test_curves_end_where_no_run_has_a_value(outputs):
    values = {"a": np.full((3, 6), np.nan), "b": np.full((3, 6), np.inf), "c": np.ones((3, 6))}
    values["a"][0, [0, 2]], values["a"][2, 4] = 1.0, 2.0
    made = make_ensemble(outputs, n_runs=3, steps=np.arange(6), values=values, status="partial")
    item = gather.gather(made, [made.runs[2], made.runs[0]], [], [result()])
    assert item.steps["a"].tolist() == [*range(5)] and "b" not in item.values and len(item.steps["c"]) == 6
    assert np.array_equal(item.values["a"], values["a"][[0, 2], :5], equal_nan=True)
    assert (
        [run.label for run in item.runs] == ["s0000", "s0002"] and item.total == 3 and len(item.others) == 1
    )
    assert gather.gather(made, made.runs[:1], []).steps["a"].tolist() == [0, 1, 2]
    made.paths.config.write_text("eval: 1\nlevels: {}\n")
    assert text_of(StoreError, lambda: gather.gather(Ensemble(made.paths), [], [])) == (
        f"{made.paths.config} is damaged: eval is 1"
    )
    made.damaged.append(made.runs[0].shard.root.name)
    assert gather.gather(made, made.runs, []).runs == []


# Several ensembles.


def test_ensembles_are_named_by_what_they_differ_in():
    def titles(
        *configs: dict[str, Any], slugs: Sequence[str] = ("a", "b", "c"), **about: Any
    ) -> tuple[list[str], list[str]]:
        items = [
            shown([], digest=letter * 10, slug=slug, config=config, **about)
            for letter, slug, config in zip("123", slugs, configs, strict=False)
        ]
        return overview.name_ensembles(items), [item.title for item in items]

    one = {"lr": 0.1, "name": "x", "levels": {"a": 1}, "snapshots": {"at": 1}}
    two = {"lr": [1, [2, "b"]], "name": "x", "levels": {"a": 2}, "snapshots": {"at": 2}}
    assert titles(one, two) == (["lr"], ["lr 0.1", "lr [1,[2,b]]"])
    assert titles(one) == ([], ["grokking: a"]) and titles(one, slugs=["default"]) == ([], ["grokking"])
    assert titles(one, one) == ([], ["grokking: a (1111111111)", "grokking: b (2222222222)"])
    assert titles({"lr": 1}, {"lr": 2}, {"lr": 2}) == (
        ["lr"], ["lr 1", "lr 2 (2222222222)", "lr 2 (3333333333)"]
    )  # fmt: skip
    many = [dict.fromkeys("abcd", 1), dict.fromkeys("abcd", 2)]
    assert titles(*many)[1] == ["a 1, b 1, c 1, d 1", "a 2, b 2, c 2, d 2"]
    more = [dict.fromkeys("abcde", 1), dict.fromkeys("abcde", 2)]
    assert titles(*more)[1] == ["a 1", "a 2"]
    assert titles({"a": None, "b": 1}, {"a": 2, "b": 2})[1] == ["b 1", "a 2, b 2"]
    names = [{"import": {"names": ["x", "y"], "file": "1"}}, {"import": {"names": ["z"], "file": "2"}}]
    assert titles(*names) == (["import.names"], ["x, y", "z"])


def test_ensembles_are_compared_by_the_tasks_own_metric():
    items = [
        with_values([stored_run(0)], "odd", "test_loss"),
        with_values([stored_run(0)], "test_loss", "odd"),
    ]
    assert overview.main_metric(items) == "test_loss"
    items[1].ensemble.convergence = Convergence("odd", 0.5)  # type: ignore[misc]
    assert overview.main_metric(items) == "odd"
    items[1].ensemble.convergence = Convergence("none", 0.5)  # type: ignore[misc]
    assert overview.main_metric(items) == "test_loss"
    assert overview.main_metric([items[0], with_values([stored_run(0)], "x")]) is None
    assert (
        overview.main_metric([with_values([stored_run(0)], "x", "y"), with_values([stored_run(0)], "y")])
        == "y"
    )


def test_the_comparison_of_ensembles(monkeypatch):
    compared, landmarks = [], []
    monkeypatch.setattr(plots, "comparison", recorder(compared))
    monkeypatch.setattr(plots, "landmark_steps", recorder(landmarks))
    runs = [
        stored_run(seed, summary={"generalised_step": step}) for seed, step in ((0, 100), (1, 120), (2, None))
    ]
    longer = replace(runs[0], steps=300)
    items = [
        with_values(runs, "test_loss", "test_accuracy", digest="1" * 10, title="lr=0.1", config={"lr": 0.1}),
        with_values(
            runs[:2], "test_loss", "test_accuracy", digest="2" * 10, title="lr=0.2", config={"lr": True}
        ),
    ]
    section = overview.comparison(items, ["lr"], [])
    table, one, two = section.blocks
    beyond = replace(items[1], runs=[longer, runs[1]], steps=dict.fromkeys(items[1].steps, STEPS + 10))
    overview.comparison([items[0], beyond], [], [])
    assert (landmarks[-1][1]["first"], landmarks.pop()[1]["last"]) == (0, 300)
    overview.comparison([beyond, items[0]], [], [])
    assert (landmarks[-1][1]["first"], landmarks.pop()[1]["last"]) == (0, 300)
    assert (section.title, section.anchor) == ("Comparison", "comparison")
    assert isinstance(table, Table) and isinstance(one, Picture) and isinstance(two, Picture)
    colours = ensemble_colours(2)
    assert table.caption == "2 ensembles." and table.header == [
        "ensemble", "lr", "runs", "status", "steps", "generalised (median [quartiles], n)"
    ]  # fmt: skip
    assert table.rows == [
        [Cell("1" * 10, setting="1" * 10, swatch=colours[0], link=f"#e-{'1' * 10}"), 0.1, 3, Cell("3 done"), 200,
         Cell(120.0, "120 [100 to never], 2 of 3")],
        [Cell("2" * 10, setting="2" * 10, swatch=colours[1], link=f"#e-{'2' * 10}"), True, 2, Cell("2 done"), 200,
         Cell(110.0, "110 [100 to 120], 2 of 2")],
    ]  # fmt: skip
    assert one.caption == "**test accuracy** of every ensemble: median over runs, quartiles as a band."
    assert (one.name, one.alt) == ("comparison", "test_accuracy of 2 ensembles over training")
    (drawn,), keys = compared[0]
    assert [*drawn] == ["lr=0.1", "lr=0.2"] and (keys["metric"], keys["logarithmic"]) == (
        "test_accuracy",
        False,
    )
    assert two.caption == "**When runs generalised**, ensemble by ensemble: a dot a run."
    assert (two.name, two.alt) == ("landmarks", "Steps at which runs generalised")
    ((rows,), keys) = landmarks[0]
    assert [*rows] == ["lr=0.1", "lr=0.2"]
    assert keys["colours"] == {"lr=0.1": colours[0], "lr=0.2": colours[1]}
    assert (keys["first"], keys["last"]) == (0, 200)
    # Of few runs there are no bands; what has no bound above is shown by its logarithm.
    few = [replace(item, runs=runs[:2], values={"test_loss": np.ones((2, 21))}) for item in items]
    for item in few:
        item.runs = [stored_run(0, summary={"memorised_step": 7}), stored_run(1, summary={})]
    _, one, two = overview.comparison(few, ["lr"], []).blocks
    assert isinstance(one, Picture) and one.caption == "**test loss** of every ensemble: median over runs."
    assert compared[-1][1]["logarithmic"] is True
    assert isinstance(two, Picture) and two.alt == "Steps at which runs generalised or memorised"
    # One of which runs never got there has no row; two are needed.
    few[1].runs = [stored_run(0, summary={}), stored_run(1, summary={})]
    assert len(overview.comparison(few, [], []).blocks) == 2


def test_rows_of_many_ensembles_are_cut_short(monkeypatch):
    monkeypatch.setattr(plots, "landmark_steps", recorder([]))
    runs = [stored_run(0, summary={"memorised_step": 7})]
    items = [
        shown(runs, digest=f"{number:010d}", title=f"x={number}", config={"x": number})
        for number in range(25)
    ]
    keys = [f"k{number}" for number in range(9)]
    table, picture = overview.comparison(items, keys, []).blocks
    assert isinstance(table, Table) and isinstance(picture, Picture)
    assert table.caption == "25 ensembles. Keys in which they differ: 9, the first 8 are shown."
    assert table.header[1:10] == [*keys[:8], "runs"] and len(table.rows) == 25
    assert "ensemble by ensemble (of the first 24 of 25): a dot a run" in picture.caption
    assert overview.comparison(items[:24], keys[:8], []).blocks[0].caption == "24 ensembles."  # type: ignore[union-attr]
    assert "first 24" not in overview.comparison(items[:24], keys, []).blocks[1].caption  # type: ignore[union-attr]


def test_cells_of_the_comparison():
    assert overview._landmark(None) is None and overview._landmark([]) is None
    assert overview._landmark([None, None]) == Cell(None, "never, 0 of 2", "quiet")
    assert overview._landmark([1000, None, None]) == Cell(None, "never [1,000 to never], 1 of 3")
    assert (
        overview._value(3) == 3
        and overview._value(["a", 1]) == "[a, 1]"
        and overview._value(["a"], bare=True) == "a"
    )
    facts = [
        SimpleNamespace(facts=lambda: {"a": 1, "b": 2}),
        SimpleNamespace(facts=lambda: {"a": 3, "c": 4}),
        None,
    ]
    item = shown(
        [stored_run(0, "failed")], results=[result(value=value) for value in facts], config={"n": None}
    )
    assert item.facts() == {"a": 1, "c": 4, "b": 2}
    other = shown([stored_run(0)], digest="2" * 10, config={"n": ["x", "y"]})
    table = overview._table([item, other], ["n", overview.IMPORTED])
    assert table.header == ["ensemble", "n", "name", "runs", "status", "steps", "a", "c", "b"]
    assert [row[1:] for row in table.rows] == [
        [None, None, 1, Cell("1 failed", tone="bad"), 200, 1, 4, 2],
        ["[x, y]", None, 1, Cell("1 done"), 200, None, None, None],
    ]


# Which analyses are shown.


def test_analyses_that_were_not_made_have_their_commands(monkeypatch):
    def needs(part: Any, config: Any) -> Any:
        return part.needs

    def part(wanted: Sequence[str], *, broken: bool = False, blocks: Sequence[str] = ()) -> Any:
        def config() -> None:
            if broken:
                raise TypeError("a key without a default")

        needs = Needs(columns=tuple(wanted), blocks=tuple(blocks))
        return SimpleNamespace(config_class=config, needs=needs, module=SimpleNamespace(analyse=len))

    parts = {
        "a": part(["x"]),
        "b": part(["x"], broken=True),
        "c": part([]),
        "d": part(["y"]),
        "e": part(["x"]),
        "f": None,
        "g": part([], blocks=["bits"]),
        "h": part([], blocks=["others"]),
    }
    monkeypatch.setattr(choice, "names", lambda group, folders: [*parts])
    monkeypatch.setattr(choice, "part_of", parts.get)
    monkeypatch.setattr(choice, "needs_of", needs)
    monkeypatch.setattr(choice, "_config_dir", lambda kind: ["--config-dir", "/p q"] if kind == "e" else [])
    item = shown([], metrics=["x"], blocks=["bits"])
    commands = [
        f"dynalab analyze a {DIGEST}",
        f"dynalab analyze e {DIGEST} --config-dir '/p q'",
        f"dynalab analyze g {DIGEST}",
    ]
    assert choice.unmade(item.ensemble, []) == commands
    assert choice.unmade(item.ensemble, [result("a")]) == commands[1:]
    others = choice.others("x", item.ensemble, [result("a")], [])
    assert (others.title, others.anchor) == ("Other analyses", "x-others")
    assert others.blocks == [Say(f"Recorded, and not analysed: `{commands[1]}` and `{commands[2]}`.")]


def test_analyses_that_are_not_shown_are_listed(monkeypatch):
    monkeypatch.setattr(choice, "unmade", lambda *_: [])
    plain = result("hmm", "1" * 10, created="2026-01-02T03:04:05+00:00", inputs=[{}, {}], keys={})
    keyed = result(
        "odd", "2" * 10, keys={"a": None, "b": [1, True], "c": {"d": 1.5}}, ensembles=[DIGEST, "x"]
    )
    item = shown([])
    (table,) = choice.others("e", item.ensemble, [], [plain, keyed]).blocks
    report = f"dynalab report {DIGEST}"
    assert table == Table(
        ["analysis", "keys", "runs", "made", "shown by"],
        [
            [Cell("odd-2222222222", tone="whole"), "a=null b=[1,true] c={d:1.5} pool=true", 0, Cell(None, tone="whole"),
             f"{report} odd-2222222222"],
            [Cell("hmm-1111111111", tone="whole"), "default", 2, Cell("2026-01-02 03:04", tone="whole"),
             f"{report} hmm-1111111111"],
        ],
        "Stored, and not shown here: of each kind the page shows the analysis with default keys", sortable=False,
    )  # fmt: skip
    assert choice.others("e", item.ensemble, [plain], []).blocks == []
    assert (
        choice.analyze_command(keyed)
        == f"dynalab analyze odd {DIGEST} x a=null 'b=[1,true]' 'c={{d:1.5}}' pool=true"
    )


def test_named_analyses_are_shown_where_they_are_about_it(monkeypatch):
    monkeypatch.setattr(choice, "part_of", lambda kind: None)
    stored = [
        result("hmm", "1" * 10),
        result("hmm", "2" * 10),
        result("eos", "3" * 10),
        result("contrast", "4" * 10),
    ]
    monkeypatch.setattr(choice, "results", lambda root, ids: stored)
    elsewhere = result("eos", "5" * 10, ensembles=["x"])
    found = choice.choose(HOME, DIGEST, [stored[0], elsewhere])
    # Of a kind that was asked for, also of another ensemble, no other is chosen.
    assert (found.shown, found.others) == ([stored[0]], stored[1:3])
    assert [made.id for made in choice.choose(HOME, DIGEST, []).shown] == ["2" * 10, "3" * 10]


def test_what_an_older_version_made_is_said_once(monkeypatch):
    monkeypatch.setattr(
        choice, "part_of", lambda kind: SimpleNamespace(module=SimpleNamespace(VERSION=3), config_class=None)
    )
    monkeypatch.setattr(choice, "stored_keys", lambda config: {"decode_with"})
    monkeypatch.setattr(choice, "unmade", lambda *_: [])
    old, new = result("hmm", "1" * 10, version=2), result("hmm", "2" * 10, version=3)
    assert (choice.newer_version(old), choice.newer_version(new), choice.newer_version(result())) == (
        3,
        None,
        None,
    )
    words = (
        "hmm-1111111111 was made by version 2 of the analysis, which is at 3: "
        f"`dynalab analyze hmm {DIGEST}` makes it anew"
    )
    assert choice.older(old) == words and choice.older(new) == ""
    item = shown([]).ensemble
    assert choice.others("e", item, [], [old]).blocks[0] == Say(f"{words}.")
    # Where the new one is there, nobody need be told.
    assert choice.superseded(old, [old, new]) and not choice.superseded(old, [old])
    for other in (
        result("eos", version=3),
        result("hmm", version=3, ensembles=["x"]),
        result("hmm", version=3, keys={"a": 1}),
    ):
        assert not choice.superseded(old, [other])
    assert [type(block) for block in choice.others("e", item, [new], [old]).blocks] == [Table]
    assert choice.is_of_another(result(keys={"decode_with": "x", "a": 1})) and not choice.is_of_another(
        result(keys={"a": 1})
    )
    monkeypatch.setattr(choice, "part_of", lambda kind: None)
    assert (
        choice.newer_version(old) is None and choice.keys_of(Result(old.paths, {"config": {"a": 1}})) is None
    )
    assert not choice.is_of_another(result(keys={"decode_with": "x"}))


# The page.


def test_the_name_of_a_report(monkeypatch):
    def item(
        digest: str = DIGEST, task: str = "grokking", slug: str = "some", n: int = 3
    ) -> tuple[Any, list[Any]]:
        one = shown([stored_run(seed) for seed in range(n)], digest=digest, task=task, slug=slug)
        return one.ensemble, one.runs

    def name(*items: Any, results: Sequence[Result] = ()) -> str:
        return write.report_name(list(items), results)

    assert name(item()) == f"grokking-some-{DIGEST}"
    # Each part is cut where it is too long.
    long = item(task="t" * 30, slug="s" * 60)
    assert name(long) == f"{'t' * 20}-{'s' * 40}-{DIGEST}"
    one, runs = item()
    assert name((one, runs[1:2])) == f"grokking-some-{DIGEST}-s0001"
    label = replace(runs[0], id=f"{DIGEST}/{'l' * 30}")
    assert name((one, [label])) == f"grokking-some-{DIGEST}-{'l' * 20}"
    ids = f"{DIGEST}/s0000 {DIGEST}/s0001"
    digest = hashlib.sha256(ids.encode()).hexdigest()
    assert name((one, runs[1::-1])) == f"grokking-some-{DIGEST}-2-runs-{digest[:6]}"
    two = item("2" * 10, task="z" * 40)
    digest = hashlib.sha256(f"{DIGEST} {'2' * 10}".encode()).hexdigest()
    assert name(two, item()) == f"grokking-{'z' * 21}-2-ensembles-{digest[:10]}"
    made = [result("hmm", "b" * 10), result("hmm", "a" * 10)]
    assert name(item(), results=made[:1]) == f"grokking-some-{DIGEST}-hmm-bbbbbbbbbb"
    digest = hashlib.sha256(f"{'a' * 10} {'b' * 10}".encode()).hexdigest()
    assert name(item(), results=made) == f"grokking-some-{DIGEST}-2-analyses-{digest[:6]}"
    assert len(name((long[0], long[1][:1]), results=[result("k" * 90)])) == 110
    assert write.check_name("a" * 100) == "a" * 100
    assert text_of(ConfigError, lambda: write.check_name("a" * 101)) == (
        f"name={'a' * 101}: expected letters, digits, '.', '_' and '-', at most 100, and no dot at the beginning"
    )


def test_the_title_and_the_order_of_a_page(monkeypatch):
    items = [
        shown([stored_run(0)] * n, digest=str(n) * 10, task=task, title=f"t{n}")
        for n, task in ((1, "b"), (2, "a"))
    ]
    assert (
        write._title(items[:1]) == "t1; 1 run, 200 steps"
        and write._title(items) == "a and b: 2 ensembles, 3 runs"
    )
    monkeypatch.setattr(overview, "name_ensembles", lambda shown: [])
    monkeypatch.setattr(overview, "comparison", lambda *_, **__: Section("Comparison", "c"))
    monkeypatch.setattr(ensemble, "summary", lambda item: [f"{item.title} one.", f"{item.title} two."])
    monkeypatch.setattr(
        ensemble,
        "section",
        lambda item, own, home, states, beside: Section(item.title, item.anchor, (), [*own, *beside]),
    )
    monkeypatch.setattr(
        write,
        "analysed",
        lambda made, context: sections.Rendered(
            [f"{made.kind} says."], Section(made.kind, context.anchor(made))
        ),
    )
    both = result("both", "3" * 10, ensembles=["1" * 10, "2" * 10], warnings=["odd"])
    own = [result("own", str(n) * 10, ensembles=[str(n) * 10], warnings=["hm"]) for n in (1, 2)]
    for item, single in zip(items, own, strict=True):
        item.results, item.warnings = [both, single], ["hurt", item.title]

    def page(some: list[Shown], lost: Sequence[str] = ()) -> Any:
        return write._page(some, lost, HOME, ["again"], [], [])

    made = page(items, ["gone", "hurt"])
    assert made.summary == [
        ("t1", ["t1 one.", "t1 two.", "own says."]),
        ("t2", ["t2 one.", "t2 two.", "own says."]),
        ("t1 and t2 together", ["both says."]),
    ]
    assert made.warnings == [
        "gone", "hurt", "t1", "t2", "own-1111111111: 1 warning in its section",
        "own-2222222222: 1 warning in its section", "both-3333333333: 1 warning in its section"
    ]  # fmt: skip
    assert [part.title for part in made.sections] == [
        "Comparison",
        "Analyses over several ensembles",
        "t1",
        "t2",
    ]
    assert [part.anchor for part in made.sections[1].sections] == ["pooled-both-3333333333"]
    assert made.commands == ["again"] and made.stored == ""
    alone = page(items[:1])
    # What is said beside settings that are not on the page comes after what is its own.
    assert alone.summary == [("", ["t1 one.", "t1 two."])] and alone.answers == ["own says.", "both says."]
    assert [part.title for part in alone.sections] == ["own", "both"]
    five = [shown([], digest=str(n) * 10, title=f"t{n}") for n in range(1, 6)]
    five[0].results = [result("all", "4" * 10, ensembles=[item.ensemble.id for item in five])]
    assert page(five).summary[-1][0] == "t1, t2, t3, t4 and 1 more together"
    many = [replace(items[0], title=f"m{n}", results=[]) for n in range(7)]
    assert page(many).summary[0] == ("m0", ["m0 one. m0 two."]) and page(many[:6]).summary[0][1] == [
        "m0 one.",
        "m0 two.",
    ]


def test_what_cannot_be_shown_is_said(outputs, monkeypatch):
    no_drawing(monkeypatch)
    made = make_ensemble(outputs, n_runs=2)
    monkeypatch.setattr(beside, "contrasts", lambda *_: ([], [f"{outputs}/analysis/x is damaged"]))
    page = read_page(write.write_report(select(outputs, [], None, Ensemble), {}, outputs))
    assert "analysis/x is damaged" in page.text and str(outputs) not in page.text
    theirs = outputs / "reports" / "mine"
    theirs.mkdir()
    (theirs / "x").touch()
    selection = select(outputs, [], None, Ensemble)
    assert text_of(ConfigError, lambda: write.write_report(selection, {}, outputs, "mine")) == (
        f"{theirs} is no report, it is left alone; choose another --name"
    )
    (theirs / "x").unlink()
    assert write.write_report(selection, {}, outputs, "mine") == theirs / "index.html"
    empty = [(Ensemble(made.paths), [])]
    assert text_of(NothingMatched, lambda: write.write_report(empty, {}, outputs)) == (
        f"nothing to show: {made.id} has no runs yet"
    )
    assert (
        text_of(NothingMatched, lambda: write.write_report([], {}, outputs, "mine"))
        == "nothing to show: no runs"
    )
    text = made.paths.config.read_text()
    made.paths.config.write_text("a: 1\n")
    selection = [(Ensemble(made.paths), made.runs)]
    said = text_of(StoreError, lambda: write.write_report(selection, {}, outputs, "mine"))
    assert said.startswith(f"{made.paths.config} is damaged: ") and said.endswith(f"; {made.id} is left out")
    assert selection[0][0].damaged == [made.path.name]
    (outputs / "reports").rename(outputs / "moved")
    (outputs / "reports").symlink_to(outputs / "moved")
    made.paths.config.write_text(text)
    selection = select(outputs, [], None, Ensemble)
    assert text_of(StoreError, lambda: write.write_report(selection, {}, outputs)).startswith(
        f"{outputs / 'reports'} is a link; "
    )


# How an analysis is shown.


def test_an_analysis_without_words_of_its_own_is_tables(monkeypatch):
    item = shown([stored_run(0)])
    made = result(
        version=1, kind="odd", id="1", n=3, inputs=[{}, {}], warnings=["beware"], dynalab="1", created="x"
    )
    made.data["keys"] = {"a": 1}  # type: ignore[index]
    lines, section, *_ = render(made, Context([item], "p"))
    keys = "Made with `a=1`, not with the default keys alone."
    assert lines == [f"Analysis **odd** of 2 runs: see below. {keys}"]
    assert (section.title, section.anchor) == ("odd", "p-odd-1111111111")
    assert section.blocks[:2] == [Say(keys, note=True), Warnings(["beware"])]
    made.data["keys"] = {}  # type: ignore[index]
    made.data["inputs"] = None  # type: ignore[index]
    made.data["warnings"] = []  # type: ignore[index]
    lines, section, *_ = render(made, Context([item], "p"))
    assert lines == ["Analysis **odd** of 0 runs: see below."] and not isinstance(section.blocks[0], Warnings)


def test_what_an_analysis_says_is_put_in_order(monkeypatch):
    groups: list[Any] = []
    module = SimpleNamespace(
        VERSION=2,
        show=lambda value, some: groups.extend(some) or [Say("late"), Say("first", headline=True)],
    )
    part = SimpleNamespace(module=module, name="my_kind", config_class=None)
    monkeypatch.setattr(sections, "find", lambda *_: part)
    item = shown([stored_run(0)], group=lambda statuses, runs: (statuses, runs))
    made = result("hmm", value="found", warnings=["beware"])
    lines, section, *_ = render(made, Context([item], "p"))
    assert lines == ["first"] and section.title == "My kind"
    assert section.blocks == [Warnings(["beware"]), Say("late")]
    assert groups == [(runfile.STATUSES, [f"{DIGEST}/s0000"])]
    module.TITLE = lambda value: f"of {value}"
    assert render(made, Context([item], "p"))[1].title == "of found"
    module.TITLE = "Mine"
    assert render(made, Context([item], "p"))[1].title == "Mine"
    # What another version made, and cannot be restored, is shown as plain data; the same version's is damaged.
    before = result("hmm", version=1)
    assert render(before, Context([item], "p"))[0] == ["Analysis **hmm** of 0 runs: see below."]
    assert render(result("hmm", value="found", version=1), Context([item], "p"))[0] == ["first"]


def test_an_analysis_of_another_form_is_left_out_and_named(monkeypatch):
    def show(value: Any, groups: Any) -> None:
        raise KeyError("runs")

    module = SimpleNamespace(VERSION=1, show=show)
    monkeypatch.setattr(
        sections, "find", lambda *_: SimpleNamespace(module=module, name="hmm", config_class=None)
    )
    item = shown([], group=lambda *_: None)
    made = result("hmm", value="found")
    lines, section, *_ = render(made, Context([item], "p"))
    assert lines == [] and section == Section("hmm", "p-hmm-1111111111")
    (line,) = item.warnings
    assert line.startswith(
        f"{made.paths.result} is damaged: it is no result of analyze hmm (KeyError('runs')); "
    )


def test_a_map_of_runs_is_marked_with_what_they_reached():
    runs = [stored_run(0, summary={"memorised_step": 3, "generalised_step": 9}), stored_run(1, summary=None)]
    ids = [f"{DIGEST}/s0001", f"{DIGEST}/s0000", "x"]
    raster = Raster(name="r", caption="", alt="", runs=ids, steps=[], states=[], n_states=0)
    marked = sections._marked(raster, Context([shown(runs)], ""))
    assert isinstance(marked, Raster) and marked == replace(
        raster, landmarks={"memorised": [None, 3, None], "generalised": [None, 9, None]}
    )
    assert sections._marked(Say("x"), Context([], "")) == Say("x")


def test_what_surrounds_an_analysis():
    items = [shown([stored_run(0)], digest="1" * 10), shown([stored_run(1)], digest="2" * 10)]
    one, two = Context(items[:1], "e"), Context(items, "pooled")
    assert one.label("a/b") == "b" and two.label("a/b") == "a/b" and [run.seed for run in two.runs] == [0, 1]
    log = {"a": np.array([1, 2, 3, 4, 5, 100, 200])}
    assert not two.log_steps and Context([replace(items[0], steps=log)], "").log_steps
    assert not Context([replace(items[0], steps=log), items[1]], "").log_steps
    made = result("hmm")
    for _ in range(2):
        two.leave_out(made, "why")
    assert items[0].ensemble.damaged == ["hmm-1111111111"] and items[0].warnings == ["why"]
    assert items[0].ensemble.warnings == ["why"] and items[1].warnings == []


def test_settings_are_compared_with_the_first(monkeypatch):
    broken = {"4" * 10}

    def contrast(part: Any, one: Result, other: Result, outputs: Path) -> tuple[str, str]:
        if other.id in broken:
            raise StoreError(f"{other.id} hurt")
        return one.id, other.id

    monkeypatch.setattr(beside, "contrast", contrast)
    known = SimpleNamespace(module=SimpleNamespace(contrast=None))
    monkeypatch.setattr(
        beside, "part_of", {"hmm": known, "eos": SimpleNamespace(module=SimpleNamespace())}.get
    )
    monkeypatch.setattr(beside, "is_of_another", lambda made: made.data.get("decoded", False))

    def settings(n: int) -> list[Shown]:
        return [
            shown([], digest=str(number) * 10, results=[
                result("eos", str(number) * 10), result("none", str(number) * 10),
                result("hmm", "d" * 10, decoded=True), result("hmm", "e" * 10, ensembles=["a", "b"]),
                result("hmm", str(number) * 10), result("hmm", "f" * 10),
            ])
            for number in range(1, n + 1)
        ]  # fmt: skip

    made, refused = beside.contrasts(settings(3), HOME)
    (only,) = made
    assert only.part is known and refused == [] and [*only.results] == [0, 1, 2]
    assert only.made == {1: ("1" * 10, "2" * 10), 2: ("1" * 10, "3" * 10)}
    made, refused = beside.contrasts(settings(6), HOME)
    assert [*made[0].made] == [1, 2, 4, 5]
    assert refused == ["4444444444 hurt; hmm-1111111111 and hmm-4444444444 are not compared"]
    assert beside.contrasts(settings(7), HOME) == ([], []) and beside.contrasts(settings(1), HOME) == ([], [])
    broken.add("2" * 10)
    assert beside.contrasts(settings(2), HOME)[0] == []
