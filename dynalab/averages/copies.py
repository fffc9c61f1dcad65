"""Copies of tensors that move towards them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynalab.optim.lines import line_of, padded

# A step of SGD along copy - tensor: as its gradient the tensor, the copy as the decay of a weight.
_step_along: Any = functools.partial(
    torch._fused_sgd_,
    momentum_buffer_list=[],
    weight_decay=-1.0,
    momentum=0.0,
    dampening=0.0,
    nesterov=False,
    maximize=False,
    is_first_step=False,
)


class Copy:
    """A copy of tensors of S runs, each (S, ...).

    On a CPU it is laid out as weights are, and torch's fused kernel of SGD moves it, to the same bits as `lerp` and in
    half of its time.

    Attributes:
        tensors: The copy itself.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = [padded(x) if x.device.type == "cpu" else x.detach().clone() for x in tensors]
        self._pairs: tuple[Sequence[Tensor], list[list[Tensor]], list[list[Tensor]]] | None = None

    def approach(self, tensors: Sequence[Tensor], share: float) -> None:
        """Move towards tensors of the same shapes by a share of the way, by 1 to them; a list's are the same always."""
        if self._pairs is None or self._pairs[0] is not tensors:
            self._pairs = tensors, *self._paired(tensors)
        _, (lines, to_lines), (others, to_others) = self._pairs
        if share >= 1:
            torch._foreach_copy_(lines + others, to_lines + to_others)
        elif share >= 0.5:
            # Here lerp begins at the other end.
            torch._foreach_lerp_(lines + others, to_lines + to_others, share)
        else:
            if lines:
                _step_along(lines, to_lines, lr=-share)
            if others:
                torch._foreach_lerp_(others, to_others, share)

    def _paired(self, tensors: Sequence[Tensor]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Return copies and tensors, as lines where a fused kernel takes both, and the others."""
        fused: list[list[Tensor]] = [[], []]
        others: list[list[Tensor]] = [[], []]
        for pair in zip(self.tensors, tensors, strict=True):
            known = all(x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) for x in pair)
            lines = [line for line in map(line_of, pair) if known and line is not None]
            for held, x in zip(*((fused, lines) if len(lines) == 2 else (others, pair)), strict=True):
                held.append(x.detach())
        return fused, others
