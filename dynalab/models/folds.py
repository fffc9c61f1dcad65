"""Batch norms in evaluation that are folded into the linear layer or the convolution before them.

By its running statistics a batch norm is an affine map of every channel by itself, y -> s (y - mean) + shift with
s = scale / sqrt(var + eps). What it makes of a product with weights w and a bias b is the product with s w and the bias
s (b - mean) + shift: a pass over the maps less. The values are those of both layers but for rounding.

What may be folded is found in the calls of a pass (`dynalab.models.recorded`): a product by weights of its state whose
value a batch norm of its state reads at once, and nothing else ever. Where a batch norm comes first, or a shortcut
reads the product too, nothing is. The network and the state keep the weights that they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

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


def folded(folds: Mapping[int, Fold], state: State) -> dict[int, Folded]:
    """Return the weights of every fold, in the type of the state's."""
    if not folds:
        return {}
    all = [*folds.values()]
    sizes = [len(state[fold.weight]) for fold in all]
    like = state[all[0].var]

    def joined(names: Sequence[str | None], missing: float) -> Tensor:
        """Return the numbers of all channels in one tensor: folds are many, and of few numbers each."""
        if not any(names):
            return like.new_full((), missing)
        given = zip(names, sizes, strict=True)
        return torch.cat([state[name] if name else like.new_full((n,), missing) for name, n in given])

    slope = joined([fold.var for fold in all], 1.0)
    if len({fold.eps for fold in all}) == 1:
        slope += all[0].eps
    else:
        slope += torch.cat([like.new_full((n,), fold.eps) for n, fold in zip(sizes, all, strict=True)])
    slope.rsqrt_().mul_(joined([fold.scale for fold in all], 1.0))
    level = (joined([fold.bias for fold in all], 0.0) - joined([fold.mean for fold in all], 0.0)).mul_(slope)
    level += joined([fold.shift for fold in all], 0.0)
    made: dict[int, Folded] = {}
    for (place, fold), own, bias in zip(folds.items(), slope.split(sizes), level.split(sizes), strict=True):
        weight = state[fold.weight]
        kept = torch.channels_last if fold.channels_last else torch.contiguous_format
        product = torch.empty_like(weight, memory_format=kept)
        torch.mul(weight, own.view(-1, *(1,) * (weight.ndim - 1)), out=product)
        if fold.unrolled is not None:
            product = fold.unrolled.matrix(product)
        made[place] = Folded(product, bias, fold.in_sum, fold.unrolled)
    return made
