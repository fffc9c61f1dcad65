"""Sums of values at points and of what offsets add to them, which a linear layer and a tangent take apart.

What a linear layer makes of them is sums again, of its values at the points and of its products with the offsets, and
so is what an affine function of every number makes. So nothing is added before something else reads the sums; where
all points have the same offsets, as inputs have, there are far fewer products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import linear

Function = Callable[..., Tensor]


class Sums:
    """The sums of the values at B points and of what n offsets add to them, those of the first offset first.

    Attributes:
        tensor: The sums, (n B, ...), and before them the values at the points if asked for. Until something reads
            them, what the offsets add stands there in their place, or nothing.
        first: Whether the values at the points stand before the sums.
        is_blank: Whether the sums are not made.
        all: All such sums of a pass.
    """

    def __init__(self, tensor: Tensor, count: int, all: list[Sums], first: bool = True) -> None:
        """Take a tensor of the values at `count` points, and after them what each offset adds to them."""
        self.tensor, self.all, self.first, self.is_blank = tensor, all, first, True
        self._apart = tensor.view(-1, count, *tensor.shape[1:])
        self._given: tuple[Tensor, Tensor] | None = None
        all.append(self)

    @classmethod
    def of(cls, points: Tensor, offsets: Tensor, all: list[Sums], first: bool = True) -> Sums:
        """Return the sums of points (B, ...) and offsets (n, ...)."""
        tensor = points.new_empty((first + len(offsets)) * len(points), *points.shape[1:])
        sums = cls(tensor, len(points), all, first)
        sums._given = points, offsets
        return sums

    @property
    def here(self) -> Tensor:
        """The values at the points, (B, ...)."""
        return self._given[0] if self._given else self._apart[0]

    @property
    def offsets(self) -> Tensor:
        """What is added to them, (n, B or 1, ...)."""
        return self._given[1].unsqueeze(1) if self._given else self._apart[1:]

    def fill(self) -> None:
        """Make the sums, unless they are made."""
        if not self.is_blank:
            return
        self.is_blank = False
        if self._given and self.first:
            self._apart[0].copy_(self.here)
        torch.add(self.here, self.offsets, out=self._apart[self.first :])
        self._given = None

    def is_among(self, values: Iterable[object]) -> bool:
        """Return whether a function that is given some values may read the sums."""
        return any(
            value is self.tensor
            or isinstance(value, list | tuple)
            or (isinstance(value, Tensor) and value._base is self.tensor)
            for value in values
        )

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """Return what a linear layer makes of the sums; None where its argument is anything else, or they were read."""
        if not self.is_blank or not self.is_among([input]) or not input.is_contiguous():
            return None
        if input.shape != (len(self.tensor), weight.shape[1]):
            return None
        if self._given:
            points, offsets = (part.flatten(1) for part in self._given)
            made = linear(points, weight, bias), linear(offsets, weight)
            return Sums.of(*made, self.all, self.first).tensor
        count = self._apart.shape[1]
        out = linear(self.tensor.flatten(1), weight)
        if bias is not None:
            out[:count] += bias
        return Sums(out, count, self.all).tensor

    def tangent(self, function: Function, in_place: bool) -> Tensor:
        """Return what a function's tangent at the points makes of the sums."""
        at, slope = tangent_of(function, self.here)
        sums = self if in_place else Sums(torch.empty_like(self.tensor), len(at), self.all)
        torch.mul(slope, self.offsets, out=sums._apart[1:])
        sums._apart[0].copy_(at)
        sums._given = None
        return sums.tensor


def heaviside(x: Tensor) -> Tensor:
    """Return 1 where x is above 0, else 0, in its type."""
    return torch.gt(x, 0, out=torch.empty_like(x))


def tangent_of(function: Function, here: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the slope of an elementwise function at `here`."""
    if function is torch.relu:
        slope = heaviside(here)
        return slope * here, slope
    with torch.enable_grad():
        leaf = here.detach().clone().requires_grad_()
        value = function(leaf)
        (slope,) = torch.autograd.grad(value.sum(), [leaf])
    return value.detach(), slope
