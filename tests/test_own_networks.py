"""Networks of one's own, trained stacked, against the plain PyTorch loop of every seed by itself."""

from __future__ import annotations

import pytest
import torch
from stored import bits, difference, only_ensemble
from torch import nn

from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.errors import ConfigError
from dynalab.networks.stack import refuse_own_attributes
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

CPU = torch.device("cpu")
WORDS = ["task=parity", "task.n=5", "task.k=2", "task.samples=24", "task.held_out=8", "eval.every=1"]
WORDS += ["task.loss=square", "train.batch_size=8"]

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """A network in which everything occurs that a parameter or a buffer can be."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.again.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.frozen = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
        self.frozen.requires_grad_(False)
        with torch.no_grad():
            self.head = nn.Parameter(torch.randn(5))
        self.unused = nn.Parameter(torch.ones(3))
        self.sometimes = nn.Parameter(torch.ones(()))
        self.nothing = nn.Parameter(torch.empty(0))
        self.whole = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("mask", torch.rand(5) + 0.5, persistent=False)
        self.register_buffer("mean", torch.zeros(5), persistent=False)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.mask - self.mean
        if self.training:
            self.calls += 1
            self.passes += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        x = torch.tanh(self.first(x)) + self.again(self.frozen(x))
        scale = self.sometimes if self.calls % 3 == 2 else 1.0
        return (x @ self.head * scale)[:, None]


def loop_of(monkeypatch, make, *words: str, seeds=(0, 1, 2), exact=True) -> Loop:
    (request,) = read_command([*WORDS, *words]).requests
    task = registry.find("task", "parity").build(request.config.task)
    monkeypatch.setattr("dynalab.training.loop.task_and_network", lambda *_: (task, make))
    return Loop(request.config, [Streams.from_seed(s) for s in seeds], request.steps, CPU, exact=exact)


def bare(loop: Loop, make, seed: int, steps: int) -> tuple[nn.Module, list[float]]:
    """Train one seed as everybody writes it; return the network and the norms of its gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(Streams.from_seed(seed).integer("init"))
        net = make()
    config, norms = loop.config, []
    data = loop.task.data([Streams.from_seed(seed)], batch_size=8, eval_size=None, device=CPU)
    trained = [param for param in net.parameters() if param.requires_grad]
    optimizer = registry.find("optimizer", config.optimizer.name).build(config.optimizer, trained)
    net.train()
    for step in range(steps):
        batch = data.train_batch(step)
        optimizer.zero_grad()
        (net(batch.inputs[0])[:, 0] - batch.targets[0]).square().mean().backward()
        found = [param.grad.double().square().sum() for param in trained if param.grad is not None]
        norms.append(float(sum(found)) ** 0.5)
        optimizer.step()
    return net, norms


WAYS = [
    ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.1", "optimizer.lr=0.05"],
    ["optimizer=adam", "optimizer.weight_decay=0.1", "optimizer.lr=0.01"],
    ["optimizer=adamw", "optimizer.weight_decay=0.5", "optimizer.lr=0.01"],
    ["optimizer=rmsprop", "optimizer.weight_decay=0.1", "optimizer.lr=0.01"],
]


@pytest.mark.parametrize("exact", [True, False], ids=["stacked", "lone"])
@pytest.mark.parametrize("words", WAYS, ids=lambda words: words[0])
def test_what_is_frozen_shared_unused_or_a_buffer_is_as_torch_has_it(monkeypatch, words, exact):
    seeds = (0, 1, 2) if exact else (1,)
    loop = loop_of(monkeypatch, Net, *words, "train.steps=8", seeds=seeds, exact=exact)
    start = {name: param.detach().clone() for name, param in loop.stack.params.items()}
    rows = []
    for _ in range(8):
        loop.update()
        rows.append(loop.rows()["every-1"])
    for name in ("first.bias", "frozen.0.weight", "frozen.1.weight", "unused", "whole"):
        assert torch.equal(loop.stack.params[name], start[name]), name
    assert not torch.equal(loop.stack.params["sometimes"], start["sometimes"])
    for place, seed in enumerate(seeds):
        net, norms = bare(loop, Net, seed, 8)
        state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        held = {**loop.stack.params, **loop.stack.buffers}
        assert held.keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(held[name][place], tensor, rtol=2e-4, atol=2e-5, msg=name)
        assert [float(row["grad_norm"][place]) for row in rows] == pytest.approx(norms, rel=1e-4)
        whole = sum(param.detach().double().square().sum() for param in net.parameters())
        assert float(rows[-1]["param_norm"][place]) == pytest.approx(float(whole) ** 0.5, rel=1e-4)


def test_a_resumed_loop_goes_on_with_every_buffer_and_count(monkeypatch):
    words = ["optimizer=adamw", "train.steps=9"]
    whole, first, second = (loop_of(monkeypatch, Net, *words) for _ in range(3))
    for _ in range(9):
        whole.update()
    for _ in range(4):
        first.update()
    weights, other = ({k: v.clone() for k, v in part.items()} for part in first.tensors(3))
    second.load(4, weights, other)
    second.stack.network.calls = 4  # what is not state is the network's own affair
    for _ in range(5):
        second.update()
    for mine, theirs in zip(second.tensors(3), whole.tensors(3), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine if name != "loop/loss_max")
    # A checkpoint of before has no buffers that torch would not store: the network's own stand.
    third = loop_of(monkeypatch, Net, *words)
    third.load(4, {name: x for name, x in weights.items() if name not in ("mask", "mean")}, other)
    assert torch.equal(third.stack.buffers["mask"], whole.stack.buffers["mask"])


def test_a_network_whose_output_depends_on_no_parameter_is_refused_and_one_unused_is_not(monkeypatch):
    class Constant(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    class Unused(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.T

    with pytest.raises(
        ConfigError, match="the loss does not depend on any parameter: outputs do not depend on"
    ):
        loop_of(monkeypatch, lambda: Constant(5, 1)).update()
    words = ["probes=[weights,gradients,curvature]", "probe.curvature.every=1", "train.clip=1"]
    loop = loop_of(monkeypatch, lambda: Unused(5, 1), *words)
    start = {name: param.detach().clone() for name, param in loop.stack.params.items()}
    loop.update()
    assert loop.rows()["every-1"]["grad_norm"].isfinite().all()
    assert [torch.equal(loop.stack.params[name], start[name]) for name in ("weight", "bias")] == [False, True]


def test_curvature_is_that_of_what_is_trained(monkeypatch):
    """Least squares with one of two layers frozen: the largest eigenvalue of 2 h^T h / B."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(5, 4, bias=False), nn.Linear(4, 1, bias=False)
            self.first.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x))

    words = [
        "probes=[curvature]",
        "probe.curvature.every=1",
        "probe.curvature.tolerance=1e-4",
        "optimizer=sgd",
    ]
    loop = loop_of(monkeypatch, Half, *words, "train.batch_size=full")
    found = loop.rows()["every-1"]["sharpness"]
    hidden = loop.data.train.inputs @ loop.stack.params["first.weight"].mT
    expected = torch.linalg.eigvalsh(2 * hidden.mT @ hidden / hidden.shape[1])[:, -1]
    torch.testing.assert_close(found, expected.double(), rtol=1e-3, atol=0)


def test_what_cannot_be_trained_apart_is_refused(monkeypatch):
    class Own(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 1)
            self.scales = [torch.rand(5)]

    with pytest.raises(ConfigError, match=r"attribute scales of Own .*register_buffer"):
        loop_of(monkeypatch, Own)
    with pytest.raises(ConfigError, match="attribute scales of Own"):
        loop_of(monkeypatch, Own, seeds=(2,))
    loop_of(monkeypatch, Own, "seed_streams.init=0", seeds=(2,))
    same = [Own() for _ in range(2)]
    same[1].scales = [same[0].scales[0].clone()]
    refuse_own_attributes(same)
    with pytest.raises(ConfigError, match="no parameter to train"):
        loop_of(monkeypatch, lambda: nn.Linear(5, 1).requires_grad_(False))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.RNN(1, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x[:, :, None])[0][:, -1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 1)),
        Recurrent,
    ],
)
def test_what_torch_cannot_stack_is_refused_in_a_line(monkeypatch, make):
    loop = loop_of(monkeypatch, make)
    with pytest.raises(
        ConfigError, match=r"torch cannot run .* several seeds at once \(.*stacked_forward"
    ) as caught:
        loop.update()
    assert "\n" not in str(caught.value)


MODEL = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    name: str = "tied"


def build(config, spec):
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
            self.b.weight = self.a.weight
            self.a.bias.requires_grad_(False)
            self.register_buffer("draw", torch.rand(5), persistent=False)

        def forward(self, x):
            if self.training:
                self.draw.mul_(0.99)
            return self.b(torch.tanh(self.a(x * self.draw))).sum(1, keepdim=True)

    return Tied()
"""


def test_stored_networks_come_back_whole_and_bits_are_a_seeds_own(tmp_path, monkeypatch):
    from dynalab import train

    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/tied.py").write_text(MODEL)
    (tmp_path / "mine/model/tied.yaml").write_text("name: tied\n")
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path / "mine"))
    words = [*WORDS, "model=tied", "launcher=inline", "checkpoint.keep=all"]
    found = {}
    for name, seed, steps in (("whole", "0..2", (6,)), ("alone", "1", (6,)), ("pieces", "0..2", (3, 6))):
        for length in steps:
            (ensemble,) = train([*words, f"seed={seed}", f"train.steps={length}"], outputs=tmp_path / name)
        found[name] = bits(only_ensemble(tmp_path / name))
    assert difference(found["whole"]["s0001"], found["alone"]["s0001"]) == []
    assert found["whole"] == found["pieces"]
    nets = [ensemble.model(seed, step) for seed, step in ((0, 6), (1, 6), (1, 0))]
    assert nets[0].a.weight is nets[0].b.weight and not nets[0].a.bias.requires_grad
    torch.testing.assert_close(nets[1].draw, nets[2].draw * 0.99**6)
    assert not torch.equal(nets[0].draw, nets[1].draw)
