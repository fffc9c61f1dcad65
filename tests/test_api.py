"""`dynalab.train` in Python: what it says where the command would end with another code than 0."""

from __future__ import annotations

import pytest

from dynalab import train
from dynalab.errors import ConfigError, RunsFailed
from dynalab.store.lock import Lock

TINY = ["task=grokking", "task.modulus=7", "model.width=8", "launcher=inline", "snapshots.at=never"]


def test_runs_that_another_process_trains_are_an_error_with_what_is_stored():
    (ensemble,) = train([*TINY, "seed=0", "train.steps=5"])
    with (
        Lock(ensemble.runs[0].shard.lock),
        pytest.raises(RunsFailed, match=r"1 run is being trained by process") as caught,
    ):
        train([*TINY, "seed=0..1", "train.steps=20"])
    (stored,) = caught.value.ensembles
    assert stored.id == ensemble.id and [run.steps for run in stored.runs] == [5, 20]
    (whole,) = train([*TINY, "seed=0..1", "train.steps=20"])
    assert [run.steps for run in whole.runs] == [20, 20]


def test_a_refusal_is_a_configuration_error_and_the_others_of_the_sweep_are_trained():
    words = [*TINY[:2], *TINY[3:], "model=embedding_mlp,mlp", "train.steps=3"]
    with pytest.raises(ConfigError, match="model=mlp: reads rows of numbers") as caught:
        train(words)
    assert [ensemble.config["model"]["name"] for ensemble in caught.value.ensembles] == ["embedding_mlp"]


def test_a_diverged_run_is_returned_as_what_it_is():
    (ensemble,) = train([*TINY, "optimizer=sgd", "optimizer.lr=1e20", "train.steps=40"])
    assert [run.status for run in ensemble.runs] == ["diverged"]
