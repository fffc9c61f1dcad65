"""What a row costs and what it does not change: fewer training examples, one pass for two, a median found sooner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynalab.config.command import read_command
from dynalab.probes import weights
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = ("task=digits", "task.n_train=40", "task.n_test=20", "train.batch_size=10", "model.hidden=[6]")
FULL = ("task=grokking", "task.modulus=7", "model.width=8", "eval.every=1")
LOOK = ("probes=[curvature]", "probe.curvature.every=1")


def loop_of(*words: str) -> Loop:
    (request,) = read_command(list(words)).requests
    return Loop(request.config, [Streams.from_seed(seed) for seed in (0, 1)], 10, torch.device("cpu"))


def config_of(*words: str):
    (request,) = read_command(list(words)).requests
    return request.config


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ("eval.train_size=12", 12),
        ("eval.train_size=12 eval.size=13", 12),
        ("eval.train_size=12 eval.size=12", None),
        ("eval.train_size=40", None),
        ("eval.train_size=12 train.batch_size=full", None),
        ("eval.train_size=12 train.batch_size=40", None),
        ("eval.train_size=null", None),
    ],
)
def test_only_what_leaves_examples_out_counts(words, most):
    config, whole = (
        config_of(*DIGITS, *words.split()),
        config_of(*DIGITS, *words.split(), "eval.train_size=null"),
    )
    assert config.most_evaluated == most
    assert (config.id == whole.id) == (most is None)


def test_fresh_examples_can_be_fewer_too():
    data = loop_of("task=parity", "eval.train_size=5").data
    assert [batch.size for batch in data.eval_batches("train")] == [5]
    assert [batch.size for batch in data.eval_batches("test")] == [1024]


def test_the_first_training_examples_are_evaluated_and_all_of_the_others():
    few, all_of_them = loop_of(*DIGITS, "eval.train_size=13"), loop_of(*DIGITS, "eval.train_size=null")
    for _ in range(3):
        few.update()
        all_of_them.update()
    for name, weight in few.stack.params.items():
        assert torch.equal(weight, all_of_them.stack.params[name]), name
    rows, whole = (loop.measuring.evaluate("train") for loop in (few, all_of_them))
    (batch,) = all_of_them.data.eval_batches("train")
    outputs = all_of_them.stack.forward(batch.inputs[:, :13])
    for run in range(2):
        losses = torch.nn.functional.cross_entropy(outputs[run], batch.targets[run, :13])
        right = (outputs[run].argmax(1) == batch.targets[run, :13]).double().mean()
        assert rows["train_loss"][run].item() == pytest.approx(losses.item(), rel=1e-6)
        assert rows["train_accuracy"][run] == right
    assert not torch.equal(rows["train_loss"], whole["train_loss"])
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            few.measuring.evaluate("test").values(),
            all_of_them.measuring.evaluate("test").values(),
            strict=True,
        )
    )


def test_images_that_are_left_out_are_not_made(monkeypatch):
    data, made = loop_of(*DIGITS, "eval.train_size=13").data, []
    split = data.eval_batches("train")
    finish = split._finish
    monkeypatch.setattr(split, "_finish", lambda chosen: made.append(chosen.size) or finish(chosen))
    assert [batch.size for batch in split] == [13] and made == [13]


@pytest.mark.parametrize("more", [(), ("train.clip=0.1",), ("train.accumulate=2", "train.batch_size=6")])
def test_a_look_at_the_next_update_is_its_pass(monkeypatch, more):
    probed, plain = loop_of(*FULL, *more, *LOOK), loop_of(*FULL, *more, "probes=[]")
    passes, gradients = [], probed.updates.gradients
    own = gradients._pass
    monkeypatch.setattr(gradients, "_pass", lambda *given: passes.append(given[0]) or own(*given))
    for _ in range(4):
        for loop in (probed, plain):
            loop.rows()
            loop.update()
    assert passes == list(range(4 * (2 if "train.accumulate=2" in more else 1)))
    for name, weight in probed.stack.params.items():
        assert torch.equal(weight, plain.stack.params[name]), name


def test_a_look_that_is_out_of_date_is_not_taken_up():
    loop, other = loop_of(*FULL, *LOOK), loop_of(*FULL, "probes=[]")
    loop.rows()
    for own in (loop, other):
        with torch.no_grad():
            for param in own.stack.params.values():
                param.mul_(1.5)
        own.update()
    for name, weight in loop.stack.params.items():
        assert torch.equal(weight, other.stack.params[name]), name


def test_gradients_that_a_probe_wrote_into_are_not_taken_up():
    loop, other = loop_of(*FULL, *LOOK), loop_of(*FULL, "probes=[]")
    for gradient in loop.updates.upcoming().gradients.values():
        gradient.zero_()
    for own in (loop, other):
        own.update()
    for name, weight in loop.stack.params.items():
        assert torch.equal(weight, other.stack.params[name]), name


ROWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "ascending": lambda rng, n: np.arange(n),
    "one value": lambda rng, n: np.zeros(n),
    "two values": lambda rng, n: rng.integers(2, size=n),
    "lopsided": lambda rng, n: np.exp(5 * rng.normal(size=n)),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("n", [1, 2, 2047, 2048, 5003])
def test_the_median_is_the_lower_middle_value(kind, n):
    row = ROWS[kind](np.random.default_rng(0), n).astype(np.float32)
    assert weights.middle(row) == np.sort(row)[(n - 1) // 2]
