"""Reading what is stored, rule by rule: on folders that are written by hand, each value compared with NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from dynalab.analysis.base import Convergence
from dynalab.errors import ConfigError, NothingMatched, StoreError
from dynalab.store import difference, export, read, runfile, series
from dynalab.store.filters import Filter
from dynalab.store.find import select
from dynalab.store.paths import AnalysisPaths, EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import (
    damaged_results,
    find_result,
    read_result,
    results,
    whole_result,
    write_result,
)
from dynalab.store.series import Mark, SeriesWriter
from dynalab.store.stored import StoredEnsemble

DIGEST = "0123456789"


def write_rows(shard: ShardPaths, cadence: str, steps: Any, n_runs: int, **columns: Any) -> list[int]:
    writer = SeriesWriter(shard.series(cadence), list(columns), n_runs)
    shaped = {
        name: np.broadcast_to(np.asarray(column, float).reshape(len(steps), -1), (len(steps), n_runs))
        for name, column in columns.items()
    }
    writer.append(np.asarray(steps), np.zeros(len(steps)), shaped)
    mark = writer.sync()
    writer.close()
    return [mark.rows, mark.crc]


def make(
    outputs: Path, runs: list[runfile.Run], digest: str = DIGEST, **config: Any
) -> tuple[EnsemblePaths, ShardPaths]:
    """An ensemble's folder with one shard, as training leaves it, without series."""
    paths = OutputPaths(outputs).ensemble("grokking", "some", digest)
    shard = paths.shard(runfile.folder_name(runs, 1))
    shard.root.mkdir(parents=True)
    tree = {"task": {"name": "grokking"}, "eval": {"every": 10}, **config, "levels": {}}
    paths.config.write_text(yaml.safe_dump(tree, sort_keys=False))
    runfile.write(
        shard, runfile.Shard(runs, 100, status=runs[0].status, steps=max(run.steps for run in runs))
    )
    return paths, shard


def run(seed: int, status: str = "done", steps: int = 100, **summary: Any) -> runfile.Run:
    return runfile.Run(f"s{seed:04d}", seed, {}, status, steps, summary or None)


# Trajectories.


@pytest.fixture
def stored(outputs: Path) -> Ensemble:
    """Two runs on a grid of 10, one of which diverged at 30, with a finer and a coarser series."""
    paths, shard = make(outputs, [run(3), run(4, "diverged", diverged_step=30)])
    rows = np.arange(0, 50, 10)
    write_rows(
        shard,
        "every-10",
        rows,
        2,
        loss=np.stack([rows, 2 * rows], 1),
        accuracy=np.stack([rows + 1, rows + 2], 1),
    )
    write_rows(shard, "every-5", np.arange(0, 45, 5), 2, norm=np.arange(9))
    write_rows(shard, "every-20", [0, 20, 40], 2, sharpness=[7, 8, 9])
    write_rows(shard, "log", [1, 2, 4], 2, spectrum=[1, 1, 1])
    return Ensemble(paths)


def test_the_evaluation_grid_comes_first_and_finer_series_are_on_it(stored):
    assert stored.cadences() == ["every-10", "every-20", "every-5", "log"]
    assert stored.columns() == {
        "every-10": ["loss", "accuracy"],
        "every-20": ["sharpness"],
        "every-5": ["norm"],
        "log": ["spectrum"],
    }
    assert stored.metrics == ["loss", "accuracy", "sharpness", "norm", "spectrum"]
    assert stored.grid_metrics() == ["loss", "accuracy", "norm"]


def test_rows_are_the_runs_own_up_to_its_divergence(stored):
    first, second = stored.runs
    whole = stored.trajectory(first, ["accuracy", "norm"])
    assert whole.steps.tolist() == [0, 10, 20, 30, 40] and whole.values.tolist() == [
        [1, 0],
        [11, 2],
        [21, 4],
        [31, 6],
        [41, 8],
    ]
    assert (whole.run, whole.seed, whole.status, whole.diverged_step) == (f"{DIGEST}/s0003", 3, "done", None)
    cut = stored.trajectory(second, ["loss"])
    assert (
        cut.steps.tolist() == [0, 10, 20]
        and cut.values[:, 0].tolist() == [0, 20, 40]
        and cut.diverged_step == 30
    )
    coarse = stored.trajectory(first, ["sharpness", "loss"])
    assert np.array_equal(coarse.values[:, 0], [7, np.nan, 8, np.nan, 9], equal_nan=True)
    assert stored.trajectory(first, ["loss"], "every-20").values[:, 0].tolist() == [0, 20, 40]
    assert stored.trajectory(first, []).values.shape == (5, 0)
    with pytest.raises(
        ConfigError,
        match=f"^los: not recorded in {DIGEST} \\(did you mean loss\\?\\); there are accuracy, loss, norm, ",
    ):
        stored.trajectory(first, ["los"])


def test_a_group_has_the_series_of_every_cadence(stored):
    told = stored.group()
    (only,) = told.runs
    assert only.series["sharpness"].steps.tolist() == [0, 20, 40] and only.grid.tolist() == [
        0,
        10,
        20,
        30,
        40,
    ]
    assert only.series["sharpness"].values.tolist() == [7, 8, 9]
    assert only.series["norm"].steps.tolist() == [*range(0, 45, 5)]
    assert only.series["norm"].values.tolist() == [*range(9)] and "nothing" not in only.series
    assert told.warnings == (f"left out: {DIGEST}/s0004 is diverged",)


def test_arrays_have_a_row_a_run_and_a_column_a_step(stored):
    assert stored.steps("loss").tolist() == [0, 10, 20, 30, 40]
    assert np.array_equal(
        stored.array("loss"), [[0, 10, 20, 30, 40], [0, 20, 40, np.nan, np.nan]], equal_nan=True
    )
    frame = stored.frame()
    assert list(frame) == ["run", "seed", "step", "loss", "accuracy", "norm"]
    assert frame["seed"].tolist() == [3] * 5 + [4] * 3 and frame["step"].tolist() == [
        0,
        10,
        20,
        30,
        40,
        0,
        10,
        20,
    ]
    assert set(frame["run"]) == {f"{DIGEST}/s0003", f"{DIGEST}/s0004"}
    assert stored.frame(runs=[f"{DIGEST}/s0004"])["loss"].tolist() == [0, 20, 40]
    assert len(stored.frame(runs=[])) == 0


def test_runs_that_do_not_enter_are_named(outputs):
    runs = [
        run(seed, status)
        for seed, status in enumerate(["done", "partial", "failed", "crashed", "planned", "diverged"])
    ]
    paths, shard = make(outputs, runs)
    write_rows(shard, "every-10", [0, 10], 6, loss=[1, 2])
    found = Ensemble(paths).trajectories(["loss"])
    assert [item.run for item in found.runs] == [f"{DIGEST}/s0000"] and found.metrics == ("loss",)
    named = ", ".join(f"{DIGEST}/s000{place} is {runs[place].status}" for place in (1, 2, 3))
    assert found.warnings == (f"left out: {named} and 2 more",)
    assert len(Ensemble(paths).trajectories(["loss"], statuses=runfile.STATUSES).runs) == 6
    fresh, _ = make(outputs, [run(9, "partial", 0)], "1123456789")
    assert Ensemble(fresh).trajectories([], ("partial",)).warnings == (
        "left out: 1123456789/s0009 has no rows yet",
    )


def test_the_rule_of_convergence_is_the_configurations(outputs):
    def rule(number: int, **said: Any) -> Convergence | None:
        paths, _ = make(outputs, [run(0)], f"{number:010d}", convergence=said)
        return Ensemble(paths).convergence

    assert rule(1, metric="test_accuracy", threshold=0.9) == Convergence("test_accuracy", 0.9, "up", 1)
    assert rule(2, metric="test_loss", threshold=0, persistence=3) == Convergence("test_loss", 0.0, "down", 3)
    assert rule(3, metric="test_loss", threshold=1, direction="up") == Convergence("test_loss", 1.0, "up", 1)
    assert (
        rule(4, metric="test_loss") is None
        and rule(5, threshold=1.0) is None
        and rule(6, metric="x", threshold=1) is None
    )


# Series.


def test_records_of_single_runs_are_told_from_stacked_ones():
    stacked, single = series.row_type(["a", "run"], 2), series.row_type(["a"], None)
    assert not series.is_single(stacked) and series.is_single(single)
    assert series.metrics_of(stacked) == ("a", "run") and series.metrics_of(single) == ("a",)
    rows = np.zeros(2, series.row_type(["a"], 3))
    rows["step"], rows["wall"], rows["a"] = [1, 2], [0.5, 1.5], [[1, 2, 3], [4, 5, 6]]
    own = series.own_rows(rows, 2)
    assert own.tolist() == [(1, 0.5, 2, 3.0), (2, 1.5, 2, 6.0)]


def test_a_series_goes_on_after_what_is_vouched_for(tmp_path):
    path = tmp_path / "every-1.npy"

    def append(first: int, keep: Mark | None = None) -> Mark:
        writer = SeriesWriter(path, ["a"], 1, keep)
        writer.append(np.arange(first, first + 3), np.zeros(3), {"a": np.full((3, 1), first)})
        mark = writer.sync()
        writer.close()
        return mark

    first = append(0)
    append(3, first)
    again = append(3, first)
    rows = series.read(path)
    assert rows["step"].tolist() == [*range(6)] and rows["a"][:, 0].tolist() == [0, 0, 0, 3, 3, 3]
    assert again == Mark(6, series.checksum(path, 6)) and first == Mark(3, series.checksum(path, 3))
    assert series.checksum(path, 7) is None and series.checksum(tmp_path / "none.npy", 1) is None
    assert series.count(path) == 6 and np.array_equal(np.load(path), rows)
    with pytest.raises(StoreError, match="has other columns than this configuration records now"):
        SeriesWriter(path, ["b"], 1, first)


@pytest.mark.parametrize(
    ("steps", "runs", "whole"),
    [
        ([1, 2], None, True),
        ([1, 1], None, False),
        ([-1, 2], None, False),
        ([1, 1, 2], [0, 1, 0], True),
        ([1, 1], [1, 0], False),
        ([1, 1], [0, 0], False),
    ],
)
def test_steps_ascend(tmp_path, steps, runs, whole):
    path = tmp_path / "x.npy"
    writer = SeriesWriter(path, ["a"], None if runs else 1)
    column = np.zeros(len(steps)) if runs else np.zeros((len(steps), 1))
    writer.append(
        np.array(steps), np.zeros(len(steps)), {"a": column, **({"run": np.array(runs)} if runs else {})}
    )
    writer.close()
    if whole:
        assert series.read(path)["step"].tolist() == steps
    else:
        with pytest.raises(StoreError, match="its steps do not ascend"):
            series.read(path)


# Two ensembles beside each other.


def test_what_two_ensembles_differ_in(outputs):
    def one(digest: str, runs: list[runfile.Run], values: Any, last: int = 30, **config: Any) -> Ensemble:
        paths, shard = make(outputs, runs, digest, **config)
        rows = np.arange(0, last, 10)
        write_rows(
            shard,
            "every-10",
            rows,
            len(runs),
            a=np.zeros(len(rows)),
            b=np.asarray(values, float)[: len(rows)],
        )
        return Ensemble(paths)

    a = one(
        "a" * 10, [run(0), run(1), run(2)], [[1, 1, 1], [2, 2, 2], [3, 3, 3]], model={"width": 8, "depth": {}}
    )
    b = one(
        "b" * 10,
        [run(1), run(2), run(5)],
        [[1, 1, 1], [2, 4, 2], [3, 3.5, 3]],
        model={"width": 9, "kind": "x"},
    )
    assert difference.configuration(a, b) == [
        {"key": "model.width", "a": 8, "b": 9},
        {"key": "model.depth", "a": {}, "b": None},
        {"key": "model.kind", "a": None, "b": "x"},
    ]
    assert difference.series(a, a.runs, b, b.runs) == {
        "shared": 2,
        "equal": 1,
        "differing": ["s0002"],
        "largest": {"difference": 2.0, "metric": "b"},
    }
    # Of one that is shorter the rows that both have; on other grids nothing is subtracted.
    short = one("c" * 10, [run(1)], [[1], [2]], last=20)
    assert difference.series(a, a.runs, short, short.runs)["equal"] == 1
    paths, shard = make(outputs, [run(1)], "d" * 10)
    write_rows(shard, "every-10", [0, 20], 1, a=[0, 0], b=[1, 2])
    other = Ensemble(paths)
    assert difference.series(a, a.runs, other, other.runs) == {
        "shared": 1,
        "equal": 0,
        "differing": ["s0001"],
        "largest": None,
    }


def test_what_became_of_two_sets_of_runs(outputs):
    early = [
        run(seed, generalised_step=step, final={"step": 100, "loss": loss})
        for seed, step, loss in [(0, 10, 1.0), (1, 30, 3.0), (2, 20, 2.0)]
    ]
    late = [run(0, generalised_step=50), run(1, "partial", 60), run(2, diverged_step=5)]
    a, b = (
        StoredEnsemble(make(outputs, runs, digest)[0]).runs
        for runs, digest in ((early, "a" * 10), (late, "b" * 10))
    )
    rows = {row["what"]: (row["a"], row["b"]) for row in difference.results(a, b)}
    assert rows["runs"] == (3, 3) and rows["status"] == ({"done": 3}, {"done": 2, "partial": 1})
    assert rows["steps"] == ([100], [60, 100])
    assert rows["generalised_step"] == (
        {"median": 20, "quartiles": [10, 30], "runs": 3},
        {"median": 50, "quartiles": [50, None], "runs": 1},
    )
    assert rows["diverged_step"][0] is None and rows["diverged_step"][1]["runs"] == 1
    assert rows["final loss"] == ({"median": 2.0, "quartiles": [1.0, 3.0], "runs": 3}, None)
    assert set(rows) == {"runs", "status", "steps", "generalised_step", "diverged_step", "final loss"}


# Analyses.


def analysis(
    outputs: Path, kind: str, digest: str, ensembles: list[str], created: str, **more: Any
) -> AnalysisPaths:
    paths = OutputPaths(outputs).analysis(kind, digest)
    data = {"id": digest, "kind": kind, "ensemble": ensembles[0], "ensembles": ensembles, "created": created}
    write_result(paths, {**data, "warnings": [], "tables": ["t"], **more}, {"t": pd.DataFrame({"a": [1, 2]})})
    return paths


def test_analyses_are_found_by_id_kind_and_ensemble(outputs):
    young = analysis(
        outputs, "eos", "a" * 10, ["e1", "e2"], "2026-02-01", x=[np.nan, np.float64(2), np.arange(2)]
    )
    old = analysis(outputs, "hmm", "b" * 10, ["e2"], "2026-01-01")
    assert [item.id for item in results(outputs)] == ["b" * 10, "a" * 10]
    assert [item.id for item in results(outputs, ["e1"])] == ["a" * 10]
    assert [item.id for item in results(outputs, kind="hmm")] == ["b" * 10]
    found = find_result(outputs, "eos-aa")
    assert (found.kind, found.ensemble, found.ensembles, found["x"]) == (
        "eos",
        "e1",
        ["e1", "e2"],
        [None, 2.0, [0, 1]],
    )
    assert find_result(outputs, "bb").table("t")["a"].tolist() == [1, 2] and list(
        found.frames()
    ) == found.tables() == ["t"]
    with pytest.raises(ConfigError, match="u: this analysis has no such table; there are t"):
        found.table("u")
    with pytest.raises(NothingMatched, match="cc: no stored analysis has this id"):
        find_result(outputs, "cc")
    analysis(outputs, "eos", "ab" * 5, ["e3"], "2026-03-01")
    with pytest.raises(NothingMatched, match="several analyses have this id"):
        find_result(outputs, "eos-a")
    # One that stands is left where it must not be replaced.
    write_result(old, {"id": "b" * 10, "kind": "hmm", "ensemble": "e9", "warnings": []}, {}, replace=False)
    assert read_result(old).ensemble == "e2" and whole_result(old) is not None
    old.table("t").unlink()
    assert whole_result(old) is None and whole_result(young) is not None


def test_a_damaged_analysis_is_said_where_it_is_about_what_is_asked(outputs):
    paths = analysis(outputs, "eos", "a" * 10, ["e1"], "2026-02-01")
    text = paths.result.read_text()
    assert damaged_results(outputs) == []
    paths.result.write_text(text[:-20])
    (line,) = damaged_results(outputs)
    assert line.startswith(f"{paths.result} is damaged: ") and line.endswith(
        "; the `dynalab analyze eos` that made it makes it again"
    )
    assert damaged_results(outputs, ["e1"]) == [line] and damaged_results(outputs, ["e2"]) == []
    with pytest.raises(StoreError, match="makes it again"):
        find_result(outputs, "eos-a")
    paths.result.write_text("{")
    assert len(damaged_results(outputs, ["e2"])) == 1
    for field in ("id", "kind", "ensemble", "warnings"):
        paths.result.write_text(text.replace(f'"{field}"', '"other"', 1))
        with pytest.raises(StoreError, match=f"it has no {field}"):
            read_result(paths)
    for old, new, said in (
        ('"warnings": []', '"warnings": 1', "warnings is 1"),
        ('"ensemble": "e1"', '"ensemble": "../e"', r"ensemble is '\.\./e'"),
        ('"created": "2026-02-01"', '"created": 3', "created is 3"),
        ('"schema_version": 1', '"schema_version": -1', "schema_version is -1"),
    ):
        assert old in text
        paths.result.write_text(text.replace(old, new))
        with pytest.raises(StoreError, match=f"is damaged: {said}$"):
            read_result(paths)
    paths.result.write_text(text.replace("a" * 10, "c" * 10))
    with pytest.raises(StoreError, match="it is eos-cccccccccc"):
        read_result(paths)


# Names, values, files.


def test_the_checks_of_stored_values():
    assert read.whole(0) and read.whole(2**63 - 1) and not any(map(read.whole, (-1, 2**63, True, 1.0, None)))
    assert read.positive(1) and not read.positive(0) and read.number(1.5) and not read.number(True)
    assert read.mark([1, 2]) and not any(map(read.mark, ([1], [1, 2, 3], [1, -1], (1, 2), None)))
    read.check({"a": None, "b": [1], "new": ...}, {"a": (read.whole,), "b": [read.whole]})
    for value, said in (
        ({"b": [1, "x"]}, r"b\[1\] is 'x'"),
        ({"a": {"c": "y" * 80}}, r"a\.c is 'y{59}\.\.\.$"),
        ([], "it holds no object"),
    ):
        with pytest.raises(ValueError, match=said):
            read.check(value, {"b": [read.whole], "a": {"c": read.whole}})
    assert (
        read.mapping(read.whole)({"a": 1})
        and not read.mapping(read.whole)({"a": "x"})
        and not read.mapping(read.whole)([])
    )
    assert not read.mapping(read.whole)({1: 1})
    with pytest.raises(ValueError, match="a is 'x'"):
        read.check({"a": "x"}, {"a": (read.whole,)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1: 2\n", "1 is no key"),
        ("a: .nan\n", "nan is no number"),
        (f"a: {2**64}\n", f"{2**64} is no number"),
        ("a: 2001-01-01\n", r"datetime.date\(2001, 1, 1\) is no plain value"),
        ("a: " + "[" * 70 + "]" * 70 + "\n", "it is nested too deep, or has too many values"),
    ],
)
def test_yaml_holds_plain_values(tmp_path, text, said):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(StoreError, match=f"x.yaml is damaged: {said}"):
        read.read_yaml(path)
    path.write_text(f"a: [1, 2.5, null, true, x, {2**64 - 1}]\n")
    assert read.read_yaml(path) == {"a": [1, 2.5, None, True, "x", 2**64 - 1]}


@pytest.mark.parametrize(
    ("descr", "rows", "said"),
    [
        ("[('step', '<i8'), ('wall', '<f8'), ('a', 'S8')]", "1", "a column that holds no numbers"),
        ("[('step', '<f8'), ('wall', '<f8')]", "1", "steps that are no integers"),
        ("[('step', '<i8'), ('wall', '<f8', (2,))]", "1", "steps that are no integers"),
        ("[('wall', '<f8'), ('step', '<i8')]", "1", "no step column"),
        ("[('step', '<i8'), ('wall', '<f8')]", "-1", "-1 rows"),
    ],
)
def test_a_header_that_is_none_of_a_series_is_told(tmp_path, descr, rows, said):
    body = f"{{'descr': {descr}, 'fortran_order': False, 'shape': ({rows},), }}\n".encode()
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
    with pytest.raises(StoreError, match=f"x.npy is damaged: {said}$"):
        series.read(path)
    assert series.count(path) == 0
    path.write_bytes(b"\x93NUMPX\x01\x00" + len(body).to_bytes(2, "little") + body)
    with pytest.raises(StoreError, match=r"x\.npy is damaged: no NumPy header$"):
        series.read(path)


def test_the_name_of_a_shard_tells_its_runs():
    members = [run(seed) for seed in (3, 4, 5)]
    assert (
        runfile.folder_name(members, 1) == "shard-0003-0005-3"
        and runfile.folder_name(members, 2) == "shard-0003-0005-3-a2"
    )
    lost = runfile.Lost.of("shard-0003-0005-3-a2", [], set())
    assert (lost.labels, lost.known, lost.attempt) == (("s0003", "s0004", "s0005"), True, 2)
    assert lost.replaced({"s0003": 3, "s0004": 3, "s0005": 3}) and not lost.replaced(
        {"s0003": 3, "s0004": 3, "s0005": 2}
    )
    gaps = runfile.Lost.of("shard-0001-0009-3", ["s0001", "s0005", "s0007", "s0009"], {("s0007", 1)})
    assert (gaps.labels, gaps.known) == (("s0001", "s0005", "s0009"), True)
    unknown = runfile.Lost.of("shard-0001-0009-3", ["s0001", "s0009"], set())
    assert (unknown.labels, unknown.known, len(unknown.span)) == (("s0001", "s0009"), False, 9)
    crossed = runfile.Lost.of("shard-init0-order0-init1-order2-6", [], set())
    assert crossed.labels == ("init0-order0", "init1-order2") and not crossed.known and crossed.span == ()
    assert runfile.Lost.of("shard-1-2-3-4", [], set()).labels == () and not lost.replaced({})
    assert (
        runfile.Lost.of("shard-0-99998-7", [], set()).span
        and not runfile.Lost.of("shard-0-99999-7", [], set()).span
    )


def test_runs_are_found_by_prefix_label_and_folder(outputs):
    for digest, seeds in (("ab" * 5, (0, 1)), ("ac" * 5, (10, 11))):
        make(outputs, [run(seed) for seed in seeds], digest)

    def chosen(*refs: str, text: str | None = None) -> list[str]:
        return [item.id for _, runs in select(outputs, refs, text, StoredEnsemble) for item in runs]

    assert chosen("ab") == ["ababababab/s0000", "ababababab/s0001"] == chosen("ab", "ababababab/s0001")
    assert chosen("ac/s0010") == ["acacacacac/s0010"] and len(chosen("ac/s001")) == 2
    assert chosen("some-ababababab") == chosen(str(outputs / "grokking/some-ababababab")) == chosen("ab")
    assert len(chosen(text="task=grokking")) == 4
    for refs, text, error, said in (
        (["a"], None, ConfigError, "a is ambiguous: ababababab, acacacacac"),
        (
            ["x"],
            None,
            NothingMatched,
            "x: no stored ensemble or run has this id; see `dynalab runs list` \\(of analyses: `--analyses`\\)",
        ),
        (["ab/s7"], None, NothingMatched, "ab/s7: ababababab has no such run"),
        ([], "seed=7", NothingMatched, "no run fits -f 'seed=7'"),
        ([], "task=groking seed=0", NothingMatched, r"seed=0' \(did you mean task=grokking\?\); "),
        ([], None, NothingMatched, "does not say what was trained last"),
    ):
        with pytest.raises(error, match=said):
            select(outputs, refs, text, StoredEnsemble)
    OutputPaths(outputs).last.write_text('{"ensembles": ["acacacacac", "gone"]}')
    assert chosen() == chosen("ac")
    OutputPaths(outputs).last.write_text('{"ensembles": ["gone"]}')
    with pytest.raises(NothingMatched, match=r"the last ensembles \(gone\) are no longer in"):
        chosen()


def test_exports_are_read_back_as_they_were(stored, tmp_path):
    frame = export.table([(stored, stored.runs), (stored, stored.runs[:0])])
    assert len(frame) == 8
    frame.loc[0, "loss"] = np.nan
    frame.loc[0, "seed"] = pd.NA
    for suffix in export.SUFFIXES:
        export.write(frame, tmp_path / f"x{suffix}")
    columns = ["run", "seed", "step", "loss", "accuracy", "norm"]
    assert pq.read_schema(tmp_path / "x.parquet").names == list(pd.read_csv(tmp_path / "x.csv")) == columns
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), frame)
    assert pd.read_csv(tmp_path / "x.csv")["accuracy"].tolist() == frame["accuracy"].tolist()
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert (
        lines[0]
        == f'{{"run": "{DIGEST}/s0003", "seed": null, "step": 0, "loss": null, "accuracy": 1.0, "norm": 0.0}}'
    )
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays.files == columns and arrays["run"].tolist() == frame["run"].tolist()
        assert arrays["step"].dtype == np.int64 and arrays["step"].tolist() == frame["step"].tolist()
        for name in columns[3:]:
            np.testing.assert_array_equal(arrays[name], frame[name].to_numpy())
        assert np.isnan(arrays["seed"][0]) and arrays["seed"][1:].tolist() == frame["seed"][1:].tolist()
    # A word of NumPy's own, and seeds that are all there.
    export.write(frame.iloc[1:].rename(columns={"norm": "file"}), tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as arrays:
        assert arrays["seed"].dtype == np.int64 and arrays["file"].tolist() == frame["norm"][1:].tolist()
    with pytest.raises(NothingMatched, match="these runs have no rows yet"):
        export.table([(stored, [])])


def test_a_filter_that_cannot_be_meant_is_told_in_these_words(outputs):
    paths, _ = make(outputs, [run(0)], hidden=[1, 2], width=3)
    ensemble = StoredEnsemble(paths)
    kinds = {"hidden": "a list, [1,2]", "width": "a number"}
    for key, said in kinds.items():
        with pytest.raises(ConfigError) as caught:
            Filter(f"{key}=true").choose([(ensemble, ensemble.runs)], [ensemble])
        assert str(caught.value) == f"-f: {key}=true: {key} is {said}"
    with pytest.raises(ConfigError) as caught:
        Filter("x")
    assert str(caught.value) == "-f 'x': x is no term; expected KEY=VALUE, with = != < > <= or >="
