"""Streams that are said to have no effect have none, and all others have one: every task, by training it."""

from __future__ import annotations

import pytest
import torch
from image_fakes import write_cifar, write_mnist

from dynalab.config.command import read_command
from dynalab.config.schema import STREAMS
from dynalab.config.seeds import idle_streams, without_effect
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

SMALL = ["model.width=8", "model.layers=1", "model.heads=2", "model.mlp_width=8"]
MLM = ["task=mlm", "task.vocabulary=300", "eval.size=4", *SMALL]
IMAGES = ["model=mlp", "model.hidden=[4]", "eval.size=20"]
CASES = {
    "grokking": (["task=grokking", "task.modulus=5"], {"order", "noise"}),
    "grokking in batches": (["task=grokking", "task.modulus=5", "train.batch_size=4"], {"noise"}),
    "a batch of everything": (["task=grokking", "task.modulus=5", "train.batch_size=10"], {"order", "noise"}),
    "parity": (["task=parity", "task.n=5"], {"noise"}),
    "noisy parity": (["task=parity", "task.n=5", "task.label_noise=0.3"], set()),
    "parity of a sample": (
        ["task=parity", "task.n=5", "task.samples=20", "train.batch_size=full"],
        {"order", "noise"},
    ),
    "digits": (["task=digits", *IMAGES, "train.batch_size=9"], {"noise"}),
    "digits with wrong labels": (["task=digits", *IMAGES, "train.batch_size=9", "task.label_noise=0.9"], set()),
    "digits with noise": (
        ["task=digits", *IMAGES, "train.batch_size=full", "task.n_train=30", "task.input_noise=0.1"],
        {"order"},
    ),
    "chebyshev": (["task=regression", "train.batch_size=5"], {"split", "noise"}),
    "teacher": (["task=regression", "task.target=teacher", "train.batch_size=full"], {"order", "noise"}),
    "mlm": ([*MLM, "train.batch_size=4"], {"split"}),
    "mnist": (["task=mnist", *IMAGES, "train.batch_size=9"], {"split", "noise"}),
    "mnist subsets": (["task=mnist", *IMAGES, "train.batch_size=9", "task.n_train=30"], {"noise"}),
    "cifar": (
        ["task=cifar", *IMAGES, "train.batch_size=60", "task.label_noise=0.5", "task.augment=none"],
        {"split", "order"},
    ),
    "cifar with crops": (
        ["task=cifar", *IMAGES, "train.batch_size=full", "task.augment=crop_flip"],
        {"split", "noise"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_so(case, tmp_path):
    words, expected = CASES[case]
    if words[0] in ("task=mnist", "task=cifar"):
        table = (write_mnist if "mnist" in words[0] else write_cifar)(tmp_path)
        words = [*words, f"task.root={tmp_path}", f"task.checksums={table}"]
    (request,) = read_command([*words, "train.steps=4", "probes=[]"]).requests
    assert set(without_effect(request.config)) == expected

    # One run, and one each with another seed for one stream.
    runs = [Streams.from_seed(0), *(Streams.from_seed(0, **{name: 1}) for name in STREAMS)]
    loop = Loop(request.config, runs, request.steps, torch.device("cpu"))
    for _ in range(4):
        loop.update()
    tensors = [param.detach() for param in loop.stack.params.values()]
    for split in ("train", "test"):
        tensors += [part for batch in loop.data.eval_batches(split) for part in (batch.inputs, batch.targets)]
    same = {
        name
        for row, name in enumerate(STREAMS, start=1)
        if all(torch.equal(tensor[0], tensor[row]) for tensor in tensors)
    }
    assert same == expected


def test_dropout_draws_noise_and_only_given_streams_are_named():
    (request,) = read_command([*MLM, "model.dropout=0.1", "train.batch_size=full"]).requests
    assert set(without_effect(request.config)) == {"split", "order"}
    assert idle_streams(request.config) == []
    (request,) = read_command(
        [*MLM, "design=crossed", "seed_streams.split=0..2", "seed_streams.init=0"]
    ).requests
    assert idle_streams(request.config) == [
        "seed_streams.split has no effect: task=mlm holds out the same text for every run"
    ]
