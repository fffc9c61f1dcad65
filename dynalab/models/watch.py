"""What looks on as a network calls functions: its units are handed over, its products get the weights of folds.

A batch norm that is folded into its product is passed over, a sum that may be is made in the place of one of its parts,
and is left to the unit that reads it where that is called next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import batch_norm, linear
from torch.overrides import TorchFunctionMode

from dynalab.models.folds import PRODUCTS, SUMS, Folded
from dynalab.models.sums import Function, Sums

# From a unit's place in the pass and how it is called comes its value.
Look = Callable[[int, "UnitCall"], Tensor]

_RELU = (torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_)
# Nonlinearities of which the sign of the argument says on which side of its middle a unit is -> the same out of place.
UNITS: dict[Any, Function] = {
    **dict.fromkeys(_RELU, torch.relu),
    **dict.fromkeys((torch.tanh, torch.tanh_, F.tanh, Tensor.tanh, Tensor.tanh_), torch.tanh),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, F.sigmoid, Tensor.sigmoid), torch.sigmoid),
    **dict.fromkeys((torch.sin, torch.sin_, Tensor.sin, Tensor.sin_), torch.sin),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), F.leaky_relu),
    **dict.fromkeys((F.elu, F.elu_), F.elu),
    **dict.fromkeys((torch.celu, torch.celu_, F.celu), F.celu),
    **dict.fromkeys((torch.selu, torch.selu_, F.selu), F.selu),
    **{f: f for f in (F.gelu, F.silu, F.mish, F.softplus, F.prelu, torch.prelu, F.relu6, F.hardswish)},
}
# Functions that read no entries of what lies in one piece.
_VIEWS = (Tensor.flatten, torch.flatten, Tensor.view, Tensor.reshape, torch.reshape)


@dataclass(frozen=True)
class UnitCall:
    """How a unit is called.

    Attributes:
        function: The function, out of place.
        argument: Its argument.
        in_place: Whether its value goes there.
        sums: What the argument is the sums of, where they are not made.
        more: What is to be added to the argument, of its shape and in its order of memory.
    """

    function: Function
    argument: Tensor
    in_place: bool
    sums: Sums | None
    more: list[Tensor]

    def fill(self) -> None:
        """Make what is not made of the argument."""
        if self.sums is not None:
            self.sums.fill()
        while self.more:
            self.argument.add_(self.more.pop())

    def plain(self) -> Tensor:
        """Return the function's value."""
        self.fill()
        return self.function(self.argument)

    def tangent(self) -> Tensor:
        """Return that of the function's tangent at the points whose sums with offsets the argument is."""
        assert self.sums is not None
        return self.sums.tangent(self.function, self.in_place)


class Watch(TorchFunctionMode):
    """Hands every unit over; what comes back is its value. Products get the weights that are folded for them."""

    def __init__(
        self, look: Look, sums: Sequence[Sums] = (), weights: Mapping[int, Folded] | None = None
    ) -> None:
        super().__init__()
        self._look, self._sums, self._weights = look, sums, weights or {}
        self._seen = self._products = 0
        # The value of a product that has its batch norm in it, until that is called; and one that a sum may overwrite.
        self._folded: Tensor | None = None
        self._in_sum: list[Tensor] = []
        # Such a value and what is to be added to it, until anything but a unit of the sum is called.
        self._late: tuple[Tensor, Tensor] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.call(func, args, dict(kwargs or {}))

    def call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return what a function makes of its arguments, or what stands for that."""
        function = func if getattr(func, "is_unit", False) else UNITS.get(func)
        late, self._late = self._late, None
        more = []
        if late is not None and function is not None and args and args[0] is late[0]:
            more.append(late[1])
        elif late is not None:
            late[0].add_(late[1])
        if func in PRODUCTS:
            return self._product(func, args, kwargs)
        if function is None:
            if func is batch_norm and args[0] is self._folded:
                return args[0]
            if func not in _VIEWS:
                self._fill(args, kwargs)
            if self._in_sum and func in SUMS:
                return self._sum(func, args, kwargs)
            return func(*args, **kwargs)
        argument, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
        in_place = kwargs.pop("inplace", False) or getattr(func, "__name__", "").endswith("_")
        place, self._seen = self._seen, self._seen + 1
        own = _Given(function, rest, kwargs) if rest or kwargs else function
        sums = next((sums for sums in self._sums if sums.tensor is argument and sums.is_blank), None)
        if sums is None:
            self._fill(args, kwargs, argument)
        value = self._look(place, UnitCall(own, argument, in_place, sums, more))
        return argument.copy_(value) if in_place and value is not argument else value

    def _product(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what a product makes of its arguments, and its batch norm where it has that in it."""
        own, self._products = self._weights.get(self._products), self._products + 1
        if own is not None and own.unrolled is not None:
            func = own.convolved
        elif own is not None:
            args, kwargs = own.refit(*args, **kwargs)
        apart = (one.linear(*args, **kwargs) for one in self._sums) if func is linear else ()
        value = next((made for made in apart if made is not None), None)
        if value is None:
            self._fill(args, kwargs)
            value = func(*args, **kwargs)
            if own is not None and own.in_sum:
                self._in_sum.append(value)
        if own is not None:
            self._folded = value
        return value

    def _sum(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return a sum, in the place of an argument that nothing else reads."""
        for place, value in enumerate(self._in_sum):
            if args[0] is value or (args[1:] and args[1] is value):
                del self._in_sum[place]
                other = args[1] if args[0] is value else args[0]
                if (
                    isinstance(other, Tensor)
                    and other.stride() == value.stride()
                    and other.shape == value.shape
                ):
                    self._late = value, other
                    return value
                return value.add_(other)
        return func(*args, **kwargs)

    def _fill(self, args: Sequence[Any], kwargs: Mapping[str, Any], *more: Tensor) -> None:
        """Make the sums that a function reads."""
        for sums in self._sums:
            if sums.is_blank and sums.is_among((*args, *kwargs.values(), *more)):
                sums.fill()


@dataclass(frozen=True)
class _Given:
    """A function of its first argument."""

    function: Function
    rest: Sequence[Any]
    kwargs: Mapping[str, Any]

    def __call__(self, argument: Tensor) -> Tensor:
        return self.function(argument, *self.rest, **self.kwargs)
