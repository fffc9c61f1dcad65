"""Shards that are split, branched, removed and laid out, on folders that are written by hand."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load, save

from dynalab.config.command import read_command
from dynalab.errors import ConfigError, Locked, StoreError
from dynalab.launch.layout import Layout, lay_out
from dynalab.store import carve, checkpoint, remove, runfile, series, snapshot
from dynalab.store.carve import split, tensors_of, undo_unfinished
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.lock import Lock
from dynalab.store.owner import Owner
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.series import SeriesWriter
from dynalab.store.stored import StoredEnsemble
from dynalab.training.planner import Plan

DIGEST = "0123456789"
TREE = {"task": {"name": "grokking"}, "eval": {"every": 10}, "levels": {}}


def make(outputs: Path, seeds: tuple[int, ...], attempt: int = 1, **shard: Any) -> ShardPaths:
    """Write a shard that was cut off at step 40, with checkpoints of steps 20 and 30, and a snapshot."""
    paths = OutputPaths(outputs).ensemble("grokking", "some", DIGEST)
    runs = [runfile.Run(f"s{seed:04d}", seed, {"init": seed}, "partial", 40) for seed in seeds]
    runs[0].status, runs[0].steps = ("diverged", 15) if len(runs) > 1 else ("partial", 40)
    own = paths.shard(runfile.folder_name(runs, attempt))
    own.root.mkdir(parents=True)
    paths.config.write_text(yaml.safe_dump(TREE, sort_keys=False))
    grid = SeriesWriter(own.series("every-10"), ["loss"], len(seeds))
    forced = SeriesWriter(own.series("forced"), ["loss"], None)
    for step in range(0, 50, 10):
        grid.append(np.array([step]), np.array([0.5]), {"loss": step + np.array([seeds], float)})
        if step in (20, 30):
            state = CheckpointState(step, {"every-10": grid.sync(), "forced": forced.sync()}, {"spent": 1.5})
            model, optim = (
                {"w": np.outer(seeds, [step, 1.0])},
                {"w/m": np.array(seeds) + 0.5, "t": np.array(7.0)},
            )
            checkpoint.save_bytes(own, state, save(model), save(optim))
        # The first run and the last have rows of their own.
        places = np.array([0, len(seeds) - 1] if len(seeds) > 1 else [0])
        steps = np.full(len(places), step + 5)
        forced.append(steps, np.zeros(len(places)), {"run": places, "loss": np.array(seeds, float)[places]})
    grid.close()
    forced.close()
    own.snapshot_folder.mkdir()
    snapshot.write(own.snapshot(10), save({"w": np.array(seeds, float)}))
    record = {"status": "partial", "steps": 40, "plan": {"device": "cpu", "threads": 2, "names": {}}, **shard}
    runfile.write(own, runfile.Shard(runs, 100, attempt=attempt, **record))
    return own


def rows(shard: ShardPaths, cadence: str = "every-10") -> list[tuple[Any, ...]]:
    found = series.read(shard.series(cadence))
    return [(int(row["step"]), *np.atleast_1d(row["loss"]).tolist()) for row in found]


def test_parts_of_a_shard_hold_what_their_runs_had_at_the_newest_checkpoint(outputs):
    shard = make(outputs, (3, 4, 5))
    one, two = split(shard)
    assert not shard.root.exists() and not shard.aside.exists()
    assert [part.root.name for part in (one, two)] == ["shard-0003-0003-1", "shard-0004-0005-2"]
    assert rows(one) == [(step, step + 3) for step in (0, 10, 20, 30, 40)]
    assert rows(two) == [(step, step + 4, step + 5) for step in (0, 10, 20, 30, 40)]
    assert rows(two, "forced") == [(step, 5) for step in (5, 15, 25, 35, 45)]
    assert set(series.read(two.series("forced"))["run"]) == {1}
    for part, seeds in ((one, [3]), (two, [4, 5])):
        assert [item.step for item in part.checkpoints()] == [20, 30]
        for item in part.checkpoints():
            state = checkpoint.read_state(item)
            assert state.extra == {"spent": 1.5} and state.marks["every-10"].rows == item.step // 10 + 1
            # Rows of single runs up to the checkpoint's step, and no others.
            assert state.marks["forced"].rows == item.step // 10
            assert np.array_equal(load(item.model.read_bytes())["w"], np.outer(seeds, [item.step, 1.0]))
            optim = load(item.optim.read_bytes())
            assert optim["t"] == 7.0 and optim["w/m"].tolist() == [seed + 0.5 for seed in seeds]
        assert load(snapshot.read(part.snapshot(10)))["w"].tolist() == seeds
        record = runfile.read(part)
        assert (record.steps, record.requested_steps, record.status) == (30, 100, "partial")
        assert record.plan == {"device": "cpu", "threads": 2, "names": {}, "split_from": "shard-0003-0005-3"}
        assert record.marks["every-10"] == [4, series.checksum(part.series("every-10"), 4)]
    # One that diverged stays where it did; the others go on from the checkpoint.
    assert [(run.label, run.steps) for run in runfile.read(one).runs] == [("s0003", 15)]
    assert [(run.label, run.steps) for run in runfile.read(two).runs] == [("s0004", 30), ("s0005", 30)]


def test_a_split_is_as_even_as_it_can_be_and_is_undone_where_it_cannot_be(outputs):
    shard = make(outputs, (0, 1, 2, 3, 4))
    stranger = shard.ensemble.shard("shard-0003-0004-2")
    stranger.root.mkdir()
    with pytest.raises(
        StoreError, match=r"cannot split .*shard-0000-0004-5: .*shard-0003-0004-2 is there already"
    ):
        split(shard, 3)
    stranger.root.rmdir()
    (optim := shard.checkpoint(30).optim).write_bytes(save({"w/m": np.zeros(4)}))
    shard.checkpoint(20).state.unlink()
    # A damaged checkpoint is left out: nothing of it is vouched for.
    assert [part.root.name[6:] for part in split(shard, 3)] == ["0000-0000-1", "0001-0002-2", "0003-0004-2"]
    assert optim.exists() is False and runfile.read(shard.ensemble.shards()[1]).steps == 0
    assert len(split(shard.ensemble.shards()[1], 9)) == 2


def test_a_split_whose_lock_was_taken_stops_and_undoes_nothing(outputs, monkeypatch):
    shard = make(outputs, (0, 1))

    def taken(self: Lock) -> None:
        raise Locked("taken")

    monkeypatch.setattr(Lock, "require", taken)
    with pytest.raises(Locked, match="taken"):
        split(shard)
    assert shard.parts() == ["shard-0000-0000-1", "shard-0001-0001-1"]
    # Parts that are being made do not count, and go when the ensemble is laid out next.
    assert shard.ensemble.shards() == [shard]
    undo_unfinished(shard.ensemble)
    assert shard.ensemble.shards() == [shard] and not shard.split.exists()
    assert [path.name for path in shard.ensemble.root.glob("shard-*")] == ["shard-0000-0001-2"]


def test_tensors_without_an_axis_of_the_runs_cannot_be_cut():
    cut = load(tensors_of(save({"a": np.arange(6.0).reshape(3, 2), "t": np.array(2.0)}), [0, 2], 3, "x"))
    assert cut["a"].tolist() == [[0, 1], [4, 5]] and cut["t"] == 2.0
    with pytest.raises(StoreError, match="x: b has no axis of the shard's 3 runs and cannot be split"):
        tensors_of(save({"b": np.zeros(2)}), [0], 3, "x")
    with pytest.raises(StoreError, match="x is damaged: "):
        tensors_of(b"no tensors", [0], 3, "x")


def test_a_branch_holds_what_its_parent_had_at_the_step(outputs):
    shard = make(outputs, (3, 4, 5))
    runs = StoredEnsemble(shard.ensemble).runs
    assert [carve.kept_before(runs[0], step) for step in (19, 20, 29, 30, 99)] == [0, 20, 20, 30, 30]
    target = EnsemblePaths(outputs / "grokking" / "fork-1111111111")
    target.root.mkdir()
    streams = {f"s{seed:04d}": {"init": seed, "order": 100 + seed} for seed in (3, 4, 5)}
    carve.branch([runs[2], runs[1]], 20, target, 60, [Path("/plug-ins")], streams)
    (part,) = target.shards()
    assert part.root.name == "shard-0004-0005-2" and rows(part) == [(0, 4, 5), (10, 14, 15), (20, 24, 25)]
    assert rows(part, "forced") == [(5, 5), (15, 5)]
    (item,) = part.checkpoints()
    assert item.step == 20 and np.array_equal(load(item.model.read_bytes())["w"], [[80, 4], [100, 5]])
    record = runfile.read(part)
    assert (record.requested_steps, record.steps, record.status) == (60, 20, "partial")
    assert record.plan == {"device": "cpu", "threads": 2} and record.folders == ["/plug-ins"]
    assert [(run.label, run.steps, run.status, run.streams) for run in record.runs] == [
        ("s0004", 20, "partial", {"init": 4, "order": 104}),
        ("s0005", 20, "partial", {"init": 5, "order": 105}),
    ]
    # What is there stays; what is not is added.
    carve.branch([runs[0], runs[1]], 20, target, 60, streams=streams)
    assert [found.root.name for found in target.shards()] == ["shard-0003-0003-1", "shard-0004-0005-2"]
    # From the newest checkpoint up to the step; where none is whole, nothing is laid.
    other = EnsemblePaths(outputs / "grokking" / "fork-2222222222")
    other.root.mkdir()
    carve.branch([runs[0]], 25, other, 60, streams={"s0003": {"init": 9}})
    record = runfile.read(other.shards()[0])
    assert (record.steps, record.runs[0].streams) == (20, {"init": 9})
    # Of a shard that kept no whole checkpoint up to the step none is made: its runs are trained from the start.
    shard.checkpoint(20).model.write_bytes(b"")
    for step in (19, 29):
        assert carve.kept_before(runs[0], step) == 0
        carve.branch([replace(runs[0], id="x/s0009")], step, target, 60, streams=streams)
    assert len(target.shards()) == 2


def test_runs_of_one_shard_go_together(outputs):
    shard = make(outputs, (0, 1, 2, 3, 4, 5))
    lone = make(outputs, (7,))
    ensemble = StoredEnsemble(shard.ensemble)

    def plan(*seeds: int) -> remove.Removal:
        (found,) = remove.plan([(ensemble, [run for run in ensemble.runs if run.seed in seeds])], outputs)
        return found

    some = plan(7)
    assert (some.whole, some.shards, some.folders, some.runs) == (
        False,
        [lone],
        [lone.root],
        [f"{DIGEST}/s0007"],
    )
    assert remove.size_of(some.folders) == sum(
        path.stat().st_size for path in lone.root.rglob("*") if path.is_file()
    )
    every = plan(0, 1, 2, 3, 4, 5, 7)
    assert every.whole and every.folders == [shard.ensemble.root]
    said = f"{DIGEST}: s0000, s0001 and s0002, s0003, s0004 ...share shard-0000-0005-6 and go together; "
    said += f"name them all, or the ensemble {DIGEST}"
    with pytest.raises(ConfigError) as caught:
        plan(0, 1)
    assert str(caught.value) == said
    with pytest.raises(ConfigError, match="s0000, s0001, s0002 and s0004, s0005 share"):
        plan(0, 1, 2, 3)
    remove.remove(some, outputs)
    assert not lone.root.exists() and shard.root.exists()
    with pytest.raises(StoreError, match="has changed since it was looked at; nothing of it was removed"):
        remove.remove(every, outputs)
    ensemble = StoredEnsemble(shard.ensemble)
    remove.remove(plan(0, 1, 2, 3, 4, 5), outputs)
    assert list(outputs.iterdir()) == []
    for where, words in (
        (outputs / "elsewhere", "is outside of"),
        (outputs / "grokking", "is no ensemble of"),
    ):
        with pytest.raises(ConfigError, match=words):
            remove.plan([(ensemble, [])], where)


def test_the_newest_attempt_of_a_run_counts_and_seeds_come_before_labels(outputs):
    make(outputs, (2,))
    shard = make(outputs, (2, 1), attempt=2)
    record = runfile.read(shard)
    record.runs.append(runfile.Run("a", None, {}, "done", 5, {"diverged_step": None}))
    runfile.write(shard, record)
    ensemble = StoredEnsemble(shard.ensemble)
    found = [(run.id, run.attempt, run.index, run.steps, run.diverged_step) for run in ensemble.runs]
    assert found == [
        (f"{DIGEST}/s0001", 2, 1, 45, None),
        (f"{DIGEST}/s0002", 2, 0, 15, None),
        (f"{DIGEST}/a", 2, 2, 5, None),
    ]
    assert (
        repr(ensemble) == f"StoredEnsemble({DIGEST}, grokking, some, 3 runs: 1 partial, 1 diverged, 1 done)"
        and ensemble.by_label["a"].seed is None
    )
    assert ensemble.parent is None and ensemble.names == []
    text = ensemble.paths.config.read_text()
    ensemble.paths.config.write_text(f"{text}parent: other@20\n")
    assert StoredEnsemble(ensemble.paths).parent == "other@20"
    for damage, said in (
        (text.replace("levels: {}", "levels: 1"), "levels is 1"),
        (text.replace("every: 10", "every: 0"), r"eval\.every is 0"),
        (text.replace("levels:", "level:"), "it is cut off, or no configuration"),
        (text[:-1], "it is cut off, or no configuration"),
        (text.replace("eval:\n  every: 10", "eval:"), "it has no section eval"),
    ):
        ensemble.paths.config.write_text(damage)
        with pytest.raises(StoreError, match=f"config.yaml is damaged: {said}"):
            _ = StoredEnsemble(ensemble.paths).config


def test_stored_runs_are_done_go_on_or_are_new(outputs):
    def lay(steps: int, seeds: str = "0..5", **keys: Any) -> Layout:
        words = ["task=grokking", f"seed={seeds}", f"train.steps={steps}"]
        (request,) = read_command(words, outputs=str(outputs)).requests
        plan = Plan(1, 1, (2, 1), "", bits="hold")
        return lay_out(
            OutputPaths(outputs), request, lambda count: replace(plan, widths=plan.widths[:count]), **keys
        )

    paths = lay(100, write=False).paths
    assert not paths.root.exists()
    for seed, (status, steps) in enumerate(
        [("done", 100), ("done", 50), ("partial", 100), ("partial", 120), ("diverged", 7)]
    ):
        run = runfile.Run(f"s{seed:04d}", seed, {}, status, steps)
        shard = paths.shard(runfile.folder_name([run], 1))
        shard.root.mkdir(parents=True)
        runfile.write(shard, runfile.Shard([run], 200, status=status, steps=steps, attempts=[{}]))
    dry = lay(100, write=False)
    assert (
        dry.done == ["s0000", "s0003", "s0004"] and dry.resumed == ["s0001", "s0002"] and dry.new == ["s0005"]
    )
    assert dry.cut_off == {"s0003": (120, 200)} and dry.stored_steps == {"s0001": 50, "s0002": 100}
    assert dry.steps_left() == 150 and not paths.config.exists()
    assert [shard.root.name for shard in dry.work] == [
        "shard-0001-0001-1",
        "shard-0002-0002-1",
        "shard-0005-0005-1",
    ]
    found = lay(100)
    assert found.warnings[-1].endswith("was missing, damaged or another's; it is written again")
    assert [(one.requested_steps, one.status) for one in map(runfile.read, found.work)] == [
        (100, "partial"),
        (100, "partial"),
        (100, "planned"),
    ]
    made = runfile.read(found.work[2])
    assert made.plan == {"bits": "hold"} and made.runs[0].streams == dict.fromkeys(made.runs[0].streams, 5)
    # Another attempt of them all, two and one.
    forced = lay(100, "0..2", force=True)
    assert [shard.root.name for shard in forced.work] == ["shard-0000-0001-2-a2", "shard-0002-0002-1-a2"]
    assert forced.new == ["s0000", "s0001", "s0002"] and runfile.read(forced.work[0]).attempt == 2
    # Of one that is done the series have to be what was vouched for.
    done = paths.shard("shard-0004-0004-1")
    record = runfile.read(done)
    record.marks = {"every-10": [3, 5]}
    runfile.write(done, record)
    hurt = lay(100, "4")
    assert hurt.resumed == ["s0004"] and hurt.warnings == [
        f"{done.series('every-10')} is damaged; it is trained again from its newest whole checkpoint"
    ]


def test_what_is_damaged_or_a_link_is_left_alone_and_said(outputs, tmp_path):
    def lay(seeds: str, steps: int = 10) -> Layout:
        (request,) = read_command(["task=grokking", f"seed={seeds}", f"train.steps={steps}"]).requests
        return lay_out(OutputPaths(outputs), request, lambda count: Plan(1, 1, (count,) if count else (), ""))

    (gaps,) = lay("1,5,9").work
    gaps.run.write_text("{")
    found = lay("1..9")
    assert (found.new, found.damaged) == (
        ["s0002", "s0003", "s0004", "s0005", "s0006", "s0007", "s0008"],
        [gaps],
    )
    rest = "of its seeds s0001 and s0009 can be told and left alone (remove the folder to train all of them again)"
    assert found.warnings[-1].startswith(f"{gaps.run} is damaged: ") and found.warnings[-1].endswith(
        f"; {rest}"
    )
    gaps.root.rename(gaps.root.with_name("shard-x-1"))
    assert "; of its seeds none can be told and left alone (remove" in lay("1").warnings[-1]
    (shard,) = lay("20").work
    (tmp_path / "log").write_text("")
    shard.log.symlink_to(tmp_path / "log")
    with pytest.raises(StoreError, match=r"log\.txt is a link; dynalab reads through links, and writes"):
        lay("20", 30)
    assert runfile.read(shard).requested_steps == 10
    shard.log.unlink()
    lay("20", 30)
    assert runfile.read(shard).requested_steps == 30


def test_what_is_left_to_train_is_of_new_runs_and_of_those_that_go_on(outputs):
    layout = Layout(SimpleNamespace(steps=100), EnsemblePaths(outputs))  # type: ignore[arg-type]
    layout.new, layout.resumed, layout.done = ["a", "b"], ["c", "d"], ["e"]
    layout.stored_steps = {"c": 40, "d": 120}
    assert layout.steps_left() == 260


def test_what_a_lock_file_says():
    me = Owner.me()
    assert Owner.from_bytes(me.to_bytes()) == Owner.from_bytes(me.to_bytes(123)) == me
    assert len(me.to_bytes()) == len(me.to_bytes(9_999_999_999)) and me.lives() is True
    assert me.token != Owner.me().token
    for pid, whole in ((0, False), (1, True), (2**31 - 1, True), (2**31, False), (True, False), (1.0, False)):
        assert (Owner.from_bytes(replace(me, pid=pid).to_bytes()) is not None) is whole, pid
    assert Owner.from_bytes(replace(me, host=1).to_bytes()) is None  # type: ignore[arg-type]
    assert replace(me, host="a\n\x1b" + "b" * 70, pid=5).said == f"process 5 on a{'b' * 63}"
    assert replace(me, boot="other").lives() is None and replace(me, space="other").lives() is None
    assert replace(me, boot="", host="other").lives() is None and replace(me, started="1").lives() is False
    assert replace(me, boot="", started="1").lives() is None
    # One that ended and was not waited for does not live.
    ended = subprocess.Popen(["true"])
    started = Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[19]
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert replace(me, pid=ended.pid, started=started).lives() is False
    ended.wait()


def test_who_is_locked_out_is_told_by_whom(tmp_path):
    path, me = tmp_path / "lock", Owner.me()
    with Lock(path, beats=False) as held:
        with pytest.raises(Locked) as caught, Lock(path, beats=False):
            pass
        said = f"{tmp_path} is being written by {me.said}; wait for it, or take it over with train --steal"
        assert str(caught.value) == said and held.mine()
        path.write_bytes(me.to_bytes())
        with pytest.raises(Locked) as caught:
            held.require()
        assert (
            str(caught.value) == f"{tmp_path} was taken over by {me.said}; this process stops without writing"
        )
        path.unlink()
        with pytest.raises(Locked) as caught:
            held.require()
        assert (
            str(caught.value) == f"{tmp_path} was removed or taken over; this process stops without writing"
        )
