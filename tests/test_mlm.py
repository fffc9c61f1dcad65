"""Masked language modelling: batches, the unigram baseline, configuration, a training that learns."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from stored import bits, difference, only_ensemble

import dynalab
from dynalab.errors import ConfigError
from dynalab.tasks import mlm
from dynalab.tasks.base import InputSpec
from dynalab.tasks.text import windows
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task():
    return mlm.build(mlm.Config(vocabulary=300, length=20))


def data_of(task, seeds, batch_size=8, eval_size=30, **fixed):
    streams = [Streams.from_seed(seed, **fixed) for seed in seeds]
    return task.data(streams, batch_size=batch_size, eval_size=eval_size, device=CPU)


# Batches


def test_targets_are_what_stood_there(task):
    """Every masked sequence, its targets put back, is a window of the text it is of."""
    data = data_of(task, [0, 1])
    for split, batches in (
        ("train", [data.train_batch(5), *data.eval_batches("train")]),
        ("test", data.eval_batches("test")),
    ):
        text = task.tokens.part(split).tobytes()
        for batch in batches:
            words, places = batch.inputs[..., :20], batch.inputs[..., 20:]
            assert places.shape == batch.targets.shape == (*words.shape[:2], 3)
            restored = words.scatter(2, places, batch.targets).numpy().astype(np.uint16)
            assert all(row.tobytes() in text for row in restored.reshape(-1, 20))
    assert task.spec == InputSpec(kind="tokens", symbols=300, classes=300, shape=(20, 3))


def test_batches_are_functions_of_seed_and_step(task):
    one, other = data_of(task, [3, 4, 5]), data_of(task, [5, 3])
    steps = [0, 40, 15, 16, 0, windows.BLOCK * 3 - 1]
    batches = {step: one.train_batch(step) for step in sorted(steps)}
    for step in steps:
        again = other.train_batch(step)
        assert torch.equal(again.inputs[[1, 0]], batches[step].inputs[[0, 2]])
        assert torch.equal(again.targets[[1, 0]], batches[step].targets[[0, 2]])
    assert len({batch.inputs[run].numpy().tobytes() for batch in batches.values() for run in range(3)}) == 15


def test_streams_have_their_own_effect(task):
    def parts(**fixed):
        data = data_of(task, [0], **fixed)
        batch, test = data.train_batch(3), data.eval_batches("test")[0]
        whole = batch.inputs[..., :20].scatter(2, batch.inputs[..., 20:], batch.targets)
        return {"windows": whole, "masks": batch.inputs[..., 20:], "test": test.inputs}

    base = parts()
    changed = {
        name: {key for key, value in parts(**{name: 9}).items() if not torch.equal(value, base[key])}
        for name in ("init", "split", "order", "noise")
    }
    assert changed == {"init": set(), "split": set(), "order": {"windows"}, "noise": {"masks", "test"}}


def test_evaluation_is_fixed_and_spread_over_the_text(task):
    data = data_of(task, [0, 1], eval_size=None)
    for split in ("train", "test"):
        batches = data.eval_batches(split)
        assert all(first is second for first, second in zip(batches, data.eval_batches(split), strict=True))
        assert sum(batch.size for batch in batches) == len(task.tokens.part(split)) // 20
        assert max(batch.size for batch in batches) <= windows.CHUNK
    some = data_of(task, [0], eval_size=7)
    assert [batch.size for batch in some.eval_batches("test")] == [7]
    count = len(task.tokens.test) // 20
    starts = some._starts("test", 7)
    assert starts[0] == 0
    assert set(np.diff(starts)) <= {count // 7 * 20, (count // 7 + 1) * 20}


def test_full_batch_is_the_whole_training_text(task):
    data = data_of(task, [0, 1], batch_size=None)
    one, other = data.train_batch(0), data.train_batch(1)
    assert one.size == other.size == len(task.tokens.train) // 20
    whole = [
        batch.inputs[..., :20].scatter(2, batch.inputs[..., 20:], batch.targets) for batch in (one, other)
    ]
    assert torch.equal(*whole)
    assert torch.equal(whole[0][0], whole[0][1])
    assert not torch.equal(one.inputs, other.inputs)


def test_unigram_baseline_against_a_direct_count(task):
    data = data_of(task, [0, 1])
    counts = Counter(task.tokens.train.tolist())
    total = sum(counts.values()) + 299
    for batch in data.eval_batches("test"):
        outputs = torch.zeros(2, batch.size, 3, 300)
        found = task.metrics(outputs, batch)
        for run in range(2):
            direct = [
                -math.log((counts[token] + 1) / total) for token in batch.targets[run].flatten().tolist()
            ]
            assert found["unigram_loss"][run].item() == pytest.approx(np.mean(direct), rel=1e-12)
    assert task.unigram.exp().sum().item() == pytest.approx(1)


def test_loss_and_accuracy_against_plain_loops(task):
    batch = data_of(task, [0, 1]).train_batch(0)
    outputs = torch.randn(2, 8, 3, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for run in range(2):
        losses, right = [], []
        for row, target in zip(outputs[run].flatten(0, 1), batch.targets[run].flatten(), strict=True):
            losses.append(-row.log_softmax(0)[target].item())
            right.append(float(row.argmax() == target))
        assert task.loss(outputs, batch)[run].item() == pytest.approx(np.mean(losses), rel=1e-12)
        assert task.metrics(outputs, batch)["accuracy"][run].item() == np.mean(right)


# Configuration


def test_a_corpus_of_the_users(tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(f"Passage {i} is number {i * i}." for i in range(400)))
    config = mlm.Config(corpus=str(tmp_path / "book.txt"), vocabulary=280, length=8)
    assert config.corpus == [str(tmp_path / "book.txt")]
    assert mlm.Config(corpus=[str(tmp_path)]).fingerprint() == config.fingerprint()
    assert mlm.Config().fingerprint() != config.fingerprint()
    built = mlm.build(config)
    assert "Passage" in built.tokens.vocabulary.decode(built.tokens.test)
    with pytest.raises(
        ConfigError, match=r"task\.corpus=.*: [0-9]+ tokens of held-out text, but task\.length=4000"
    ):
        mlm.build(mlm.Config(corpus=str(tmp_path), vocabulary=280, length=4000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpus": "missing.txt"}, r"task\.corpus=.*missing\.txt: no such file"),
        ({"corpus": 7}, r"task\.corpus=7: expected a text file"),
        ({"corpus": []}, r"task\.corpus=\[\]"),
        ({"vocabulary": 257}, r"task\.vocabulary=257.*258"),
        ({"length": 1}, r"task\.length=1"),
        ({"mask_fraction": 1.0}, r"task\.mask_fraction=1\.0"),
        ({"test_fraction": 0.0}, r"task\.test_fraction=0\.0"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        mlm.Config(**fields).fingerprint()
    with pytest.raises(ConfigError, match=message):
        mlm.build(mlm.Config(**fields))


# Training

QUICK = ["task=mlm", "launcher=inline", "task.vocabulary=300", "task.length=10"]
QUICK += ["model.width=32", "model.heads=2", "model.mlp_width=64"]


def test_a_short_training_passes_the_unigram_baseline(outputs):
    words = [
        "train.steps=300",
        "train.batch_size=64",
        "optimizer.lr=1e-2",
        "eval.every=150",
        "snapshots.at=never",
    ]
    (ensemble,) = dynalab.train([*QUICK, *words, "seed=0..1"])
    loss, baseline = ensemble.array("test_loss"), ensemble.array("test_unigram_loss")
    assert (loss[:, 0] > baseline[:, 0]).all()
    assert (loss[:, -1] < baseline[:, -1] - 0.3).all()
    assert (baseline == baseline[:, :1]).all()
    assert (ensemble.array("train_loss")[:, -1] < ensemble.array("train_unigram_loss")[:, -1] - 0.3).all()
    assert (ensemble.array("test_accuracy")[:, -1] > 0.12).all()


def test_width_and_interruption_do_not_show(tmp_path):
    def trained(folder, *words):
        base = ["train.steps=30", "train.batch_size=6", "model.dropout=0.1", "eval.every=10", "eval.size=10"]
        dynalab.train([*QUICK, *base, *words], outputs=tmp_path / folder)
        return bits(only_ensemble(tmp_path / folder))

    together = trained("together", "seed=0..4", "compute.width=5")
    alone = trained("alone", "seed=3")
    trained("pieces", "seed=1..3", "train.steps=17")
    pieces = trained("pieces", "seed=1..3")
    for label, found in {**pieces, **alone}.items():
        assert difference(together[label], found) == []
    assert difference(together["s0003"], alone["s0003"]) == []
