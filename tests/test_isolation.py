"""What one worker's death costs: its shard's time since the last checkpoint, and nothing of anyone else's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fates
import pytest
from stored import assert_same, bits, only_ensemble

from dynalab import train
from dynalab.errors import StoreError
from dynalab.launch import crash
from dynalab.store.carve import split
from dynalab.store.paths import EnsemblePaths
from dynalab.store.reader import Ensemble

WORDS = ["launcher=local", "compute.workers=1", "train.steps=50", "checkpoint.every=10", "snapshots.every=5"]


def statuses(answer) -> dict[int, str]:
    return {run["seed"]: run["status"] for run in answer.json["ensembles"][0]["runs"]}


def test_crashes_are_reported_with_their_last_words_and_the_others_finish(here, tmp_path):
    fate = """
if seeds == [1]: ctypes.string_at(0)
if seeds == [2] and step == 35: raise ValueError("no such luck")
if seeds == [3] and step == 35: print("leaving now", flush=True); os._exit(7)
"""
    words = [*fates.write(tmp_path / "mine", fate), *WORDS]
    answer = here("train", *words, "seed=0..4", "compute.width=1", "--json")
    assert answer.code == 3, answer.err
    assert statuses(answer) == {0: "done", 1: "crashed", 2: "failed", 3: "crashed", 4: "done"}
    failed = answer.err.split("failed: ")[1:]
    for seed, words in {
        1: ("SIGSEGV", "Fatal Python error: Segmentation fault", "string_at", "log.txt"),
        2: ("ValueError: no such luck", "fated.py:", "in meet"),
        3: ("exit code 7", "leaving now", "log.txt"),
    }.items():
        (said,) = [part for part in failed if f"shard-{seed:04d}-{seed:04d}-1" in part.splitlines()[0]]
        assert all(word in said for word in (*words, "error.txt")), said
        assert len(said.splitlines()) <= 8, said


def test_a_shard_killed_for_memory_is_halved_once_and_goes_on_with_the_same_bits(
    here, outputs, tmp_path, monkeypatch
):
    fate = """
short = len(seeds) >= 4 or seeds == [0, 1] and os.environ.get("DEADLY")
if step == 35 and short: os.kill(os.getpid(), signal.SIGKILL)
"""
    fated = fates.write(tmp_path / "mine", fate)
    answer = here("train", *fated, *WORDS, "seed=0..4", "compute.width=5", "--json", DEADLY="1")
    assert answer.code == 3, answer.err
    assert statuses(answer) == {0: "crashed", 1: "crashed", 2: "done", 3: "done", 4: "done"}
    # As it happens, and at the end: what is known, and what is only probable.
    known = "the worker was killed by SIGKILL, not by dynalab; probably out of memory. Its seeds"
    assert answer.err.count(known) == 2 and "half the width" in answer.err
    ensemble = only_ensemble(outputs)
    shards = sorted(path.name for path in ensemble.iterdir() if path.is_dir())
    assert shards == ["shard-0000-0001-2", "shard-0002-0004-3"]
    assert "SIGKILL" in (ensemble / shards[0] / "error.txt").read_text()
    monkeypatch.setenv("DYNALAB_PATH", fated[-1])
    words = [*fated[:-2], *WORDS, "launcher=inline", "seed=0..4"]
    train(words, outputs=outputs)
    train([*words, "compute.width=3"], outputs=tmp_path / "whole")
    for shard in shards:
        assert "resumed at step 30" in (ensemble / shard / "log.txt").read_text(), "the checkpoint was lost"
    assert_same(
        bits(ensemble), bits(only_ensemble(tmp_path / "whole")), [f"s{seed:04d}" for seed in range(5)]
    )


def test_a_shard_that_a_card_has_no_memory_for_is_halved_until_it_fits(here, outputs, tmp_path):
    fate = """
import torch
if step == 35 and len(seeds) > 2: raise torch.OutOfMemoryError("CUDA out of memory")
"""
    words = [*fates.write(tmp_path / "mine", fate), *WORDS]
    answer = here("train", *words, "seed=0..4", "compute.width=5", "--json")
    assert answer.code == 0, answer.err
    assert set(statuses(answer).values()) == {"done"}
    assert (
        answer.err.count("the worker was out of the card's memory. Its seeds went on at half the width") >= 2
    )
    shards = sorted(path.name for path in only_ensemble(outputs).iterdir() if path.is_dir())
    assert shards == ["shard-0000-0001-2", "shard-0002-0002-1", "shard-0003-0004-2"]


def test_what_the_kernel_counts_tells_its_memory_killer_from_another_kill(tmp_path, monkeypatch):
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 3\noom_kill 7\n")
    monkeypatch.setattr(crash, "_VMSTAT", counter)
    monkeypatch.setattr(crash, "_GROUPS", tmp_path / "none")
    kills = crash.MemoryKills()
    assert crash.cause(-9, kills) == ("killed by SIGKILL, not by dynalab; probably out of memory", True)
    counter.write_text("pgfault 3\noom_kill 8\n")
    how, memory = crash.cause(-9, kills)
    assert memory and "the kernel counted" in how and "probably" not in how
    # One kill explains one death; and what we killed ourselves, or what crashed, explains itself.
    assert "probably" in crash.cause(-9, kills)[0]
    assert crash.cause(-9, kills, ours=True) == ("killed by SIGKILL", False)
    assert crash.cause(-11, kills) == ("killed by SIGSEGV", False)
    assert crash.cause(0, kills)[1] is False


def test_control_groups_of_both_versions_are_read(tmp_path, monkeypatch):
    mount, groups = tmp_path / "cgroup", tmp_path / "groups"
    for place, text in {
        "job/memory.events": "oom 4\noom_kill 2\n",
        "memory/job/memory.oom_control": "oom_kill 5\n",
    }.items():
        path = mount / place
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(crash, "_MOUNT", mount)
    monkeypatch.setattr(crash, "_GROUPS", groups)
    monkeypatch.setattr(crash, "_VMSTAT", tmp_path / "none")
    for line, place, more in (
        ("0::/job", "job/memory.events", 3),
        ("4:cpu,memory:/job", "memory/job/memory.oom_control", 6),
    ):
        groups.write_text(f"{line}\n")
        kills = crash.MemoryKills()
        assert not kills.explain()
        (mount / place).write_text(f"oom_kill {more}\n")
        assert kills.explain() and not kills.explain()


SMALL = [
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "launcher=inline",
    "compute.width=5",
    "seed=0..4",
]
SMALL += [
    "checkpoint.every=4",
    "snapshots.every=5",
    "eval.every=2",
    "probe.weights.every=3",
    "checkpoint.keep=all",
]


def begun(folder: Path, steps: int = 10) -> EnsemblePaths:
    train([*SMALL, f"train.steps={steps}"], outputs=folder)
    return EnsemblePaths(only_ensemble(folder))


def test_a_split_shard_holds_what_it_held_and_goes_on_alike(tmp_path):
    whole = begun(tmp_path / "whole", 20)
    ensemble = begun(tmp_path / "split")
    before = bits(ensemble.root)
    (shard,) = ensemble.shards()
    checkpoints, snapshots = [item.step for item in shard.checkpoints()], sorted(shard.snapshots())
    parts = split(shard, 3)
    assert [part.root.name for part in parts] == [
        "shard-0000-0000-1",
        "shard-0001-0002-2",
        "shard-0003-0004-2",
    ]
    assert ensemble.shards() == parts
    assert_same(before, bits(ensemble.root), before)
    for part in parts:
        assert [item.step for item in part.checkpoints()] == checkpoints
        assert sorted(part.snapshots()) == snapshots
    begun(tmp_path / "split", 20)
    assert sorted(ensemble.shards()[0].snapshots()) == [0, 5, 10, 15, 20]
    assert_same(bits(whole.root), bits(ensemble.root), before)
    weights = [item.model(4, 5).state_dict() for item in (Ensemble(ensemble), Ensemble(whole))]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.parametrize("moment", ["failing", "killed while building", "killed while removing"])
def test_a_split_that_is_cut_off_loses_nothing(tmp_path, moment, monkeypatch):
    ensemble = begun(tmp_path)
    before = bits(ensemble.root, step=10)
    (shard,) = ensemble.shards()
    if moment == "failing":
        monkeypatch.setattr(
            "dynalab.store.carve.tensors_of", lambda *_: (_ for _ in ()).throw(StoreError("full"))
        )
        with pytest.raises(StoreError, match="full"):
            split(shard)
        assert ensemble.shards() == [shard] and not shard.split.exists()
        return
    copy = tmp_path / "copy"
    shutil.copytree(shard.root, copy)
    split(shard)
    if moment == "killed while building":
        (copy / "split.json").write_text(json.dumps({"parts": ["shard-0000-0001-2", "shard-0002-0004-3"]}))
        copy.rename(shard.root)
        assert ensemble.shards() == [shard]
        shutil.rmtree(ensemble.root / "shard-0002-0004-3")
    else:
        copy.rename(shard.aside)
    begun(tmp_path, 12)
    assert not list(ensemble.root.glob(".shard*")) and not list(ensemble.root.glob("*/split.json"))
    assert len(ensemble.shards()) == (1 if moment == "killed while building" else 2)
    assert_same(before, bits(ensemble.root, step=10), before)
