"""Identity: what moves an ensemble's id and what must never move it."""

from __future__ import annotations

import pytest

from dynalab.config.command import read_command
from dynalab.config.ensemble import from_tree


def id_of(*words: str) -> str:
    (request,) = read_command(list(words)).requests
    return request.config.id


# Literal, so that a new field or another default cannot orphan what users have stored. A change here is a change of
# the product: new fields take neutral defaults instead.
GOLDEN = {
    "task=grokking": "cb7150eb3e",
    "task=grokking optimizer=sgd": "07b261ecc5",
    "task=grokking optimizer=adam optimizer.lr=0.01": "48e0e7f965",
    "task=grokking model=nanda train.batch_size=512": "0641880c21",
    "task=grokking model=power schedule=warmup": "817da7bb15",
    "task=grokking schedule=cosine train.steps=100": "8cacc85b83",
    "task=grokking task.operation=s5 eval.every=50 probes=[weights]": "1942f1cdcc",
    "task=grokking seed_streams.init=0": "1bbecc1166",
    "task=grokking design=crossed seed_streams.init=0..1": "0a21d3b47b",
    "experiment=nanda2023_addition": "3f11ca9031",
    "experiment=power2022_division": "39f09d8a28",
    "experiment=gromov2023_addition": "e0816c40df",
}


@pytest.mark.parametrize("words", GOLDEN)
def test_golden_ids(words):
    assert id_of(*words.split()) == GOLDEN[words]


@pytest.mark.parametrize(
    "words",
    [
        "task=grokking optimizer=adamw",
        "optimizer.lr=3e-3",
        "optimizer.lr=0.0030",
        "optimizer.weight_decay=1",
        "seed=0..19",
        "train.steps=5000",
        "train.epochs=17",
        "device=cpu",
        "compute.workers=1 compute.width=3",
        "checkpoint.every=7 checkpoint.keep=all",
        "launcher=inline",
        "outputs=elsewhere",
        "task.operation=x+y",
        "probes=[gradients,weights]",
        "probe.weights.every=null",
        "convergence.threshold=0.5",
        "train.temperature=1 train.norm_clamp=null optimizer.orthogonal=false task.loss=cross_entropy",
    ],
)
def test_what_does_not_decide_the_results_does_not_move_the_id(words):
    assert id_of(*words.split()) == id_of("task=grokking")


@pytest.mark.parametrize(
    "word",
    [
        "optimizer.lr=0.004",
        "train.batch_size=64",
        "train.loss_dtype=float64",
        "train.clip=1.0",
        "train.temperature=2",
        "train.norm_clamp=1",
        "optimizer.orthogonal=true",
        "task.loss=stablemax",
        "eval.every=20",
        "eval.size=100",
        "snapshots.at=never",
        "task.modulus=61",
        "model.width=64",
        "model.activation=relu",
        "probe.weights.every=20",
        "probes=[weights]",
        "seed_streams.order=3",
        "schedule=warmup",
    ],
)
def test_what_decides_the_results_moves_the_id(word):
    assert id_of(word) != id_of("task=grokking")


def test_the_stored_configuration_has_the_same_id():
    for words in GOLDEN:
        (request,) = read_command(words.split()).requests
        assert from_tree(request.config.as_dict()).id == request.config.id
