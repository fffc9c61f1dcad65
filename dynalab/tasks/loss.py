"""The loss as it is trained and evaluated, from a network's outputs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dynalab.config.schema import Train
from dynalab.core.batch import Batch
from dynalab.core.plugins import by_hand, place_of
from dynalab.tasks.base import Task
from dynalab.tasks.checks import check_values

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A task's loss in a precision, of outputs divided by a temperature.

    Attributes:
        task: The task.
        dtype: Precision, from the outputs on.
        temperature: What outputs are divided by; 1 divides nothing.
    """

    task: Task
    dtype: torch.dtype
    temperature: float = 1.0

    @cached_property
    def _by_hand(self) -> Callable[[Tensor, Batch], tuple[Tensor, Tensor] | None] | None:
        return by_hand(self.task, "loss_and_gradient", "loss")

    @cached_property
    def _is_users(self) -> bool:
        return place_of(self.task.loss) is not None

    @classmethod
    def of(cls, task: Task, train: Train) -> Loss:
        """Return the loss that a configuration trains."""
        import torch

        return cls(task, getattr(torch, train.loss_dtype), train.temperature)

    def logits(self, outputs: Tensor) -> Tensor:
        """Return outputs (S, B, ...) as the task's loss is given them."""
        outputs = outputs.to(self.dtype)
        return outputs if self.temperature == 1 else outputs / self.temperature

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean loss (S,) from outputs (S, B, ...)."""
        return self.task.loss(self.logits(outputs), batch)

    def differentiated(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return each run's mean loss (S,), and its gradient by outputs (S, B, ...), of their shape and type.

        There is no gradient, None, where the loss does not depend on them.
        """
        import torch

        logits = self.logits(outputs)
        gradient: Tensor | None
        if self._by_hand is not None and (found := self._by_hand(logits, batch)) is not None:
            losses, gradient = found
        else:
            logits = logits.detach().requires_grad_()
            with torch.enable_grad():
                # A plug-in's may write into what it is given.
                losses = self.task.loss(logits.clone() if self._is_users else logits, batch)
            if self._is_users:
                check_values(self.task.loss, losses, len(outputs))
            if not losses.requires_grad:
                return losses, None
            (gradient,) = torch.autograd.grad(losses.sum(), [logits], allow_unused=True)
            losses = losses.detach()
        if gradient is not None and self.temperature != 1:
            gradient = gradient / self.temperature
        return losses, gradient if gradient is None else gradient.to(outputs.dtype)
