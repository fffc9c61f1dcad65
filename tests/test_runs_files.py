"""`runs export|diff|rm`: what is written is what is stored, and what is removed is what was named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from report_fakes import make_ensemble, make_hmm, steps_of, training
from test_import import table

import dynalab
from dynalab.cli.app import run as command
from dynalab.cli.options import target
from dynalab.config.command import read_command
from dynalab.core.errors import ConfigError
from dynalab.launch.layout import Layout, mend_config
from dynalab.store import runfile
from dynalab.store.export import SUFFIXES
from dynalab.store.lock import Lock

READERS = {
    "csv": pd.read_csv,
    "parquet": pd.read_parquet,
    "jsonl": lambda path: pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()]),
}


@pytest.mark.parametrize("kind", list(READERS))
def test_export_and_import_again(outputs: Path, tmp_path, capsys, kind):
    make_ensemble(outputs, n_runs=3)
    ensemble = dynalab.load()
    path = tmp_path / f"runs.{kind}"
    assert command(["runs", "export", ensemble.id, "--to", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 63 and document["runs"] == [run.id for run in ensemble.runs]
    pd.testing.assert_frame_equal(READERS[kind](path), ensemble.frame(), check_dtype=False)
    back = dynalab.import_runs(path, "back", run="run", step="step")
    assert [run.seed for run in back.runs] == [0, 1, 2]
    for metric in ensemble.metrics:
        np.testing.assert_array_equal(back.array(metric), ensemble.array(metric))


def test_export_with_the_keys_in_which_ensembles_differ(outputs: Path, tmp_path, capsys):
    one = make_ensemble(outputs, n_runs=2)
    words = ["task=grokking", "optimizer.lr=0.01", "optimizer=sgd"]
    two = make_ensemble(outputs, overrides=words, slug="lr_0.01")
    mine = dynalab.import_runs(table(2), "mine", run="run", step="step")
    for kind, read in {**READERS, "npz": np.load}.items():
        path = tmp_path / f"x.{kind}"
        assert command(["runs", "export", one.id, two.id, mine.id, "--keys", "--to", str(path)]) == 0
        names = ["run", "seed", "step", "optimizer", "optimizer.lr"]
        if kind == "npz":
            frame = read(path)
            assert {*names} < {*frame.files} and frame["optimizer"].dtype.kind == "U"
            continue
        frame = read(path)
        assert list(frame)[:3] == names[:3] and {*names} < {*frame}
        own = dict(iter(frame.groupby(frame["run"].str.partition("/")[0])))
        assert {*own[one.id]["optimizer"]} == {"adamw"} and {*own[two.id]["optimizer"]} == {"sgd"}
        assert {*own[two.id]["optimizer.lr"]} == {0.01} and own[mine.id]["optimizer.lr"].isna().all()
        bare = tmp_path / f"bare.{kind}"
        assert command(["runs", "export", one.id, two.id, mine.id, "--to", str(bare)]) == 0
        metrics = [name for name in read(bare) if name in frame]
        pd.testing.assert_frame_equal(frame[metrics], read(bare), check_dtype=False)
    assert "metrics" in capsys.readouterr().err


def test_metrics_with_other_rows_are_named_where_they_are_left_out(outputs: Path, tmp_path, capsys):
    words = [
        "task=digits",
        "probes=[curvature]",
        "probe.curvature.every=50",
        "train.steps=100",
        "eval.every=5",
    ]
    assert command(["train", *words, "task.n_train=50", "seed=0,1", "launcher=inline", "-q"]) == 0
    capsys.readouterr()
    ensemble = dynalab.load()
    names = [name for name in ensemble.metrics if name not in ensemble.frame()]
    assert "sharpness" in names and ensemble.off_grid() == {"every-50": names}
    assert command(["runs", "export", "--to", str(tmp_path / "x.csv"), "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["warnings"]
    assert "sharpness" in line and {*pd.read_parquet(line.rpartition(" ")[2])} == {
        "run",
        "seed",
        "step",
        *names,
    }
    assert command(["runs", "query", "SELECT max(sharpness) FROM metrics"]) == 2
    assert "sharpness has other rows than `metrics`" in capsys.readouterr().err
    # Of a grid of its own, beside the losses of the same step; rows of one are null in the columns of the other.
    sql = "SELECT seed, step, sharpness, train_loss FROM series ORDER BY 1, 2"
    assert command(["runs", "query", sql, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row[:2] for row in rows] == [[seed, step] for seed in (0, 1) for step in range(0, 101, 5)]
    values = [value for run in ensemble.array("sharpness").tolist() for value in run]
    assert [row[2] for row in rows if row[1] % 50 == 0] == values
    assert {row[2] for row in rows if row[1] % 50} == {None}
    assert [row[3] for row in rows] == ensemble.frame()["train_loss"].tolist()
    sql = "SELECT (SELECT count(*) FROM metrics), count(*), count(sharpness) FROM series"
    assert command(["runs", "query", sql, f"{ensemble.id}/s0001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [[21, 21, 3]]
    # A finer grid has the rows of the evaluation grid.
    make_ensemble(outputs, n_runs=2)
    assert dynalab.load().off_grid() == {}


def test_export_of_some_runs_and_of_several_ensembles(outputs: Path, tmp_path, capsys):
    one = make_ensemble(outputs, n_runs=3)
    other = dynalab.import_runs(table(2), "mine", run="run", step="step")
    path = tmp_path / "some.csv"
    assert command(["runs", "export", f"{one.id}/s0001", "mine", "--to", str(path)]) == 0
    frame = pd.read_csv(path)
    assert list(frame["run"].unique()) == [f"{one.id}/s0001", f"{other.id}/r0", f"{other.id}/r1"]
    assert frame.loc[frame["run"].str.startswith(other.id), "l2"].isna().all() and "scale" in frame
    for words, code in (
        (["--to", str(tmp_path / "x.xlsx")], 2),
        (["--to", str(tmp_path / "no" / "x.csv")], 2),
        (["nothing", "--to", str(tmp_path / "x.csv")], 4),
    ):
        assert command(["runs", "export", *words]) == code
    capsys.readouterr()
    assert sorted(item.name for item in tmp_path.glob("*.*")) == ["some.csv"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *((["runs", "export"], f"x{suffix}") for suffix in SUFFIXES),
        (["runs", "archive"], "x.tar.gz"),
        (["figure", "curves"], "x.svg"),
    ],
)
def test_a_file_that_is_there_is_written_over_with_force_alone(
    outputs: Path, tmp_path, capsys, monkeypatch, words, name
):
    ensemble = make_ensemble(outputs, n_runs=2)
    path = tmp_path / name
    command_line = [*words, ensemble.id, "--to", str(path)]
    path.write_text("mine")
    assert command(command_line) == 2
    assert capsys.readouterr().err == f"dynalab: --to {path}: a file is there; --force writes over it\n"
    assert path.read_text() == "mine"

    # Killed while it writes: what stood there stands, and nothing lies beside it.
    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", killed)
        assert command([*command_line, "--force"]) == 130
    assert path.read_text() == "mine" and [item.name for item in tmp_path.glob("*x*")] == [name]
    capsys.readouterr()
    assert command([*command_line, "--force"]) == 0 and path.read_bytes()[:4] != b"mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.txt", "unknown format .txt; legal: .csv, .parquet, .jsonl, .npz"),
        ("x", "unknown format (no suffix)"),
        (".csv", "unknown format (no suffix)"),
        ("no/x.csv", "no is no folder"),
        ("d.csv", "a folder"),
        ("pipe.csv", "no file that can be written over is there"),
        ("nowhere.csv", "a file is there"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_said(tmp_path, name, said):
    (tmp_path / "d.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "nowhere.csv").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=re.escape(said)):
        target(str(tmp_path / name), name == "pipe.csv", SUFFIXES)


def test_analyses_are_listed_and_shown(outputs: Path, capsys):
    one = make_ensemble(outputs, n_runs=2)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    assert command(["runs", "list", "-a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["analyses"] == []
    first = make_hmm(outputs, one, digest="aaaaaaaaaa")
    path = make_hmm(outputs, two, digest="bbbbbbbbbb", created="2026-11-24T00:00:00+00:00").paths.result
    assert command(["runs", "list", "--analyses", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["analyses"]
    assert [item["id"] for item in found] == ["aaaaaaaaaa", "bbbbbbbbbb"]
    assert found[0] == {
        "id": first.id, "kind": "hmm", "ensembles": [one.id], "created": first["created"],
        "path": str(first.paths.root),
    }  # fmt: skip
    assert command(["runs", "list", "-a", one.id]) == 0
    (_, row) = capsys.readouterr().out.splitlines()
    assert row.split()[:3] == ["hmm-aaaaaaaaaa", one.id, "2"]
    assert command(["runs", "show", "hmm-aaaa", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["analyses"]
    assert document["inputs"] == first["inputs"] and document["config"] == first["config"]
    assert command(["runs", "show", "hmm-aaaa"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == document
    assert command(["runs", "show", "hmm"]) == command(["runs", "show", "hmm-cccc"]) == 4
    path.write_text("{")
    assert command(["runs", "list", "-a", "--json"]) == command(["runs", "show", "hmm-bbbb"]) == 3
    assert f"{path} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_configuration_that_was_cut_off_is_named_and_left_out(outputs: Path, tmp_path, capsys, share):
    one = make_ensemble(outputs, n_runs=2)
    two = make_ensemble(outputs, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01")
    whole = two.paths.config.read_bytes()
    two.paths.config.write_bytes(whole[: int(share * len(whole))])
    target = str(tmp_path / "runs.csv")
    for words in (
        ["show", two.id], ["export", two.id, "--to", target], ["diff", one.id, two.id], ["list", "-e"],
        ["list", "--json"], ["export", one.id, two.id, "--force", "--to", target],
    ):  # fmt: skip
        assert command(["runs", *words]) == 3, words
        assert capsys.readouterr().err.count(f"{two.paths.config} is damaged") == 1, words
    assert list(pd.read_csv(target)["run"].unique()) == [run.id for run in one.runs]
    assert command(["analyze", "hmm", two.id]) == 3
    assert f"{two.paths.config} is damaged" in capsys.readouterr().err
    # Training again writes it again.
    (request,) = read_command(["task=grokking", "optimizer.lr=0.01"]).requests
    layout = Layout(request, two.paths)
    mend_config(layout)
    assert two.paths.config.read_bytes() == whole and layout.warnings


def test_diff(outputs: Path, capsys):
    one = make_ensemble(outputs, n_runs=4)
    values = training(4, steps_of())
    values["l2"][2, 5] += 0.25
    other = make_ensemble(
        outputs, n_runs=4, values=values, overrides=["task=grokking", "optimizer.lr=0.01"], slug="lr_0.01"
    )
    assert command(["runs", "diff", one.id, other.id, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["configuration"]
    assert row["key"] == "optimizer.lr" and row["b"] == 0.01 and row["a"] != 0.01
    results = {item["what"]: (item["a"], item["b"]) for item in document["results"]}
    steps = [run.summary["generalised_step"] for run in one.runs]
    assert results["generalised_step"][0] == {
        "median": np.median(steps), "quartiles": [np.mean(sorted(steps)[:2]), np.mean(sorted(steps)[2:])], "runs": 4,
    }  # fmt: skip
    assert results["status"] == ({"done": 4}, {"done": 4}) and "final l2" in results
    series = document["series"]
    assert (series["shared"], series["equal"], series["differing"]) == (4, 3, ["s0002"])
    assert series["largest"]["metric"] == "l2" and series["largest"]["difference"] == pytest.approx(0.25)
    assert command(["runs", "diff", one.id, one.id]) == 0
    said = capsys.readouterr().out
    assert "the same configuration" in said and "4 of 4 runs of the same label are equal to the bit" in said
    assert command(["runs", "diff", f"{one.id}/s0000", f"{other.id}/s0001"]) == 0
    assert "optimizer.lr" in capsys.readouterr().out
    assert command(["runs", "diff", one.id, "ffff"]) == 4


def test_rm_asks_for_yes_and_takes_what_was_named(outputs: Path, capsys):
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    assert command(["runs", "rm"]) == 2
    assert command(["runs", "rm", ensemble.id]) == 2
    assert "--yes" in capsys.readouterr().err and ensemble.path.is_dir()
    # Runs that share a shard go together.
    assert command(["runs", "rm", f"{ensemble.id}/s0000", "--yes"]) == 2
    assert "s0001" in capsys.readouterr().err
    words = [f"{ensemble.id}/s0000", f"{ensemble.id}/s0001", "--yes", "--json"]
    assert command(["runs", "rm", *words]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [f"{ensemble.id}/s000{i}" for i in (0, 1)]
    left = dynalab.load(ensemble.id)
    assert [run.label for run in left.runs] == ["s0002", "s0003"]
    assert list(pd.read_parquet(left.paths.metrics())["run"].unique()) == [run.id for run in left.runs]
    with Lock(left.paths.shards()[0].lock):
        assert command(["runs", "rm", ensemble.id, "--yes"]) == 3
    assert command(["runs", "rm", ensemble.id, "--yes"]) == 0
    assert not list(outputs.glob("grokking*")) and not list(outputs.glob(".removed*"))
    assert command(["runs", "rm", ensemble.id, "--yes"]) == 4


def test_rm_takes_older_attempts_too(outputs: Path):
    frame = table(2)
    keys = {"run": "run", "step": "step"}
    dynalab.import_runs(frame, "mine", **keys)
    again = dynalab.import_runs(frame, "mine", force=True, **keys)
    label = again.runs[0].label
    assert len(again.paths.shards()) == 4
    assert command(["runs", "rm", f"mine/{label}", "--yes"]) == 0
    left = dynalab.load("mine")
    assert label not in [run.label for run in left.runs] and len(left.paths.shards()) == 2
    assert {runfile.read(shard).attempt for shard in left.paths.shards()} == {1, 2}
