"""Files and folders that appear whole: several writers at once, file systems that cannot sync, errors on the way."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, Cli, but
from report_fakes import make_ensemble

import dynalab
from dynalab.core import atomic
from dynalab.errors import StoreError
from dynalab.imports.forms import read_rows
from dynalab.imports.rows import Form
from dynalab.imports.runs import runs_of
from dynalab.imports.store import Order, digest_of, import_table
from dynalab.store import checkpoint, export, series, snapshot
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.find import select
from dynalab.store.owner import Owner
from dynalab.store.paths import AnalysisPaths, OutputPaths, ShardPaths
from dynalab.store.results import read_result, results, write_result
from dynalab.store.stored import StoredEnsemble


def at_once(work: Callable[[int], Any], count: int = 8) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def fill(folder: Path, text: str) -> None:
    for name in "ab":
        (folder / name).write_text(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_many_replace_at_once_is_one_of_theirs_whole(tmp_path):
    path = tmp_path / "table.csv"

    def work(place: int) -> None:
        for _ in range(20):
            with atomic.replacing(path) as temporary:
                temporary.write_text(str(place) * 10_000)
            assert len(set(path.read_text())) == 1 and path.stat().st_size == 10_000

    at_once(work)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_many_make_at_once_is_one_of_theirs_whole(tmp_path, replace):
    folder = tmp_path / "deep" / "folder"

    def work(place: int) -> None:
        for turn in range(10):
            with atomic.making(folder, replace=replace) as temporary:
                fill(temporary, f"{place} {turn}")

    at_once(work)
    assert (folder / "a").read_text() == (folder / "b").read_text()
    assert list(folder.parent.iterdir()) == [folder]
    with atomic.making(folder, replace=replace) as temporary:
        fill(temporary, "last")
    assert ((folder / "a").read_text() == "last") is replace


def test_an_error_leaves_what_stood_there_and_nothing_else(tmp_path, monkeypatch):
    folder, path = tmp_path / "folder", tmp_path / "file"
    with atomic.making(folder) as temporary:
        fill(temporary, "old")
    path.write_text("old")
    for error in (KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises((KeyboardInterrupt, StoreError)), atomic.making(folder, replace=True) as temporary:
            fill(temporary, "new")
            raise error
        with pytest.raises((KeyboardInterrupt, StoreError)), atomic.replacing(path) as temporary:
            temporary.write_text("new")
            raise error
    with (
        pytest.raises(StoreError, match=r"cannot write .*file"),
        atomic.making(path, replace=True) as temporary,
    ):
        fill(temporary, "new")
    real = os.rename

    def fail(source: Path, target: Path) -> None:
        if target == folder and Path(source, "a").read_text() == "new":
            error = errno.ENOTEMPTY if folder.exists() else errno.EIO
            raise OSError(error, os.strerror(error))
        real(source, target)

    # Where two folders cannot change places in one step.
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StoreError, match="cannot write"), atomic.making(folder, replace=True) as temporary:
        fill(temporary, "new")
    assert (folder / "a").read_text() == path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path, folder]


@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, mask):
    frame = pd.DataFrame({"run": ["a", "a"], "step": [0, 1], "loss": [1.0, 0.5]})
    before = os.umask(mask)
    try:
        atomic.write_json(tmp_path / "run.json", {})
        export.write(frame, tmp_path / "runs.csv")
        write_result(AnalysisPaths(tmp_path / "hmm-1"), {"id": "1"}, {"states": frame})
        import_table(frame, tmp_path / "outputs", "mine", Order(Form(("run",), "step")))
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert mode(path) == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_files_and_the_folder_of_their_names_are_synced(tmp_path, monkeypatch):
    seen: list[bool] = []
    real = os.fsync

    def record(handle: int) -> None:
        seen.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        real(handle)

    writer = series.SeriesWriter(tmp_path / "every-1.npy", ["a"], 1)
    monkeypatch.setattr(os, "fsync", record)
    atomic.write_bytes(tmp_path / "file", b"x")
    assert seen == [False, True]
    with atomic.making(tmp_path / "folder"):
        pass
    assert seen[2:] == [True, True]
    writer.sync()
    assert seen[4:] == [False]
    writer.close()


def save(shard: ShardPaths, step: int = 30) -> checkpoint.CheckpointPaths:
    tensors = {"w": torch.ones(2)}
    return checkpoint.save(shard, CheckpointState(step, {}, {"a": 1}), tensors, tensors)


@pytest.mark.parametrize("code", ["EINVAL", "ENOTSUP", "EROFS", "ENOSYS", "EBADF", "EACCES"])
def test_a_file_system_that_cannot_sync_is_no_error(tmp_path, monkeypatch, code):
    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(os, "fsync", refuse)
    shard = ShardPaths(tmp_path / "shard-0000-0001-2")
    assert checkpoint.read_state(save(shard)).step == 30
    writer = series.SeriesWriter(shard.series("every-1"), ["a"], 1)
    writer.sync()
    writer.close()


def test_a_disk_that_fails_leaves_no_half_a_checkpoint(tmp_path, monkeypatch):
    shard = ShardPaths(tmp_path / "shard-0000-0001-2")
    save(shard, 10)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        save(shard, 20)
    assert [path.name for path in shard.checkpoint_folder.iterdir()] == ["step-00000010"]


def test_checkpoints_and_snapshots_are_in_order_of_their_steps(tmp_path):
    shard = ShardPaths(tmp_path / "shard-0000-0001-2")
    steps = [99_999_990, 100_000_000, 1_000_000_000, 20]
    for step in steps:
        save(shard, step)
        atomic.write_bytes(shard.snapshot_folder.parent / "x", b"")
        shard.snapshot_folder.mkdir(exist_ok=True)
        atomic.write_bytes(shard.snapshot(step), b"")
    (shard.snapshot_folder / "step-00000020 (1).safetensors").write_bytes(b"")
    assert [item.step for item in shard.checkpoints()] == list(shard.snapshots()) == sorted(steps)
    found, _, _ = checkpoint.newest_whole(shard)
    assert found is not None and found.step == 1_000_000_000
    checkpoint.prune(shard, 2, kept=[20])
    assert [item.step for item in shard.checkpoints()] == [20, 100_000_000, 1_000_000_000]


def test_a_checkpoints_marker_is_checked_by_its_own_checksum(tmp_path):
    paths = save(ShardPaths(tmp_path / "shard-0000-0001-2"))
    paths.state.write_text(paths.state.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(StoreError, match="checksum"):
        checkpoint.read_state(paths)


def test_a_row_that_the_header_does_not_count_is_neither_read_nor_counted(tmp_path):
    path = tmp_path / "every-1.npy"
    writer = series.SeriesWriter(path, ["a"], 1)
    writer.append(np.arange(3), np.zeros(3), {"a": np.ones((3, 1))})
    writer.close()
    row = np.zeros(1, writer.dtype)
    row["step"] = 3
    with path.open("ab") as file:
        file.write(row.tobytes())
    assert len(series.read(path)) == series.count(path) == 3
    series.truncate(path, 2)
    assert series.read(path)["step"].tolist() == np.load(path)["step"].tolist() == [0, 1]
    assert series.count(tmp_path / "missing.npy") == 0


def test_a_snapshot_is_a_plain_safetensors_file_whose_damage_is_found(tmp_path):
    from safetensors.torch import load_file
    from safetensors.torch import save as serialise

    path = tmp_path / "step-00000010.safetensors"
    tensors = {"w": torch.arange(4.0).reshape(2, 2), "b": torch.ones(2, dtype=torch.bfloat16)}
    plain = serialise(tensors)
    snapshot.write(path, plain)
    whole = path.read_bytes()
    assert snapshot.read(path) == whole
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    # Wherever damage falls but in the words that say that there is a checksum, it is found.
    for place in {0, *range(8 + 27, len(whole))}:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError, match="checksum"):
            snapshot.read(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        snapshot.read(path)
    # As an older dynalab wrote it.
    path.write_bytes(plain)
    assert snapshot.read(path) == plain


def test_an_analysis_that_many_make_at_once_is_stored_once_and_whole(tmp_path):
    table = pd.DataFrame({"run": ["a"], "state": [1]})
    data = {"id": "7ebafd365b", "kind": "hmm", "ensemble": "x", "warnings": (), "value": float("nan")}
    paths = OutputPaths(tmp_path).analysis("hmm", "7ebafd365b")

    def work(place: int) -> None:
        made = write_result(paths, data, {"states": table}, replace=place % 2 == 0)
        assert made["value"] is None and made.warnings == []

    at_once(work)
    assert list(paths.root.parent.iterdir()) == [paths.root]
    assert read_result(paths).table("states").equals(table)
    with atomic.making(paths.root.with_name("hmm-1234567890")) as folder:
        atomic.write_json(folder / "result.json", {**data, "value": None})
        assert len(results(tmp_path)) == 1, "one that is being made is not there yet"


def test_exports_to_one_file_at_once(tmp_path):
    frame = pd.DataFrame({"run": ["a"] * 50, "step": range(50), "loss": np.linspace(1, 0, 50)})
    for suffix in export.SUFFIXES:
        at_once(lambda _, to=tmp_path / f"runs{suffix}": export.write(frame, to))
    assert pd.read_csv(tmp_path / "runs.csv").equals(frame)
    assert len(list(tmp_path.iterdir())) == len(export.SUFFIXES)


def test_imports_of_one_table_at_once_keep_every_name(tmp_path):
    frame = pd.DataFrame({"run": ["a", "a", "b", "b"], "step": [0, 1, 0, 1], "loss": [1.0, 0.5, 1.0, 0.4]})
    made = at_once(
        lambda place: import_table(frame, tmp_path, f"name{place % 4}", Order(Form(("run",), "step")))
    )
    assert len({item.ensemble.id for item in made}) == 1 and sum(item.new for item in made) == 1
    for place in range(4):
        ((ensemble, runs),) = select(tmp_path, [f"name{place}"], None, StoredEnsemble)
        assert len(runs) == 2
    assert len(pd.read_parquet(ensemble.paths.metrics())) == 4
    assert not list(tmp_path.rglob("*.tmp"))


def test_zero_and_minus_zero_are_one_content():
    found = {
        digest_of(
            runs_of(
                read_rows(pd.DataFrame({"r": [1, 1], "s": [0, 1], "x": [zero, 2.0]}), Form(("r",), "s"), "")
            )
        )
        for zero in (0.0, -0.0)
    }
    assert len(found) == 1


def test_the_same_command_removes_what_killed_processes_left_and_nothing_of_the_living(here: Cli, outputs):
    words = ["train", *but(TINY, "train.steps=10"), "seed=0"]
    assert here(*words).code == 0
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (shard,) = [paths for ensemble in OutputPaths(outputs).ensembles() for paths in ensemble.shards()]
    places = [outputs, outputs / ".training", shard.root.parent, shard.root, shard.series_folder]

    def left_by(pid: int, place: str = atomic._here()) -> list[Path]:
        return [folder / f".x.json.{place}-{pid:x}.{os.urandom(6).hex()}.tmp" for folder in places]

    gone = left_by(child.pid)
    stay = left_by(os.getpid()) + left_by(child.pid, "01234567")
    (outputs / ".training").mkdir()
    for path in [*gone, *stay]:
        path.write_text("half")
    # Dead between the last word of run.json and the lock.
    owner = replace(Owner.me(), pid=child.pid)
    for path in (shard.lock, outputs / ".training" / "0123456789ab.lock"):
        path.write_bytes(owner.to_bytes())
        gone.append(path)
    shard.progress.write_text("{}")
    assert here(*words).code == 0
    assert not [path for path in [*gone, shard.progress] if path.exists()]
    assert all(path.exists() for path in stay)
    # What is being written here and now has such a name.
    with atomic.replacing(outputs / "y.json") as temporary:
        temporary.write_text("half")
        assert here(*words).code == 0 and temporary.exists() and not atomic.is_orphan(temporary)


def test_what_cannot_be_stored_is_printed_and_said(here, outputs):
    ensemble = make_ensemble(outputs)
    (outputs / "analysis").write_text("a file where the folder would be")
    before = sorted(outputs.rglob("*"))
    answer = here("analyze", "hmm", "max_states=2")
    assert answer.code == 3 and answer.out and "Traceback" not in answer.err
    (line,) = (line for line in answer.err.splitlines() if "is not stored: cannot write" in line)
    assert line.startswith("warning: hmm-") and "next:" not in answer.err
    document = here("analyze", "hmm", "max_states=2", "--json")
    (found,) = document.json["analyses"]
    assert document.code == 3 and found["path"] is None and found["kind"] == "hmm"
    with pytest.warns(UserWarning, match="is not stored: cannot write"):
        result = dynalab.analyze("hmm", ensemble, max_states=2)
    assert result.unstored and set(result.tables()) == set(result["tables"]) and result.value is not None
    assert all(len(result.table(name).columns) for name in result.tables())
    assert str(dynalab.view(result)) and sorted(outputs.rglob("*")) == before
