"""Tensors of S runs as torch's fused kernels take them: one line of memory, a whole number of vectors long.

These kernels round the last few entries of a tensor, which fill no vector, otherwise than the rest, so a seed's bits
would depend on its place in the stack. With zeros behind them there are no such entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Entries of the widest vector: 64 bytes of float32.
LANES = 16


def whole(count: int) -> int:
    """Return a number of entries, rounded up to whole vectors."""
    return -(-count // LANES) * LANES


def padded(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor, contiguous, with zeros behind it that fill its last vector."""
    line = tensor.new_zeros(whole(tensor.numel()))
    return line[: tensor.numel()].view(tensor.shape).copy_(tensor.detach())


def line_of(tensor: Tensor) -> Tensor | None:
    """Return the memory of a tensor, of one dimension, with what fills its last vector.

    None of a tensor that does not lie in one piece, or behind which there is too little memory, or too much.
    """
    size = whole(tensor.numel())
    fits = size == tensor.numel()
    if not fits:
        end = tensor.untyped_storage().nbytes() // tensor.element_size()
        fits = end == tensor.storage_offset() + size
    return tensor.detach().as_strided((size,), (1,)) if fits and tensor.is_contiguous() else None


class Lines:
    """What a fused kernel is given of one parameter; it stands in the optimizer's state and goes where that goes.

    Args:
        param: The parameter, laid out by `padded`.
        state: What the optimizer holds for it; moments that are missing are added to it.
        names: Of its moments.

    Attributes:
        param: The line of its weights.
        moments: Those of its moments.
        names: Theirs.
        first: Whether it had no moment and was not updated since.
    """

    def __init__(self, param: Tensor, state: dict[str, Any], names: Sequence[str]) -> None:
        line = line_of(param)
        assert line is not None
        self.param = line
        self.names, self.first, self.moments = names, not state.keys() & {*names}, list[Tensor]()
        for name in names:
            # A checkpoint's lie as they were loaded.
            state[name] = padded(state.get(name, torch.zeros_like(param)))
            moment = line_of(state[name])
            assert moment is not None
            self.moments.append(moment)
        self._copy: tuple[Tensor, Tensor] | None = None

    def of_gradient(self, gradient: Tensor) -> Tensor:
        """Return a gradient, or a copy of it where it lies otherwise than the weights do; it is not held here."""
        if gradient.numel() == len(self.param) and gradient.is_contiguous():
            return gradient
        if self._copy is None:
            copy = padded(gradient)
            self._copy = copy, copy.as_strided(self.param.shape, (1,))
        copy, line = self._copy
        copy.copy_(gradient)
        return line
