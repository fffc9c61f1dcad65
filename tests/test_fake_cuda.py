"""The loop on fake tensors of a card: what lies on the wrong device shows without one, and so do waits of the host."""

from __future__ import annotations

import traceback
from collections import Counter

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from dynalab.config.command import read_command
from dynalab.core.streams import Streams
from dynalab.models.resnet18 import Config as ResNet18
from dynalab.models.resnet20 import Config as ResNet20
from dynalab.training.loop import Loop

CASES = {
    "grokking": ["task=grokking", "probes=[weights,gradients,numerics,spectrum]", "probe.spectrum.m=2"],
    "nanda": ["task=grokking", "model=nanda", "optimizer=adam", "optimizer.amsgrad=true"],
    "power": [
        *("task=grokking", "model=power", "model.layers=1", "train.batch_size=8", "train.clip=1"),
        *("train.accumulate=2", "train.loss_dtype=float64"),
    ],
    "one-hot": ["task=grokking", "model=onehot_mlp", "optimizer=rmsprop", "probes=[curvature]"],
    "gromov": [
        *("task=grokking", "model=gromov", "task.loss=mse"),
        *("optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0.9"),
    ],
    "parity": ["task=parity", "task.loss=logistic", "task.label_noise=0.1", "probes=[weights,parity]"],
    "sample": ["task=parity", "model=polynet", "task.samples=100", "probes=[parity]"],
    "sinusoid": ["task=parity", "model=sinusoid"],
    "regression": ["task=regression", "probes=[curvature]", "probe.curvature.trace=2"],
    "teacher": ["task=regression", "task.target=teacher", "schedule=cosine"],
    "sam": ["task=digits", "optimizer=sam", "probes=[curvature]"],
    "lookahead": ["task=digits", "optimizer=lookahead", "optimizer.inner=adam", "optimizer.k=2"],
    "noisy": ["task=digits", "task.label_noise=0.2", "task.input_noise=0.1", "task.normalise=pixel"],
    "resnet20": ["task=digits", "model=resnet20", "optimizer=lookahead", "optimizer.k=2", "eval.size=8"],
    "resnet18": ["task=digits", "model=resnet18", "model.norm=group", "model.width=8", "eval.size=8"],
    "sphere": ["task=digits", "model=si_mlp", "train.sphere=true", "probes=[scale_invariant]"],
    "si_convnet": ["task=digits", "model=si_convnet", "model.width=4", "eval.size=8"],
    "mlm": ["task=mlm", "model.dropout=0.1", "model.layers=1", "eval.size=8", "task.vocabulary=260"],
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Have fake tensors answer what only numbers could, and count by place in dynalab where they were asked."""
    found: Counter[str] = Counter()

    def answer(name, value):
        before = getattr(torch.Tensor, name)

        def asked(self, *args, **keys):
            if not isinstance(self, FakeTensor):
                return before(self, *args, **keys)
            if self.device.type == "cuda":
                own = [x for x in traceback.extract_stack() if "/dynalab/" in x.filename]
                found[f"{own[-1].filename.rpartition('/dynalab/')[2]}: {own[-1].line}"] += 1
            return value(self)

        monkeypatch.setattr(torch.Tensor, name, asked)

    to_host = torch.Tensor.cpu
    answer("__bool__", lambda x: True)
    answer("item", lambda x: 1.0)
    answer("__float__", lambda x: 1.0)
    answer("tolist", lambda x: np.full(tuple(x.shape), -1).tolist())
    answer("numpy", lambda x: np.ones(tuple(x.shape)))
    answer("nonzero", lambda x: np.arange(len(x))[:, None])
    answer("cpu", lambda x: to_host(x))
    # The engine of autograd wants a card's streams.
    monkeypatch.setattr(
        torch.autograd, "grad", lambda outputs, inputs, **keys: [*map(torch.zeros_like, inputs)]
    )
    return found


@pytest.mark.parametrize("name", CASES)
def test_nothing_lies_on_the_wrong_device_and_an_update_does_not_wait(name, waits, monkeypatch):
    monkeypatch.setattr(ResNet20, "stages", (1, 1))
    monkeypatch.setattr(ResNet18, "stages", (1, 1))
    (request,) = read_command([*CASES[name], "eval.every=1"]).requests
    with FakeTensorMode(allow_non_fake_inputs=True):
        streams = [Streams.from_seed(seed) for seed in range(2)]
        loop = Loop(request.config, streams, 100, torch.device("cuda"))
        loop.update()
        waits.clear()
        loop.update()
        assert not waits, "an update waits for the card"
        assert loop.rows()
        loop.measuring.items = [item for item in loop.measuring.items if item.grid.name != "every-1"]
        state = loop.measuring.state({"optimizer_state", "upcoming"} if loop.measuring.items else set())
        values = [x for item in loop.measuring.items for x in item.probe.measure(state).values()]
        weights, other = loop.tensors(2)
        held = [*weights.values(), *(x for x in other.values() if x.dim()), *values]
        assert {x.device.type for x in held} == {"cuda"}
        loop.load(2, weights, other)
        loop.update()
        for item in loop.measuring.items:
            if item.on_spike:
                item.measure_run(loop.measuring.state({"optimizer_state", "upcoming"}), 1)


def test_a_network_by_itself_has_no_companion_on_a_card():
    (request,) = read_command(["task=parity"]).requests
    with FakeTensorMode(allow_non_fake_inputs=True):
        loop = Loop(request.config, [Streams.from_seed(0)], 100, torch.device("cuda"))
    assert loop.stack.width == 1
