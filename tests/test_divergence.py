"""A run that diverges: frozen, dated, said why, and without a trace in its siblings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stored import assert_same, bits, only_ensemble
from torch import nn

from dynalab import train
from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.store import series
from dynalab.store.paths import ShardPaths
from dynalab.training import session
from dynalab.training.loop import Loop
from dynalab.training.recorder import Recorder
from dynalab.training.streams import Streams

WORDS = [
    "compute.compile=false",  # for `Poisoned` looks on at every update
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "eval.every=4",
    "snapshots.every=10",
    "launcher=inline",
]

pytestmark = pytest.mark.usefixtures("one_thread")


class Poisoned(Loop):
    """A loop in which the run of seed 1 cannot be saved from the update 10 -> 11 on."""

    def __init__(self, config, streams, *args, **keys) -> None:
        super().__init__(config, streams, *args, **keys)
        self.places = [place for place, stream in enumerate(streams) if stream.init == 1]

    def update(self) -> None:
        if self.step == 10:
            with torch.no_grad():
                for place in self.places:
                    self.params[0][place] = torch.inf
        super().update()


def test_a_diverged_run_is_frozen_and_its_siblings_do_not_notice(tmp_path, monkeypatch):
    words = [*WORDS, "optimizer=lookahead", "compute.width=3"]
    train([*words, "seed=0..2", "train.steps=90"], outputs=tmp_path / "healthy")
    healthy = bits(only_ensemble(tmp_path / "healthy"))
    monkeypatch.setattr(session, "Loop", Poisoned)
    (ensemble,) = train([*words, "seed=0..2", "train.steps=90"], outputs=tmp_path / "whole")
    for steps in (14, 90):
        train([*words, "seed=0..2", f"train.steps={steps}"], outputs=tmp_path / "pieces")
    found, pieces = (bits(only_ensemble(tmp_path / name)) for name in ("whole", "pieces"))
    assert_same(found, healthy, ["s0000", "s0002"])
    assert_same(found, pieces, found)
    # In run.json and in the log alike.
    (root,) = ensemble.path.glob("shard-*")
    record, log = json.loads((root / "run.json").read_text()), (root / "log.txt").read_text()
    assert [run["status"] for run in record["runs"]] == ["done", "diverged", "done"]
    assert record["runs"][1]["summary"]["diverged_step"] == 11 and "s0001 diverged at step 11: " in log
    # What is kept is finite; from the divergence on it is what was kept before.
    kept = {int(path.stem[5:]): load_file(path) for path in sorted((root / "snapshots").iterdir())}
    assert list(kept) == list(range(0, 91, 10))
    assert all(bool(tensor.isfinite().all()) for state in kept.values() for tensor in state.values())
    for step in (20, 60, 90):
        for name, tensor in kept[step].items():
            assert torch.equal(tensor[1], kept[10][name][1]) and not torch.equal(tensor[0], kept[10][name][0])
    last = max((root / "checkpoints").glob("step-*[0-9]"))
    for name, tensor in {
        **load_file(last / "model.safetensors"),
        **load_file(last / "optim.safetensors"),
    }.items():
        assert not tensor.dim() or name.startswith("loop/") or bool(tensor.isfinite().all()), name
    with pytest.raises(ConfigError, match=r"s0001 diverged at step 11: there are no weights of step 20"):
        ensemble.model(1, 20)
    assert ensemble.model(0, 90) is not None and ensemble.model(1, 10) is not None


def test_what_is_lost_costs_nothing_and_ends_when_all_is(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Loop", Poisoned)
    (ensemble,) = train([*WORDS, "seed=1", "train.steps=9000"], outputs=tmp_path)
    (run,) = ensemble.runs
    assert (run.status, run.steps, run.record.steps) == ("diverged", 11, 64)
    (request,) = read_command([*WORDS, "optimizer=sgd"]).requests
    loop = Poisoned(request.config, [Streams.from_seed(s) for s in (0, 1)], 200, torch.device("cpu"))
    for _ in range(130):
        loop.update()
    assert loop.lost(2) == [1] and not loop.updates.are_over
    assert all(bool((param[1] == 0).all()) and bool((param[0] != 0).any()) for param in loop.params)


def test_the_row_of_divergence_is_not_a_number(tmp_path):
    paths = ShardPaths(tmp_path / "shard-0000-0001-2")
    paths.root.mkdir()
    recorder = Recorder(paths, 1, {})
    for step in range(3):
        recorder.add("every-1", step, {"a": torch.ones(1)})
    recorder.flush(torch.tensor([1]))
    recorder.close()
    assert np.isnan(series.read(paths.series("every-1"))["a"][:, 0]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "words", [["optimizer=adam"], ["optimizer=lookahead", "optimizer.inner=adamw"]], ids=" ".join
)
def test_an_eps_of_0_is_named_where_it_divides_0_by_0(tmp_path, words):
    # A symbol that is in no training example has gradients of 0.
    words = [*WORDS, *words, "optimizer.eps=0", "task.train_fraction=0.05", "seed=0", "train.steps=70"]
    with pytest.warns(UserWarning, match="optimizer.eps=0 divides 0 by 0"):
        (ensemble,) = train(words, outputs=tmp_path)
    (root,) = ensemble.path.glob("shard-*")
    step = ensemble.runs[0].diverged_step
    assert (
        step
        and f"s0000 diverged at step {step}: optimizer.eps=0 divides 0 by 0" in (root / "log.txt").read_text()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=si_mlp", "train.batch_size=7"], "50 training examples leave a last batch of 1 example"),
        (["model=si_mlp", "train.batch_size=7", "train.accumulate=8", "train.steps=1"], "last batch of 1"),
        (["model=si_mlp", "train.batch_size=1"], "train.batch_size=1: batches of 1 example"),
        (["model=si_mlp", "task.n_train=1"], "batches of 1 example"),
        (["model=resnet18", "train.batch_size=49"], "model=resnet18"),
        (["model=si_mlp", "train.batch_size=7", "train.steps=7"], None),
        (["model=si_mlp", "train.batch_size=8"], None),
        (["model=resnet18", "train.batch_size=49", "model.norm=layer"], None),
        (["model=resnet20", "train.batch_size=1"], None),
        (["model=mlp", "train.batch_size=1"], None),
    ],
)
def test_a_batch_without_batch_statistics_is_refused_by_the_plan(words, said):
    words = ["task=digits", "task.n_train=50", "train.steps=100", *words]
    if said is None:
        assert read_command(words).requests
    else:
        with pytest.raises(ConfigError, match=said):
            read_command(words)


@pytest.mark.parametrize("examples", [None, 2])
@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (["task=parity", "task.n=5", "task.k=2", "task.samples=17", "task.held_out=8"], (5, 1)),
        (["task=digits", "task.n_train=17"], (64, 10)),
    ],
)
def test_a_network_of_ones_own_is_refused_before_its_first_update(monkeypatch, words, shape, examples):
    (request,) = read_command([*words, "train.batch_size=8"]).requests
    task = registry.find("task", request.config.task.name).build(request.config.task)

    def normed() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], 4), nn.BatchNorm1d(4), nn.Linear(4, shape[1]))

    monkeypatch.setattr("dynalab.training.loop.task_and_network", lambda *_: (task, normed))
    streams = [Streams.from_seed(0)]
    with pytest.raises(
        ConfigError, match=r"train.batch_size=8: batch 2 has one example, which model=mlp cannot"
    ):
        Loop(request.config, streams, 3, torch.device("cpu"), examples=examples)
    assert Loop(request.config, streams, 2, torch.device("cpu"), examples=examples).step == 0
