"""What the store says and refuses, word for word, and what it leaves in a folder, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.numpy import load, save
from test_store_rules import DIGEST, analysis, make, run, write_rows

from dynalab.errors import ConfigError, Locked, NothingMatched, StoreError
from dynalab.store import (
    carve,
    checkpoint,
    difference,
    later,
    lock,
    names,
    read,
    remove,
    runfile,
    series,
    snapshot,
)
from dynalab.store.carve import save_part, save_rows, split, undo_unfinished
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.filters import Filter
from dynalab.store.find import forks_of, readable, select
from dynalab.store.lock import Lock
from dynalab.store.owner import Owner
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import (
    damaged_results,
    find_analysis,
    find_result,
    read_result,
    reading,
    results,
    tell_apart,
    whole_result,
    write_result,
)
from dynalab.store.series import Mark, SeriesWriter
from dynalab.store.stored import StoredEnsemble
from dynalab.store.table import notice, refresh
from dynalab.store.weights import Kept


def said(error: type[Exception], call: Callable[[], object]) -> str:
    """Return what an error says."""
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def saved(root: Path, *steps: int) -> ShardPaths:
    """A shard of two runs with rows at 0, 10, 20, 30 and checkpoints of some steps."""
    shard = ShardPaths(root / "shard-0000-0001-2")
    write_rows(shard, "every-10", [0, 10, 20, 30], 2, loss=[1, 2, 3, 4])
    records = np.load(shard.series("every-10"))
    for step in steps:
        rows = step // 10 + 1
        mark = Mark(rows, zlib.crc32(records[:rows].tobytes()))
        state = CheckpointState(step, {"every-10": mark}, {"spent": 1.5})
        weights, slow = {"w": np.array([[1.0], [2.0]])}, {"w/m": np.array([[3.0], [4.0]]), "t": np.array(7.0)}
        checkpoint.save_bytes(shard, state, save(weights), save(slow))
    return shard


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


# Checkpoints.


def test_a_checkpoint_says_what_it_holds(tmp_path):
    item = saved(tmp_path, 20).checkpoint(20)
    document = json.loads(item.state.read_text())
    check = document.pop("check")
    crc = zlib.crc32(np.load(item.root.parents[1] / "series/every-10.npy")[:3].tobytes())
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (item.model, item.optim)}
    assert document == {
        "schema_version": 1, "step": 20, "sha256": sums, "series": {"every-10": [3, crc]}, "extra": {"spent": 1.5}
    }  # fmt: skip
    assert check == hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
    assert checkpoint.read_state(item) == CheckpointState(20, {"every-10": Mark(3, crc)}, {"spent": 1.5})


def test_what_is_wrong_with_a_checkpoint_is_named(tmp_path):
    shard = saved(tmp_path, 20)
    item, moved = shard.checkpoint(20), shard.checkpoint(30)
    shutil.copytree(item.root, moved.root)
    assert (
        said(StoreError, lambda: checkpoint.read_state(moved))
        == f"{moved.state} is damaged: it is of step 20"
    )
    text = item.state.read_text()
    for old, new, what in (
        ('"step": 20', '"step": 21', "its checksum does not fit"),
        ('"step": 20', '"step": -1', "step is -1"),
        ('"check"', '"chock"', "'check'"),
    ):
        item.state.write_text(text.replace(old, new))
        assert said(StoreError, lambda: checkpoint.read_state(item)) == f"{item.state} is damaged: {what}"
    item.state.write_text(text)
    for path in (item.model, item.optim):
        flip(path)
        words = f"{path} is damaged: its checksum does not fit"
        assert said(StoreError, lambda: checkpoint.read_state(item)) == words
        flip(path)
    weights, slow = checkpoint.load_tensors(item)
    assert (
        weights["w"].tolist() == [[1.0], [2.0]]
        and slow["t"] == 7.0
        and slow["w/m"].tolist() == [[3.0], [4.0]]
    )


def test_the_newest_whole_checkpoint_up_to_a_step_is_taken(tmp_path):
    shard = saved(tmp_path, 0, 10, 20, 30)
    flip(shard.checkpoint(30).model)

    def newest(at_most: int | None = None) -> tuple[int | None, list[str]]:
        paths, state, warnings = checkpoint.newest_whole(shard, at_most)
        assert (paths and paths.step) == (state and state.step)
        return paths.step if paths else None, warnings

    hurt = f"{shard.checkpoint(30).model} is damaged: its checksum does not fit"
    assert newest() == (20, [hurt]) and newest(30) == (20, [hurt]) and newest(29) == (20, [])
    assert (
        newest(20) == (20, [])
        and newest(19) == (10, [])
        and newest(0) == (0, [])
        and newest(-1) == (None, [])
    )
    # The rows that a checkpoint vouches for, and no later ones.
    flip(shard.series("every-10"), -4 * 8)
    assert newest(20) == (20, [])
    flip(shard.series("every-10"), -4 * 8 - 1)
    assert newest(20) == (10, [f"{shard.series('every-10')} is damaged before step 20"])


def test_checkpoints_beyond_those_to_keep_go(tmp_path, monkeypatch):
    steps = [0, 10, 20, 30]

    def left(keep: Any, kept: Any = ()) -> list[int]:
        shard = ShardPaths(tmp_path / str(len(list(tmp_path.iterdir()))))
        for step in steps:
            shard.checkpoint(step).root.mkdir(parents=True)
            shard.checkpoint(step).state.touch()
        checkpoint.prune(shard, keep, kept)
        return [item.step for item in shard.checkpoints()]

    assert left("all") == left(4) == left(9) == steps and left(3) == steps[1:] and left(2) == [20, 30]
    assert left(2, [0, 7]) == [0, 20, 30] == left([0, 30]) and left([], [10]) == [10, 20, 30]
    # One of which something resists is no checkpoint any more.
    monkeypatch.setattr(checkpoint, "discard", lambda path: None)
    assert left(2) == [20, 30]


def test_weights_of_a_checkpoint_are_an_optimizers_slow_ones_where_it_has_some(tmp_path):
    shard = ShardPaths(tmp_path / "shard-0000-0001-2")
    two = lambda value: torch.tensor([[value], [value + 1]])  # noqa: E731
    weights = {"a": two(1.0), "b": two(5.0).bfloat16()}
    optim = {"optimizer/a/slow": two(30.0), "optimizer/a/fast": two(0.0), "t": torch.tensor(2.0)}
    checkpoint.save(shard, CheckpointState(7, {}), weights, optim)
    record = runfile.Shard([run(0), run(1)], 10)
    owner = StoredEnsemble(tmp_path / f"some-{DIGEST}")
    runfile.write(shard, record)
    (one, other) = StoredEnsemble(shard.ensemble).runs
    kept = Kept()
    assert owner.id == DIGEST and {name: value.tolist() for name, value in kept.read(other, 7).items()} == {
        "a": [31.0],
        "b": [6.0],
    }
    assert kept.arrays(one, 7)["b"].dtype == np.float32 and kept.arrays(one, 7)["a"].tolist() == [30.0]
    # A snapshot of the same step holds what is evaluated already.
    shard.snapshot_folder.mkdir()
    snapshot.write(shard.snapshot(7), save({"a": np.array([[8.0], [9.0]])}))
    assert Kept().arrays(other, 7)["a"].tolist() == [9.0]
    shard.snapshot(7).unlink()
    where = shard.checkpoint(7).model
    where.unlink()
    assert said(StoreError, lambda: kept.read(one, 7)) == f"cannot read {where}: No such file or directory"


def test_what_is_cut_has_the_rows_that_are_vouched_for(tmp_path):
    shard = saved(tmp_path, 20)
    item = shard.checkpoint(20)
    state = replace(checkpoint.read_state(item), marks={"every-10": Mark(5, 0)})
    words = f"{shard.series('every-10')} has less than 5 rows"
    assert said(StoreError, lambda: save_part(item, state, shard, [0], 2)) == words


def test_rows_that_are_cut_out_survive_a_power_loss(tmp_path, monkeypatch):
    shard, part = saved(tmp_path), ShardPaths(tmp_path / "part")
    synced: list[int] = []
    monkeypatch.setattr(series, "sync", synced.append)
    save_rows(part, "every-10", series.read(shard.series("every-10")), [1])
    assert len(synced) == 1 and np.load(part.series("every-10"))["loss"].tolist() == [[1], [2], [3], [4]]


def test_parts_are_cut_of_checkpoints_that_are_whole(tmp_path):
    paths, old = make(tmp_path, [run(0)])
    shutil.rmtree(old.root)
    shard = saved(paths.root, 0, 10, 20)
    runfile.write(
        shard, runfile.Shard([run(0, "partial", 30), run(1, "partial", 30)], 40, status="partial", steps=30)
    )
    flip(shard.checkpoint(10).model)
    parts = split(shard)
    assert [[item.step for item in part.checkpoints()] for part in parts] == [[0, 20], [0, 20]]
    assert [runfile.read(part).marks["every-10"][0] for part in parts] == [3, 3]
    assert load(parts[1].checkpoint(20).model.read_bytes())["w"].tolist() == [[2.0]]


def test_a_disk_that_fails_leaves_a_shard_unsplit(tmp_path, monkeypatch):
    paths, old = make(tmp_path, [run(0)])
    shutil.rmtree(old.root)
    shard = saved(paths.root, 20)
    runfile.write(
        shard, runfile.Shard([run(0, "partial", 30), run(1, "partial", 30)], 40, status="partial", steps=30)
    )
    for error, words in (
        (
            OSError(5, "Input/output error"),
            f"cannot write {paths.shard('shard-0000-0000-1').root}: Input/output error",
        ),
        (StoreError("full"), "full"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(
                "dynalab.store.carve.save_part", lambda *_, error=error: (_ for _ in ()).throw(error)
            )
            assert said(StoreError, lambda: split(shard)) == words
        assert paths.shards() == [shard] and not shard.split.exists()
        assert [item.name for item in paths.root.glob("shard-*")] == [shard.root.name]
    # Cut off after the shard was moved away, before it was removed.
    shard.aside.mkdir()
    undo_unfinished(paths)
    assert not shard.aside.exists() and paths.shards() == [shard]
    assert len(split(shard)) == 2


def test_a_fork_is_laid_out_under_the_lock_and_through_no_link(tmp_path, monkeypatch):
    paths, _ = make(tmp_path, [run(0)])
    shard = saved(paths.root, 20)
    shutil.rmtree(paths.shard("shard-0000-0000-1").root)
    runfile.write(
        shard, runfile.Shard([run(0), run(1)], 30, plan={"every": {"a": 3}, "bits": "hold", "names": {}})
    )
    runs = StoredEnsemble(paths).runs
    streams = {"s0000": {"init": 0}, "s0001": {"init": 1}}
    target = EnsemblePaths(tmp_path / "grokking" / "fork-1111111111")
    target.root.mkdir()
    left = target.root / ".shard-0000-0001-2.0123456789ab.tmp"
    left.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "require", lambda self: (_ for _ in ()).throw(Locked("taken")))
        assert said(Locked, lambda: carve.branch(runs, 20, target, 30, streams=streams)) == "taken"
    assert list(target.root.iterdir()) == []
    carve.branch(runs, 20, target, 30, streams=streams)
    record = runfile.read(target.shards()[0])
    assert (record.attempt, record.plan) == (1, {"every": {"a": 3}, "bits": "hold"})
    assert record.marks == checkpoint.read_state(target.shards()[0].checkpoint(20)).series
    link = EnsemblePaths(tmp_path / "grokking" / "fork-2222222222")
    link.root.symlink_to(target.root)
    words = f"{link.root} is a link; dynalab reads through links, and writes and removes nothing there"
    assert said(StoreError, lambda: carve.branch(runs, 20, link, 30, streams=streams)) == words


# Locks.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes on while somebody sleeps, and not otherwise."""
    now = [100.0]
    monkeypatch.setattr(lock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_what_takes_a_moment_waits_ten_seconds_for_another(tmp_path, clock):
    paths, shard = make(tmp_path, [run(0)])
    runs = StoredEnsemble(paths).runs
    removal = remove.Removal(paths, ["x"], [shard], True)
    acts: list[Callable[[], object]] = [
        lambda: split(shard),
        lambda: carve.branch(runs, 1, paths, 1),
        lambda: remove.remove(removal, tmp_path),
    ]
    with Lock(paths.lock, beats=False):
        for act in acts:
            began = clock[0]
            words = f"{paths.root} is being written by {Owner.me().said}; wait for it, or take it over with "
            assert said(Locked, act) == f"{words}train --steal"
            assert 10.0 <= clock[0] - began < 10.1
    assert shard.run.exists()


def test_an_owner_beats_four_times_an_interval_and_counts(tmp_path, monkeypatch):
    path, waits = tmp_path / "lock", []
    held = Lock(path, beats=False).__enter__()
    whole = path.read_bytes()

    class Stop:
        """Lets so many beats pass, each after what is done before it."""

        def __init__(self, *acts: Callable[[], object]) -> None:
            self.acts = list(acts)

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            if self.acts:
                self.acts.pop(0)()
                return False
            return True

    def beat(*acts: Callable[[], object]) -> int:
        held._stop = Stop(*acts)  # type: ignore[assignment]
        held._beat()
        return len(held._stop.acts)  # type: ignore[attr-defined]

    nothing = lambda: None  # noqa: E731
    assert beat(*[nothing] * 12) == 0 and waits == [2.5] * 13
    beaten = path.read_bytes()
    assert json.loads(beaten) == {**json.loads(whole), "beat": "0000000012"} and len(beaten) == len(whole)
    # What cannot be opened at one time may be at the next; another's lock is left alone, and a removed one is not made.
    opened = lock.os.open

    def fails(*words: Any) -> int:
        monkeypatch.setattr(lock.os, "open", opened)
        raise OSError(24, "Too many open files")

    assert beat(lambda: monkeypatch.setattr(lock.os, "open", fails), nothing) == 0
    assert json.loads(path.read_bytes())["beat"] == "0000000002"
    another = Owner.me().to_bytes()
    assert beat(lambda: path.write_bytes(another), nothing) == 1 and path.read_bytes() == another
    assert beat(path.unlink, nothing) == 1 and not path.exists()


def test_a_lock_file_is_no_longer_than_a_page(tmp_path):
    path, me = tmp_path / "lock", Owner.me()
    room = 4096 - len(me.to_bytes()) + len(me.host)
    for size, whole in ((room, True), (room + 1, False)):
        path.write_bytes(replace(me, host="h" * size).to_bytes())
        assert (lock.holder(path) is not None) is whole


def test_a_release_that_is_kept_from_it_gives_up_after_a_second(tmp_path, clock, monkeypatch):
    held = Lock(tmp_path / "lock", beats=False).__enter__()
    began = clock[0]
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_remove", lambda *_: False)
        held.__exit__()
    assert 1.0 <= clock[0] - began < 1.05 and held.mine()
    held.__exit__()
    assert not held.path.exists()


def test_guards_of_claims_before_go_with_the_next_claim(tmp_path):
    path, guard = tmp_path / "lock", tmp_path / ".lock.0123456789abcdef"
    others = [tmp_path / name for name in (".lock.0123", ".other.0123456789abcdef", "lock.0123456789abcdef")]
    for item in (guard, *others):
        item.write_bytes(b"")
    with Lock(path, beats=False):
        assert not guard.exists() and all(item.exists() for item in others)


def test_a_lock_that_could_not_be_written_is_none(tmp_path, monkeypatch):
    def full(handle: int, mode: str) -> None:
        lock.os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "fdopen", full)
    path = tmp_path / "lock"
    assert (
        said(StoreError, Lock(path, beats=False).__enter__) == f"cannot write {path}: No space left on device"
    )
    assert list(tmp_path.iterdir()) == []


def test_who_watches_is_told_of_whom_and_for_how_long(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(lock, "_watches", {})
    someone = Owner("elsewhere", "another boot", 1, "1", "pid:[1]", "ab")
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(replace(someone, token=path.name).to_bytes())
    lines, when = list[str](), list[float]()
    began = clock[0]
    assert (
        lock.watch([paths[0]], lambda line: when.append(clock[0]) or lines.append(line))
        and 30.0 <= clock[0] - began < 30.5
    )
    assert lines == [
        "watching the heartbeat of process 1 on elsewhere for up to 30 s: from here it cannot be seen otherwise "
        "whether it lives"
    ]
    # Not where it takes but a moment; a look every fifth of a second.
    assert [round(moment - began, 3) for moment in when] == [0.6]
    paths[0].write_bytes(replace(someone, token="c").to_bytes())
    lock._watches.clear()
    lock.watch(paths, lines.append)
    assert lines[1:] == [
        "watching the heartbeat of process 1 on elsewhere and 1 more for up to 30 s: from here it cannot be seen "
        "otherwise whether they live"
    ]
    assert lock.holder(tmp_path / "none") is None and not lock.watch([tmp_path / "none"], lines.append)


def test_a_lock_that_is_being_written_is_of_somebody_unknown(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(lock, "_watches", {})
    path = tmp_path / "lock"
    path.write_bytes(b"")
    assert lock.holder(path).said == "process 0 on an unknown host"
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_alive", lambda *_: True)
        words = (
            f"{tmp_path} is being written by process 0 on an unknown host; wait for it, or take it over with "
        )
        assert said(Locked, Lock(path, wait=0.1, beats=False).__enter__) == f"{words}train --steal"


def test_files_that_are_written_later_are_few_and_their_errors_are_not_lost(tmp_path):
    class Promise:
        def __init__(self) -> None:
            self.ended, self.asked = False, 0

        def done(self) -> bool:
            return self.ended

        def result(self) -> None:
            self.asked += 1

    promises: list[Promise] = []
    files = later.Later()
    files._pool.submit = lambda *_: promises.append(Promise()) or promises[-1]  # type: ignore[method-assign,assignment]
    asked = []
    for number in range(7):
        files.write(tmp_path / "x", b"")
        asked.append([item.asked for item in promises].index(0))
        # Another two are done by then.
        if number == 5:
            promises[2].ended = promises[3].ended = True
    # Four may wait; of those that are done none does.
    assert asked == [0, 0, 0, 0, 1, 2, 4]
    files.wait()
    assert [item.asked for item in promises] == [1] * 7
    files = later.Later(put=lambda path, data: (_ for _ in ()).throw(StoreError(f"{path} {data!r}")))
    files.write(tmp_path, b"1")
    assert said(StoreError, files.wait) == f"{tmp_path} b'1'"


# Names, values, series.


def test_links_are_refused_wherever_something_is_written_or_removed(tmp_path):
    paths, shard = make(tmp_path / "real", [run(0)])
    tail = "is a link; dynalab reads through links, and writes and removes nothing there"
    (tmp_path / "task").symlink_to(paths.root.parent)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "some-1111111111").symlink_to(paths.root)
    above, itself = (
        EnsemblePaths(tmp_path / "task" / paths.root.name),
        EnsemblePaths(tmp_path / "own/some-1111111111"),
    )
    for place, link in ((above, tmp_path / "task"), (itself, itself.root)):
        for act in (
            place.refuse_links,
            place.shard(shard.root.name).refuse_links,
            lambda place=place: refresh(place),
            lambda place=place: split(place.shard(shard.root.name)),
        ):
            assert said(StoreError, act) == f"{link} {tail}"
        notice(place)
    # Of a shard every file counts, and its folder.
    (shard.root / "deep").mkdir()
    inner = shard.root / "deep" / "x"
    inner.symlink_to(tmp_path)
    assert said(StoreError, shard.refuse_links) == f"{inner} {tail}"
    inner.unlink()
    shard.refuse_links()
    other = paths.shard("shard-0001-0001-1")
    other.root.symlink_to(shard.root)
    assert said(StoreError, other.refuse_links) == f"{other.root} {tail}"
    store = OutputPaths(tmp_path)
    store.analyses.symlink_to(tmp_path / "real")
    data = {"id": "a" * 10, "kind": "eos", "ensemble": "e", "warnings": []}
    where = store.analysis("eos", "a" * 10)
    unstored = write_result(where, data, {}).unstored
    assert unstored == f"{where.root.name} is not stored: {store.analyses} {tail}"
    assert said(StoreError, lambda: remove.remove_analysis(where, tmp_path)) == f"{store.analyses} {tail}"
    removal = [(StoredEnsemble(above), [])]
    assert said(StoreError, lambda: remove.plan(removal, tmp_path)) == f"{tmp_path / 'task'} {tail}"


def test_names_are_of_the_forms_that_are_given(tmp_path):
    assert (
        names.is_name("a" * 150)
        and not names.is_name("a" * 151)
        and not names.is_name(".a")
        and not names.is_name(1)
    )
    assert names.forced_cadence("s0001") == "forced-s0001"
    for name in ("b.npy", "a.npy", "c.txt", "x y.npy"):
        (tmp_path / name).touch()
    assert [path.name for path in names.inside(tmp_path, names.NAME, ".npy")] == ["a.npy", "b.npy"]
    assert list(names.inside(tmp_path / "none", names.NAME)) == []


def test_yaml_is_as_deep_and_as_long_as_it_may_be(tmp_path):
    path = tmp_path / "x.yaml"

    def document(text: str) -> Any:
        path.write_text(text)
        return read.read_yaml(path)

    # The document itself is one value, and no level below.
    deep = f"{path} is damaged: it is nested too deep, or has too many values"
    assert document("[" * 65 + "]" * 65) is not None
    assert said(StoreError, lambda: document("[" * 66 + "]" * 66)) == deep
    # A list of 999 is a thousand values, however short the document is that says it a hundred times.
    many = f"[&a [{'1,' * 999}], {'*a, ' * 98} {'1, ' * 999}]"
    assert len(document(many)) == 99 + 999
    assert said(StoreError, lambda: document(f"[1, {many[1:]}")) == deep
    assert said(StoreError, lambda: document("a: {2: 3}")) == f"{path} is damaged: 2 is no key"
    assert (
        said(StoreError, lambda: document(f"a: {-(2**64)}")) == f"{path} is damaged: {-(2**64)} is no number"
    )
    path.write_bytes(b"other: 1")
    assert read.read_yaml(path, b"known: 1") == {"known": 1}
    # Merge keys grow exponentially where they are nested: there are none.
    assert "is damaged: could not determine a constructor" in said(
        StoreError, lambda: document("a: &a {x: 1}\nb: {<<: *a}\n")
    )


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "x.json"
    assert said(StoreError, lambda: read.read_bytes(path)) == f"cannot read {path}: No such file or directory"
    assert said(StoreError, lambda: read.read_bytes(tmp_path)) == f"cannot read {tmp_path}: Is a directory"
    os.mkfifo(tmp_path / "pipe")
    assert (
        said(StoreError, lambda: read.read_bytes(tmp_path / "pipe"))
        == f"{tmp_path}/pipe is damaged: it is no file"
    )
    for text, what in (("NaN", "NaN"), ("[-Infinity]", "-Infinity"), ('{"a": 1e999}', "1e999")):
        path.write_text(text)
        assert said(StoreError, lambda: read.read_json(path)) == f"{path} is damaged: {what} is no number"
    path.write_text('"\\ud800"')
    assert "is damaged: 'utf-8' codec can't encode" in said(StoreError, lambda: read.read_json(path))
    path.write_text('["\\ud83d\\ude00", 1.5]')
    assert read.read_json(path) == ["\N{GRINNING FACE}", 1.5] and read.read_bytes(path, 3) == b'["\\'

    def large() -> None:
        with read.opened(path):
            raise MemoryError

    assert said(StoreError, large) == f"{path} is damaged: it is larger than the memory"
    for value, shown in (("y" * 58, repr("y" * 58)), ("y" * 59, f"'{'y' * 59}...")):
        assert (
            said(ValueError, lambda value=value: read.check({"a": value}, {"a": read.flag}))
            == f"a is {shown}"
        )


class Slow:
    """A file that takes a few bytes at a time, or none."""

    def __init__(self, file: Any, most: int) -> None:
        self.file, self.most = file, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: Any) -> int:
        # A header is taken whole.
        most = len(data) if bytes(data[:6]) == b"\x93NUMPY" else self.most
        return int(self.file.write(data[:most]))


def test_rows_are_written_whole_however_little_a_disk_takes(tmp_path):
    path = tmp_path / "every-1.npy"
    writer = SeriesWriter(path, ["a"], 2)
    writer._file = Slow(writer._file, 7)  # type: ignore[assignment]
    writer.append(np.array([1, 2]), np.array([0.5, 0.6]), {"a": np.array([[1.0, 2], [3, 4]])})
    writer.append(np.array([3]), np.array([0.7]), {"a": np.array([[5.0, 6]])})
    mark = writer.sync()
    writer.close()
    rows = np.load(path)
    assert rows["step"].tolist() == [1, 2, 3] and rows["wall"].tolist() == [0.5, 0.6, 0.7]
    assert rows["a"].tolist() == [[1, 2], [3, 4], [5, 6]] and mark == Mark(3, zlib.crc32(rows.tobytes()))
    assert series.last_row(path) == (3, 0.7) and series.count(path) == 3
    again = tmp_path / "new" / "copy.npy"
    assert series.replace(again, rows[:2]) == Mark(2, zlib.crc32(rows[:2].tobytes()))
    assert np.array_equal(np.load(again), rows[:2])
    series.truncate(again, 1)
    assert len(np.load(again)) == 1 and path.stat().st_size - again.stat().st_size == 2 * rows.dtype.itemsize
    # A header that counts more than there is.
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert series.last_row(path) == (2, 0.6) and series.count(path) == 2 and len(series.read(path)) == 2
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3 * rows.dtype.itemsize + 1)
    assert series.last_row(path) is None and series.count(path) == 0 and len(series.read(path)) == 0
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 40)
    assert series.count(path) == 0 and series.last_row(path) is None


def test_a_header_that_cannot_be_written_is_no_header(tmp_path):
    class Full:
        def seek(self, place: int) -> None:
            assert place == 0

        def write(self, data: bytes) -> int:
            return len(data) - 1

    dtype = series.row_type(["a"], 1)
    with pytest.raises(OSError, match="No space left on device") as caught:
        series._write_header(Full(), dtype, 1)  # type: ignore[arg-type]
    assert caught.value.errno == 28
    lengths = {len(series._header(dtype, rows)) for rows in (0, 9, 10**19)}
    assert len(lengths) == 1 and lengths.pop() % 64 == 0
    # As many metrics as a header of two bytes' length has room for.
    wide = [f"{number:0100}" for number in range(600)]
    words = "a series of this many metrics has no room in its header"
    assert said(StoreError, lambda: SeriesWriter(tmp_path / "x.npy", wide, 1)) == words
    series._header(series.row_type(wide[:500], 1), 0)


def test_a_snapshots_seal_leaves_its_tensors_aligned(tmp_path):
    path = tmp_path / "x.safetensors"
    data = save({"w": np.arange(3.0), "v": np.zeros((2, 2), np.float32)})
    snapshot.write(path, data)
    sealed = snapshot.read(path)
    size = int.from_bytes(sealed[:8], "little")
    assert size % 8 == 0 and json.loads(sealed[8 : 8 + size])["__metadata__"] == {
        "sha256": hashlib.sha256(data).hexdigest()
    }
    assert load(sealed)["w"].tolist() == [0, 1, 2] and sealed.endswith(data[-20:])
    words = f"{path} is damaged: its checksum does not fit"
    # A length that no header has is damage as well.
    for at in (0, 7, 40, 110, -1):
        flip(path, at)
        assert said(StoreError, lambda: snapshot.read(path)) == words
        flip(path, at)
    path.write_bytes((3).to_bytes(8, "little") + sealed[8:])
    assert said(StoreError, lambda: snapshot.read(path)) == words
    path.write_bytes(data)
    assert snapshot.read(path) == data


# Runs.


def test_a_shard_of_which_nothing_was_written_yet_has_not_begun(tmp_path):
    from dynalab.store.recorded import has_begun

    paths, shard = make(tmp_path, [run(0, "partial", 0)])
    record = runfile.read(shard)

    def begun(status: str, marks: dict[str, list[int]]) -> bool:
        runfile.write(shard, replace(record, status=status, marks=marks))
        return has_begun(StoredEnsemble(paths).runs[0], "every-10")

    assert not begun("partial", {}) and not begun("partial", {"every-5": [1, 1]})
    assert begun("partial", {"every-10": [1, 1]}) and begun("done", {}) and begun("diverged", {})
    shard.series_folder.mkdir()
    shard.series("every-10").symlink_to(tmp_path / "gone")
    assert begun("partial", {})


def test_the_series_of_a_shard_are_of_all_its_runs_and_what_was_vouched_for(tmp_path):
    paths, shard = make(tmp_path, [run(0), run(1)])
    marks = {"every-10": write_rows(shard, "every-10", [0, 10, 20], 2, a=[1, 2, 3])}
    runfile.write(shard, replace(runfile.read(shard), marks={"every-10": [3, marks["every-10"][1] ^ 1]}))

    def rows() -> np.ndarray:
        ensemble = Ensemble(paths)
        return ensemble.records(ensemble.runs[1], "every-10")

    where = shard.series("every-10")
    assert said(StoreError, rows) == f"{where} is damaged: its checksum does not fit"
    runfile.write(shard, replace(runfile.read(shard), marks=marks))
    assert len(rows()) == 3
    crc = zlib.crc32(np.load(where)[:2].tobytes())
    runfile.write(shard, replace(runfile.read(shard), marks={"every-10": [2, crc]}))
    assert rows()["step"].tolist() == [0, 10]
    write_rows(shard, "every-10", [0, 10], 3, a=[1, 2])
    assert said(StoreError, rows) == f"{where} is damaged: its columns are not of 2 runs"


def test_a_run_that_goes_on_is_as_far_as_its_rows(tmp_path):
    paths, shard = make(
        tmp_path, [run(0, "running", 5, final={"step": 5}), run(1, "diverged", 3, diverged_step=3)]
    )
    writer = SeriesWriter(shard.series("every-10"), ["a"], 2)
    writer.append(np.array([0, 10]), np.array([1000.0, 1012.5]), {"a": np.zeros((2, 2))})
    writer.close()
    began = "1970-01-01T00:16:40+00:00"

    def first(status: str = "partial", **attempt: Any) -> tuple[int, bool, Any, Any]:
        record = replace(runfile.read(shard), status=status, attempts=[attempt] if attempt else [])
        record.runs[0].status, record.requested_steps = status, 100
        runfile.write(shard, record)
        known = StoredEnsemble(paths).runs
        assert (known[1].steps, known[1].summary) == (3, {"diverged_step": 3})
        own = known[0].record.attempts[-1] if attempt else {}
        return known[0].steps, known[0].summary is None, own.get("step"), own.get("seconds")

    assert first(started=began) == (10, True, 10, 12.5)
    assert first(started=began, step=10, seconds=2.0) == (10, True, 10, 2.0)
    assert first(started=began, ended=began, step=5, seconds=2.0) == (10, False, 5, 2.0)
    assert first("failed", started=began, ended=began, step=5, seconds=2.0) == (10, True, 5, 2.0)
    assert first(started="1970-01-01T01:00:00+00:00") == (10, True, 10, 0.0)
    assert first(started="then") == (10, True, 10, None) and first() == (10, True, None, None)


def test_what_a_run_file_may_not_say(tmp_path):
    _, shard = make(tmp_path, [run(0), run(1)])
    document = json.loads(shard.run.read_text())
    assert document["schema_version"] == 1

    def told(**change: Any) -> str:
        shard.run.write_text(json.dumps({**document, **change}))
        return said(StoreError, lambda: runfile.read(shard))

    hurt = f"{shard.run} is damaged:"
    assert told(schema_version=2) == "written by a newer dynalab (schema 2)"
    assert told(runs=[]) == told(runs=document["runs"][:1] * 2) == f"{hurt} it names no runs, or one twice"
    assert told(runs=[{"label": "a"}]) == f"{hurt} it has no seed"
    assert told(plan={"device": "cuda:12345"}) == f"{hurt} plan.device is 'cuda:12345'"
    assert told(attempt=0) == f"{hurt} attempt is 0" and told(status="odd") == f"{hurt} status is 'odd'"
    assert told(attempts=[{"seconds": "1"}]) == f"{hurt} attempts[0].seconds is '1'"
    shard.run.write_text(json.dumps({**document, "plan": {"device": "cuda:1234"}, "new": 1}))
    assert runfile.read(shard).plan == {"device": "cuda:1234"}
    shard.run.write_text(json.dumps({**document, "status": "running"}))
    assert {one.status for one in runfile.read(shard).runs} == {runfile.read(shard).status} == {"crashed"}


def test_weights_and_runs_that_are_not_there_are_said_with_those_that_are(tmp_path):
    paths, shard = make(tmp_path, [run(0), run(1, "diverged", diverged_step=20)])
    shard.snapshot_folder.mkdir()
    ensemble = Ensemble(paths)
    assert said(ConfigError, lambda: ensemble.model(0, 5)) == (
        f"{DIGEST}/s0000: no weights of step 5 were kept; there are none"
    )
    for step in (10, 5, 20):
        snapshot.write(shard.snapshot(step), save({"w": np.zeros((2, 1))}))
    assert said(ConfigError, lambda: ensemble.model(0, 6)) == (
        f"{DIGEST}/s0000: no weights of step 6 were kept; there are 5, 10, 20"
    )
    assert said(ConfigError, lambda: ensemble.model("s0001", 20)) == (
        f"{DIGEST}/s0001 diverged at step 20: there are no weights of step 20"
    )
    assert (
        said(ConfigError, lambda: ensemble.model(7, 5))
        == f"{DIGEST} has no run s0007; there are s0000, s0001"
    )
    imported = Ensemble(EnsemblePaths(tmp_path / "imported" / f"x-{DIGEST}"))
    assert said(ConfigError, lambda: imported.model(0, 5)) == (
        f"{DIGEST} was imported: its runs have metrics, and no weights"
    )


def test_a_network_has_the_weights_of_its_run(tmp_path, monkeypatch):
    from torch import nn

    from dynalab.store import weights

    streams = {"init": 3, "split": 4, "order": 5, "noise": 6}
    first, second = (replace(one, streams=streams) for one in (run(0), run(1, "diverged", diverged_step=20)))
    paths, shard = make(tmp_path, [first, second])
    shard.snapshot_folder.mkdir()
    made: list[Any] = []
    monkeypatch.setattr(weights, "network_of", lambda *words: made.append(words) or nn.Linear(1, 1))
    monkeypatch.setattr(StoredEnsemble, "typed_config", lambda self, folders: "typed")
    ensemble = Ensemble(paths)

    def keep(step: int, **tensors: Any) -> Path:
        snapshot.write(
            where := shard.snapshot(step), save({k: np.array(v, np.float32) for k, v in tensors.items()})
        )
        return where

    keep(5, weight=[[[1.0]], [[2.0]]], bias=[[3.0], [4.0]])
    keep(10, weight=[[[np.nan]], [[np.inf]]], bias=[[3.0], [4.0]])
    other = keep(15, weight=[[[1.0, 2.0]], [[1.0, 2.0]]], bias=[[3.0], [4.0]])
    network: Any = ensemble.model("s0001", 5)
    assert (network.weight.item(), network.bias.item()) == (2.0, 4.0) and ensemble.model(
        0, 5
    ).weight.item() == 1.0
    config, own, _ = made[0]
    assert config == "typed" and {name: getattr(own, name) for name in streams} == streams
    assert (
        said(ConfigError, lambda: ensemble.model(0, 10))
        == f"{DIGEST}/s0000: the weights of step 10 are not finite"
    )
    assert said(ConfigError, lambda: ensemble.model(1, 10)) == (
        f"{DIGEST}/s0001 diverged at step 20: there are no weights of step 10"
    )
    assert said(StoreError, lambda: ensemble.model(0, 15)).startswith(f"{other} is damaged: ")


def test_analyses_are_given_runs_whose_rows_are_whole(tmp_path):
    paths, old = make(tmp_path, [run(0)])
    shutil.rmtree(old.root)
    for seed in (0, 1):
        shard = paths.shard(f"shard-{seed:04d}-{seed:04d}-1")
        write_rows(shard, "every-10", [0, 10], 1, a=[1, 2])
        write_rows(shard, "log", [1, 2], 1, b=[1, 2])
        runfile.write(shard, runfile.Shard([run(seed)], 100, status="done"))
    shard.series("log").write_bytes(b"")
    # Damage is found at once where the metric will be read, and only there.
    assert [item.id for item in Ensemble(paths).group(metrics=["a"]).runs] == [
        f"{DIGEST}/s0000",
        f"{DIGEST}/s0001",
    ]
    for metrics in (["b"], ["a", "b"], []):
        group = Ensemble(paths).group(metrics=metrics)
        assert [item.id for item in group.runs] == [f"{DIGEST}/s0000"]
        assert group.warnings[0].startswith(f"{shard.series('log')} is damaged: ")


def test_a_run_is_computed_anew_as_it_was_trained_and_an_imported_one_never(tmp_path, monkeypatch):
    from dynalab.store import reader

    streams = {"init": 3, "split": 4, "order": 5, "noise": 6}
    paths, shard = make(tmp_path, [replace(run(0), streams=streams), run(1)])
    write_rows(shard, "every-10", [0, 10], 2, a=[1, 2])
    monkeypatch.setattr(reader, "SeededLearner", lambda recipe, *about: about)
    for plan, threads, compiled in (({}, 1, False), ({"threads": 3, "compiled": "compiled-1"}, 3, True)):
        runfile.write(shard, replace(runfile.read(shard), plan=plan))
        one, other = Ensemble(paths).group().runs
        assert one.learner == (reader.Streams(**streams), threads, 2, compiled) and other.learner is None
    config = yaml.safe_load(paths.config.read_text())
    there = EnsemblePaths(tmp_path / "imported" / paths.root.name)
    shutil.copytree(paths.root, there.root)
    there.config.write_text(yaml.safe_dump({**config, "import": {"names": ["mine"]}}, sort_keys=False))
    shutil.move(shard.ensemble.root / shard.root.name / "series/every-10.npy", tmp_path / "x")
    (there.root / shard.root.name / "series/every-10.npy").rename(
        there.root / shard.root.name / "series/imported.npy"
    )
    (one, _) = Ensemble(there).group().runs
    assert one.learner is None and one.weights.steps == ()
    assert "the run was imported, and has metrics alone" in str(one.weights.missing(3))


def test_a_configuration_that_has_no_meaning_here_is_named_by_its_folder(tmp_path, monkeypatch):
    def gone(tree: Any, folders: Any) -> None:
        raise ConfigError("model=own is gone")

    monkeypatch.setattr("dynalab.config.ensemble.from_stored", gone)
    paths, _ = make(tmp_path, [run(0)])
    assert said(ConfigError, StoredEnsemble(paths).typed_config) == f"{paths.root.name}: model=own is gone"


def test_a_metric_that_was_not_recorded_is_answered_with_those_that_were(tmp_path):
    paths, shard = make(tmp_path, [run(0)])
    write_rows(shard, "every-10", [0], 1, **{f"m{number:02}": [0] for number in range(62)})
    known = ", ".join(f"m{number:02}" for number in range(60))
    assert said(ConfigError, lambda: Ensemble(paths).steps("zzz")) == (
        f"zzz: not recorded in {DIGEST}; there are {known} and 2 more"
    )


def test_a_table_says_what_was_stored_when_it_was_written(tmp_path):
    paths, shard = make(tmp_path, [run(0), run(1, "diverged", 30, diverged_step=20)])
    counts = {"log": write_rows(shard, "log", [1, 2], 2, b=[1, 2])}
    counts["every-10"] = write_rows(shard, "every-10", [0, 10, 20], 2, a=[1, 2, 3])
    runfile.write(shard, replace(runfile.read(shard), marks=counts))
    refresh(paths)
    entries = [
        ["s0000", shard.root.name, "done", 100, None, counts],
        ["s0001", shard.root.name, "diverged", 30, 20, counts],
    ]
    stored = hashlib.sha256(json.dumps([1, entries], sort_keys=True).encode()).hexdigest()
    told = [json.loads(pq.read_metadata(paths.metrics(name)).metadata[b"dynalab"]) for name in (None, "log")]
    assert told == [{"stored": stored, "tables": ["metrics-log.parquet"]}, {"stored": stored, "tables": []}]
    before = paths.metrics().stat().st_mtime_ns
    refresh(paths)
    assert paths.metrics().stat().st_mtime_ns == before
    # One of them is gone, or of something else.
    for act in (paths.metrics("log").unlink, lambda: shutil.copy(paths.config, paths.metrics("log"))):
        act()
        refresh(paths)
        assert pd.read_parquet(paths.metrics("log"))["b"].tolist() == [1, 2] * 2
    # What is being written is no part of it.
    runfile.write(
        shard, replace(runfile.read(shard), status="running", runs=[run(0, "running"), run(1, "running")])
    )
    with Lock(shard.lock, beats=False):
        before = paths.metrics().stat().st_mtime_ns
        write_rows(shard, "every-10", [0, 10], 2, a=[1, 2])
        refresh(paths)
        assert paths.metrics().stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a<x", "-f: a<x: < compares numbers, and dates of started"),
        ("a=", "-f 'a=': a= compares with nothing; KEY='' compares with empty text"),
        (" ", "-f ' ': names no term; expected KEY=VALUE"),
        ("a='b", "-f: a='b: a quote has no other end"),
        ("a=[b", "-f: a=[b: a bracket has no other end"),
        ("started>x", "-f: started>x: expected a date, 2026-05-31 or 2026-05-31T14:00"),
    ],
)
def test_terms_that_cannot_be_read_are_answered(text, words):
    assert said(ConfigError, lambda: Filter(text)) == words


def test_a_filter_of_what_nothing_has_is_answered(tmp_path):
    paths, _ = make(tmp_path, [run(0)], hidden={"a": 1, "b": {"c": 2}})
    ensemble = StoredEnsemble(paths)

    def told(text: str) -> str:
        return said(ConfigError, lambda: Filter(text).choose([(ensemble, ensemble.runs)], [ensemble]))

    assert (
        told("hidden=1") == "-f: hidden is a section, not a value; there are hidden.a, hidden.b, hidden.b.c"
    )
    assert told("hiden.a=1") == (
        "-f: hiden.a is neither a field of a run nor a configuration key of any (did you mean hidden.a?)"
    )


def test_a_difference_leaves_damaged_rows_out_and_counts_what_is_not_a_number(tmp_path):
    def one(digest: str, values: Any) -> Ensemble:
        paths, _ = make(tmp_path, [run(0)], digest)
        shutil.rmtree(paths.shards()[0].root)
        for seed, column in enumerate(values):
            shard = paths.shard(f"shard-{seed:04d}-{seed:04d}-1")
            write_rows(shard, "every-10", [0, 10, 20], 1, a=column, c=[1, 1, 1])
            runfile.write(shard, runfile.Shard([run(seed)], 100, status="done"))
        return Ensemble(paths)

    one_side = one("a" * 10, [[1, 2, 3], [1, 2, 3], [1, np.nan, 3]])
    other = one("b" * 10, [[1, 2, 3], [1, 2, 3], [1, 2, np.inf]])
    hurt = one_side.paths.shards()[1].series("every-10")
    hurt.write_bytes(b"")
    # Neither a NaN nor an infinity is a size.
    assert difference.series(one_side, one_side.runs, other, other.runs) == {
        "shared": 3,
        "equal": 1,
        "differing": ["s0002"],
        "largest": {"difference": 0.0, "metric": "a"},
    }
    assert one_side.damaged == ["shard-0001-0001-1"] and one_side.warnings[0].startswith(
        f"{hurt} is damaged: "
    )
    assert one_side.warnings[0].endswith(f"; {'a' * 10}/shard-0001-0001-1 is left out")


def test_rows_that_are_damaged_are_in_no_table(tmp_path):
    paths, _ = make(tmp_path, [run(0)])
    shutil.rmtree(paths.shards()[0].root)
    for seed in (0, 1, 2):
        shard = paths.shard(f"shard-{seed:04d}-{seed:04d}-1")
        write_rows(shard, "every-10", [0, 10], 1, a=[seed, seed])
        rows = np.zeros(1, series.row_type(["a"], None))
        rows["step"], rows["a"] = 5, seed
        series.replace(shard.series("forced"), rows)
        runfile.write(shard, runfile.Shard([run(seed)], 100, status="done"))
    for name in ("every-10", "forced"):
        paths.shards()[1].series(name).write_bytes(b"")
    (theirs := paths.metrics("theirs")).write_text("no table")
    shutil.copy(paths.config, old := paths.metrics("old"))
    refresh(paths)
    assert pd.read_parquet(paths.metrics())["run"].tolist() == [
        f"{DIGEST}/s000{seed}" for seed in (0, 0, 2, 2)
    ]
    forced = pd.read_parquet(paths.metrics("forced"))
    assert list(forced) == ["run", "seed", "step", "a"] and forced.to_numpy().tolist() == [
        [f"{DIGEST}/s0000", 0, 5, 0.0],
        [f"{DIGEST}/s0002", 2, 5, 2.0],
    ]
    # A table of ours that is of nothing any more goes; what is another's stays.
    shutil.copy(paths.metrics(), old)
    for shard in paths.shards():
        shard.series("forced").unlink()
    refresh(paths)
    assert not old.exists() and not paths.metrics("forced").exists() and theirs.exists()


# Finding and removing.


def test_who_is_trained_is_not_removed(tmp_path):
    paths, shard = make(tmp_path, [run(0)])
    ensemble = StoredEnsemble(paths)
    chosen = [(ensemble, ensemble.runs)]
    with Lock(shard.lock, beats=False):
        words = f"{shard.root}: {Owner.me().said} is training it; stop it first"
        assert said(Locked, lambda: remove.plan(chosen, tmp_path)) == words
    tail = "rm removes nothing there (--outputs names it)"
    elsewhere = tmp_path / "x"
    assert said(ConfigError, lambda: remove.plan(chosen, elsewhere)) == (
        f"{paths.root} is outside of {elsewhere}; {tail}"
    )
    odd = StoredEnsemble(tmp_path / "grokking" / "odd")
    assert said(ConfigError, lambda: remove.plan([(odd, [])], tmp_path)) == (
        f"{odd.path} is no ensemble of {tmp_path}; rm leaves it alone"
    )
    (removal,) = remove.plan(chosen, tmp_path)
    paths.shard("shard-0009-0009-1").root.mkdir()
    assert said(StoreError, lambda: remove.remove(removal, tmp_path)) == (
        f"{paths.root} has changed since it was looked at; nothing of it was removed"
    )
    link = tmp_path / "link"
    link.symlink_to(paths.root)
    size = sum(path.stat().st_size for path in paths.root.rglob("*") if path.is_file())
    (paths.root / "link").symlink_to(paths.config)
    assert remove.size_of([paths.root, link]) == size > 0


def test_references_that_name_nothing_are_answered(outputs):
    assert said(NothingMatched, lambda: select(outputs, [], None, StoredEnsemble)) == (
        f"{outputs} holds no runs; train some: dynalab train task=grokking seed=0..3"
    )
    paths, _ = make(outputs, [run(0)])
    fork, _ = make(outputs, [run(0)], "1123456789", parent=f"{DIGEST}@20")

    def told(ref: str | None, text: str | None = None, error: type[Exception] = NothingMatched) -> str:
        return said(error, lambda: select(outputs, [ref] if ref else [], text, StoredEnsemble))

    hint = "see `dynalab runs list` (of analyses: `--analyses`)"
    assert told("zzz") == f"zzz: no stored ensemble or run has this id; {hint}"
    assert (
        told("0123456798")
        == f"0123456798: no stored ensemble or run has this id (did you mean {DIGEST}?); {hint}"
    )
    assert told("0123/s9") == f"0123/s9: {DIGEST} has no such run; see `dynalab runs list {DIGEST}`"
    assert (
        told(None)
        == f"{outputs} does not say what was trained last; name a run or filter (-f 'task=grokking')"
    )
    assert told(None, "seed=7") == (
        "no run fits -f 'seed=7' (forks are left out: --forks); `dynalab runs list` shows what there is"
    )
    assert said(NothingMatched, lambda: select(outputs, [], "seed=7", StoredEnsemble, forks=True)) == (
        "no run fits -f 'seed=7'; `dynalab runs list` shows what there is"
    )
    assert [item.id for item, _ in select(outputs, [], "seed=0", StoredEnsemble)] == [DIGEST]
    assert len(select(outputs, ["@all"], None, StoredEnsemble, forks=True)) == 2
    assert forks_of(outputs, []) == {DIGEST: [fork.digest]} and forks_of(outputs, [fork.digest]) == {}
    assert len(select(outputs, ["~nobody-at-all/x", "0123456789"][1:], None, StoredEnsemble)) == 1
    assert told("~nobody-at-all/x").startswith("~nobody-at-all/x: no stored ensemble or run has this id")
    OutputPaths(outputs).last.write_text('{"ensembles": ["1", "2"]}')
    assert told(None) == f"the last ensembles (1, 2) are no longer in {outputs}"
    # One whose configuration is damaged is left out, unless none is left.
    everything = select(outputs, ["@all"], None, StoredEnsemble, forks=True)
    fork.config.write_text("task: 1\n")
    what = f"{fork.config} is damaged: it is cut off, or no configuration; 1123456789 is left out"
    everything = [(StoredEnsemble(item.paths), runs) for item, runs in everything]
    whole, lines = readable(everything)
    assert [item.id for item, _ in whole] == [DIGEST] and lines == [what]
    assert said(StoreError, lambda: readable(everything[1:])) == what
    assert not StoredEnsemble(fork).is_fork and not StoredEnsemble(paths).is_fork


# Analyses.


def test_an_analysis_of_another_form_is_said_to_be_damaged(outputs):
    paths = analysis(outputs, "eos", "a" * 10, ["e1"], "2026-02-01")
    assert json.loads(paths.result.read_text())["schema_version"] == 1
    result = read_result(paths)

    def other() -> None:
        with reading(result):
            raise KeyError("runs")

    assert said(StoreError, other) == (
        f"{paths.result} is damaged: it is no result of analyze eos (KeyError('runs')); "
        "`dynalab analyze eos --force` with its runs and keys makes it again"
    )
    assert said(ConfigError, lambda: result.table("u")) == "u: this analysis has no such table; there are t"
    paths.table("t").write_bytes(b"")
    assert said(StoreError, lambda: result.table("t")).startswith(f"{paths.table('t')} is damaged: ")
    assert whole_result(paths) is not None and result.tables() == ["t"] and not result.across


def test_damaged_analyses_say_what_makes_them_again(outputs):
    paths = analysis(outputs, "contrast", "b" * 10, ["e1", "e2"], "2026-02-01")
    other = analysis(outputs, "eos", "c" * 10, ["e3"], "2026-02-01")
    for item in (paths, other):
        text = item.result.read_text()
        item.result.write_text(text[: text.index('"created"')])
    lines = damaged_results(outputs)
    assert [line.rpartition("; ")[2] for line in lines] == [
        "the `dynalab report` that made it makes it again",
        "the `dynalab analyze eos` that made it makes it again",
    ]
    # As far as the ensembles are named in what is left.
    assert damaged_results(outputs, ["e2"]) == lines[:1] and damaged_results(outputs, ["e3"]) == lines[1:]
    other.result.write_text('{"ensemble": "e4", "')
    assert damaged_results(outputs, ["e3"]) == [] and len(damaged_results(outputs, ["e4"])) == 1
    # As far as its beginning, 64 KiB, goes.
    line = '"ensemble": "e4"'
    for blanks, known in ((2**16 - len(line), True), (2**16 - len(line) + 1, False)):
        other.result.write_text(f"{' ' * blanks}{line}")
        assert len(damaged_results(outputs, ["e3"])) == (0 if known else 1)
    other.result.unlink()
    assert [result.id for result in results(outputs)] == [] and len(damaged_results(outputs)) == 1
    assert said(StoreError, lambda: find_result(outputs, "bb")) == lines[0]
    assert whole_result(paths) is None


def test_analyses_are_told_from_ensembles_by_their_ids(outputs):
    make(outputs, [run(0)], "ab" * 5)
    one = analysis(outputs, "eos", "ac" * 5, ["e1"], "2026-02-01")
    analysis(outputs, "hmm", "ad" * 5, ["e1"], "2026-02-01")
    assert tell_apart(outputs, ["@last", "abab", "acac", "eos-ac", str(one.root), "zz"]) == (
        ["@last", "abab", "zz"],
        [one],
    )
    analysis(outputs, "eos", "ab" * 4 + "00", ["e1"], "2026-02-01")
    assert said(ConfigError, lambda: tell_apart(outputs, ["abab"])) == (
        "abab is ambiguous: the ensemble ababababab, the analysis eos-abababab00"
    )
    assert tell_apart(outputs, ["ab" * 5]) == (["ab" * 5], [])
    tail = "this id; see `dynalab runs list --analyses`"
    assert said(NothingMatched, lambda: find_analysis(outputs, "zz")) == f"zz: no stored analysis has {tail}"
    assert said(NothingMatched, lambda: tell_apart(outputs, ["a", "eos"])).endswith(
        f"several analyses have {tail}"
    )
