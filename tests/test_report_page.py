"""The page: what it says is what is stored, it needs nothing else, and nothing odd breaks it."""

from __future__ import annotations

import re
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_fakes import make_ensemble, make_hmm, no_drawing, read_page, steps_of, training

from dynalab.cli.app import run
from dynalab.core.words import number, quartiles, step_phrase
from dynalab.errors import ConfigError, NothingMatched, StoreError
from dynalab.report.write import report_name, write_report
from dynalab.show import svg
from dynalab.show.drawer import Drawer
from dynalab.show.plots.style import Call
from dynalab.store.find import select
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import write_result


@pytest.fixture(autouse=True)
def _pencil(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time: only tests that ask for `drawn` do it."""
    if "drawn" not in request.fixturenames:
        no_drawing(monkeypatch)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynalab.show.svg.RASTER_DPI", 40)


def write(outputs: Path, *refs: str, results: object = None, **keys: object) -> Path:
    selection = select(outputs, refs, None, Ensemble)
    return write_report(selection, results or {}, outputs, **keys)  # type: ignore[arg-type]


def test_a_page_of_runs_and_a_model(drawn: None, outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=5, shards=2)
    result = make_hmm(outputs, ensemble, warnings=["beware of the dog"])
    path = write(outputs, results={ensemble.id: [result]}, commands=["dynalab report --name x"])
    page = read_page(path)
    rows = page.table("run", "seed", "status")
    assert [row[0] for row in rows] == [f"s{seed:04d}" for seed in range(5)]
    stored = [run.summary for run in ensemble.runs]
    assert [row[4] for row in rows] == [str(item["memorised_step"]) for item in stored]  # type: ignore[index]
    assert [row[5] for row in rows] == [str(item["generalised_step"]) for item in stored]  # type: ignore[index]
    assert [row[6] for row in rows] == [str(item["step"]) for item in result["convergence"]]
    assert "beware of the dog" in page.text
    middle = number(np.median([item["generalised_step"] for item in stored]))  # type: ignore[index]
    assert f"Generalised (test accuracy at least 0.99) at median step {middle} " in page.text
    assert "3 states" in page.text and "There are 3 distinct paths up to convergence" in page.text
    edges = {row[0].replace("\u00a0", " "): row[1] for row in page.table("edge")}
    assert edges == {"0 \u2192 1": "4 of 5", "0 \u2192 2": "1 of 5", "1 \u2192 2": "4 of 5"}
    assert "dynalab train task=grokking train.steps=200 seed=0..4" in page.text
    assert f"dynalab analyze hmm {ensemble.id} max_states=6 'metrics=[l2,grad_norm]'" in page.text
    assert "180b60b87a5a with local changes" in page.text and "a-host" in page.text
    assert "dynalab report --name x" in page.text


def test_differences_to_the_defaults_come_first(outputs: Path) -> None:
    make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    page = read_page(write(outputs))
    assert page.table("key", "here", "default") == [["optimizer.lr", "0.01", "0.003"]]
    assert "weight_decay: 1.0" in page.text


def test_several_ensembles_are_compared(drawn: None, outputs: Path) -> None:
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01", n_runs=3)
    path = write(outputs, one.id, two.id)
    page = read_page(path)
    rows = page.table("ensemble", "optimizer.lr", "runs")
    assert [row[:3] for row in rows] == [[one.id, "0.003", "4"], [two.id, "0.01", "3"]]
    assert (
        "optimizer.lr=0.01" in page.text
        and "lr 0.003 or 0.01, betas (0.9, 0.98), decay 1; full batch; 2 settings, 7 runs of 200 steps"
        in page.text
    )
    assert f'id="e-{two.id}-runs"' in path.read_text(encoding="utf-8")


def test_same_results_same_bytes(drawn: None, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Eager(Drawer):
        """One that has drawn whatever it was sent before anything is taken from it."""

        def add(self, figure: Figure, call: Call) -> None:
            super().add(figure, call)
            wait(self._jobs.values())

    pictures = []
    png = svg.png
    monkeypatch.setattr("dynalab.show.svg.png", lambda figure: [pictures.append(figure), png(figure)][1])
    # The second process has this resolution.
    monkeypatch.setattr("dynalab.show.svg.RASTER_DPI", 200)
    monkeypatch.setattr("dynalab.show.drawer.Drawer", Eager)
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    make_hmm(outputs, one, created="2026-11-23T04:00:00+02:00")
    made = []
    for cores in (1, 2):
        monkeypatch.setattr("dynalab.show.drawer.cores", lambda cores=cores: cores)
        pictures.clear()
        assert run(["report", one.id, two.id, "--name", "x"]) == 0
        files = sorted(path for path in (outputs / "reports/x").rglob("*") if path.is_file())
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1] and len(made[0]) > 4
    # The one at the top was drawn for elsewhere.
    assert len(pictures) <= 1 < sum(name.endswith(".png") for name in made[0])


def test_a_page_has_the_time_of_its_newest_result(outputs: Path) -> None:
    one = make_ensemble(outputs)
    # However its clock counts.
    result = make_hmm(outputs, one, created="2026-11-23T04:00:00+02:00")
    text = write(outputs, one.id, results={one.id: [result]}).read_text("utf-8")
    assert "of what was stored by 2026-11-23 02:00 UTC." in text
    # Where nothing says a time that can be read, there is none.
    bare = make_ensemble(outputs, digest="b" * 10, slug="bare", attempt={"started": "yesterday", "argv": []})
    assert "of what was stored by" not in write(outputs, bare.id).read_text("utf-8")


def test_a_model_over_several_ensembles_is_shown_once(outputs: Path) -> None:
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    result = make_hmm(outputs, one)
    result.data["ensembles"].append(two.id)
    page = read_page(write(outputs, one.id, two.id, results={one.id: [result], two.id: [result]}))
    assert page.text.count("Analyses over several ensembles") == 2  # contents and heading
    assert f"dynalab analyze hmm {one.id} {two.id} " in page.text and "pool=true" in page.text


def test_hostile_names_are_only_text(drawn: None, outputs: Path) -> None:
    bad = "<script>alert(1)</script>\"'&{{ 7*7 }}**"
    config = {"task": {"name": bad, "x": "</style><b>"}, "eval": {"every": 10}, "model": {"name": bad}}
    config["levels"] = {}
    # Labels, kinds and folders of other forms are not read at all (test_trust.py).
    labels = ["a", "b.b", "c"]
    values = {f"m<{i}>&\"'$x$\\": array for i, array in enumerate(training(3, steps_of()).values())}
    attempt = {"argv": ["dynalab", "train", "a='<b>$(rm)'"], "host": bad}
    ensemble = make_ensemble(
        outputs, n_runs=3, config=config, overrides=[f"task={bad}"], labels=labels, values=values,
        attempt=attempt,
    )  # fmt: skip
    data = {
        "id": "1234567890",
        "kind": "odd",
        "ensemble": ensemble.id,
        "warnings": [bad],
        "n": 3,
        "rows": [{bad: bad}],
    }
    result = write_result(OutputPaths(outputs).analysis("odd", "1234567890"), data, {})
    path = write(outputs, results={ensemble.id: [result]})
    source, page = path.read_text(encoding="utf-8"), read_page(path)
    assert source.count("<script>") == 1 and "<i>" not in source and "{{ 7*7 }}" in source
    assert {row[0] for row in page.table("run", "status")} == set(labels)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", path.parent.name)


@pytest.mark.parametrize("n_runs", [1, 2])
def test_few_runs(drawn: None, outputs: Path, n_runs: int) -> None:
    ensemble = make_ensemble(outputs, n_runs=n_runs)
    steps = ensemble.steps("train_loss")
    path = [np.minimum(np.arange(len(steps)) // 8, 2)] * n_runs
    result = make_hmm(outputs, ensemble, path, single=n_runs == 1)
    page = read_page(write(outputs, results={ensemble.id: [result]}))
    assert len(page.table("run", "seed")) == n_runs


def test_diverged_ragged_and_missing_values(drawn: None, outputs: Path) -> None:
    steps = steps_of()
    values = training(4, steps)
    values["l2"][:] = np.nan
    values["train_loss"][2, 8:] = np.inf
    values["odd"] = np.zeros((4, len(steps)))
    del values["test_loss"], values["test_accuracy"]
    ensemble = make_ensemble(outputs, values=values, diverged={2: 80})
    page = read_page(write(outputs))
    rows = page.table("run", "seed", "status")
    assert rows[2][2] == "diverged at 80" and rows[2][4] == "40" and rows[0][2] == "done"
    assert "Diverged: s0002 at step 80" in page.text
    assert "Recorded but without a value: l2" in page.text
    assert "Generalised" not in page.text
    assert ensemble.array("train_loss")[2, 8:].tolist() == [pytest.approx(np.nan, nan_ok=True)] * 13


def test_runs_that_never_got_there(drawn: None, outputs: Path) -> None:
    steps = steps_of()
    values = training(4, steps)
    values["test_accuracy"][1:] = 0.2
    ensemble = make_ensemble(outputs, values=values)
    page = read_page(write(outputs, results={ensemble.id: [make_hmm(outputs, ensemble)]}))
    rows = page.table("run", "seed", "status")
    assert [row[5] for row in rows] == ["110", "not by 200", "not by 200", "not by 200"]
    assert [row[6] for row in rows] == ["110", "not by 200", "not by 200", "not by 200"]
    assert "in 1 of 4 runs, the first at step 110" in page.text


def test_half_done_runs_show_their_curves(outputs: Path) -> None:
    make_ensemble(outputs, status="partial")
    page = read_page(write(outputs))
    assert "4 partial" in page.text and "Partial: s0000 (step 200)" in page.text
    assert page.table("run", "seed", "status")[0][3] == "200 of 400"


def test_a_crossed_design_has_labels(outputs: Path) -> None:
    words = ["task=grokking", "design=crossed", "seed_streams.init=[0,1,2]"]
    make_ensemble(outputs, n_runs=3, overrides=words, labels=["init0", "init1", "init2"])
    page = read_page(write(outputs))
    assert [row[0] for row in page.table("run", "status")] == ["init0", "init1", "init2"]
    assert (
        "dynalab train task=grokking design=crossed 'seed_streams.init=[0,1,2]' train.steps=200 seed=0"
        in page.text
    )


def test_nothing_recorded_yet(drawn: None, outputs: Path) -> None:
    steps = np.array([0])
    make_ensemble(
        outputs, steps=steps, values={"train_loss": np.full((2, 1), np.nan)}, n_runs=2, status="planned"
    )
    page = read_page(write(outputs))
    assert "Nothing has been recorded yet." in page.text


def test_a_thousand_runs_stay_small(drawn: None, outputs: Path) -> None:
    steps = np.arange(0, 5010, 10)
    values = {"test_accuracy": training(1000, steps)["test_accuracy"]}
    ensemble = make_ensemble(outputs, n_runs=1000, steps=steps, values=values)
    path = write(outputs)
    page = read_page(path)
    assert len(page.table("run", "seed")) == len(ensemble.runs) == 1000
    assert "60 of 1,000 runs drawn as thin lines" in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 2_000_000


def test_only_the_runs_asked_for(outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=6)
    result = make_hmm(outputs, ensemble)
    selection = select(outputs, [f"{ensemble.id}/s0002", f"{ensemble.id}/s0004"], None, Ensemble)
    page = read_page(write_report(selection, {ensemble.id: [result]}, outputs))
    assert [row[0] for row in page.table("run", "seed")] == ["s0002", "s0004"]
    assert "2 runs of grokking" in page.text and "(of 6 stored)" in page.text
    assert "The model was fitted to 6 runs; 2 of them are shown here." in page.text
    assert "seed=2,4" in page.text


def test_an_old_analysis_says_so(outputs: Path) -> None:
    ensemble = make_ensemble(outputs)
    result = make_hmm(outputs, ensemble, created="2020-01-01T00:00:00+00:00")
    result.data["inputs"].pop()
    result.data["inputs"][0]["steps"] = 100
    page = read_page(write(outputs, results={ensemble.id: [result]}))
    assert "1 run (s0003) was trained after this analysis was made" in page.text
    assert "1 run (s0000) has other steps than when this analysis was made" in page.text


def test_other_kinds_are_shown_as_tables(outputs: Path) -> None:
    ensemble = make_ensemble(outputs)
    runs = [{"run": "s0000", "verdict": "at_edge", "onset_step": None, "iqr": [0.1, 0.2]}]
    data = {
        "id": "1234567890",
        "kind": "ntk",
        "ensemble": ensemble.id,
        "warnings": [],
        "runs": runs,
        "level": 2.0,
    }
    result = write_result(OutputPaths(outputs).analysis("ntk", "1234567890"), data, {})
    page = read_page(write(outputs, results={ensemble.id: [result]}))
    assert page.table("run", "verdict") == [["s0000", "at_edge", "\u2013", "[0.1, 0.2]"]]


def test_the_same_name_is_replaced_whole(outputs: Path) -> None:
    ensemble = make_ensemble(outputs)
    first = write(outputs, results={ensemble.id: [make_hmm(outputs, ensemble)]}, name="mine")
    assert (first.parent / "figures" / f"e-{ensemble.id}-hmm-7ebafd365b-map.svg").is_file()
    second = write(outputs, name="mine")
    assert second == first and "Hidden Markov" not in second.read_text(encoding="utf-8")
    assert not list((first.parent / "figures").glob("*map*"))
    assert [item.name for item in first.parent.parent.iterdir()] == ["mine"]


def test_a_report_that_fails_leaves_the_old_one(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ensemble(outputs)
    path = write(outputs, name="mine")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dynalab.report.write.render", full)
    with pytest.raises(StoreError, match="No space left"):
        write(outputs, name="mine")
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.parent.iterdir()] == ["mine"]


def test_a_folder_that_is_no_report_is_left_alone(outputs: Path) -> None:
    make_ensemble(outputs)
    theirs = OutputPaths(outputs).report("thesis")
    theirs.mkdir(parents=True)
    (theirs / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no report"):
        write(outputs, name="thesis")
    assert (theirs / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "x" * 101, "a b", "-f"])
def test_names_that_are_no_folder(outputs: Path, name: str) -> None:
    make_ensemble(outputs)
    with pytest.raises(ConfigError, match="name="):
        write(outputs, name=name)


def test_names_are_stable_and_say_what_is_shown(outputs: Path) -> None:
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")

    def name(*refs: str) -> str:
        return report_name(select(outputs, refs, None, Ensemble))

    assert name(one.id) == f"grokking-default-{one.id}"
    assert name(f"{one.id}/s0001") == f"grokking-default-{one.id}-s0001"
    assert name(one.id, two.id) == name(two.id, one.id) != name(two.id)
    some = name(f"{one.id}/s0001", f"{one.id}/s0002")
    assert some.startswith(f"grokking-default-{one.id}-2-runs-") and some != name(
        f"{one.id}/s0001", f"{one.id}/s0003"
    )


def test_a_damaged_shard_is_named_and_left_out(outputs: Path) -> None:
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    series = next((ensemble.path / "shard-0002-0003-2" / "series").glob("*.npy"))
    data = bytearray(series.read_bytes())
    data[-5] ^= 255
    series.write_bytes(data)
    selection = select(outputs, [], None, Ensemble)
    page = read_page(write_report(selection, {}, outputs))
    assert [row[0] for row in page.table("run", "seed")] == ["s0000", "s0001"]
    assert "shard-0002-0003-2 is left out" in page.text and str(outputs) not in page.text
    assert selection[0][0].damaged == ["shard-0002-0003-2"]


def test_everything_damaged_and_nothing_there(outputs: Path) -> None:
    ensemble = make_ensemble(outputs)
    record = ensemble.path / "shard-0000-0003-4" / "run.json"
    record.write_text("{")
    with pytest.raises(StoreError, match="is left out"):
        write(outputs)
    record.unlink()
    record.parent.joinpath("series").rename(outputs / "gone")
    for item in record.parent.iterdir():
        item.unlink()
    record.parent.rmdir()
    with pytest.raises(NothingMatched):
        write(outputs)


def test_a_damaged_configuration_does_not_hide_the_others(outputs: Path) -> None:
    one = make_ensemble(outputs)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    two.paths.config.write_text("- a\n- list\n")
    selection = select(outputs, [one.id, two.id], None, Ensemble)
    page = read_page(write_report(selection, {}, outputs))
    assert f"{two.id} is left out" in page.text and selection[1][0].damaged
    assert len(page.table("run", "seed")) == 4


def test_medians_count_the_censored_as_late() -> None:
    assert quartiles([]) is None
    assert quartiles([10, 20, 30, None]) == (15, 25, 30)
    assert step_phrase([10, 20, 30, None]) == "at median step **25** [quartiles 15 to 30], 3 of 4 runs"
    assert step_phrase([10, None, None]) == "in **1 of 3 runs**, the first at step 10"
    assert step_phrase([None]) == "in none of 1 run"
    assert step_phrase([7]) == "at step **7**"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1260, "1,260"),
        (1292.5, "1,292.5"),
        (0.5, "0.5"),
        (2.0983e-6, "2.1e-06"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (3.0, "3"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text
