"""The loss as it is trained and evaluated, from a network's outputs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import Train
from dynalab.core.batch import Batch
from dynalab.tasks.base import Task

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
