"""What is stored is what the tables, the summaries and the kept checkpoints say, whoever was killed or came between."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dynalab
from dynalab.cli.app import run as app
from dynalab.config.command import read_command
from dynalab.errors import ConfigError, StoreError
from dynalab.launch.layout import Layout, lay_out
from dynalab.launch.train import Options, Outcome
from dynalab.launch.train import train as launch
from dynalab.store import runfile, series, snapshot, table
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredEnsemble
from dynalab.training.planner import Plan

WORDS = [
    "task=grokking",
    "task.modulus=5",
    "model.width=4",
    "eval.every=10",
    "launcher=inline",
    "compute.width=8",
]


def write_shard(
    paths: EnsemblePaths, seed: int, last: int, status: str = "done", extra: str | None = None
) -> ShardPaths:
    """Store one run with a row every ten steps, and two rows on another grid where one is named."""
    run = runfile.Run(f"s{seed:04d}", seed, {}, status, last)
    shard = paths.shard(runfile.folder_name([run], 1))
    marks = {}
    for cadence, steps in {"every-10": np.arange(0, last + 1, 10), extra: np.arange(2)}.items():
        if cadence is not None:
            writer = series.SeriesWriter(shard.series(cadence), [f"loss_{cadence[:5]}"], 1)
            writer.append(
                steps, np.zeros(len(steps)), {f"loss_{cadence[:5]}": np.full((len(steps), 1), seed)}
            )
            mark = writer.sync()
            marks[cadence] = [mark.rows, mark.crc]
            writer.close()
    runfile.write(shard, runfile.Shard([run], last, status=status, steps=last, marks=marks))
    return shard


@pytest.fixture
def paths(outputs: Path) -> EnsemblePaths:
    found = OutputPaths(outputs).ensemble("grokking", "odd", "0123456789")
    found.root.mkdir(parents=True)
    found.config.write_text("eval:\n  every: 10\nlevels: {}\n")
    return found


def rows(paths: EnsemblePaths, cadence: str | None = None) -> dict[int, int]:
    found = pd.read_parquet(paths.metrics(cadence))
    return {int(seed): int(step) for seed, step in found.groupby("seed")["step"].max().items()}


@pytest.mark.parametrize(("most", "groups"), [(1, 5), (9, 2), (1 << 14, 1)])
def test_runs_lie_together_up_to_some_rows(paths, monkeypatch, most, groups):
    """Of 2, 3, ... rows; what is told of each is its own, in their order."""
    for seed in range(5):
        write_shard(paths, seed, 10 * (seed + 1))
    monkeypatch.setattr(table, "_ROWS", most)
    table.refresh(paths)
    assert pq.read_metadata(paths.metrics()).num_row_groups == groups
    found = pd.read_parquet(paths.metrics())
    told = [(seed, 10 * row, seed) for seed in range(5) for row in range(seed + 2)]
    assert [*zip(found["seed"], found["step"], found["loss_every"], strict=True)] == told
    assert [*found["run"]] == [f"0123456789/s{seed:04d}" for seed, _, _ in told]


def test_of_many_writers_the_last_sees_all(paths):
    def work(seed: int) -> None:
        write_shard(paths, seed, 10 * (seed + 1))
        table.refresh(paths)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert rows(paths) == {seed: 10 * (seed + 1) for seed in range(8)}
    assert not list(paths.root.glob(".*"))


def test_a_slow_writer_does_not_leave_its_old_table(paths, monkeypatch):
    write_shard(paths, 0, 10)
    real, turns = table._write, []

    def slowly(ensemble: Ensemble, stored: str) -> None:
        _ = ensemble.runs
        if not turns:
            turns.append(1)
            write_shard(paths, 1, 20)
            table.refresh(paths)
            assert rows(paths) == {0: 10, 1: 20}
        real(ensemble, stored)

    monkeypatch.setattr(table, "_write", slowly)
    table.refresh(paths)
    assert rows(paths) == {0: 10, 1: 20}


def written(paths: EnsemblePaths) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in paths.root.glob("*.parquet")}


def test_tables_are_written_again_when_they_are_older_than_what_is_stored(paths):
    write_shard(paths, 0, 10, extra="every-50")
    (paths.root / "metrics-mine.parquet").write_bytes(b"somebody's")
    table.refresh(paths)
    first = written(paths)
    assert set(first) == {"metrics.parquet", "metrics-every-50.parquet", "metrics-mine.parquet"}
    table.refresh(paths)
    assert written(paths) == first, "nothing new is stored"
    # More steps, another status, another run; a table that is missing, cut off or an older dynalab's.
    write_shard(paths, 0, 30, "diverged", extra="every-50")
    table.refresh(paths)
    assert rows(paths) == {0: 30}
    write_shard(paths, 1, 40, extra="every-50")
    table.refresh(paths)
    assert rows(paths) == {0: 30, 1: 40} and rows(paths, "every-50") == {0: 1, 1: 1}
    for name in ("metrics.parquet", "metrics-every-50.parquet"):
        path = paths.root / name
        whole = path.read_bytes()
        for harm in (
            path.unlink,
            lambda p=path, w=whole: p.write_bytes(w[:-9]),
            lambda p=path: p.write_bytes(b""),
        ):
            harm()
            table.refresh(paths)
            assert len(pd.read_parquet(path)) == (9 if name == "metrics.parquet" else 4)
        pd.DataFrame({"run": []}).to_parquet(path)
        table.refresh(paths)
        assert len(pd.read_parquet(path)) > 0
    for said in (b"{", b"[]", b'{"tables": 5}', b'{"tables": [5, "x\\u0000"]}', b"[" * 10_000, b"\xff"):
        pq.write_table(pa.table({"run": []}, metadata={"dynalab": said}), paths.metrics())
        table.refresh(paths)
        assert rows(paths) == {0: 30, 1: 40}


def test_a_table_without_damaged_rows_is_written_again_when_they_are_mended(paths):
    write_shard(paths, 0, 10)
    shard = write_shard(paths, 1, 20)
    whole = shard.series("every-10").read_bytes()
    shard.series("every-10").write_bytes(whole[:-4] + b"harm")
    table.refresh(paths)
    assert rows(paths) == {0: 10}
    shard.series("every-10").write_bytes(whole)
    table.refresh(paths)
    assert rows(paths) == {0: 10, 1: 20}


def test_rows_that_a_living_process_still_writes_make_no_table_old(paths, monkeypatch):
    write_shard(paths, 0, 10)
    write_shard(paths, 1, 20, "running")
    monkeypatch.setattr(runfile.lock, "holder", lambda path: object() if "0001" in str(path) else None)
    table.refresh(paths)
    first = written(paths)
    write_shard(paths, 1, 50, "running")
    table.refresh(paths)
    assert written(paths) == first
    # Killed: who looks next writes what it left.
    monkeypatch.setattr(runfile.lock, "holder", lambda path: None)
    table.refresh(paths)
    assert rows(paths) == {0: 10, 1: 50}


def test_commands_that_read_refresh_tables_and_do_not_mind_a_folder_they_cannot_write(
    paths, tmp_path, monkeypatch, capsys
):
    write_shard(paths, 0, 10)
    words = ["runs", "export", "0123456789", "--force", "--to", str(tmp_path / "runs.csv")]
    assert app(words) == 0 and rows(paths) == {0: 10}
    write_shard(paths, 0, 30)

    def refuse(*_: object) -> None:
        raise StoreError("cannot write")

    with monkeypatch.context() as patch:
        patch.setattr(table, "replacing", refuse)
        assert app(words) == 0 and rows(paths) == {0: 10}
    assert app(words) == 0 and rows(paths) == {0: 30}
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 4
    assert "cannot write" not in capsys.readouterr().err


def train(*words: str, force: bool = False) -> Outcome:
    return launch(read_command([*WORDS, *words]), Options(force=force))


def test_training_that_finds_all_done_writes_an_old_table_again():
    (layout,) = train("train.steps=10", "seed=0").layouts
    old = layout.paths.metrics().read_bytes()
    train("train.steps=20", "seed=0..1")
    layout.paths.metrics().write_bytes(old)
    assert not train("train.steps=20", "seed=0..1").layouts[0].work
    assert rows(layout.paths) == {0: 20, 1: 20}


def test_what_a_refused_command_wrote_into_last_is_taken_back_unless_another_wrote_since(outputs):
    from dynalab.launch import train as module

    paths = OutputPaths(outputs)
    earlier = module.remember(paths, [])
    paths.last.write_text("another's")
    module._forget(paths, [], *earlier)
    assert paths.last.read_text() == "another's"
    earlier = module.remember(paths, [])
    module._forget(paths, [], *earlier)
    assert paths.last.read_text() == "another's"


def test_checkpoints_that_were_listed_once_stay(outputs):
    def steps(*words: str) -> list[int]:
        (layout,) = train("seed=0", *words).layouts
        return [item.step for item in layout.paths.shards()[0].checkpoints()]

    assert steps("train.steps=20", "checkpoint.keep=[5,10,35]") == [5, 10, 20]
    assert steps("train.steps=30") == [5, 10, 20, 30]
    assert steps("train.steps=40") == [5, 10, 35, 40]
    assert steps("train.steps=60", "checkpoint.keep=all", "checkpoint.every=10")[-3:] == [40, 50, 60]
    assert steps("train.steps=80", "checkpoint.every=5", "checkpoint.keep=3") == [
        5,
        10,
        35,
        40,
        50,
        60,
        70,
        75,
        80,
    ]
    # So does their number.
    assert steps("train.steps=100", "checkpoint.every=5")[-4:] == [60, 90, 95, 100]


def test_a_run_that_is_ended_at_its_checkpoint_is_summed_up_from_rows_up_to_it():
    (layout,) = train("train.steps=40", "seed=0..1", "checkpoint.every=20", "checkpoint.keep=all").layouts
    (shard,) = layout.paths.shards()
    # As a kill before step 40 leaves it: rows beyond the newest checkpoint, and a run.json from before it.
    shard.checkpoint(40).state.unlink()
    found = runfile.read(shard)
    found.settle("partial")
    found.steps, found.requested_steps, found.marks = 20, 100, {}
    runfile.write(shard, found)
    train("train.steps=20", "seed=0..1")
    found = runfile.read(shard)
    assert found.status == "done" and [run.summary["final"]["step"] for run in found.runs] == [20, 20]
    assert np.load(shard.series("every-10"))["step"].tolist() == [0, 10, 20]
    assert rows(layout.paths) == {0: 20, 1: 20}


def damage(layout: Layout, place: int = 0) -> None:
    layout.paths.shards()[place].run.write_text("{")


def at_one_width(count: int) -> Plan:
    return Plan(1, 1, (count,) if count else (), "")


def made(outputs: Path, *words: str, force: bool = False) -> Layout:
    (request,) = read_command([*WORDS, "train.steps=10", *words], outputs=str(outputs)).requests
    return lay_out(OutputPaths(outputs), request, at_one_width, force=force)


CROSSED = ["design=crossed", "seed_streams.init=0,1", "seed_streams.split=0,1"]


@pytest.mark.parametrize("words", [["seed=0..3"], ["seed=1,5,9"], ["seed=7"], CROSSED])
def test_a_damaged_run_json_is_named_and_force_trains_over_it(outputs, words):
    first = made(outputs, *words)
    damage(first)
    again = made(outputs, *words)
    assert (again.new, again.work, len(again.damaged)) == ([], [], 1)
    assert "left alone (remove the folder" in again.warnings[-1]
    forced = made(outputs, *words, force=True)
    assert forced.new == first.new and not forced.damaged and not forced.warnings
    assert forced.work[0].root.name == f"{first.work[0].root.name}-a2"
    # The later attempt stands in for it, for commands that train and for those that read.
    later = made(outputs, *words)
    assert not later.new and not later.damaged and later.laid == first.new
    stored = StoredEnsemble(later.paths)
    assert [run.attempt for run in stored.runs] == [2] * len(first.new) and stored.damaged == []


def test_other_widths_and_later_attempts_are_told_apart_from_what_is_damaged(outputs):
    damage(made(outputs, "seed=0..3"))
    forced = made(outputs, "seed=0..1", force=True)
    assert [paths.root.name for paths in forced.work] == ["shard-0000-0001-2-a2"] and len(forced.damaged) == 1
    rest = made(outputs, "seed=0..5")
    assert rest.new == ["s0004", "s0005"] and len(rest.damaged) == 1
    stored = StoredEnsemble(rest.paths)
    assert len(stored.runs) == 4 and stored.damaged == ["shard-0000-0003-4"]


def test_seeds_with_gaps_that_are_damaged_hide_no_others(outputs):
    damage(made(outputs, "seed=1,5,9"))
    found = made(outputs, "seed=0..9")
    assert {"s0001", "s0009"}.isdisjoint(found.new) and len(found.new) == 8
    assert "of its seeds s0001 and s0009 can be told" in found.warnings[-1]
    # Where the others are known, so are these.
    third = outputs / "third"
    made(third, "seed=2..4,6..8")
    damage(made(third, "seed=1,5,9"), 0)
    assert made(third, "seed=0..10").new == ["s0000", "s0010"]


def test_what_a_folders_name_tells():
    of = runfile.Lost.of
    assert of("shard-0002-0004-3-a12", [], ()) == runfile.Lost(("s0002", "s0003", "s0004"), True, 12)
    assert of("shard-12345-12345-1", [], ()) == runfile.Lost(("s12345",), True, 1)
    assert of("shard-init0-order0-init1-order1-4", [], ()).labels == ("init0-order0", "init1-order1")
    # Numbers of a stranger's folder: far apart, or the wrong way round.
    assert of("shard-0-99999999999-2", [], ()).labels == ("s0000", "s99999999999")
    assert not of("shard-0009-0001-3", [], ()).known
    # Which seeds it holds cannot be told, but a later attempt of all that it can hold stands in for them.
    gaps = of("shard-0001-0009-3", [], ())
    later = {f"s{seed:04d}": 2 for seed in range(1, 10)}
    assert not gaps.known and gaps.replaced(later) and not gaps.replaced({**later, "s0004": 1})
    assert of("shard-a-a-1", [], ()) == runfile.Lost(("a",), True, 1)
    for odd in ("shard-0000-3", "shard-x", "shard-a-b-c-2", "shard-0000-0003-x"):
        assert of(odd, [], ()) == runfile.Lost((), False, 1)


def test_a_damaged_shard_that_ended_is_mended_to_its_own_end(outputs):
    (layout,) = train("train.steps=20", "seed=0").layouts
    (shard,) = layout.paths.shards()
    with shard.series("every-10").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"abc")
    again = made(outputs, "seed=0")
    assert again.work == [shard] and json.loads(shard.run.read_text())["requested_steps"] == 20


def test_damaged_weights_are_named_when_a_network_is_asked_for():
    (ensemble,) = dynalab.train([*WORDS, "train.steps=20", "seed=0..1", "snapshots.every=10"])
    shard = ensemble.runs[0].shard
    assert set(shard.snapshots()) == {0, 10, 20}
    _ = ensemble.model(1, 10)
    for path, step in ((shard.snapshot(10), 10), (shard.checkpoint(20).model, 20)):
        if step == 20:
            shard.snapshot(20).unlink()
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(StoreError, match=f"{path.name} is damaged: its checksum"):
            ensemble.model(1, step)
    with pytest.raises(ConfigError, match="no weights of step 11"):
        ensemble.model(1, 11)
    with pytest.raises(StoreError, match="is damaged"):
        snapshot.read(shard.snapshot(10))
