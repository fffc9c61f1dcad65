"""Blocks, what a probe records beside its columns: through recording, resuming, forking, splitting and reading."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save
from stored import bits, difference, only_ensemble
from test_forced import store

import dynalab
from dynalab.config.command import read_command
from dynalab.core.streams import Streams
from dynalab.errors import ConfigError, StoreError
from dynalab.probes.examples import packed
from dynalab.store import checkpoint, runfile, series
from dynalab.store import difference as differences
from dynalab.store.carve import branch, split
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.reader import Ensemble
from dynalab.store.series import Mark
from dynalab.store.table import refresh
from dynalab.training import recorder as recorders
from dynalab.training.loop import Loop
from dynalab.training.recorder import Recorder

NAME = "block-marks"
TINY = ["task=grokking", "task.modulus=11", "model.width=8", "train.steps=40", "launcher=inline", "seed=0..1"]
FOLLOWED = [*TINY, "probes=[gradients,examples]", "probe.examples.every=20"]
WAITING = [-1, -1, -1]


def record(
    paths: ShardPaths, marks: dict[str, Mark], first: int, last: int, bad: list[int] = WAITING
) -> dict[str, Mark]:
    """Record rows of three runs, and a companion that is none; return the marks."""
    recorder, wide = Recorder(paths, 3, marks), torch.tensor([*bad, -1])
    for step in range(first, last + 1, 10):
        recorder.add("every-10", step, {"train_loss": torch.full((4,), float(step))})
        if step % 20 == 0:
            recorder.add(NAME, step, {"marks": blocks_at(step)})
        recorder.flush(wide)
    found = recorder.sync()
    recorder.close()
    return found


def blocks_at(step: int) -> torch.Tensor:
    return (torch.arange(8, dtype=torch.int32).view(4, 2) + 1) * (step + 1)


def rows_of(paths: ShardPaths) -> tuple[list[int], np.ndarray]:
    rows = series.read(paths.series(NAME))
    return rows["step"].tolist(), rows["marks"]


def test_a_kill_in_the_middle_leaves_the_rows_that_one_way_has(tmp_path):
    whole, cut = ShardPaths(tmp_path / "whole"), ShardPaths(tmp_path / "cut")
    record(whole, {}, 0, 80)
    marks = record(cut, {}, 0, 30)
    record(cut, {name: Mark(mark.rows, mark.crc) for name, mark in marks.items()}, 40, 60)
    # Killed: the last rows are vouched for by nothing, and half of one is there.
    with cut.series(NAME).open("ab") as file:
        file.write(b"half")
    again = record(cut, marks, 40, 80)
    steps, values = rows_of(cut)
    assert steps == [0, 20, 40, 60, 80] and values.dtype == np.int32
    np.testing.assert_array_equal(values, rows_of(whole)[1])
    np.testing.assert_array_equal(values[2], blocks_at(40)[:3])
    assert again[NAME].rows == 5 and series.checksum(cut.series(NAME), 5) == again[NAME].crc
    # What no checkpoint vouches for is gone, at once.
    Recorder(cut, 3, {}).close()
    assert cut.cadences() == []


def test_what_is_kept_on_the_device_is_bounded_in_bytes(tmp_path, monkeypatch):
    recorder = Recorder(ShardPaths(tmp_path), 2, {})
    monkeypatch.setattr(recorders, "MOST_SECONDS", 1e9)
    recorder.add("block-wide", 0, {"wide": torch.zeros(2, recorders.MOST_BYTES // 4, dtype=torch.uint8)})
    assert not recorder.due()
    recorder.add("block-wide", 1, {"wide": torch.zeros(2, recorders.MOST_BYTES // 4, dtype=torch.uint8)})
    assert recorder.due()
    recorder.flush(torch.tensor([-1, -1]))
    recorder.close()
    assert not recorder.due()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a shard of three runs, cut off at step 40 with rows beyond its checkpoint; one diverged at 20."""
    outputs = tmp_path_factory.mktemp("made")
    store(outputs, 1, 3)
    (root,) = outputs.glob("grokking/*")
    (shard,) = EnsemblePaths(root).shards()
    shutil.rmtree(shard.series_folder)
    marks = record(shard, {}, 0, 40, [-1, 20, -1])
    record(shard, marks, 50, 80, [-1, 20, -1])
    tensors = save({"w": np.arange(3.0)})
    checkpoint.save_bytes(shard, CheckpointState(40, marks), tensors, tensors)
    document = runfile.read(shard)
    document.settle("partial")
    document.runs[1].status, document.runs[1].steps = "diverged", 20
    document.runs[1].summary = {"diverged_step": 20}
    document.steps, document.marks = 40, {name: [mark.rows, mark.crc] for name, mark in marks.items()}
    runfile.write(shard, document)
    return outputs


@pytest.fixture
def begun(tmp_path: Path, made: Path) -> tuple[EnsemblePaths, ShardPaths]:
    """The shard, and its ensemble, for one's own use."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (root,) = tmp_path.glob("grokking/*")
    paths = EnsemblePaths(root)
    return paths, paths.shards()[0]


def test_a_run_that_diverged_has_no_block_from_there_on(begun):
    paths, shard = begun
    assert not rows_of(shard)[1][1:, 1].any() and rows_of(shard)[1][:, [0, 2]].all()
    group = Ensemble(paths).group(("partial", "diverged"))
    assert [run.blocks["marks"].steps.tolist() for run in group.runs] == [
        [0, 20, 40, 60, 80],
        [0],
        [0, 20, 40, 60, 80],
    ]
    np.testing.assert_array_equal(group.runs[2].blocks["marks"].values[3], blocks_at(60)[2])
    assert group.until(50).runs[0].blocks["marks"].steps.tolist() == [0, 20, 40]
    assert group.runs[0].at_multiples(40).blocks["marks"].steps.tolist() == [0, 40, 80]


def test_parts_and_forks_have_the_blocks_of_their_runs(tmp_path, begun):
    ensemble, shard = begun
    fork = EnsemblePaths(tmp_path / "grokking" / "fork-0123456789")
    fork.root.mkdir()
    branch([Ensemble(ensemble).runs[2]], 40, fork, 80, streams={"s0002": {"init": 2}})
    (other,) = fork.shards()
    steps, values = rows_of(other)
    assert steps == [0, 20, 40] and values.shape == (3, 1, 2)
    np.testing.assert_array_equal(values[1, 0], blocks_at(20)[2])
    first, second = split(shard, 2)
    np.testing.assert_array_equal(rows_of(first)[1][4], blocks_at(80)[:1])
    np.testing.assert_array_equal(rows_of(second)[1][3, 1], blocks_at(60)[2])
    for part in (other, first, second):
        found, state, warnings = checkpoint.newest_whole(part)
        assert found is not None and state is not None and not warnings and state.marks[NAME].rows == 3


def test_who_reads_metrics_never_sees_a_block(begun):
    paths, _ = begun
    ensemble = Ensemble(paths)
    assert (
        ensemble.cadences() == ["every-10"]
        and ensemble.metrics == ["train_loss"]
        and ensemble.blocks == ["marks"]
    )
    refresh(paths)
    assert [path.name for path in paths.root.glob("*.parquet")] == ["metrics.parquet"]
    assert [*pd.read_parquet(paths.metrics())] == ["run", "seed", "step", "train_loss"] == [*ensemble.frame()]
    with pytest.raises(ConfigError, match=r"mark: no block of .*did you mean marks"):
        ensemble.block(ensemble.runs[0], "mark")


@pytest.mark.parametrize(
    "harm",
    [
        lambda rows: rows[["step", "wall"]],
        lambda rows: rows.astype([("step", "<i8"), ("wall", "<f8"), ("marks", "<i4", (2, 2))]),
        lambda rows: rows.astype([("step", "<i8"), ("wall", "<f8"), ("other", "<i4", (3, 2))]),
        lambda rows: rows[:2],
    ],
)
def test_blocks_that_are_not_of_the_runs_are_damage(begun, harm):
    paths, shard = begun
    document = runfile.read(shard)
    document.settle("done")
    runfile.write(shard, document)
    rows = series.read(shard.series(NAME))
    whole = np.zeros(
        len(harm(rows)), harm(rows[:0]).dtype if harm(rows[:0]).dtype != rows.dtype else rows.dtype
    )
    whole["step"] = rows["step"][: len(whole)]
    series.replace(shard.series(NAME), whole)
    ensemble = Ensemble(paths)
    with pytest.raises(StoreError, match="is damaged"):
        ensemble.block(ensemble.runs[0], "marks")
    assert len(ensemble.frame())


# The probe `examples` ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        # More held-out examples than a batch of evaluation has.
        ["task=grokking", "task.modulus=43", "model.width=8"],
        ["task=digits", "model=mlp", "model.hidden=[6]", "train.batch_size=64", "eval.size=100"],
        ["task=digits", "model=mlp", "model.hidden=[6]", "probe.examples.size=13"],
        ["task=parity", "task.n=10", "model.hidden=[8]", "train.batch_size=16"],
        ["task=parity", "task.n=10", "task.samples=40", "model.hidden=[8]", "train.batch_size=full"],
    ],
    ids=" ".join,
)
def test_the_share_of_bits_is_the_recorded_accuracy_and_one_pass_gives_both(one_thread, words, monkeypatch):
    (request,) = read_command(
        [*words, "probes=[examples]", "eval.every=1", "probe.examples.every=1"]
    ).requests
    loop = Loop(request.config, [Streams.from_seed(seed) for seed in (0, 1, 2)], 9, torch.device("cpu"))
    batches = loop.data.eval_batches("test")
    n = sum(batch.size for batch in batches)
    seen = []
    real = loop.stack.forward
    monkeypatch.setattr(loop.stack, "forward", lambda *args, **keys: seen.append(1) or real(*args, **keys))
    sets = []
    for _ in range(3):
        seen.clear()
        rows = loop.rows()
        assert len(seen) <= len(batches) + len(loop.data.eval_batches("train"))
        row, marks = rows["every-1"], rows["block-examples"]["examples"]
        followed = int(dict(request.config.probe)["examples"].size or n)
        found = np.unpackbits(marks.numpy(), axis=1)
        assert found.shape[1] == -(-followed // 8) * 8 and not found[:, followed:].any()
        if followed == n:
            np.testing.assert_allclose(found.sum(1) / n, row["test_accuracy"].numpy(), rtol=0, atol=1e-12)
            assert 0 < found.sum() < found.size
        else:
            right = loop.task.correct(
                loop.stack.forward(batches[0].inputs, loop.updates.evaluated()), batches[0]
            )
            np.testing.assert_array_equal(found[:, :followed], right[:, :followed])
        sets.append(rows["block-examples_set"]["examples_set"].tolist())
        assert sets[-1][0][1] == followed
        loop.update()
    assert sets[0] == sets[1] == sets[2] and len({tuple(item) for item in sets[0]}) == 3


def test_bits_are_packed_as_numpy_packs_them():
    some = np.random.default_rng(0).random((3, 21)) < 0.5
    np.testing.assert_array_equal(packed(torch.from_numpy(some)), np.packbits(some, axis=1))


def test_one_split_is_one_set_of_examples(one_thread):
    def sets(*words: str, **fixed: int) -> list[int]:
        (request,) = read_command([*TINY, "probes=[examples]", *words]).requests
        streams = [Streams.from_seed(seed, **fixed) for seed in (0, 1)]
        loop = Loop(request.config, streams, 9, torch.device("cpu"))
        return loop.rows()["block-examples_set"]["examples_set"].tolist()

    same, own, fewer = sets(split=0), sets(), sets("eval.size=30", split=0)
    assert same[0] == same[1] == own[0] != own[1] and fewer[0] == fewer[1] != same[0]


@pytest.mark.parametrize("task", ["regression", "mlm"])
def test_a_task_without_right_and_wrong_is_refused_in_a_line(here, task, outputs):
    words = [f"task={task}", "train.steps=2", "probes=[weights,examples]", "compute.workers=1"]
    answer = here("train", *words)
    assert answer.code == 2 and f"those of task={task} are not; leave it out with probes=" in answer.err


def test_it_goes_on_to_the_same_bytes_and_changes_no_other_series(tmp_path):
    for name, words in {
        "straight": FOLLOWED,
        "without": [*TINY, "probes=[gradients]"],
        "twice": [*FOLLOWED, "train.steps=30"],
    }.items():
        dynalab.train(words, outputs=tmp_path / name)
    dynalab.train(FOLLOWED, outputs=tmp_path / "twice")
    straight, twice, without = (
        bits(only_ensemble(tmp_path / name)) for name in ("straight", "twice", "without")
    )
    assert straight == twice
    blocks = {f"block-{block}/{name}" for block in ("examples", "examples_set") for name in ("step", block)}
    assert {*difference(straight["s0000"], without["s0000"])} == blocks


def test_a_fork_measures_its_own_step_anew_and_another_form_begins_there(tmp_path):
    (parent,) = dynalab.train(FOLLOWED, outputs=tmp_path)

    def forked(*words: str) -> Ensemble:
        return dynalab.fork(parent.id, 20, [*words, "launcher=inline"], outputs=tmp_path)[0]

    def rows(ensemble: Ensemble) -> tuple[list[int], np.ndarray]:
        found = ensemble.group().runs[1].blocks["examples"]
        return found.steps.tolist(), found.values

    same, edited = forked(), forked("edit=perturb", "edit.scale=1.0")
    assert bits(same.path) == bits(parent.path)
    assert rows(edited)[0] == [0, 20, 40]
    differ = (rows(edited)[1] != rows(parent)[1]).any(1)
    assert differ.tolist()[:2] == [False, True]
    few = forked("probe.examples.size=20")
    assert rows(few)[0] == [20, 40] and rows(few)[1].shape == (2, 3)
    found = differences.divergence(parent, parent.runs, edited, edited.runs)["metrics"]
    assert {"examples": 20, "examples_set": None}.items() <= {
        row["metric"]: row["step"] for row in found
    }.items()
    # A single bit of a block is a difference of the runs.
    shard = same.runs[0].shard
    harmed = series.read(shard.series("block-examples")).copy()
    harmed["examples"][1, 0, 0] ^= 1
    mark = series.replace(shard.series("block-examples"), harmed)
    document = runfile.read(shard)
    document.marks["block-examples"] = [mark.rows, mark.crc]
    runfile.write(shard, document)
    again = Ensemble(same.path)
    assert differences.series(parent, parent.runs, again, again.runs) == {
        "shared": 2, "equal": 1, "differing": ["s0000"], "largest": None,
    }  # fmt: skip


def test_a_damaged_block_is_trained_again_to_the_same_bytes(here, outputs):
    words = [*FOLLOWED, "checkpoint.every=20", "checkpoint.keep=all", "compute.workers=1"]
    assert here("train", *words).code == 0
    ensemble = only_ensemble(outputs)
    before = bits(ensemble)
    path = next(ensemble.glob("shard-*/series/block-examples.npy"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    answer = here("train", *words)
    assert answer.code == 0 and "block-examples.npy is damaged" in answer.err
    assert bits(ensemble) == before


PROBE = """
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    name: str = "signs"
    every: int | None = None
    at: Any = None


def build(config, network):
    from dynalab.probes.base import Block

    class Signs:
        needs = frozenset()
        blocks = {"signs": Block("int8", (2, 3))}

        def measure(self, state):
            first = next(iter(state.params.values())).flatten(1)[:, :6]
            return {"positive": (first > 0).double().mean(1), "signs": first.sign().DTYPE().view(-1, 2, 3)}

    return Signs()
"""


@pytest.mark.parametrize("dtype", ["char", "short"])
def test_a_plugin_has_blocks_too(here, tmp_path, outputs, dtype):
    folder = tmp_path / "mine" / "probe"
    folder.mkdir(parents=True)
    (folder / "signs.py").write_text(PROBE.replace("DTYPE", dtype))
    (folder / "signs.yaml").write_text("name: signs\nevery: null\nat: null\n")
    words = [*TINY, "probes=[signs]", "probe.signs.every=20", "--config-dir", str(folder.parent)]
    answer = here("train", *words)
    if dtype == "short":
        assert answer.code == 2 and "signs.py" in answer.err and "type int8, one block a run" in answer.err
        return
    assert answer.code == 0, answer.err
    (run, other) = dynalab.load("@last").group().runs
    assert run.blocks["signs"].values.shape == (3, 2, 3) and run.blocks["signs"].values.dtype == np.int8
    assert [*run.blocks] == ["signs"] and run.series["positive"].steps.tolist() == [0, 20, 40]
    shares = (other.blocks["signs"].values > 0).mean((1, 2))
    np.testing.assert_array_equal(shares, other.series["positive"].values)
