"""Weights that are held: entries that move by exactly 0, whatever an optimizer's momentum and weight decay would do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from dynalab.optim.base import SLOW, state_of


class Masks:
    """Masks of the parameters of S runs; without any, nothing is computed.

    Args:
        trained: Parameter -> weights, shape (S, ...).
        optimizer: What moves them.

    Attributes:
        of: Parameter -> 1 where an entry is trained, 0 where it is held; shape (S, ...), or one that broadcasts to it.
    """

    def __init__(self, trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        self._trained, self._optimizer = trained, optimizer
        self.of: dict[str, Tensor] = {}

    def gradients(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Return gradients, in the order of the parameters, as 0 where weights are held."""
        if not self.of:
            return gradients
        pairs = zip(self._trained, gradients, strict=True)
        return [g if g is None or name not in self.of else g * self.of[name] for name, g in pairs]

    def holding(self) -> AbstractContextManager[None]:
        """Return what holds the weights, and keeps their moments at 0, while a step is made."""
        return self._holding() if self.of else contextlib.nullcontext()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        before = [
            (weights, weights.detach().clone(), mask)
            for name, mask in self.of.items()
            for weights in (self._trained[name], state_of(self._optimizer, self._trained[name]).get(SLOW))
            if weights is not None
        ]
        yield
        with torch.no_grad():
            for weights, held, mask in before:
                weights.copy_(torch.where(mask > 0, weights, held))
            for name, mask in self.of.items():
                for key, moment in state_of(self._optimizer, self._trained[name]).items():
                    if key != SLOW and moment.dim():
                        moment.mul_(mask)
