"""Batch norms in evaluation that are folded into the linear layer or the convolution before them.

By its running statistics a batch norm is an affine map of every channel by itself, y -> s (y - mean) + shift with
s = scale / sqrt(var + eps). What it makes of a product with weights w and a bias b is the product with s w and the bias
s (b - mean) + shift: a pass over the maps less. The values are those of both layers but for rounding.

What may be folded is found in the calls of a pass (`dynalab.models.recorded`): a product by weights of its state whose
value a batch norm of its state reads at once, and nothing else ever. Where a batch norm comes first, or a shortcut
reads the product too, nothing is. The network and the state keep the weights that they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from dynalab.models.maps import known
from dynalab.models.recorded import Call, State
from dynalab.models.unrolled import Unrolled

# What multiplies by weights whose first axis is that of the channels made: (input, weight, bias, ...).
PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
SUMS = (Tensor.add, torch.add)


@dataclass(frozen=True)
class Fold:
    """A product and the batch norm behind it, by the names of their tensors; None for what one of them does without.

    Attributes:
        in_sum: Whether nothing reads its value but a sum of as many entries, which may then be made in its place.
        channels_last: Whether its maps are so in memory: kernels then put weights in that order.
        unrolled: How it is made by a matrix, if that takes fewer products.
    """

    weight: str
    bias: str | None
    mean: str
    var: str
    scale: str | None
    shift: str | None
    eps: float
    in_sum: bool
    channels_last: bool
    unrolled: Unrolled | None


@dataclass(frozen=True)
class Folded:
    """The weights and the bias of a fold, and whether its value may be overwritten by a sum.

    Attributes:
        weight: As the product takes them; the matrix where it is unrolled.
        bias: One for each channel.
        in_sum: As of the fold.
        unrolled: As of the fold.
    """

    weight: Tensor
    bias: Tensor
    in_sum: bool
    unrolled: Unrolled | None

    def refit(self, input: Tensor, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a product's arguments with these instead of its own."""
        rest = {name: it for name, it in kwargs.items() if name not in ("weight", "bias")}
        return (input, self.weight, self.bias, *args[2:]), rest

    def convolved(self, input: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return what an unrolled product makes of its arguments."""
        assert self.unrolled is not None
        return self.unrolled.convolve(input, self.weight, self.bias)


@dataclass(frozen=True)
class _Value:
    """What a product or a batch norm made, its place among all calls, and those of what has read it."""

    place: int
    call: Call
    reads: list[int] = field(default_factory=list)


def folds_of(calls: Sequence[Call], state: State) -> dict[int, Fold]:
    """Return the folds of a pass in evaluation mode, by the place of their product among all products."""
    names = {id(tensor): name for name, tensor in state.items()}
    values: list[_Value] = []
    for place, call in enumerate(calls):
        given = {id(leaf) for leaf in tree_leaves((call.args, call.kwargs))}
        for value in values:
            if id(value.call.made) in given:
                value.reads.append(place)
        if call.function in PRODUCTS or call.function is F.batch_norm:
            values.append(_Value(place, call))
    by_place = {value.place: value for value in values}

    def fold(product: _Value) -> Fold | None:
        if product.reads != [product.place + 1]:
            return None
        norm, call = by_place.get(product.place + 1), product.call
        if norm is None or norm.call.function is not F.batch_norm:
            return None
        weights = _weights_of(*call.args, **call.kwargs)
        read, *tensors, eps, training = _norm_of(*norm.call.args, **norm.call.kwargs)
        # A product of fewer axes than its weights have has its channels elsewhere.
        if training or read is not call.made or read.ndim != weights[0].ndim:
            return None
        found = [None if it is None else names.get(id(it), "") for it in (*weights, *tensors)]
        weight, bias, mean, var, scale, shift = found
        # What is not of the state, an input may have been made into.
        if not (weight and mean and var) or "" in found:
            return None
        in_sum = len(norm.reads) == 1 and _is_sum(calls[norm.reads[0]], norm.call.made)
        last = (
            read.ndim == 4
            and not read.is_contiguous()
            and read.is_contiguous(memory_format=torch.channels_last)
        )
        unrolled = (
            Unrolled.of(call.made, last, *call.args, **call.kwargs) if call.function is F.conv2d else None
        )
        return Fold(weight, bias, mean, var, scale, shift, eps, in_sum, last, unrolled)

    products = [value for value in values if value.call.function in PRODUCTS]
    folds = {place: fold(product) for place, product in enumerate(products)}
    return {place: it for place, it in folds.items() if it is not None}


def _is_sum(call: Call, value: Tensor) -> bool:
    """Return whether a function adds something to a value, and that has the sum's shape and type."""
    plain = call.function in SUMS and len(call.args) == 2 and not call.kwargs
    return plain and call.made.shape == value.shape and call.made.dtype == value.dtype


def _weights_of(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any
) -> tuple[Tensor, Tensor | None]:
    return weight, bias


def _norm_of(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Any, ...]:
    """Return what a batch norm reads, its epsilon, and whether it normalises by the batch."""
    return input, running_mean, running_var, weight, bias, eps, training


class Folding:
    """The weights of folds, which are made of one state after another in the same memory.

    Attributes:
        weights: Those of every fold, in the type of the states', by the place of its product.
    """

    def __init__(self, folds: Mapping[int, Fold], state: State) -> None:
        """Take the room that the weights of states like this one need."""
        self.weights: dict[int, Folded] = {}
        self._folds = [*folds.values()]
        if not folds:
            return
        self._sizes = [len(state[fold.weight]) for fold in self._folds]
        full = state[self._folds[0].var].new_full
        self._eps = torch.cat(
            [full((n,), fold.eps) for n, fold in zip(self._sizes, self._folds, strict=True)]
        )
        self._slope, self._level = torch.empty_like(self._eps), torch.empty_like(self._eps)
        for (place, fold), bias in zip(folds.items(), self._level.split(self._sizes), strict=True):
            weight = state[fold.weight]
            kept = torch.channels_last if fold.channels_last else torch.contiguous_format
            if fold.unrolled is None:
                product = torch.empty_like(weight, memory_format=kept)
            else:
                product = fold.unrolled.empty(weight)
            self.weights[place] = Folded(product, bias, fold.in_sum, fold.unrolled)
        self._products = [own.weight for own in self.weights.values()]
        self._coded = all(fold.channels_last or fold.unrolled is None for fold in self._folds)
        numbers = (number for fold in self._folds for number in _numbers(fold, state[fold.weight].shape))
        self._numbers = (c_int64 * (_NUMBERS * len(folds)))(*numbers)
        self._places = (c_void_p * len(folds))(*(it.data_ptr() for it in self._products))

    def make(self, state: State) -> None:
        """Make the weights of a state."""
        if not self._folds:
            return
        folds, slope, level = self._folds, self._slope, self._level

        def joined(names: Iterable[str | None], missing: float) -> Tensor:
            """Return the numbers of all channels in one tensor: folds are many, and of few numbers each."""
            given = [(name, n) for name, n in zip(names, self._sizes, strict=True)]
            if not any(name for name, _ in given):
                return slope.new_full((), missing)
            return torch.cat([state[name] if name else slope.new_full((n,), missing) for name, n in given])

        torch.add(joined((fold.var for fold in folds), 1.0), self._eps, out=slope)
        slope.rsqrt_().mul_(joined((fold.scale for fold in folds), 1.0))
        bias, mean = joined((fold.bias for fold in folds), 0.0), joined((fold.mean for fold in folds), 0.0)
        torch.sub(bias, mean, out=level).mul_(slope).add_(joined((fold.shift for fold in folds), 0.0))
        weights = [state[fold.weight] for fold in folds]
        code = known(slope, *weights)
        if code is not None and self._coded and all(weight.is_contiguous() for weight in weights):
            given = (c_void_p * len(folds))(*(weight.data_ptr() for weight in weights))
            code.scaled(given, slope.data_ptr(), len(folds), self._numbers, self._places)
            return
        for fold, weight, own, product in zip(
            folds, weights, slope.split(self._sizes), self._products, strict=True
        ):
            factor = own.view(-1, *(1,) * (weight.ndim - 1))
            if fold.unrolled is None:
                torch.mul(weight, factor, out=product)
            else:
                fold.unrolled.fill(product, weight * factor)


# How many numbers a fold has in maps.cpp.
_NUMBERS = 13


def _numbers(fold: Fold, shape: torch.Size) -> tuple[int, ...]:
    """Return them, for weights of a shape."""
    kernel = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
    of = fold.unrolled or Unrolled(kernel, (1, 1), (1, 1), (0, 0), fold.channels_last)
    by = shape[1:].numel() // (kernel[0] * kernel[1])
    return shape[0], by, *kernel, fold.channels_last, *of.made, *of.read, *of.stride, *of.padding
