"""What examples are drawn from, block by block: for a card the next block is drawn while one is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dynalab.core.devices import as_here, pinned


class Ahead:
    """Draws blocks of tensors, and holds the last one on a device.

    Args:
        draw: Draws a block on the host, by its number alone.
        device: Where blocks are wanted. On a CPU nothing is drawn before its time: its cores are in use.
        finish: What is made of a block there.
    """

    def __init__(
        self,
        draw: Callable[[int], Sequence[Tensor]],
        device: torch.device,
        finish: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda tensors: tensors,
    ) -> None:
        self._draw, self._device, self._finish = draw, device, finish
        self._pool = ThreadPoolExecutor(1, "draws", as_here()) if device.type == "cuda" else None
        self._held: tuple[int, Sequence[Tensor]] = -1, ()
        self._next: tuple[int, Future[Sequence[Tensor]] | None] = -1, None

    def block(self, number: int) -> Sequence[Tensor]:
        """Return a block, on the device."""
        if number != self._held[0]:
            expected, drawn = self._next
            host = drawn.result() if drawn is not None and number == expected else self._made(number)
            self._held = number, self._finish([x.to(self._device, non_blocking=True) for x in host])
            if self._pool is not None:
                self._next = number + 1, self._pool.submit(self._made, number + 1)
        return self._held[1]

    def _made(self, number: int) -> Sequence[Tensor]:
        return [pinned(tensor, self._device) for tensor in self._draw(number)]
