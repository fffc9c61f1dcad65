"""Series, checkpoints and run.json: whole after a kill, and damage is found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dynalab.core import atomic
from dynalab.errors import StoreError
from dynalab.store import checkpoint, runfile, series
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.later import Later
from dynalab.store.lock import Lock
from dynalab.store.paths import ShardPaths


def block(first: int, n: int, runs: int = 3) -> tuple:
    steps = np.arange(first, first + n)
    values = np.arange(n * runs, dtype=float).reshape(n, runs) + first
    return steps, np.full(n, 1.5), {"a": values, "b": -values}


def test_a_series_is_a_plain_npy_file_that_opens_while_it_grows(tmp_path):
    path = tmp_path / "series" / "every-1.npy"
    writer = series.SeriesWriter(path, ["a", "b"], 3)
    assert len(np.load(path)) == 0
    for first in (0, 10, 20):
        writer.append(*block(first, 10))
        rows = np.load(path)
        assert rows["step"].tolist() == list(range(first + 10))
    assert rows["b"].shape == (30, 3) and rows["b"][12, 1] == -rows["a"][12, 1]
    mark = writer.sync()
    assert (mark.rows, mark.crc) == (30, series.checksum(path, 30))
    writer.close()


def test_rows_that_the_header_does_not_count_do_not_exist(tmp_path):
    path = tmp_path / "every-1.npy"
    writer = series.SeriesWriter(path, ["a", "b"], 3)
    writer.append(*block(0, 5))
    with path.open("ab") as file:
        file.write(b"torn" * 7)
    assert len(series.read(path)) == 5
    # A header that counts rows the file lost: the smaller of the two holds.
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 28 - writer.dtype.itemsize - 3)
    assert len(series.read(path)) == 3
    writer.close()


def test_resume_truncates_to_what_the_checkpoint_vouches_for(tmp_path):
    path = tmp_path / "every-1.npy"
    writer = series.SeriesWriter(path, ["a", "b"], 3)
    writer.append(*block(0, 5))
    mark = writer.sync()
    writer.append(*block(5, 5))
    writer.close()
    again = series.SeriesWriter(path, ["a", "b"], 3, keep=mark)
    again.append(*block(5, 2))
    assert again.crc == series.checksum(path, 7)
    assert np.load(path)["step"].tolist() == list(range(7))
    again.close()
    with pytest.raises(StoreError, match="other columns"):
        series.SeriesWriter(path, ["c"], 3, keep=mark)
    fewer = series.SeriesWriter(path, ["a", "c"], 3, keep=mark)
    fewer.close()
    assert fewer.left_out == ("c",) and fewer.dtype.names == ("step", "wall", "a", "b")


@pytest.mark.parametrize("harm", ["magic", "header", "empty", "steps", "missing"])
def test_a_damaged_series_is_named(tmp_path, harm):
    path = tmp_path / "every-1.npy"
    writer = series.SeriesWriter(path, ["a", "b"], 3)
    writer.append(*block(0, 5))
    writer.close()
    data = bytearray(path.read_bytes())
    if harm == "magic":
        data[0] = 0
    elif harm == "header":
        data[20:40] = b"x" * 20
    elif harm == "empty":
        data = bytearray()
    elif harm == "steps":
        data[-writer.dtype.itemsize : -writer.dtype.itemsize + 8] = bytes(8)
    path.write_bytes(bytes(data))
    if harm == "missing":
        path.unlink()
    with pytest.raises(StoreError, match=r"every-1\.npy"):
        series.read(path)
    assert series.checksum(path, 5) is None


def test_a_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    atomic.write_json(path, {"a": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        atomic.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"
    with pytest.raises(ValueError):
        atomic.write_json(path, {"a": float("nan")})


@pytest.fixture
def shard(tmp_path: Path) -> ShardPaths:
    paths = ShardPaths(tmp_path / "shard-0000-0001-2")
    writer = series.SeriesWriter(paths.series("every-1"), ["a"], 2)
    for step in (10, 20, 30):
        steps = np.arange(step - 10, step)
        writer.append(steps, steps * 1.0, {"a": np.ones((10, 2)) * step})
        marks = {"every-1": writer.sync()}
        weights = {"w": torch.full((2, 3), float(step))}
        checkpoint.save(paths, CheckpointState(step, marks), weights, {"o": torch.zeros(2)})
    writer.close()
    return paths


def test_the_newest_whole_checkpoint_is_found(shard):
    found, state, warnings = checkpoint.newest_whole(shard)
    assert (found.step, state.step, warnings) == (30, 30, [])
    weights, other = checkpoint.load_tensors(found)
    assert weights["w"][0, 0] == 30 and list(other) == ["o"]


@pytest.mark.parametrize("name", ["model.safetensors", "optim.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_checkpoint_is_passed_over(shard, name, harm):
    path = shard.checkpoint(30).root / name
    data = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data if harm == "flip" else data[: len(data) // 2]))
    found, _, warnings = checkpoint.newest_whole(shard)
    assert found.step == 20
    # Without its marker it never was a checkpoint, and there is nothing to warn of.
    assert len(warnings) == (0 if (name, harm) == ("state.json", "gone") else 1)


@pytest.mark.parametrize(("row", "step"), [(25, 20), (15, 10), (3, None)])
def test_a_damaged_series_goes_back_to_the_checkpoint_before_the_damage(shard, row, step):
    path = shard.series("every-1")
    data = bytearray(path.read_bytes())
    itemsize = series.read(path).dtype.itemsize
    data[len(data) - (30 - row) * itemsize + 20] ^= 1
    path.write_bytes(bytes(data))
    found, _, warnings = checkpoint.newest_whole(shard)
    assert (found.step if found else None) == step
    assert all("every-1.npy" in line for line in warnings) and warnings


def test_pruning_keeps_two_and_the_steps_asked_for(shard):
    checkpoint.prune(shard, "all")
    assert [item.step for item in shard.checkpoints()] == [10, 20, 30]
    checkpoint.prune(shard, [10])
    assert [item.step for item in shard.checkpoints()] == [10, 20, 30]
    checkpoint.prune(shard, 2)
    assert [item.step for item in shard.checkpoints()] == [20, 30]


def test_a_running_shard_without_a_living_writer_reads_as_crashed(tmp_path):
    paths = ShardPaths(tmp_path)
    runfile.write(paths, runfile.Shard([runfile.Run("s0000", 0, {}, "running")], 10, status="running"))
    with Lock(paths.lock):
        assert runfile.read(paths).status == "running"
    record = runfile.read(paths)
    assert (record.status, record.runs[0].status) == ("crashed", "crashed")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema_version": 99, "runs": [], "requested_steps": 1}']
)
def test_a_damaged_run_json_is_named(tmp_path, text):
    paths = ShardPaths(tmp_path)
    paths.run.write_text(text)
    with pytest.raises(StoreError):
        runfile.read(paths)


def test_files_written_later_are_there_after_a_wait_and_failures_are_told(tmp_path):
    files = Later()
    for number in range(20):
        files.write(tmp_path / f"{number % 7}", str(number).encode())
    files.wait()
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == sorted(map(str, range(13, 20)))
    files.write(tmp_path / "nowhere" / "file", b"")
    with pytest.raises(StoreError, match="cannot write"):
        files.wait()
    files.write(tmp_path / "after", b"1")
    files.wait()
    assert (tmp_path / "after").read_bytes() == b"1"
