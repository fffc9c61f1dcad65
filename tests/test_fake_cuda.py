"""The loop on fake tensors of a card: what lies on the wrong device shows without one, and so do waits of the host."""

from __future__ import annotations

import traceback
from collections import Counter
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.core.streams import Streams
from dynalab.models.resnet18 import Config as ResNet18
from dynalab.models.resnet20 import Config as ResNet20
from dynalab.tasks.images.readers import read_digits
from dynalab.training import host
from dynalab.training.loop import Loop

CASES = {
    "grokking": ["task=grokking", "probes=[weights,gradients,numerics,spectrum]", "probe.spectrum.m=2"],
    "nanda": [
        *("task=grokking", "model=nanda", "optimizer=adam", "optimizer.amsgrad=true", "task.modulus=7"),
        *("probes=[weights,fourier]", "train.temperature=2"),
    ],
    "power": [
        *("task=grokking", "model=power", "model.layers=1", "train.batch_size=8", "train.clip=1"),
        *("train.accumulate=2", "train.loss_dtype=float64", "optimizer.orthogonal=true"),
    ],
    "one-hot": [
        *("task=grokking", "model=onehot_mlp", "optimizer=rmsprop", "probes=[curvature,numerics]"),
        *("task.loss=stablemax",),
    ],
    "gromov": [
        *("task=grokking", "model=gromov", "task.loss=mse", "train.norm_clamp=0.9"),
        *("optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0.9"),
    ],
    "parity": ["task=parity", "task.loss=logistic", "task.label_noise=0.1", "probes=[weights,parity]"],
    "sample": ["task=parity", "model=polynet", "task.samples=100", "probes=[parity]"],
    "sinusoid": ["task=parity", "model=sinusoid", "schedule=warmup"],
    "regression": ["task=regression", "probes=[curvature,directions,modes]", "probe.curvature.trace=2"],
    "teacher": ["task=regression", "task.target=teacher", "schedule=cosine"],
    "sam": ["task=digits", "optimizer=sam", "probes=[curvature,examples]", "schedule=step"],
    "lookahead": [
        *("task=digits", "optimizer=lookahead", "optimizer.inner=adam", "optimizer.k=2"),
        *("probes=[weights,regions]", "probe.regions.points=8", "average=ema"),
    ],
    "noisy": [
        *("task=digits", "task.label_noise=0.2", "task.input_noise=0.1", "schedule=inverse_sqrt"),
        *("train.modes=2", "train.modes_every=1"),
    ],
    "resnet20": ["task=digits", "model=resnet20", "optimizer=lookahead", "optimizer.k=2", "eval.size=8"],
    "resnet18": ["task=digits", "model=resnet18", "model.norm=group", "model.width=8", "eval.size=8"],
    "sphere": ["task=digits", "model=si_mlp", "train.sphere=true", "probes=[scale_invariant]"],
    "si_convnet": ["task=digits", "model=si_convnet", "model.width=4", "eval.size=8"],
    "mlm": ["task=mlm", "model.dropout=0.1", "model.layers=1", "eval.size=8", "task.vocabulary=260"],
}
# Whose rows are searches that go by what they find, or are made of it on the host: they wait.
ASKING = ("curvature/", "probes/curvature.py", "probes/spectrum.py", "probes/circle.py", "probes/fourier.py")
# What makes the host wait for a card: what a kernel found, the size of a result, whether a solver converged.
_FOUND = {"nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount", "repeat_interleave"}
_SOLVERS = (
    "linalg_eig",
    "_linalg_eigh",
    "linalg_svd",
    "_linalg_svd",
    "linalg_solve",
    "linalg_inv",
    "linalg_chol",
)


class Waits(TorchDispatchMode):
    """Counts by place in dynalab what the host would wait for a card at."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def note(self) -> None:
        own = [frame for frame in traceback.extract_stack() if "/dynalab/" in frame.filename]
        self.found[f"{own[-1].filename.rpartition('/dynalab/')[2]}: {own[-1].line}" if own else "?"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_card = [x.device.type == "cuda" for x in tensors]
        to = kwargs.get("device")
        if name == "_to_copy" and to is not None and (torch.device(to).type == "cuda") != on_card[0]:
            waits = not kwargs.get("non_blocking")
        elif name == "copy_":
            waits = on_card[0] != on_card[1] and tensors[1].dim() and not (args[2:] or [False])[0]
        elif name in ("index", "index_put", "index_put_"):
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            waits = on_card[0] and masks and (name == "index" or args[2].numel() > 1)
            waits = waits or (on_card[0] and any(x is not None and x.device.type == "cpu" for x in args[1]))
        else:
            waits = any(on_card) and (name in _FOUND or name.startswith(_SOLVERS))
        if waits:
            self.note()
        return func(*args, **kwargs)


class AtOnce:
    """A pool without threads, which fake tensors do not like."""

    def __init__(self, *args: object) -> None:
        pass

    def submit(self, work, *args):
        done: Future = Future()
        done.set_result(work(*args))
        return done


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Have fake tensors answer what only numbers could, and note where they were asked."""
    waits = Waits()
    # They are kept for every training of this process, and must not be fake ones.
    read_digits()

    def answer(name, value):
        before = getattr(torch.Tensor, name)

        def asked(self, *args, **keys):
            if not isinstance(self, FakeTensor):
                return before(self, *args, **keys)
            if self.device.type == "cuda":
                waits.note()
            return value(self)

        monkeypatch.setattr(torch.Tensor, name, asked)

    answer("__bool__", lambda x: True)
    answer("item", lambda x: 1.0)
    answer("__float__", lambda x: 1.0)
    answer("tolist", lambda x: np.full(tuple(x.shape), -1).tolist())
    answer("numpy", lambda x: np.ones(tuple(x.shape)))
    answer("nonzero", lambda x: np.arange(len(x))[:, None])
    # The engine of autograd wants a card's streams, and so do events.
    monkeypatch.setattr(
        torch.autograd, "grad", lambda outputs, inputs, **keys: [*map(torch.zeros_like, inputs)]
    )
    monkeypatch.setattr(host, "_arrival", lambda device: lambda: None)
    monkeypatch.setattr(host, "ThreadPoolExecutor", AtOnce)
    return waits


def _loop(words: list[str], runs: int = 2) -> Loop:
    (request,) = read_command(words).requests
    every = [f"probe.{name}.every=1" for name in request.config.probe]
    (request,) = read_command([*words, *every, "eval.every=1"]).requests
    streams = [Streams.from_seed(seed) for seed in range(runs)]
    return Loop(request.config, streams, 100, torch.device("cuda"), graph=False)


@pytest.mark.parametrize("name", CASES)
def test_nothing_lies_on_the_wrong_device_and_neither_update_nor_row_waits(name, waits, monkeypatch):
    monkeypatch.setattr(ResNet20, "stages", (1, 1))
    monkeypatch.setattr(ResNet18, "stages", (1, 1))
    with FakeTensorMode(allow_non_fake_inputs=True), waits:
        loop = _loop(CASES[name])
        loop.update()
        loop.rows()
        waits.found.clear()
        # Behind these a block of data, an epoch or a look at what diverged ends.
        loop.updates.step = 63
        for _ in range(2):
            loop.update()
        assert not waits.found, "an update waits for the card"
        assert loop.measuring.rows()
        asked = {place: count for place, count in waits.found.items() if not place.startswith(ASKING)}
        assert not asked, "a row waits for the card"
        state = loop.measuring.state({need for item in loop.measuring.items for need in item.probe.needs})
        values = [x for item in loop.measuring.items for x in item.probe.measure(state).values()]
        weights, other = loop.tensors(2)
        held = [*weights.values(), *(x for x in other.values() if x.dim()), *values]
        assert {x.device.type for x in held} == {"cuda"}
        loop.load(2, weights, other)
        loop.update()
        for item in loop.measuring.items:
            if item.on_spike:
                item.measure_run(loop.measuring.state({"optimizer_state", "upcoming"}), 1)


def test_every_part_that_needs_no_files_is_a_case():
    configs = [read_command(words).requests[0].config for words in CASES.values()]
    named = {
        "task": {config.task.name for config in configs} | {"cifar", "mnist"},
        "model": {config.model.name for config in configs} | {"task"},
        "optimizer": {config.optimizer.name for config in configs},
        "schedule": {config.schedule.name for config in configs},
        "probe": {name for config in configs for name in config.probe},
    }
    assert named == {group: set(registry.names(group)) for group in named}


def test_a_network_by_itself_has_no_companion_on_a_card():
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert _loop(["task=parity"], 1).stack.width == 1
