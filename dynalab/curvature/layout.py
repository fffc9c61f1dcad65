"""Parameters of S runs as rows of one matrix, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# Rows are filled up to a multiple of this many entries, so that every run's row, and every parameter in it, has the
# same alignment in memory whatever its place: products that take another road for an unaligned start round otherwise.
ALIGNED = 16


class Layout:
    """Where each parameter lies in a row.

    Attributes:
        size: Number of parameters of one run, P.
        width: Length of a row: P, filled up with zeros to a multiple of `ALIGNED`.
        shapes: Name -> shape of one run's parameter.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        """Read the shapes of stacked parameters (S, ...)."""
        self.shapes = {name: tuple(param.shape[1:]) for name, param in params.items()}
        self._places: dict[str, slice] = {}
        end = 0
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            self._places[name] = slice(end, end + count)
            end += count
        self.size = end
        self.width = -(-end // ALIGNED) * ALIGNED

    def rows(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Lay tensors (S, ...) side by side; a missing one counts as zeros. Shape (S, width)."""
        some = next(iter(tensors.values()))
        out = some.new_zeros(some.shape[0], self.width)
        for name, tensor in tensors.items():
            out[:, self._places[name]] = tensor.unsqueeze(-1).flatten(1)
        return out

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """Cut rows (S, width) into name -> (S, ...), views where the shapes allow it."""
        return {
            name: rows[:, self._places[name]].reshape(rows.shape[0], *shape)
            for name, shape in self.shapes.items()
        }

    def random(self, seed: int, like: Tensor) -> Tensor:
        """Return a row of normal numbers (width,), a function of the seed alone; the filling is 0."""
        return self._filled(torch.randn(self.size, generator=torch.Generator().manual_seed(seed)), like)

    def signs(self, seed: int, like: Tensor) -> Tensor:
        """Return a row of +-1 (Rademacher), likewise."""
        bits = torch.randint(0, 2, (self.size,), generator=torch.Generator().manual_seed(seed))
        return self._filled(bits * 2.0 - 1.0, like)

    def _filled(self, numbers: Tensor, like: Tensor) -> Tensor:
        row = torch.zeros(self.width)
        row[: self.size] = numbers
        return row.to(like.device, like.dtype)
