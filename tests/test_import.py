"""Trajectories from elsewhere: files, their forms and their faults, what is stored, and that nothing needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dynalab
from dynalab.cli.app import run as command
from dynalab.core.convergence import Convergence
from dynalab.errors import ConfigError
from dynalab.imports.forms import read_rows
from dynalab.imports.rows import Form
from dynalab.imports.runs import Imported, runs_of
from dynalab.imports.store import Order, import_table
from dynalab.store.reader import Ensemble


def table(n_runs: int = 4, rows: int = 30, seed: int = 0) -> pd.DataFrame:
    """Runs of different lengths on different steps: a level that falls at a step of each run's own."""
    rng = np.random.default_rng(seed)
    pieces = []
    for index in range(n_runs):
        steps = 5 * np.arange(rows - 3 * (index % 3))
        s = 1 / (1 + np.exp(-(steps - 40 - 10 * index) / 4))
        pieces.append(
            pd.DataFrame(
                {
                    "run": f"r{index}",
                    "step": steps,
                    "loss": 2 * (1 - s) + 0.05 * rng.normal(size=len(s)),
                    "acc": s,
                    "scale": 3 + s + 0.05 * rng.normal(size=len(s)),
                }
            )
        )
    return pd.concat(pieces, ignore_index=True)


def from_long(frame: pd.DataFrame, run: str, step: str) -> Imported:
    return runs_of(read_rows(frame, Form((run,), step), "alone"))


def read(answer: pytest.CaptureResult[str]) -> dict:
    return json.loads(answer.out)


def test_every_format_and_order_is_the_same_ensemble(tmp_path, outputs, capsys):
    frame = table()
    shuffled = frame.sample(frac=1, random_state=1)[["acc", "step", "loss", "run", "scale"]]
    frame.to_csv(tmp_path / "a.csv", index=False)
    shuffled.to_parquet(tmp_path / "a.parquet")
    lines = [json.dumps(row) for row in frame.to_dict("records")]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n")
    frame.set_index(["run", "step"]).to_parquet(tmp_path / "index.parquet")
    ids = []
    for name in ("a.csv", "a.parquet", "a.jsonl", "index.parquet"):
        words = ["import", str(tmp_path / name), "--name", "mine", "--run", "run", "--step", "step", "--json"]
        assert command(words) == 0
        document = read(capsys.readouterr())
        ids.append(document["id"])
        assert document["name"] == "mine" and document["new"] == (name == "a.csv")
        assert [item["id"] for item in document["runs"]] == [f"{ids[0]}/r{i}" for i in range(4)]
    assert len(set(ids)) == 1 and len(list(outputs.glob("imported/*"))) == 1
    ensemble = dynalab.load("mine")
    assert repr(ensemble) == f"Ensemble({ids[0]}, imported, mine, 4 runs: 4 done)"
    back = ensemble.frame()
    assert list(back.columns) == ["run", "seed", "step", "loss", "acc", "scale"] and back["seed"].isna().all()
    pd.testing.assert_frame_equal(
        back.assign(run=back["run"].str.rpartition("/")[2]).drop(columns="seed"), frame, check_dtype=False
    )
    assert not list(outputs.glob(".import*"))
    pd.testing.assert_frame_equal(pd.read_parquet(ensemble.paths.metrics()), back, check_dtype=False)


def test_runs_on_grids_of_their_own():
    frame = pd.DataFrame(
        {
            "run": list("aaabb"),
            "step": [0, 10, 30, 5, 10],
            "x": [0.0, 1, 3, 50, 100],
            "y": [1, np.nan, 3, 4, 5],
        }
    )
    ensemble = dynalab.import_runs(frame, "grids", run="run", step="step")
    assert ensemble.steps("x").tolist() == [0, 5, 10, 30]
    expected = [[0, np.nan, 1, 3], [np.nan, 50, 100, np.nan]]
    np.testing.assert_array_equal(ensemble.array("x"), expected)
    assert [len(run.steps) for run in ensemble.trajectories().runs] == [3, 2]
    assert np.isnan(ensemble.array("y")[0, 2])
    with pytest.raises(ConfigError, match="no weights"):
        ensemble.model("a", 0)


def test_wide_as_exported(tmp_path):
    frame = pd.DataFrame(
        {
            "Step": [0, 1, 2, 3],
            "calm - sea - loss": [4.0, 3, 2, 1],
            "calm - sea - loss__MIN": [4.0, 3, 2, 1],
            "calm - sea - loss__MAX": [4.0, 3, 2, 1],
            "wild-7 - loss": [9.0, 8, np.nan, np.nan],
            "wild-7 - step": [1.0, np.nan, np.nan, np.nan],
            "wild-7 - notes": ["a", None, None, None],
            "Comment": [1, 2, 3, 4],
        }
    )
    frame.to_csv(tmp_path / "w.csv", index=False)
    outcome = import_table(tmp_path / "w.csv", tmp_path / "o", order=Order(Form(wide=True)))
    assert outcome.name == "w" and outcome.ensemble.metrics == ["loss", "step_"]
    assert [run.label for run in outcome.ensemble.runs] == ["calm_-_sea", "wild-7"]
    np.testing.assert_array_equal(outcome.ensemble.array("loss"), [[4, 3, 2, 1], [9, 8, np.nan, np.nan]])
    said = " ".join(outcome.notes)
    for word in ("2 columns of minima", "Comment", "wild-7 - notes (not numeric", "calm - sea is calm_-_sea"):
        assert word in said
    with pytest.raises(ConfigError, match="without --wide"):
        read_rows(frame[["Step", "Comment"]], Form(wide=True), "alone")


def test_seeds_names_and_reserved_columns():
    frame = pd.DataFrame({"id": [1.0, 1.0, 2.0, 10.0], "t": [0, 1, 0, 0], "seed": [7, 7, 8, 9]})
    frame = frame.assign(step=[5, 6, 7, 8], x=[1.0, 2, 3, 4], when=pd.Timestamp("2026-01-01"), gone=np.nan)
    found = from_long(frame, "id", "t")
    assert [(run.label, run.seed) for run in found.runs] == [("1", 7), ("10", 9), ("2", 8)]
    assert found.metrics == ("step_", "x")
    assert "when (not numeric)" in " ".join(found.notes) and "gone (empty)" in " ".join(found.notes)
    other = from_long(frame.assign(seed=[7, 8, 8, 9]), "id", "t")
    assert other.metrics == ("seed_", "step_", "x") and other.runs[0].seed is None
    clash = from_long(pd.DataFrame({"n": ["a/b", "a b", "ä"], "t": 0, "λ max": [1.0, 2, 3]}), "n", "t")
    assert sorted(run.label for run in clash.runs) == ["a_b", "a_b-2", "ä"]
    stored = dynalab.import_runs(pd.DataFrame({"n": ["ä"], "t": 0, "λ max": [1.0]}), "g", run="n", step="t")
    assert stored.array("λ max").tolist() == [[1.0]]


def test_rows_that_fill_each_others_gaps_are_merged_and_contradictions_refused():
    frame = pd.DataFrame(
        {"r": list("aaab"), "t": [0, 0, 1, 0], "x": [1, np.nan, 2, 3], "y": [np.nan, 4, 5, np.nan]}
    )
    found = from_long(frame, "r", "t")
    np.testing.assert_array_equal(found.runs[0].values, [[1, 4], [2, 5]])
    assert any("1 row merged" in note for note in found.notes)
    with pytest.raises(ConfigError, match=r"run a has two values of x at step 0: 1\.0 and 5\.0"):
        from_long(frame.assign(x=[1, 5, 2, 3]), "r", "t")


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("eos", "sharpness and stability_threshold (or edge_ratio alone)"),
        ("slingshot", "train_loss and last_layer_norm"),
        ("periods", "scale_invariant_norm"),
    ],
)
def test_what_an_analysis_lacks_is_to_be_imported_not_trained(outputs, capsys, kind, columns):
    dynalab.import_runs(table(), "mine", run="run", step="step")
    assert command(["analyze", kind, "mine"]) == 4
    said = capsys.readouterr().err
    assert f"dynalab import a table with columns named {columns}" in said and "dynalab train" not in said


@pytest.mark.parametrize("steps", ["shared", "own"])
def test_runs_whose_loss_ends_at_infinity_diverged(outputs, steps, monkeypatch):
    frame = table(n_runs=3)
    if steps == "own":
        monkeypatch.setattr("dynalab.imports.write.MOST_GRIDS", 1)
    # Of the first from 50 on, a last row without a value; of the second for once; of the third another metric.
    for run, metric, rows in (
        ("r0", "loss", frame.step >= 50),
        ("r1", "loss", frame.step == 50),
        ("r2", "scale", frame.step >= 50),
    ):
        frame.loc[(frame.run == run) & rows, metric] = np.inf
    frame.loc[(frame.run == "r0") & (frame.step == 145), "loss"] = np.nan
    keys = {"run": "run", "step": "step", "outputs": outputs}
    # As it was stored before runs were asked.
    with monkeypatch.context() as before:
        before.setattr("dynalab.imports.runs.ImportedRun.diverged_step", lambda *_: None)
        with pytest.warns(UserWarning):
            assert {run.status for run in dynalab.import_runs(frame, "mine", **keys).runs} == {"done"}
    with pytest.warns(UserWarning) as said:
        stored = dynalab.import_runs(frame, "mine", **keys)
    lines = [str(item.message) for item in said]
    assert [line for line in lines if "infinite" in line] == [
        "1 of 3 runs diverged: a loss or error is infinite or NaN from step 50 on",
        "loss is infinite in some rows of 1 of 3 runs that did not diverge",
        "scale is infinite in some rows of 1 of 3 runs that did not diverge",
    ]
    assert {run.label: (run.status, run.diverged_step) for run in stored.runs} == {
        "r0": ("diverged", 50),
        "r1": ("done", None),
        "r2": ("done", None),
    }
    assert len(stored.trajectories().runs) == 2 and {run.attempt for run in stored.runs} == {2}
    with pytest.warns(UserWarning):
        assert {run.attempt for run in dynalab.import_runs(frame, "mine", **keys).runs} == {2}


@pytest.mark.parametrize(
    ("nan", "diverged"),
    [
        (range(6, 10), 30),  # to the end
        (range(8, 10), 40),
        (range(9, 10), None),  # in the last row alone: not evaluated
        (range(2, 10), None),  # a value at the beginning alone
        (range(4, 6), None),  # and back again
        ([3, 8, 9], None),  # a column with gaps
        (range(1, 10, 2), None),
    ],
)
def test_a_loss_that_is_nan_to_the_end_diverged(nan, diverged):
    steps, loss = 5 * np.arange(10), np.linspace(2, 1, 10)
    lost = np.where(np.isin(np.arange(10), [*nan]), np.nan, loss)
    frame = pd.DataFrame({"run": "r", "step": steps, "loss": lost, "accuracy": 1 / loss, "rate": 0.1})

    def found(columns: pd.DataFrame) -> int | None:
        imported = from_long(columns, "run", "step")
        return imported.runs[0].diverged_step(imported.metrics)

    assert found(frame) == diverged
    # Of what is not a loss nothing is known, and where nothing else goes on the run may have ended.
    assert found(frame.rename(columns={"loss": "norm"})) is found(frame.drop(columns="accuracy")) is None


def test_names_force_and_last(outputs, tmp_path):
    frame, other = table(), table(seed=1)
    keys = {"run": "run", "step": "step", "outputs": outputs}
    one = dynalab.import_runs(frame, "mine", **keys)
    second = dynalab.import_runs(frame, "yours", **keys)
    assert one.id == second.id == dynalab.load("mine").id == dynalab.load("yours").id == dynalab.load().id
    # A corrected table has the name; what had it is kept.
    with pytest.warns(UserWarning, match=f"mine meant {one.id} before"):
        third = dynalab.import_runs(other, "mine", **keys)
    assert third.id != one.id
    assert (
        dynalab.load("mine").id == third.id == dynalab.load("@last").id and dynalab.load("yours").id == one.id
    )
    again = dynalab.import_runs(other, "mine", force=True, **keys)
    assert again.id == third.id and {run.attempt for run in again.runs} == {2}
    # What is damaged is stored again by the same command.
    (path,) = again.paths.shards()[-1].series_folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="damaged; it is stored again"):
        healed = dynalab.import_runs(other, "mine", **keys)
    np.testing.assert_array_equal(healed.array("loss"), third.array("loss"))
    assert not healed.damaged


def test_levels_that_change_or_that_no_run_reaches_are_said(outputs):
    frames = [table(seed=seed).rename(columns={"acc": "test_accuracy"}) for seed in (0, 1)]
    keys = {"run": "run", "step": "step", "outputs": outputs}
    one = dynalab.import_runs(frames[0], "a", levels={"test_accuracy": 0.5}, **keys)
    other = dynalab.import_runs(frames[1], "b", levels={"test_accuracy": 0.5}, **keys)
    assert not any("levels" in line for line in dynalab.analyze("compare", one, other).warnings)
    with pytest.warns(UserWarning) as told:
        other = dynalab.import_runs(frames[1], "c", levels={"test_accuracy": 90.0}, **keys)
    said = " ".join(str(item.message) for item in told)
    with pytest.warns(UserWarning, match="levels of d were none and are test_accuracy 0.5 now"):
        dynalab.import_runs(table(seed=2).rename(columns={"acc": "test_accuracy"}), "d", **keys)
        dynalab.import_runs(
            table(seed=2).rename(columns={"acc": "test_accuracy"}), "d", levels={"test_accuracy": 0.5}, **keys
        )
    percent = table(seed=2).rename(columns={"acc": "test_accuracy"})
    percent["test_accuracy"] = np.clip(100 * percent["test_accuracy"], 2, 97)
    with pytest.warns(UserWarning, match="values up to 97 look like percent: test_accuracy=90"):
        rated = dynalab.import_runs(percent, "e", levels={"test_accuracy": 0.9}, **keys)
    # What generalises converges: one rule for lists and analyses.
    assert Ensemble(rated.paths).convergence == Convergence("test_accuracy", 0.9)
    assert "test_accuracy=90: no run gets there; the highest value is " in said
    assert "levels of b were test_accuracy 0.5 and are test_accuracy 90 now, under all names" in said
    found = dynalab.analyze("compare", one, other).warnings
    assert any("levels of test_accuracy of their own" in line for line in found)


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("", [], "empty"),
        ("run,step,x\n", [], "no rows"),
        ("run,step,x\na,0,1\n", ["--run", "rum"], "did you mean run?"),
        ("run,step,x\na,0,1\n", ["--step", "Step"], "--step Step: no such column (did you mean step?)"),
        ("run,step,x\na,0,1\na,0,2\n", [], "run a has two values of x at step 0: 1.0 and 2.0"),
        ("run,step,x\na,,1\n", [], "row 1 has nothing"),
        ("run,step,x\na,0,1\n,1,1\n", [], "row 2 has no name"),
        ("run,step,x\na,-1,1\n", [], "row 1 has -1"),
        ("run,step,x\na,0.5,1\n", [], "row 1 has 0.5"),
        ("run,step,x\na,zero,1\n", [], "not numeric: 'zero' in row 1"),
        ("run,step,x\na,0,b\n", [], "there is no metric"),
        ("run,step,x\na,0,\n", [], "there is no metric"),
        ("run,step,x,x\na,0,1,2\n", [], "two columns are called x"),
        ("run,step,x\na,0,1,2\n", [], "not a whole CSV table"),
        ('run,step,x\n"a,0,1\n', [], "not a whole CSV table"),
        ("run,step,x\na,0,1\n", ["--name", "../up"], "--name ../up"),
        ("run,step,x\na,0,1\n", ["--wide"], "leave it out"),
        ("run,step,x\na,0,1\n", ["--step", "step", "--step", "x"], "--step step x: given 2 times"),
        ("run,step,x\na,0,1\n", ["--run", "run,step"], "one column cannot be both"),
        ("run,step,x\na,0,1\n", ["--run", "run", "--run", "run"], "one column twice"),
        ('run,step,x\na,0,"1,5"\n', [], "x (a comma in a number: '1,5' in row 1)"),
        ('run,step,x\na,0,"1,234.5"\n', [], "a comma in a number: '1,234.5'"),
        ("run,step,x\na,0,1_000\n", [], "not numeric: '1_000'"),
        ("run,time,x\na,0.25,1\n", ["--step", "time"], "row 1 has 0.25"),
        ("run,_step,time,x\na,0,0.25,1\n", ["--step", "time"], "(--step _step?)"),
        ("who,step,x\na,0,1\nb,0,1\n", ["--run", "who", "--key", "x"], "--value COLUMN is missing"),
        ("run,step,x\na,0,1\n", ["--map", "y=loss"], "--map y=loss: no metric is called y"),
        ("run,step,x\na,0,1\n", ["--map", "loss=x"], "(--map x=loss?)"),
        ("run,step,x\na,0,1\n", ["--map", "x=step"], "means something else"),
        ("run,step,x,y\na,0,1,2\n", ["--map", "x=y"], "two metrics would be called y"),
        ("run,step,x\na,0,1\n", ["--map", "x"], "--map x: expected NAME=VALUE"),
        ("run,step,x\na,0,1\n", ["--const", "x=1"], "--const x: the table has this column"),
        ("run,step,x\na,0,1\n", ["--const", "lr=fast"], "--const lr=fast: expected a number"),
        ("run,step,x\na,0,1\n", ["--const", "lr=1", "--const", "lr=2"], "lr is 1 already"),
        ("run,step,x\na,0,1\n", ["--level", "x=1"], "legal: train_accuracy, test_accuracy"),
        ("run,step,x\na,0,1\n", ["--level", "test_accuracy=1"], "no such metric; there are x"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, outputs, capsys, text, words, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    usual = [["--run", "run"], ["--step", "step"]]
    given = [word for pair in usual if pair[0] not in words for word in pair]
    assert command(["import", str(path), *given, *words]) == 2
    answer = capsys.readouterr()
    assert said in answer.err and answer.err.count("\n") == 1 and not answer.out
    assert not outputs.exists()


@pytest.mark.parametrize(
    "name", ["bad.parquet", "bad.jsonl", "bad.xlsx", "folder.csv", "absent.csv", "bad.csv"]
)
def test_files_that_are_not_what_they_say(tmp_path, outputs, capsys, name):
    (tmp_path / "folder.csv").mkdir()
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"\xff\xfe{nothing\n")
    assert command(["import", str(tmp_path / name), "--run", "run", "--step", "step"]) == 2
    answer = capsys.readouterr()
    assert name in answer.err and answer.err.count("\n") == 1 and "Traceback" not in answer.err
    assert not outputs.exists()


def test_columns_are_taken_from_the_header_or_named(tmp_path, capsys):
    table().to_csv(tmp_path / "a.csv")
    table().rename(columns={"step": "when"}).to_csv(tmp_path / "b.csv")
    assert command(["import", str(tmp_path / "b.csv"), "--run", "run"]) == 2
    assert "--step COLUMN is missing" in capsys.readouterr().err
    assert command(["import", str(tmp_path / "a.csv")]) == 0
    # The index that pandas writes is no metric.
    assert dynalab.load().metrics == ["loss", "acc", "scale"]
    said = capsys.readouterr().err
    assert "one without a name" in said
    assert "from the header: column run names the runs; column step holds the steps" in said


def test_from_a_file_to_a_report_without_torch(tmp_path, outputs):
    table(6).to_csv(tmp_path / "runs.csv", index=False)
    steps = [
        ["import", str(tmp_path / "runs.csv"), "--name", "mine", "--run", "run", "--step", "step", "--json"],
        ["analyze", "hmm", "mine", "convergence.metric=acc", "convergence.threshold=0.9",
             "convergence.direction=up", "n_states=2",
         "restarts=2", "workers=1", "stability=false", "baselines=false", "--json"],
        ["report", "mine", "--json"],
        ["runs", "list", "mine", "--json"],
    ]  # fmt: skip
    code = (
        "import sys, json\n"
        "from dynalab.cli.app import run\n"
        f"for words in json.loads({json.dumps(json.dumps(steps))}):\n"
        "    assert run(words) == 0, words\n"
        "    assert not {'torch', 'torchvision'} & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, analysis, report, listed = (json.loads(line) for line in done.stdout.splitlines())
    (result,) = analysis["analyses"]
    assert result["ensemble"] == imported["id"]
    assert result["metrics"] == ["acc", "loss", "scale"]
    rule = {"metric": "acc", "threshold": 0.9, "direction": "up", "persistence": 1}
    assert result["convergence_rule"] == rule
    frame = table(6)
    first = frame[frame["acc"] >= 0.9].groupby("run")["step"].min()
    assert [item["step"] for item in result["convergence"]] == first.tolist()
    page = Path(report["path"]).read_text()
    assert "trained elsewhere" in page and "dynalab import runs.csv --name mine --run run --step step" in page
    assert [item["id"] for item in listed["runs"]] == [item["id"] for item in imported["runs"]]
    # Any beginning of the id, a run of the name, and the name itself.
    assert dynalab.load(imported["id"][:6]).id == imported["id"]
    assert command(["runs", "list", "mine/r2", "--json"]) == 0
    assert command(["runs", "list", "min"]) == 4


def test_default_features_of_imported_runs(outputs):
    frame = table()
    frame["_runtime"] = np.arange(len(frame), dtype=float)
    frame["rare"] = np.where(frame["step"] % 25 == 0, 1.0 + frame["acc"], np.nan)
    ensemble = dynalab.import_runs(frame, "mine", run="run", step="step")
    keys = {"n_states": 1, "restarts": 1, "workers": 1, "stability": False, "baselines": False}
    result = dynalab.analyze("hmm", ensemble, **keys)
    assert result["metrics"] == ["acc", "loss", "scale"] and result["convergence"] is None
    said = " ".join(result.warnings)
    assert "_runtime" in said and "rare" in said and "fourteen" in said
    chosen = dynalab.analyze("hmm", ensemble, metrics=["rare"], **keys)
    assert chosen["metrics"] == ["rare"]
    published = dynalab.analyze("hmm", ensemble, preset="paper", **keys)
    assert published["metrics"] == ["acc", "loss", "scale"]


def test_what_is_no_table_and_what_a_result_does_not_have_are_said(outputs):
    with pytest.raises(ConfigError, match=r"source: a dict is no table; legal: .*pandas\.DataFrame"):
        dynalab.import_runs({"a": [1]}, "x", outputs=outputs)
    keys = {
        "run": "run",
        "step": "step",
        "renamed": {"acc": "test_accuracy"},
        "levels": {"test_accuracy": 0.5},
    }
    made = [dynalab.import_runs(table(seed=seed), f"m{seed}", **keys) for seed in (0, 1)]
    found = dynalab.analyze("compare", *made)
    with pytest.raises(KeyError, match=r"has no nonsense; there are .*warnings"):
        found["nonsense"]
