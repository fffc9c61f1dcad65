"""Where a layer of units has the examples of a pass, as its argument lies in memory, and what is largest among them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """Where a unit's argument has the examples of a pass.

    Attributes:
        axis: Their axis.
        each: How many entries of it an example has.
        units: How many units an example has; 0 of what depends on no example.
    """

    axis: int = 0
    each: int = 1
    units: int = 0

    @classmethod
    def of(cls, two: torch.Size, three: torch.Size) -> Layer:
        """Return it from the shapes that two and three examples give."""
        grown = [axis for axis, (n, m) in enumerate(zip(two, three, strict=True)) if n != m]
        if len(grown) != 1 or two[grown[0]] % 2:
            return cls()
        each = two[grown[0]] // 2
        return cls(grown[0], each, two.numel() // 2)

    def in_rows(self, argument: Tensor) -> bool:
        """Return whether every example's entries lie in one piece, and these one after another."""
        return not self.axis and (
            argument.is_contiguous()
            or (argument.ndim == 4 and argument.is_contiguous(memory_format=torch.channels_last))
        )

    def apart(self, argument: Tensor, offsets: int) -> Tensor:
        """Return a view (offsets, B, ...) of the argument of a pass over B points with each of some offsets."""
        lying = _as_it_lies(argument)
        if not self.axis and lying.is_contiguous():
            return lying.view(offsets, -1, self.units)
        points = argument.shape[self.axis] // (offsets * self.each)
        return argument.unflatten(self.axis, (offsets, points, self.each)).movedim(
            (self.axis, self.axis + 1), (0, 1)
        )

    def together(self, spread: Tensor, like: Tensor) -> Tensor:
        """Return what `apart` makes of a tensor to the shape that it had."""
        lying = _as_it_lies(like)
        if not self.axis and lying.is_contiguous():
            spread = spread.view(lying.shape)
            return spread if lying is like else spread.movedim(-1, 1)
        return spread.movedim((0, 1), (self.axis, self.axis + 1)).reshape(like.shape)


def _as_it_lies(maps: Tensor) -> Tensor:
    """Return a tensor with its channels last, if memory has them so: what is read of it need not be copied."""
    return maps if maps.is_contiguous() or maps.ndim < 3 else maps.permute(0, *range(2, maps.ndim), 1)


def extremes(spread: Tensor, up: Tensor, down: Tensor) -> None:
    """Put the largest and the smallest over offsets, the first axis of (offsets, B or 1, ...), in (B, units) each."""
    for function, out in ((torch.amax, up), (torch.amin, down)):
        # In the order of memory that the argument has, in a row: to another, reductions take up to ten times as long.
        out.copy_(function(spread, 0, out=torch.empty_like(spread[0])).flatten(1))
