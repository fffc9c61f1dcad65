"""Gradients replayed over static buffers have the bits of eager ones, where a replay is the function itself."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter

import pytest
import torch

from dynalab.config.command import read_command
from dynalab.core.streams import Streams
from dynalab.training import graphs
from dynalab.training.graphs import Uncaptured
from dynalab.training.loop import Loop


def _in_place(function):
    """Capture a function on the host: a replay runs it again, and writes into the tensors of the first time."""
    outputs = function()

    def replay():
        for old, new in zip(_tensors(outputs), _tensors(function()), strict=True):
            old.copy_(new)

    # As on a card, nothing is done while it is captured.
    for tensor in _tensors(outputs):
        tensor.fill_(torch.nan)
    return outputs, replay


def _tensors(found):
    return [x.detach() for x in torch.utils._pytree.tree_leaves(found) if isinstance(x, torch.Tensor)]


def _loop(words: list[str]) -> Loop:
    (request,) = read_command(words).requests
    return Loop(request.config, [Streams.from_seed(s) for s in range(3)], 100, torch.device("cpu"))


@pytest.mark.parametrize(
    "words",
    [
        ["task=grokking", "task.modulus=7", "model.width=8", "optimizer.orthogonal=true"],
        # The last batch of an epoch is a smaller one.
        ["task=digits", "model.hidden=[4]", "task.n_train=50", "train.batch_size=16", "optimizer=sam"],
        ["task=parity", "task.n=6", "model.hidden=[4]", "train.batch_size=8", "probes=[gradients,curvature]"],
        [
            "task=mlm",
            "model.dropout=0.1",
            "model.layers=1",
            "model.width=8",
            "eval.size=2",
            "task.vocabulary=260",
        ],
    ],
    ids=lambda words: words[0],
)
def test_replayed_gradients_have_the_bits_of_eager_ones(words, one_thread):
    eager, replayed = (_loop([*words, "eval.every=1", "eval.size=8", "snapshots.at=never"]) for _ in range(2))
    captures: Counter[str] = Counter()

    def capture(function):
        captures["made"] += 1
        return _in_place(function)

    replayed.updates.gradients.replay(capture)
    for step in range(20):
        for loop in (eager, replayed):
            loop.update()
        if step % 4 == 3:
            for rows, others in zip(eager.rows().values(), replayed.rows().values(), strict=True):
                # A shared pass has other bits than a pass over pieces.
                names = [name for name in rows if not name.startswith("train_") or name == "train_loss_max"]
                assert all(torch.equal(rows[name], others[name]) for name in names)
    for name, param in eager.stack.params.items():
        assert torch.equal(param, replayed.stack.params[name]), name
    for name, tensor in eager.stack.buffers.items():
        assert torch.equal(tensor, replayed.stack.buffers[name]), name
    assert captures["made"] == (2 if "train.batch_size=16" in words else 1)


def test_what_cannot_be_captured_is_made_as_it_is(one_thread):
    words = ["task=parity", "task.n=6", "model.hidden=[4]", "train.batch_size=8", "snapshots.at=never"]
    eager, left = (_loop(words) for _ in range(2))
    tried: Counter[str] = Counter()

    def capture(function):
        tried["captures"] += 1
        raise Uncaptured("it asks the card")

    left.updates.gradients.replay(capture)
    assert left.updates.gradients.uncaptured is None and eager.updates.gradients.uncaptured is None
    for _ in range(6):
        eager.update()
        left.update()
    assert left.updates.gradients.uncaptured == "an update cannot be captured: it asks the card"
    assert tried["captures"] == 1
    for name, param in eager.stack.params.items():
        assert torch.equal(param, left.stack.params[name]), name


def test_what_waits_for_the_card_is_told_from_within_and_other_warnings_go_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    told = []

    def tell(line):
        told.append((line, [frame.name for frame in traceback.extract_stack()[:-2]]))

    def asking():
        warnings.warn("called a synchronizing CUDA operation\nsaid of it", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    with pytest.warns(UserWarning, match="something else"), graphs.waits(tell):
        asking()
    ((line, stack),) = told
    assert line == "called a synchronizing CUDA operation"
    assert "asking" in stack
    assert "show" not in stack
    assert modes == ["default", "warn", "default"]
