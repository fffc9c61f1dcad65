"""The forms of tables that other tools write: what is read of each, what is guessed, and what is said."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import pytest

import dynalab
from dynalab.cli.app import run as command
from dynalab.imports import forms
from dynalab.imports.rows import STEPS, Form, Rows, guess_column, joined
from dynalab.imports.runs import PUBLISHED
from dynalab.imports.store import Order, import_settings

WORDS = ("", "NaN", "nan", "NA", "None", "null", "N/A", "NULL")


@pytest.fixture
def take(tmp_path, capsys):
    """Import files of some text and return (the answer of --json, what was said)."""

    def take(words: str, **files: str) -> tuple[dict, str]:
        for name, text in files.items():
            path = tmp_path / name.replace("_DOT_", ".").replace("_IN_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        given = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in shlex.split(words)]
        code = command(["import", *given, "--json"])
        answer = capsys.readouterr()
        assert code == 0, answer.err
        document = json.loads(answer.out)
        return document, " ".join(document["warnings"])

    return take


def labels(document: dict) -> list[str]:
    return [item["id"].partition("/")[2] for item in document["runs"]]


def test_equal_repeats_are_counted_and_sparse_rows_fill_each_other(take):
    # Lightning writes what was logged at a step in several rows; a resumed logger writes rows again.
    text = "epoch,step,train_loss,val_loss\n0,0,2.0,\n0,9,1.5,\n0,9,,1.6\n0,9,1.5,\n1,19,1.0,\n2,19,,1.1\n"
    document, said = take("metrics.csv", metrics_DOT_csv=text)
    assert "3 rows merged into others of the same run and step, in which 1 value stands again, alike" in said
    assert "no column names the runs: a table is one run" in said
    assert labels(document) == ["metrics"] and document["name"] == "metrics"
    frame = dynalab.load("metrics").frame()
    assert frame["step"].tolist() == [0, 9, 19]
    np.testing.assert_array_equal(frame["val_loss"], [np.nan, 1.6, 1.1])
    # Of a clock the first stands.
    assert frame["epoch"].tolist() == [0, 0, 1]


def test_words_for_missing_values_and_infinities_are_alike_in_every_format(tmp_path, take):
    cells = ["2.5", *WORDS, "inf", "-Infinity", "1e-3", "+inf", "true", "FALSE", " 7 "]
    frame = pd.DataFrame({"run": "007", "step": np.arange(len(cells)), "x": cells, "y": 1.0})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "c.txt", index=False, sep=";")
    frame.to_parquet(tmp_path / "d.parquet")
    rows = frame.to_dict("records")
    (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    nan, inf = np.nan, np.inf
    values = [2.5, *[nan] * len(WORDS), inf, -inf, 1e-3, inf, 1.0, 0.0, 7.0]
    bare = [{**row, "x": value} for row, value in zip(rows, values, strict=True)]
    (tmp_path / "f.ndjson").write_text("\n".join(json.dumps(row) for row in bare))
    ids = set()
    for file in ("a.csv", "b.tsv", "c.txt", "d.parquet", "e.jsonl", "f.ndjson"):
        document, _ = take(f"{file} --name words")
        assert labels(document) == ["007"]
        ids.add(document["id"])
    assert len(ids) == 1
    np.testing.assert_array_equal(dynalab.load("words").array("x")[0], values)


def test_semicolons_come_with_decimal_commas(take):
    document, said = take("a.csv", a_DOT_csv="run;step;loss;note\n1,5;0;0,5;a\n1,5;1;1,25e-1;b\n")
    assert "decimal commas read as points: loss" in said and labels(document) == ["1_5"]
    np.testing.assert_array_equal(dynalab.load("a").array("loss"), [[0.5, 0.125]])


def test_names_that_look_like_nothing_or_like_numbers_stay(take):
    text = " run , step , loss \nNone,0,1\nNA,0,2\nnull,0,3\n007,0,4\n1e3,0,5\nnan,0,6\n"
    document, _ = take("a.csv --run run", a_DOT_csv=text)
    assert labels(document) == sorted(["None", "NA", "null", "007", "1e3", "nan"])
    same, _ = take(
        "b.jsonl --name a",
        b_DOT_jsonl="\n".join(
            json.dumps({"run": row.split(",")[0], "step": 0, "loss": int(row[-1])})
            for row in text.split()[5:]
        ),
    )
    assert same["id"] == document["id"]


@pytest.mark.parametrize(
    "text",
    [
        "run,key,value,step\na,loss,2,0\na,acc,0.1,0\na,loss,1,1\na,acc,0.2,1\n",
        "key,value,timestamp,step,run_uuid,is_nan\nloss,2,17,0,a,0\nacc,0.1,17,0,a,0\nacc,0.2,17,1,a,0\n"
        "loss,1,18,1,a,0\nloss,0,19,2,a,1\nloss,1,19,1,a,0\n",
        "Run,Tag,Wall time,Step,Value\na,loss,1.5,0,2\na,loss,1.6,1,1\na,acc,1.5,0,0.1\na,acc,1.6,1,0.2\n",
        "run,step,variable,value\na,0,loss,2\na,0,acc,0.1\na,1,loss,1\na,1,acc,0.2\n",
    ],
    ids=["keys", "mlflow", "tensorboard", "melted"],
)
def test_a_row_a_metric(take, text):
    document, said = take("a.csv", a_DOT_csv=text)
    assert "names the metrics" in said
    ensemble = dynalab.load("a")
    assert sorted(ensemble.metrics) == ["acc", "loss"] and labels(document) == ["a"]
    frame = ensemble.frame()
    np.testing.assert_array_equal(frame["loss"].dropna(), [2, 1])
    np.testing.assert_array_equal(frame["acc"].dropna(), [0.1, 0.2])


def test_a_metric_a_row_that_contradicts_itself_is_refused(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("run,tag,value,step\na,loss,2,0\na,loss,3,0\n")
    assert command(["import", str(tmp_path / "a.csv")]) == 2
    assert "run a has two values of loss at step 0: 2.0 and 3.0" in capsys.readouterr().err


def test_runs_that_several_columns_name(take):
    text = "lr,seed,step,loss\n0.1,0,0,2\n0.1,1,0,3\n0.2,0,0,4\n0.2,1,0,5\n"
    document, _ = take("a.csv --run lr,seed", a_DOT_csv=text)
    again, _ = take("a.csv --run lr --run seed")
    assert document["id"] == again["id"]
    assert {(item["id"].partition("/")[2], item["seed"]) for item in document["runs"]} == {
        ("lr0.1-seed0", 0), ("lr0.1-seed1", 1), ("lr0.2-seed0", 0), ("lr0.2-seed1", 1),
    }  # fmt: skip
    assert dynalab.load("a").metrics == ["loss"]


# With the ids that tables had before seeds were read of names.
@pytest.mark.parametrize(
    ("words", "text", "seeds", "digest"),
    [
        ("a.csv", "seed,step,loss\n3,0,2\n3,1,1\n11,0,3\n", {"3": 3, "11": 11}, "7383249dfa"),
        ("a.csv --run Seed", "Seed,step,loss\n3,0,2\n3,1,1\n11,0,3\n", {"3": 3, "11": 11}, "7383249dfa"),
        ("a.csv", "seed,step,tag,value\n3,0,loss,2\n3,0,acc,1\n4,0,loss,3\n", {"3": 3, "4": 4}, "72af665642"),
        (
            "a.csv --split lr",
            "seed,lr,step,loss\n0,1,0,2\n0,2,0,4\n",
            {"seed0-lr1": 0, "seed0-lr2": 0},
            "af314c5f35",
        ),
        ("a.csv", "seed,step,loss\na,0,2\nb,0,1\n", {"a": None, "b": None}, "f34e7fe1a2"),
        ("a.csv", "seed,step,loss\n0.5,0,2\n1,0,1\n", {"0.5": None, "1": None}, "ba5b47eb2b"),
    ],
)
def test_a_column_that_names_runs_by_their_seeds_says_these(take, words, text, seeds, digest):
    document, _ = take(words, a_DOT_csv=text)
    assert {item["id"].partition("/")[2]: item["seed"] for item in document["runs"]} == seeds
    assert document["id"] == digest and "seed" not in " ".join(dynalab.load("a").metrics)


def test_runs_that_were_stored_without_their_seeds_get_them(take, monkeypatch):
    text = "seed,step,loss\n3,0,2\n3,1,1\n11,0,3\n"
    with monkeypatch.context() as patched:
        patched.setattr(forms, "are_seeds", lambda values: values < 0)
        before, _ = take("a.csv", a_DOT_csv=text)
    after, said = take("a.csv")
    assert [item["seed"] for item in before["runs"]] == [None, None] and "not told its seeds" in said
    assert after["id"] == before["id"] and [item["seed"] for item in after["runs"]] == [3, 11]
    again, said = take("a.csv")
    assert not again["new"] and "seeds" not in said


def test_a_table_of_many_runs_is_no_single_run(tmp_path, capsys):
    rows = "".join(f"{name},{step},{step}\n" for name in "ab" for step in range(3))
    (tmp_path / "a.csv").write_text(f"schedule,step,loss\n{rows}")
    assert command(["import", str(tmp_path / "a.csv")]) == 2
    assert "schedule may name the runs (--run schedule?)" in capsys.readouterr().err


def test_means_over_runs_are_said_to_be(take):
    text = (
        "Step,Group: adam - loss,Group: adam - loss__MIN,Group: adam - loss__MAX\n0,1,0.9,1.1\n10,.5,.4,.6\n"
    )
    _, said = take("a.csv", a_DOT_csv=text)
    assert "differ from the values of Group: adam: these are means over runs" in said
    assert dynalab.load("a").metrics == ["loss"] and "the columns are 'run - metric'" in said
    _, said = take("b.csv --wide", b_DOT_csv="Step,r - loss,r - loss__MIN,r - loss__MAX\n0,1,1,1\n")
    assert "means" not in said and "2 columns of minima and maxima" in said


def test_an_axis_of_seconds_has_steps_beside_it(take):
    text = (
        "Relative Time (Process),r - _step,r - loss,s - _step,s - loss\n0.5,0,2,,\n1.5,10,1,5,3\n2.5,,,15,2\n"
    )
    document, said = take("a.csv", a_DOT_csv=text)
    assert "each run's own" in said
    ensemble = dynalab.load("a")
    assert ensemble.metrics == ["loss"] and ensemble.steps("loss").tolist() == [0, 5, 10, 15]
    again, _ = take("a.csv --wide --step _step --name b")
    assert again["id"] == document["id"]


def test_several_axes_of_a_wide_table(take):
    text = "Relative Time (Wall),_step,r - loss,s - loss\n0.5,0,2,3\n1.5,10,1,\n"
    document, said = take("a.csv", a_DOT_csv=text)
    assert labels(document) == ["r", "s"] and "columns left out: Relative Time (Wall)" in said
    assert dynalab.load("a").steps("loss").tolist() == [0, 10]


def test_tensorboard_names_runs_and_metrics_by_files(take):
    files = {
        f"tb_IN_run-{run}-tag-{tag}_DOT_csv": f"Wall time,Step,Value\n{at}.5,0,2\n{at}.7,10,{at}\n"
        for at, (run, tag) in enumerate([("a_train", "loss"), ("a_train", "acc"), ("b-tag", "loss")])
    }
    document, said = take("tb", **files)
    assert labels(document) == ["a_train", "b-tag"] and "run-RUN-tag-METRIC" in said
    np.testing.assert_array_equal(dynalab.load("tb").array("loss"), [[2, 0], [2, 2]])
    np.testing.assert_array_equal(dynalab.load("tb").array("acc")[0], [2, 1])


def test_a_file_a_run(take):
    one = "step,loss\n0,2\n1,1\n"
    document, _ = take("x.csv y.csv --name two", x_DOT_csv=one, y_DOT_csv=one.replace("2", "3"))
    assert labels(document) == ["x", "y"]
    folder = {f"logs_IN_version_{i}_IN_metrics_DOT_csv": one.replace("2", str(i + 4)) for i in range(3)}
    document, _ = take("logs", **folder)
    assert labels(document) == ["version_0", "version_1", "version_2"] and document["name"] == "logs"
    folder_id = document["id"]
    document, _ = take("metrics.csv logs/version_0/metrics.csv --name near", metrics_DOT_csv=one)
    assert labels(document) == ["logs_version_0_metrics", "metrics"]
    document, _ = take("x.csv x.tsv --name formats", x_DOT_tsv="step\tloss\n0\t2\n")
    assert labels(document) == ["x.csv", "x.tsv"]
    again, _ = take(
        "logs/version_0/metrics.csv logs/version_2/metrics.csv logs/version_1/metrics.csv --name again"
    )
    assert again["id"] == folder_id


def test_the_published_code_s_names_are_known(take, tmp_path):
    names = ["step", "l1", "l2", *PUBLISHED]
    for index in range(2):
        table = pd.DataFrame(np.arange(2.0 * len(names)).reshape(2, -1) + index, columns=names)
        table["step"] = [0, 10]
        table.to_csv(tmp_path / f"seed{index}.csv", index=False)
    _, said = take("seed0.csv seed1.csv --name published")
    assert "spectral is lambda_max" in said
    assert dynalab.load("published").metrics == ["l1", "l2", *PUBLISHED.values()]
    # Of a part of them, too; alone a word may mean anything.
    take("c.csv", c_DOT_csv="epoch,l2,variance_lambda\n0,1,2\n")
    assert dynalab.load("c").metrics == ["l2", "var_sv"]
    take("d.csv", d_DOT_csv="epoch,loss,spectral\n0,1,2\n")
    assert dynalab.load("d").metrics == ["loss", "spectral"]
    _, said = take("seed0.csv --name other --map spectral=norm --map mean_lambda=mean")
    assert {"norm", "mean", "var_sv"} <= set(dynalab.load("other").metrics)


def test_maps_constants_and_levels_are_kept_for_the_page(take, tmp_path):
    rows = "".join(f"{run},{step},{step / 10},{10 * step}\n" for run in "ab" for step in range(11))
    document, _ = take("a.csv", a_DOT_csv=f"run,step,loss,test_accuracy\n{rows}")
    # Nobody gave a level: what would be reached at .99 percent is no landmark.
    assert all(item["summary"]["generalised_step"] is None for item in document["runs"])
    levelled, _ = take("a.csv --level test_accuracy=95")
    assert levelled["id"] == document["id"] and levelled["new"]
    assert all(item["summary"]["generalised_step"] == 10 for item in levelled["runs"])
    # It is kept until another is given.
    again, _ = take("a.csv")
    assert not again["new"] and again["runs"] == levelled["runs"]
    take("a.csv --name b --map loss=train_loss --const stability_threshold=20")
    ensemble = dynalab.load("b")
    assert ensemble.metrics == ["train_loss", "test_accuracy", "stability_threshold"]
    assert set(ensemble.array("stability_threshold").ravel()) == {20.0}
    from dynalab.report.provenance import _import_command

    words = shlex.split(str(_import_command(ensemble)))
    assert words[2:] == [
        *["a.csv", "--name", "b", "--map", "loss=train_loss", "--const", "stability_threshold=20.0"]
    ]
    assert _import_command(dynalab.load("a")) == "dynalab import a.csv --name a --level test_accuracy=95.0"


def test_levels_that_nobody_gave_are_taken_back(take):
    one, _ = take("a.csv --level test_accuracy=0.5", a_DOT_csv="step,test_accuracy\n0,0\n1,1\n")
    assert one["runs"][0]["summary"]["generalised_step"] == 1
    # As it once was stored: no word of levels.
    path = dynalab.load("a").paths.config
    path.write_text(path.read_text().partition("levels:")[0])
    again, said = take("a.csv")
    assert again["new"] and "levels that nobody had given" in said
    assert again["runs"][0]["summary"]["generalised_step"] is None and not take("a.csv")[0]["new"]


def test_a_corrected_table_has_the_name(take):
    one, _ = take("a.csv", a_DOT_csv="step,loss\n0,2\n")
    two, said = take("a.csv", a_DOT_csv="step,loss\n0,3\n")
    assert f"a meant {one['id']} before" in said and two["new"]
    assert dynalab.load("a").id == two["id"] and dynalab.load(one["id"]).names == []


def test_a_continuation_begins_late(take):
    rows = "".join(f"{step},{step / 1e6}\n" for step in range(1_000_000, 1_000_500, 50))
    document, _ = take("late.csv", late_DOT_csv=f"step,loss\n{rows}")
    (item,) = document["runs"]
    assert item["steps"] == 1_000_450 and dynalab.load("late").steps("loss")[0] == 1_000_000


def test_python_takes_the_same():
    frame = pd.DataFrame({"lr": [1, 2], "seed": [0, 0], "epoch": [0, 0], "loss": [1.0, 2.0]})
    with pytest.warns(UserWarning) as caught:
        ensemble = dynalab.import_runs(
            frame, run=["lr", "seed"], renamed={"loss": "train_loss"}, constants={"lr_": 0.1}
        )
    assert "column epoch holds the steps" in str(caught[0].message)
    assert [run.label for run in ensemble.runs] == ["lr1-seed0", "lr2-seed0"]
    assert ensemble.metrics == ["train_loss", "lr_"]


def test_many_grids_are_one_shard():
    rng = np.random.default_rng(0)
    pieces = []
    for index in range(40):
        steps = np.sort(rng.choice(500, 12, replace=False))
        values = {"loss": rng.normal(size=12), "acc": np.where(rng.random(12) < 0.3, np.nan, rng.random(12))}
        pieces.append(pd.DataFrame({"run": f"r{index:02}", "step": steps, **values}))
    frame = pd.concat(pieces, ignore_index=True)
    keys = {"run": "run", "step": "step"}
    ensemble = dynalab.import_runs(frame.sample(frac=1, random_state=0), "grids", **keys)
    (shard,) = ensemble.paths.shards()
    back = ensemble.frame()
    back["run"] = back["run"].str.rpartition("/")[2]
    pd.testing.assert_frame_equal(back.drop(columns="seed"), frame)
    assert [run.steps for run in ensemble.runs] == frame.groupby("run")["step"].max().tolist()
    finals = frame.groupby("run")["loss"].last().tolist()
    assert [run.summary["final"]["loss"] for run in ensemble.runs] == finals
    grid = ensemble.steps("loss")
    np.testing.assert_array_equal(grid, np.unique(frame["step"]))
    expected = frame.pivot(index="run", columns="step", values="acc").to_numpy()
    np.testing.assert_array_equal(ensemble.array("acc"), expected)
    table = pd.read_parquet(ensemble.paths.metrics())
    np.testing.assert_array_equal(table["loss"], frame["loss"])
    # Few grids are a shard each, as they always were, and the content has one id however it lies.
    assert len(dynalab.import_runs(frame[frame["run"] < "r03"], "few", **keys).paths.shards()) == 3
    # What is damaged is seen, and stored again.
    path = shard.series("imported")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="was damaged; it is stored again"):
        healed = dynalab.import_runs(frame, "grids", **keys)
    np.testing.assert_array_equal(healed.array("acc"), expected)


def test_a_seed_is_that_of_its_run_only_where_all_tables_have_it():
    parts = [Rows(np.array([name]), np.zeros(1), {}, seeded) for name, seeded in (("a", True), ("b", False))]
    assert joined(parts[:1] * 2).seeded and not joined(parts).seeded


def test_of_two_columns_with_one_name_the_one_that_is_written_so_counts():
    assert guess_column(["loss", "Step", "step"], STEPS) == "step"
    assert guess_column(["Global Step", "EPOCH"], STEPS) == "Global Step"


LONG = "lr,epoch,loss\n" + "".join(
    f"{lr},{step},{float(lr) + step}\n" for lr in ("0.10", "0.3") for step in (0, 1)
)


def test_a_long_file_is_split_into_a_run_a_value(take):
    document, _ = take("long.csv --split lr", long_DOT_csv=LONG)
    assert labels(document) == ["0.10", "0.3"] and document["metrics"] == ["loss"]
    assert dynalab.load("long").frame()["loss"].tolist() == [0.1, 1.1, 0.3, 1.3]
    assert dynalab.load("long").config["import"]["options"] == ["--split", "lr"]
    # Beside what names the runs: files, a column, the columns of a wide table; a seed stays one.
    document, _ = take("long.csv other.csv --split lr --name two", other_DOT_csv=LONG)
    assert labels(document) == ["long-lr0.10", "long-lr0.3", "other-lr0.10", "other-lr0.3"]
    seeds = "run,seed,step,loss\n" + "".join(f"{run},{seed},0,1\n" for run in "ab" for seed in (3, 4))
    document, _ = take("seeds.csv --split seed", seeds_DOT_csv=seeds)
    assert {(item["id"].partition("/")[2], item["seed"]) for item in document["runs"]} == {
        *(("runa-seed3", 3), ("runa-seed4", 4), ("runb-seed3", 3), ("runb-seed4", 4))
    }
    wide = "lr,step,a - loss,b - loss\n1,0,5,6\n1,1,7,\n2,0,8,9\n"
    document, _ = take("wide.csv --split lr", wide_DOT_csv=wide)
    assert labels(document) == ["a-lr1", "a-lr2", "b-lr1", "b-lr2"]
    assert dynalab.load("wide").frame()["loss"].tolist() == [5, 7, 8, 6, 9]
    keyed = "lr,step,metric,value\n1,0,loss,5\n1,0,acc,6\n2,0,loss,7\n"
    document, _ = take("keyed.csv --split lr", keyed_DOT_csv=keyed)
    assert labels(document) == ["1", "2"] and document["metrics"] == ["loss", "acc"]
    frame = pd.DataFrame({"part": ["x", "y"], "step": [0, 0], "loss": [1.0, 2.0]})
    assert [run.label for run in dynalab.import_runs(frame, "framed", step="step", split="part").runs] == [
        "x",
        "y",
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--split rate", "--split rate: no such column; there are"),
        ("--split one", "--split one: is 7 in every row; expected 2 to 10,000 values, each of one run"),
        ("--split gap", "--split gap: row 2 has no name (1 row without one)"),
        ("--split loss", "--split loss: has 10,001 values; expected 2 to 10,000"),
        ("--split step", "--split step: this column has another meaning already"),
        ("--run name,one --split one", "--split one: this column has another meaning already"),
        ("--checkpoints 'x/{step}.pt' --split lr", "a pattern has them as {run} and {step}"),
        # Numbers that tell runs apart are named.
        (
            "",
            "--run COLUMN is missing: steps repeat, and rate_, size may tell the runs apart (--run rate_,size?)",
        ),
    ],
)
def test_what_cannot_split_runs_is_refused_in_a_line(words, line, tmp_path, here):
    n = 10_001 if words == "--split loss" else 4
    columns = {
        "name": np.arange(n) % 2,
        "one": 7,
        "gap": ["a", None, *"a" * (n - 2)],
        "loss": np.arange(n),
        "step": 0,
    }
    if not words:
        columns = {"size": [1, 1, 2, 2], "rate_": [3, 4, 3, 4], "loss": 1.5, "time": range(4), "step": 0}
    pd.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    done = here(
        "import", *([] if "--checkpoints" in words else [str(tmp_path / "a.csv")]), *shlex.split(words)
    )
    assert done.code == 2 and line in done.err and len(done.err.splitlines()) == 1, done.err


def sweep(*values: str) -> str:
    rows = [
        f"{lr},{opt},{seed},{step},{place + seed / 10 + (opt == 'sgd') - step / 100}"
        for place, lr in enumerate(values)
        for opt in ("adam", "sgd")
        for seed in range(4)
        for step in (0, 10, 20)
    ]
    return "\n".join(["lr,opt,seed,step,test_loss", *rows, ""])


def test_a_table_of_a_sweep_is_compared_as_it_is(tmp_path, here):
    path = tmp_path / "sweep.csv"
    path.write_text(sweep("0.10", "1e-2"))
    made = here("import", str(path), "--name", "mine", "--setting", "lr,opt", "--json")
    assert made.code == 0, made.err
    names = [item["name"] for item in made.json["ensembles"]]
    assert names == ["mine-lr0.1-optadam", "mine-lr0.1-optsgd", "mine-lr0.01-optadam", "mine-lr0.01-optsgd"]
    assert all([run["seed"] for run in item["runs"]] == [0, 1, 2, 3] for item in made.json["ensembles"])
    # The name means all, and so does what was imported last; the same content changes nothing.
    (found,) = here("analyze", "compare", "mine", "--json").json["analyses"]
    assert [setting["keys"] for setting in found["settings"]] == [
        {"lr": lr, "opt": opt} for opt in ("adam", "sgd") for lr in (0.1, 0.01)
    ]
    assert found["settings"][0]["label"] == "lr 0.1, opt adam"
    (last,) = here("analyze", "compare", "--json").json["analyses"]
    again = here("import", str(path), "--name", "mine", "--setting", "lr", "--setting", "opt", "--json")
    assert last["id"] == found["id"] and not any(item["new"] for item in again.json["ensembles"])
    assert len(here("runs", "list", "-f", "import.settings.lr<0.1", "--ids").out.split()) == 8
    assert here("runs", "show", "mine").out.count("\nid: ") == 3
    assert here("runs", "show", "mine-lr0.1-optsgd").code == 0
    one = here("runs", "show", "mine/0")
    assert one.code == 2 and "mine/0 is ambiguous" in one.err
    # Another table under the name takes it from all of them; under their own names they are there.
    path.write_text(sweep("0.10", "3"))
    other = here("import", str(path), "--name", "mine", "--setting", "lr", "--run", "opt,seed")
    assert other.code == 0 and "mine meant" in other.err and "which are kept under their ids" in other.err
    assert len(dynalab.load_all("mine")) == 2 and dynalab.load("mine-lr0.01-optadam").runs


def test_settings_with_equal_rows_are_two_and_a_frame_may_have_them_too(outputs):
    frame = pd.DataFrame(
        {"opt": ["adam", "sgd"] * 3, "step": [0, 0, 1, 1, 2, 2], "loss": [3.0, 3, 2, 2, 1, 1]}
    )
    made = import_settings(frame, outputs, "mine", Order(Form(settings=("opt",))))
    assert len({item.ensemble.id for item in made}) == 2
    assert [item.ensemble.config["import"]["settings"] for item in made] == [{"opt": "adam"}, {"opt": "sgd"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--setting rate", "--setting rate: no such column (did you mean"),
        ("--setting lr", "--setting lr: lr is 0.5 in every row; expected several settings"),
        ("--setting step --step step", "--setting step: this column has another meaning already"),
        ("--run lr,rat --setting lr", "--setting lr: this column has another meaning already"),
        ("--run lr,rat --split rat", "--split rat: this column has another meaning already"),
        ("--setting lr --setting lr", "--setting lr: this column has another meaning already"),
        ("--setting loss", "--setting loss: has 120 values; expected 100 at most"),
    ],
)
def test_columns_that_are_no_settings_are_refused(tmp_path, here, outputs, words, said):
    path = tmp_path / "table.csv"
    path.write_text("lr,rat,step,loss\n" + "".join(f"0.5,1,{step},{step}\n" for step in range(120)))
    answer = here("import", str(path), "--name", "mine", *words.split())
    assert answer.code == 2 and said in answer.err and len(answer.err.splitlines()) == 1, answer.err
    assert not outputs.exists()


def test_a_setting_without_a_finite_number_is_its_text(tmp_path, here):
    path, values = tmp_path / "sweep.csv", ("1.0", "inf", "nan", "1" + "0" * 400)
    path.write_text(sweep(*values))
    made = here("import", str(path), "--name", "mine", "--setting", "lr", "--run", "opt,seed", "--json")
    assert made.code == 0, made.err
    stored = dynalab.load_all("mine")
    assert {item.config["import"]["settings"]["lr"] for item in stored} == {1.0, *values[1:]}
    compared = here("analyze", "compare", "mine", "--json")
    assert compared.code == 0, compared.err


def test_a_damaged_import_stands_in_no_other_s_way_and_is_made_whole(tmp_path, here):
    path, other = tmp_path / "sweep.csv", tmp_path / "other.csv"
    path.write_text(sweep("0.1", "0.2"))
    other.write_text(sweep("0.3", "0.4"))
    words = ("--setting", "lr", "--run", "opt,seed")
    assert here("import", str(path), "--name", "mine", *words).code == 0
    harmed = dynalab.load("mine-lr0.1")
    text = harmed.paths.config.read_text()
    harmed.paths.config.write_text(text.replace("lr: 0.1", "lr: .inf"))
    beside = here("import", str(other), "--name", "yours", *words)
    assert beside.code == 0 and beside.err.count(f"{harmed.id} is left out") == 1, beside.err
    assert len(dynalab.load_all("yours")) == 2
    again = here("import", str(path), "--name", "mine", *words)
    assert again.code == 0 and f"{harmed.id} was damaged; it is stored again (" in again.err, again.err
    assert dynalab.load("mine-lr0.1").config["import"]["settings"] == {"lr": 0.1}
    assert len(dynalab.load_all("mine")) == 2
    harmed.paths.config.write_text("task: {")
    removed = here("runs", "rm", harmed.id, "--yes")
    assert removed.code == 0, removed.err


def test_names_of_settings_have_all_digits_and_mean_one_each(tmp_path, here, outputs):
    path = tmp_path / "sweep.csv"
    words = ("--name", "mine", "--setting", "lr", "--run", "opt,seed", "--json")
    path.write_text(sweep("adam w", "adam_w"))
    refused = here("import", str(path), *words)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and not outputs.exists()
    assert "--setting lr: adam w and adam_w would both be called mine-lradam_w; rename one" in refused.err
    path.write_text(sweep("0.1234567", "0.1234568", "1048576.5", "1.0", "1" + "0" * 20, "1e-5"))
    made = here("import", str(path), *words).json["ensembles"]
    values = ("0.1234567", "0.1234568", "1048576.5", "1", "1e20", "1e-05")
    assert [item["name"] for item in made] == [f"mine-lr{value}" for value in values]
    assert len({dynalab.load(item["name"]).id for item in made}) == 6
