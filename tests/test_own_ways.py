"""Ways of plug-ins that differ from dynalab's own, where an update is made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dynalab import train
from dynalab.core.batch import Batch
from dynalab.core.streams import Streams
from dynalab.models.nets.mlp import MLP
from dynalab.networks.stack import Stack
from dynalab.tasks import loss as of_loss
from dynalab.tasks.loss import Loss

OPTIMIZER = """
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "held"
    lr: float = 0.01


def build(config, params):
    import torch

    class Held(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(params, {"lr": config.lr})
            self.inner = INNER

        @torch.no_grad()
        def step(self, closure=None):
            assert self.inner == "sgd" or not self.inner.param_groups[0]["fused"]
            for group in self.param_groups:
                for param in group["params"]:
                    param.sub_(group["lr"] * param.grad)

    return Held()
"""


@pytest.mark.parametrize("inner", ["'sgd'", "torch.optim.SGD(params, lr=0.1, foreach=True)"])
def test_what_an_optimizer_of_ones_own_has_inside_is_left_alone(tmp_path, monkeypatch, one_thread, inner):
    folder = tmp_path / "mine" / "optimizer"
    folder.mkdir(parents=True)
    Path(folder, "held.py").write_text(OPTIMIZER.replace("INNER", inner))
    Path(folder, "held.yaml").write_text("name: held\nlr: null\n")
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path / "mine"))
    words = ["task=parity", "optimizer=held", "train.steps=2", "eval.size=8", "launcher=inline"]
    (ensemble,) = train(words, outputs=tmp_path / "outputs")
    assert ensemble.runs[0].status == "done"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_loss_of_ones_own_may_write_into_the_outputs(monkeypatch, temperature):
    class Task:
        def loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
            outputs -= batch.targets
            return outputs.square().sum((1, 2))

    monkeypatch.setattr(of_loss, "place_of", lambda whose: "mine.py:1: ")
    outputs, targets = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = outputs.clone()
    task: object = Task()
    loss = Loss(task, torch.float64, temperature)  # type: ignore[arg-type]
    losses, gradient = loss.differentiated(outputs, Batch(targets, targets))
    error = before.double() / temperature - targets
    assert torch.equal(outputs, before)
    assert torch.allclose(losses, error.square().sum((1, 2)))
    assert torch.allclose(gradient, (2 * error / temperature).float())


def test_an_activation_of_ones_own_is_differentiated_as_it_is():
    torch.manual_seed(0)
    networks = [MLP(6, 2, [5]) for _ in range(2)]
    for network in networks:
        network.activation = nn.functional.leaky_relu
    stack = Stack(networks, [Streams.from_seed(seed) for seed in range(2)], torch.device("cpu"))
    inputs, gradient = torch.randn(2, 7, 6), torch.randn(2, 7, 2)
    _, vjp = stack.vjp(inputs, stack.params, {}, None)
    found = vjp(gradient)
    (stack.forward(inputs) * gradient).sum().backward()
    assert all(torch.allclose(g, own.grad) for g, own in zip(found, stack.trained.values(), strict=True))
