"""Spikes of the training loss, seen while training without a look at every step: they force rows of their own.

The losses of updates stay on the device; once in `BLOCK` steps, on a grid of the step alone, the largest of each run's
since the last look is compared with the same of the blocks before. So a run is seen to spike by its own losses and no
clock, neighbour or interruption moves the step at which it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BLOCK, BEFORE = 64, 4
# A spike is ten times the lowest of the blocks before, and no smaller than where losses are noticed.
TIMES, LEAST = 10.0, 1e-3


class Spikes:
    """What is remembered of the losses of S runs."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._most = torch.full((width,), -torch.inf, dtype=torch.float64, device=device)
        self._blocks = torch.full((width, BEFORE), torch.nan, dtype=torch.float64, device=device)
        self._last = torch.full((width,), -1, dtype=torch.int64, device=device)

    def add(self, largest: Tensor) -> None:
        """Take the largest losses of some updates, shape (S,)."""
        self._most = torch.maximum(self._most, largest)

    def at(self, step: int, apart: int) -> list[int]:
        """Return the runs that spiked in the block that ends at a step; called once a block.

        Spikes of a run count that are so many steps `apart`: rows cost no more than the regular ones.
        """
        level = self._blocks.amin(1)
        # A comparison with NaN, where there are fewer blocks or the loss is not finite, is false.
        high = (self._most >= TIMES * level) & (self._most >= LEAST) & self._most.isfinite()
        found = high & ((self._last < 0) | (step - self._last >= apart))
        self._last = torch.where(found, step, self._last)
        self._blocks = torch.cat([self._blocks[:, 1:], self._most[:, None]], dim=1)
        self._most = torch.full_like(self._most, -torch.inf)
        return found.nonzero()[:, 0].tolist()

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, name -> (S, ...)."""
        return {"most": self._most, "blocks": self._blocks, "last": self._last}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        self._most, self._blocks, self._last = (tensors[name] for name in ("most", "blocks", "last"))
