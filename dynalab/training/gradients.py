"""The gradient of an update: batches through the networks, accumulation, sharpness-aware ascent, clipping."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynalab.config.schema import Train
from dynalab.optim.ascent import ascended, joint_norm, radius
from dynalab.optim.base import evaluated
from dynalab.probes.base import Upcoming
from dynalab.tasks.base import Batch, Task, TaskData
from dynalab.training.clipping import clip_scale, scaled
from dynalab.training.stack import Stack


@dataclass(frozen=True)
class Pass:
    """A batch that went through the networks: outputs (S, B, ...) and losses (S,), with their graph.

    Attributes:
        versions: Of the parameters: whoever writes to them afterwards needs another pass.
    """

    batch: Batch
    outputs: Tensor
    losses: Tensor
    versions: list[int]


class Gradients:
    """Makes the gradients of the updates of a shard.

    Args:
        stack: The networks of its runs.
        task: What they learn.
        data: Its examples.
        optimizer: What the gradients are for.
        train: Batches and clipping.
        dtype: Precision of the loss, from the outputs on.

    Attributes:
        shares_pass: Whether the training examples of an evaluation are the next update's batch and weights, so that
            one pass does for both.
    """

    def __init__(
        self,
        stack: Stack,
        task: Task,
        data: TaskData,
        optimizer: torch.optim.Optimizer,
        train: Train,
        dtype: torch.dtype,
    ) -> None:
        """Keep them."""
        self._stack, self._task, self._data, self._optimizer = stack, task, data, optimizer
        self._count, self._clip, self._dtype = train.accumulate, train.clip, dtype
        self._params = list(stack.params.values())
        self._kept: Pass | None = None
        self.shares_pass = (
            bool(getattr(data, "full_batch", False))
            and train.accumulate == 1
            and not stack.differs_in_training
            and evaluated(optimizer, stack.params) is stack.params
        )

    def of(
        self, step: int, weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Batch, Tensor, Sequence[Tensor]]:
        """Return the last batch, the mean losses (S,) and the mean gradients of the batches of an update.

        Args:
            step: The update is `step` -> `step + 1`.
            weights: Where to take them, in place of the weights that are trained; running statistics then stay.
        """
        leaves, buffers = self._stack.params, None
        if weights is not None:
            leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            buffers = {name: buffer.clone() for name, buffer in self._stack.buffers.items()}
        total: tuple[Tensor, ...] = ()
        losses: list[Tensor] = []
        for part in range(self._count):
            done = None
            if weights is None:
                done, self._kept = self._kept, None
            if done is None or done.versions != self._versions():
                done = self._pass(step * self._count + part, leaves, buffers)
            batch, own = done.batch, done.losses / self._count if self._count > 1 else done.losses
            gradients = torch.autograd.grad(own.sum(), list(leaves.values()))
            losses.append(own.detach())
            total = tuple(map(torch.add, total, gradients)) if part else gradients
        return batch, functools.reduce(torch.add, losses), total

    def as_applied(self, step: int, gradients: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor | None]:
        """Return gradients as the optimizer is given them, and the factor (S,) of clipping, None without it."""
        rho = radius(self._optimizer)
        if rho:
            gradients = self.of(step, ascended(self._stack.params, gradients, rho))[2]
        if self._clip is None:
            return gradients, None
        scale = clip_scale(gradients, self._clip)
        return scaled(gradients, scale), scale

    def upcoming(self, step: int, factor: float) -> Upcoming:
        """Compute what an update will be given, without making it.

        Args:
            step: The update is `step` -> `step + 1`.
            factor: Of the learning rate in it.
        """
        weights = {name: param.detach() for name, param in self._stack.params.items()}
        raw = self.of(step, weights)[2]
        applied, scale = self.as_applied(step, raw)
        norm = joint_norm(raw)
        return Upcoming(
            dict(zip(weights, applied, strict=True)),
            weights,
            norm,
            torch.ones_like(norm) if scale is None else scale,
            factor,
        )

    def ahead(self, step: int) -> Pass:
        """Make the pass of the update `step` -> `step + 1` now; `of` takes it up, unless weights change before."""
        self._kept = self._pass(step)
        return self._kept

    def forget(self) -> None:
        """Forget the pass that was made ahead."""
        self._kept = None

    def _pass(
        self,
        number: int,
        weights: Mapping[str, Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Pass:
        """Take the training batch of a number through the networks, ready to be differentiated.

        Args:
            number: Of the batch.
            weights: The stack's own by default.
            buffers: Likewise.
        """
        batch = self._data.train_batch(number)
        noise = self._stack.noise_of(number, batch.inputs)
        outputs = self._stack.forward(batch.inputs, weights, training=True, noise=noise, buffers=buffers)
        outputs = outputs.to(self._dtype)
        return Pass(batch, outputs, self._task.loss(outputs, batch), self._versions())

    def _versions(self) -> list[int]:
        """Return how often each parameter was written to."""
        return [param._version for param in self._params]
