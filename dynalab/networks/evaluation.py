"""Losses and metrics of every run over the examples of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.core.plugins import require
from dynalab.core.words import listed
from dynalab.models.nets.parts import parts
from dynalab.networks.stack import Stack
from dynalab.optim.base import evaluated
from dynalab.tasks.base import TaskData, counted
from dynalab.tasks.checks import check_metrics, check_values, unwritten
from dynalab.tasks.loss import Loss

# Entries of rows that go through written-out networks at once on a CPU, so that what becomes of them stays in a core's
# cache. 100 runs of parity take 1.8 us a step and run for both evaluations, all at once 2.4.
MOST_ENTRIES = 1 << 17


# Batches of some splits, weights (S, ...) and a list for which examples of the last split are right -> means of loss
# and metrics, name -> (S,), of each split.
Means = Callable[
    [Sequence[Iterable[Batch]], Mapping[str, Tensor], list[Tensor] | None], list[dict[str, Tensor]]
]


class Evaluation:
    """Evaluates the runs of a shard; the loss is the one that is trained.

    Attributes:
        compiled: What does it in compiled code; None where nothing does.
    """

    compiled: Means | None = None

    def __init__(self, stack: Stack, loss: Loss, data: TaskData) -> None:
        self._stack, self._loss, self._task, self._data = stack, loss, loss.task, data
        # Split -> names of its metrics, once they are known.
        self._names: dict[str, tuple[str, ...]] = {}

    def both(
        self,
        weights: Mapping[str, Tensor],
        correct: list[Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return what `of` does of `train` and of `test`; `correct` is of the latter."""
        if self.compiled is None:
            train = self.of("train", weights, None, buffers)
            return {**train, **self.of("test", weights, correct, buffers)}
        return self._compiled(("train", "test"), self.compiled, weights, correct)

    def _compiled(
        self,
        splits: Sequence[str],
        means: Means,
        weights: Mapping[str, Tensor],
        correct: list[Tensor] | None,
    ) -> dict[str, Tensor]:
        found = means([self._data.eval_batches(split) for split in splits], weights, correct)
        return {f"{s}_{name}": x for s, own in zip(splits, found, strict=True) for name, x in own.items()}

    def of(
        self,
        split: str,
        weights: Mapping[str, Tensor],
        correct: list[Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return `<split>_loss` and the task's metrics with weights (S, ...), each of shape (S,), float64.

        To `correct`, where it is given, is added of every batch which of its examples are right, (S, B), as the task
        says. `buffers` (S, ...) stand in the place of those that go with the evaluated weights.
        """
        if self.compiled is not None:
            return self._compiled((split,), self.compiled, weights, correct)
        batches = self._data.eval_batches(split)

        def means_of(batch: Batch) -> tuple[dict[str, Tensor], int | Tensor]:
            outputs = self._outputs(batch.inputs, weights, buffers).to(self._loss.dtype)
            kept = outputs.shape[:2] == batch.inputs.shape[:2] or not self._stack.made
            require(
                kept,
                self._stack.made,
                outputs[0],
                "outputs of its forward pass with the batch on the first axis",
            )
            with unwritten(self._task.loss, _tensors_of(batch), bits=split not in self._names):
                losses = self._loss(outputs, batch)
            values = self.values(split, outputs, losses, batch)
            if correct is not None:
                correct.append(self._correct(outputs, batch))
            return values, counted(self._task, batch)

        with torch.no_grad():
            means = averaged(map(means_of, batches))
        return {f"{split}_{name}": value for name, value in means.items()}

    def _outputs(
        self, inputs: Tensor, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Return the outputs (S, B, ...) of inputs (S, B, ...), of a few runs at a time where that is faster."""
        rows = inputs.device.type == "cpu" and inputs.dim() == 3 and inputs.is_floating_point()
        several = parts(self._stack.width, MOST_ENTRIES // max(inputs[0].numel(), 1))
        if len(several) == 1 or not rows or not self._stack.is_stacked:
            return self._stack.forward(inputs, weights, buffers=buffers)
        buffers = self._stack.evaluated_buffers if buffers is None else buffers
        found = []
        for part in several:
            own, beside = ({n: x[part] for n, x in tensors.items()} for tensors in (weights, buffers))
            found.append(self._stack.forward(inputs[part], own, buffers=beside))
        return torch.cat(found)

    def _correct(self, outputs: Tensor, batch: Batch) -> Tensor:
        correct = self._task.correct  # type: ignore[attr-defined]
        with unwritten(correct, {"outputs": outputs, **_tensors_of(batch)}):
            right = correct(outputs, batch)
        shape = (self._stack.width, batch.size)
        form = (getattr(right, "shape", None), getattr(right, "dtype", None))
        require(
            form == (shape, torch.bool),
            self._task,
            right,
            f"a tensor of shape {shape} and type bool: which are right",
        )
        return right

    def values(self, split: str, outputs: Tensor, losses: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return loss and metrics (S,) of a batch of a split from outputs (S, B, ...) and losses (S,).

        Raises:
            PluginError: A plug-in's loss or metric is not one value a run, its metrics have other names than those of
                the batches before, or it writes into what it is given.
        """
        check_values(self._task.loss, losses, self._stack.width)
        measure, names = self._task.metrics, self._names.get(split)
        with unwritten(measure, {"outputs": outputs, **_tensors_of(batch)}, bits=names is None):
            metrics = measure(outputs, batch)
        check_metrics(measure, metrics, self._stack.width)
        names = self._names.setdefault(split, tuple(metrics))
        require(
            set(metrics) == set(names), measure, metrics, f"{listed(names)}, as of the {split} batches before"
        )
        return {"loss": losses, **metrics}


def _tensors_of(batch: Batch) -> dict[str, Tensor]:
    return {"batch.inputs": batch.inputs, "batch.targets": batch.targets}


def averaged(parts: Iterable[tuple[Mapping[str, Tensor], int | Tensor]]) -> dict[str, Tensor]:
    """Return means over batches, each of shape (S,), float64.

    `parts` are of each batch its means, name -> (S,), and what they are means over: a number, or each run's, (S,).
    """
    sums: dict[str, Tensor] = {}
    count: int | Tensor = 0
    for values, own in parts:
        for name, value in values.items():
            weighted = value.to(torch.float64) * own
            sums[name] = sums[name] + weighted if name in sums else weighted
        count = count + own
    return {name: value / count for name, value in sums.items()}


def shares_pass(stack: Stack, data: TaskData, optimizer: torch.optim.Optimizer, accumulate: int) -> bool:
    """Return whether the training examples of an evaluation are the next update's batch and weights.

    One pass then does for both, and a row has what that batch has, whole, where others have means over pieces. The
    optimizer is that of the runs, over any parameters; `accumulate` are the batches of an update.
    """
    return (
        bool(getattr(data, "full_batch", False))
        and accumulate == 1
        and not stack.differs_in_training
        and evaluated(optimizer, stack.params) is stack.params
    )
