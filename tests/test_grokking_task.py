"""The grokking task and data of fixed examples: splits, losses, batches; against plain float64 formulas."""

import numpy as np
import pytest
import torch

from dynalab.errors import ConfigError
from dynalab.tasks import operations
from dynalab.tasks.base import Batch, Task
from dynalab.tasks.fixed import FixedData, chunks
from dynalab.tasks.grokking import Config, build
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


def make(config, seeds, batch_size=None, eval_size=None):
    streams = [Streams.from_seed(s) for s in seeds]
    return build(config).data(streams, batch_size=batch_size, eval_size=eval_size, device=CPU)


def test_sizes_and_specification():
    config = Config()
    assert config.train_size() == 1392
    assert Config(modulus=113, train_fraction=0.3).train_size() == 3830
    assert Config(modulus=10, train_fraction=0.29).train_size() == 29
    task = build(config)
    assert isinstance(task, Task)
    assert (task.spec.kind, task.spec.symbols, task.spec.classes) == ("pairs", 59, 59)
    assert build(Config(operation="s5")).spec.classes == 120


@pytest.mark.parametrize("operation", ["add", "divide", "s5_conjugate"])
def test_train_and_test_are_the_whole_table_once(operation):
    config = Config(operation=operation, modulus=11)
    data = make(config, [3, 4])
    table = operations.table(config.operation, 11)
    answers = {tuple(pair): c for pair, c in zip(table.pairs.tolist(), table.results.tolist(), strict=True)}
    for s in range(2):
        seen = []
        for batch in (data.train, data.test):
            pairs = [tuple(pair) for pair in batch.inputs[s].tolist()]
            assert batch.targets[s].tolist() == [answers[pair] for pair in pairs]
            seen += pairs
        assert sorted(seen) == sorted(answers)
        assert data.train.size == config.train_size()


def test_a_split_belongs_to_its_seed():
    alone, among = make(Config(), [7]), make(Config(), [2, 7, 9])
    assert torch.equal(alone.train.inputs[0], among.train.inputs[1])
    assert not torch.equal(among.train.inputs[0], among.train.inputs[1])
    held = [Streams.from_seed(s, split=0) for s in (1, 2)]
    data = build(Config()).data(held, batch_size=None, eval_size=None, device=CPU)
    assert torch.equal(data.train.inputs[0], data.train.inputs[1])


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_losses_and_accuracy(loss, extra):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 8, 5 + extra))
    targets = rng.integers(5, size=(3, 8))
    task = build(Config(modulus=5, loss=loss))
    batch = Batch(torch.zeros(3, 8, 2, dtype=torch.long), torch.from_numpy(targets))
    got = task.loss(torch.from_numpy(outputs), batch)
    for s in range(3):
        if loss == "mse":
            onehot = np.eye(5 + extra)[targets[s]]
            expected = np.mean((outputs[s] - onehot) ** 2)
        else:
            expected = np.mean(
                [np.log(np.exp(f).sum()) - f[c] for f, c in zip(outputs[s], targets[s], strict=True)]
            )
        assert got[s].item() == pytest.approx(expected, rel=1e-13)
    accuracy = task.metrics(torch.from_numpy(outputs), batch)["accuracy"]
    assert accuracy.tolist() == (outputs.argmax(2) == targets).mean(1).tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operation": "addd"}, r"task\.operation=addd.*did you mean add\?"),
        ({"modulus": 1}, r"task\.modulus=1"),
        ({"train_fraction": 0.0}, r"task\.train_fraction=0\.0"),
        ({"train_fraction": 1.0}, r"task\.train_fraction=1\.0"),
        ({"modulus": 3, "train_fraction": 0.05}, r"task\.train_fraction=0\.05 leaves 0 of 9"),
        ({"loss": "mean_squared"}, r"task\.loss=mean_squared.*cross_entropy, stablemax or mse"),
        ({"operation": "x/y", "modulus": 60}, r"task\.modulus=60.*prime"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        Config(**fields)


def test_a_formula_is_its_name():
    assert Config(operation="x^2+y^2") == Config(operation="sum_of_squares")


def test_full_batch_is_one_object():
    data = make(Config(modulus=7), [0, 1])
    assert data.train_batch(0) is data.train_batch(99)
    assert make(Config(modulus=7), [0], batch_size=10_000).train_batch(3).size == data.train.size


def test_an_epoch_of_batches_is_every_example_once_and_a_function_of_the_step():
    data = make(Config(modulus=11), [0, 1, 2], batch_size=10)
    n = data.train.size
    assert data.batches_per_epoch == -(-n // 10) == 5
    first = [data.train_batch(step) for step in range(10)]
    assert [batch.size for batch in first] == [10, 10, 10, 10, n - 40] * 2
    for s in range(3):
        everything = sorted(map(tuple, data.train.inputs[s].tolist()))
        for epoch in (first[:5], first[5:]):
            assert sorted(tuple(p) for b in epoch for p in b.inputs[s].tolist()) == everything
            assert all(((b.inputs[s].sum(1) % 11) == b.targets[s]).all() for b in epoch)
    assert not torch.equal(first[0].inputs, first[5].inputs)
    # Asked in another order, and by another shard that holds one of the runs.
    for step in (7, 1, 9, 0):
        assert torch.equal(data.train_batch(step).inputs, first[step].inputs)
    resumed = make(Config(modulus=11), [2], batch_size=10)
    assert torch.equal(resumed.train_batch(8).inputs[0], first[8].inputs[2])


def test_order_has_a_stream_of_its_own():
    streams = [Streams.from_seed(0), Streams.from_seed(0, order=5)]
    data = build(Config(modulus=11)).data(streams, batch_size=10, eval_size=None, device=CPU)
    assert torch.equal(data.train.inputs[0], data.train.inputs[1])
    assert not torch.equal(data.train_batch(0).inputs[0], data.train_batch(0).inputs[1])


def test_evaluation_walks_through_a_prefix_in_chunks():
    data = make(Config(), [0, 1], eval_size=100)
    (only,) = data.eval_batches("test")
    assert torch.equal(only.inputs, data.test.inputs[:, :100])
    whole = make(Config(), [0, 1]).eval_batches("test")
    assert [batch.size for batch in whole] == [696, 696, 697]
    assert torch.equal(torch.cat([b.targets for b in whole], 1), make(Config(), [0, 1]).test.targets)
    assert [b.size for b in chunks(data.train, None, 10**6)] == [1392]
    assert [b.size for b in chunks(data.train, 7, 3)] == [2, 2, 3]


def test_shared_examples_need_no_copies():
    inputs, targets = torch.randn(20, 4), torch.arange(20)
    shared = Batch(inputs.expand(3, -1, -1), targets.expand(3, -1))
    data = FixedData(shared, shared, [Streams.from_seed(s) for s in range(3)], batch_size=6)
    assert data.train.inputs.data_ptr() == inputs.data_ptr()
    batch = data.train_batch(2)
    for s in range(3):
        assert torch.equal(batch.inputs[s], inputs[batch.targets[s]])
