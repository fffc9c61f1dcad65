"""Parts of unequal weight, in an accumulated batch and in evaluation, are one mean over all of it."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from dynalab.config import registry
from dynalab.config.command import read_command
from dynalab.tasks.base import Batch
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

WORDS = ["task=parity", "task.n=5", "task.k=2", "task.samples=24", "task.held_out=8", "eval.every=1"]
WORDS += ["task.loss=square", "model=mlp", "model.hidden=[6]", "train.steps=4", "optimizer=sgd"]

pytestmark = pytest.mark.usefixtures("one_thread")


def loop_of(*words: str) -> Loop:
    (request,) = read_command([*WORDS, *words]).requests
    return Loop(request.config, [Streams.from_seed(s) for s in (0, 1)], 4, torch.device("cpu"))


def whole(loop: Loop, run: int, weigh) -> tuple[float, float]:
    """Return loss and norm of its gradient over all training examples of a run at its weights, in float64."""
    (request,) = read_command([*WORDS]).requests
    task = registry.find("task", "parity").build(request.config.task)
    with torch.random.fork_rng():
        net = registry.find("model", "mlp").build(request.config.model, task.spec)
    state = {name: p[run].detach().double().requires_grad_() for name, p in loop.stack.params.items()}
    inputs, targets = (x[run].double() for x in (loop.data.train.inputs, loop.data.train.targets))
    weights = weigh(inputs)
    squares = (functional_call(net, state, (inputs,))[:, 0] - targets).square()
    loss = (squares * weights).sum() / weights.sum()
    gradients = torch.autograd.grad(loss, list(state.values()))
    return loss.item(), sum(g.square().sum().item() for g in gradients) ** 0.5


@pytest.mark.parametrize(("size", "count"), [(10, 3), (23, 2)])
def test_parts_of_a_batch_weigh_as_much_as_they_hold(size, count):
    loop = loop_of(f"train.batch_size={size}", f"train.accumulate={count}")
    for _ in range(3):
        expected = [whole(loop, run, lambda x: torch.ones(len(x)).double()) for run in (0, 1)]
        upcoming = loop.updates.upcoming().norm
        loop.update()
        row = loop.rows()["every-1"]
        for run, (loss, norm) in enumerate(expected):
            assert float(row["batch_loss"][run]) == pytest.approx(loss, rel=1e-6)
            assert float(row["grad_norm"][run]) == pytest.approx(norm, rel=1e-6)
            assert float(upcoming[run]) == pytest.approx(norm, rel=1e-6)


def test_a_task_may_say_what_its_loss_is_a_mean_over(monkeypatch):
    """A loss over the examples whose first bit is 1: another number of them in every part, and for every run."""

    def kept(inputs: torch.Tensor) -> torch.Tensor:
        return (inputs[..., 0] > 0).to(inputs.dtype)

    class Some:
        def __init__(self, task) -> None:
            self._task, self.spec, self.data = task, task.spec, task.data

        def loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
            weights = kept(batch.inputs)
            return ((outputs[..., 0] - batch.targets).square() * weights).sum(1) / weights.sum(1)

        def metrics(self, outputs: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
            return {}

        def counted(self, batch: Batch) -> torch.Tensor:
            return kept(batch.inputs).sum(1)

    from dynalab.training import loop as module

    real = module.task_and_network
    monkeypatch.setattr(module, "task_and_network", lambda *x: (Some((found := real(*x))[0]), found[1]))
    loop = loop_of("train.batch_size=9", "train.accumulate=3")
    # Evaluation walks through unequal pieces as well.
    examples = loop.data.train
    loop.data._eval["train"] = [
        Batch(examples.inputs[:, s], examples.targets[:, s]) for s in (slice(0, 17), slice(17, 24))
    ]
    first = loop.rows()["every-1"]
    expected = [whole(loop, run, kept) for run in (0, 1)]
    loop.update()
    row = loop.rows()["every-1"]
    for run, (loss, norm) in enumerate(expected):
        assert float(first["train_loss"][run]) == pytest.approx(loss, rel=1e-6)
        assert float(row["batch_loss"][run]) == pytest.approx(loss, rel=1e-6)
        assert float(row["grad_norm"][run]) == pytest.approx(norm, rel=1e-6)
