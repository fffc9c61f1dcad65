"""Sparse parity: examples by brute force, batches as functions of the step, losses against formulas."""

import itertools
import math

import numpy as np
import pytest
import torch

from dynalab.errors import ConfigError
from dynalab.tasks.base import Batch, Task
from dynalab.tasks.loss import Loss
from dynalab.tasks.parity import Config, Parity, build
from dynalab.tasks.parity_data import draw_bits, examples
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


class Doubled(Parity):
    """A task as a plug-in may make it of a shipped one, whose derivative by hand is then no longer its own."""

    def loss(self, outputs, batch):
        return 2 * super().loss(outputs, batch)


pytestmark = pytest.mark.usefixtures("one_thread")


def make(config, seeds, batch_size=8, eval_size=None):
    streams = [s if isinstance(s, Streams) else Streams.from_seed(s) for s in seeds]
    return build(config).data(streams, batch_size=batch_size, eval_size=eval_size, device=CPU)


def labels(inputs, k):
    """The product of the first k coordinates, one example and coordinate at a time."""
    return [[math.prod(int(v) for v in row[:k]) for row in run] for run in inputs.tolist()]


@pytest.mark.parametrize("samples", [None, 50])
@pytest.mark.parametrize(("n", "k"), [(5, 1), (9, 3), (6, 6)])
def test_labels_are_the_parity(n, k, samples):
    data = make(Config(n=n, k=k, samples=samples), [0, 3])
    for batch in [
        data.train_batch(0),
        data.train_batch(7),
        *data.eval_batches("train"),
        *data.eval_batches("test"),
    ]:
        assert batch.inputs.dtype == batch.targets.dtype == torch.float32
        assert batch.inputs.shape == (*batch.targets.shape, n)
        assert set(batch.inputs.unique().tolist()) <= {-1.0, 1.0}
        assert batch.targets.tolist() == labels(batch.inputs, k)


def test_specification_and_sizes():
    task = build(Config())
    assert isinstance(task, Task)
    assert (task.spec.kind, task.spec.symbols, task.spec.classes) == ("vector", 30, 1)
    assert Config().train_size() is None and Config(samples=70).train_size() == 70
    fresh = make(Config(), [0])
    assert [sum(b.size for b in fresh.eval_batches(split)) for split in ("train", "test")] == [1024, 1024]
    fixed = make(Config(samples=70, held_out=33), [0])
    assert [sum(b.size for b in fixed.eval_batches(split)) for split in ("train", "test")] == [70, 33]
    fixed = make(Config(samples=70, held_out=33), [0], eval_size=20)
    assert [sum(b.size for b in fixed.eval_batches(split)) for split in ("train", "test")] == [20, 20]


def test_more_held_out_examples_begin_with_the_same():
    few, many = (make(Config(), [4], eval_size=size).eval_batches("test")[0] for size in (13, 900))
    assert torch.equal(few.inputs, many.inputs[:, :13])


def test_coordinates_are_fair_and_examples_new():
    data = make(Config(n=20), [5], batch_size=64)
    seen = torch.cat([data.train_batch(step).inputs[0] for step in range(200)])
    assert seen.mean(0).abs().max() < 5 / math.sqrt(len(seen))
    pairs = (seen.T @ seen / len(seen)).fill_diagonal_(0).abs().max()
    assert pairs < 5 / math.sqrt(len(seen))
    # 12,800 draws out of 2^20 meet some 80 times by chance.
    assert len(seen.unique(dim=0)) > 12_600


def test_a_fresh_batch_is_a_function_of_the_step_and_the_run_alone():
    config = Config(n=30, label_noise=0.2)
    data = make(config, [0, 1, 2], batch_size=32)
    assert 1 < data.block < 100
    steps = range(2 * data.block + 3)
    first = [data.train_batch(step) for step in steps]
    for one, other in itertools.pairwise(first):
        assert not torch.equal(one.inputs, other.inputs)
    assert not torch.equal(first[0].inputs[0], first[0].inputs[1])
    # Asked in another order, by another shard that holds one of the runs.
    alone = make(config, [2], batch_size=32)
    for step in (data.block, 0, 2 * data.block + 2, data.block - 1, 1):
        for data_of, rows in ((data, slice(None)), (alone, slice(2, 3))):
            batch = data_of.train_batch(step)
            assert torch.equal(batch.inputs, first[step].inputs[rows])
            assert torch.equal(batch.targets, first[step].targets[rows])


@pytest.mark.parametrize(("n", "k", "noise"), [(30, 3, 0.0), (7, 1, 0.2), (9, 9, 0.2)])
def test_blocks_are_the_bits_that_are_drawn(n, k, noise):
    streams = [Streams.from_seed(seed) for seed in (3, 8, 5)]
    task = build(Config(n=n, k=k, label_noise=noise))
    data = task.data(streams, batch_size=5, eval_size=8, device=torch.device("cpu"))
    count = data.block * 5
    for block in (0, 4):
        bits = [draw_bits(stream.numpy("order", block), count, n) for stream in streams]
        flips = [stream.numpy("noise", block).random(count) < noise for stream in streams]
        whole = examples(bits, k, torch.device("cpu"), flips)
        for inputs, targets in (data._draw(block), data._unpacked(data._draw_packed(block))):
            assert torch.equal(inputs.transpose(0, 1).reshape(3, count, n), whole.inputs)
            assert torch.equal(targets.transpose(0, 1).reshape(3, count), whole.targets)
            assert inputs.dtype == targets.dtype == torch.float32


@pytest.mark.parametrize("batch_size", [1, 32, 1024, 5000])
def test_one_block_is_held_whatever_its_shape(batch_size):
    sizes = set()
    for seeds in ([0], range(7)):
        data = make(Config(n=50), seeds, batch_size=batch_size)
        for step in (0, data.block, 5 * data.block):
            batch = data.train_batch(step)
            assert batch.size == batch_size
            assert batch.inputs[-1].is_contiguous()
            # One block per run: at most 2^16 numbers, or a single batch.
            held = batch.inputs.untyped_storage().nbytes() / 4 / len(seeds)
            assert held <= max(1 << 16, batch_size * 50)
        sizes.add(data.block)
    assert len(sizes) == 1, "the number of runs decides nothing"


def test_streams_are_apart():
    base = make(Config(label_noise=0.3), [0])
    order, noise, split = (
        make(Config(label_noise=0.3), [Streams.from_seed(0, **{name: 9})])
        for name in ("order", "noise", "split")
    )
    batch = base.train_batch(3)
    assert not torch.equal(order.train_batch(3).inputs, batch.inputs)
    assert torch.equal(noise.train_batch(3).inputs, batch.inputs)
    assert not torch.equal(noise.train_batch(3).targets, batch.targets)
    assert torch.equal(split.train_batch(3).inputs, batch.inputs)
    for other, same in ((order, True), (noise, True), (split, False)):
        assert torch.equal(other.eval_batches("test")[0].inputs, base.eval_batches("test")[0].inputs) is same


@pytest.mark.parametrize("samples", [None, 4000])
def test_label_noise_turns_over_its_share_of_training_labels_only(samples):
    config = Config(n=10, k=2, samples=samples, label_noise=0.2)
    data = make(config, [1, 2], batch_size=100)
    wrong = torch.stack(
        [
            batch.targets != torch.tensor(labels(batch.inputs, 2))
            for batch in (data.train_batch(step) for step in range(40))
        ]
    )
    for share in wrong.float().mean((0, 2)).tolist():
        assert share == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))
    assert not torch.equal(wrong[:, 0], wrong[:, 1])
    (test,) = data.eval_batches("test")
    assert test.targets.tolist() == labels(test.inputs, 2)
    assert any(b.targets.tolist() != labels(b.inputs, 2) for b in data.eval_batches("train"))


def test_a_fixed_sample_keeps_its_examples_and_their_labels():
    data = make(Config(n=12, samples=30, label_noise=0.3), [0, 1], batch_size=8)
    for s in range(2):
        sample = sorted(
            (*x, y)
            for x, y in zip(data.train.inputs[s].tolist(), data.train.targets[s].tolist(), strict=True)
        )
        for epoch in (range(4), range(4, 8)):
            batches = [data.train_batch(step) for step in epoch]
            assert [b.size for b in batches] == [8, 8, 8, 6]
            seen = [
                (*x, y)
                for b in batches
                for x, y in zip(b.inputs[s].tolist(), b.targets[s].tolist(), strict=True)
            ]
            assert sorted(seen) == sample
    assert make(Config(n=12, samples=30), [0], batch_size=None).train_batch(5).size == 30


@pytest.mark.parametrize("loss", ["hinge", "square", "logistic"])
def test_losses_accuracy_and_slopes(loss):
    rng = np.random.default_rng(0)
    f = 2 * rng.normal(size=(3, 40, 1))
    f[0, :3, 0] = [0.0, 80.0, -80.0]
    y = rng.choice([-1.0, 1.0], size=(3, 40))
    outputs = torch.from_numpy(f).requires_grad_()
    task = build(Config(loss=loss))
    batch = Batch(torch.zeros(3, 40, 30), torch.from_numpy(y))
    got = task.loss(outputs, batch)
    formulas = {
        "hinge": (lambda m: np.maximum(0, 1 - m), lambda m: np.where(m < 1, -1.0, 0.0)),
        "square": (lambda m: (m - 1) ** 2, lambda m: 2 * (m - 1)),
        "logistic": (lambda m: np.logaddexp(0, -m), lambda m: -np.exp(-np.logaddexp(0, m))),
    }
    value, slope = formulas[loss]
    margin = f[..., 0] * y
    np.testing.assert_allclose(got.detach(), value(margin).mean(1), rtol=1e-13)
    (gradient,) = torch.autograd.grad(got.sum(), outputs)
    losses, by_hand = task.loss_and_gradient(outputs.detach(), batch)
    assert torch.equal(losses, got) and by_hand.shape == outputs.shape
    for found in (gradient, by_hand):
        np.testing.assert_allclose(found[..., 0], slope(margin) * y / 40, rtol=1e-12, atol=1e-15)
    task_of_mine = Doubled(Config(loss=loss))
    losses, doubled = Loss(task_of_mine, torch.float64, temperature=0.5).differentiated(outputs / 2, batch)
    assert torch.equal(losses, 2 * got)
    np.testing.assert_allclose(doubled[..., 0], 4 * by_hand[..., 0], rtol=1e-12)
    accuracy = task.metrics(outputs, batch)["accuracy"]
    assert accuracy.dtype == torch.float64
    assert accuracy.tolist() == (np.sign(f[..., 0]) == y).mean(1).tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, r"task\.n=0"),
        ({"k": 0}, r"task\.k=0.*at least 1"),
        ({"n": 4, "k": 5}, r"task\.k=5.*task\.n=4"),
        ({"samples": 0}, r"task\.samples=0.*or null"),
        ({"label_noise": 0.5}, r"task\.label_noise=0\.5.*at least 0 and below 0\.5"),
        ({"label_noise": -0.1}, r"task\.label_noise=-0\.1"),
        ({"held_out": 0}, r"task\.held_out=0"),
        ({"loss": "hinged"}, r"task\.loss=hinged.*did you mean hinge"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        Config(**fields)


def test_fresh_examples_have_no_full_batch():
    with pytest.raises(ConfigError, match=r"train\.batch_size=full.*task\.samples"):
        make(Config(), [0], batch_size=None)


@pytest.mark.parametrize("samples", [None, 50])
def test_held_out_examples_are_other_draws_than_the_training_ones(samples):
    data = make(Config(n=30, samples=samples), [3])
    train, test = (torch.cat([b.inputs[0] for b in data.eval_batches(split)]) for split in ("train", "test"))
    # Of 2^30 rows two draws share next to none.
    assert len(torch.unique(torch.cat([train, test]), dim=0)) > len(train) + len(test) - 3
