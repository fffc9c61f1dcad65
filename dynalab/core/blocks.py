"""Blocks: what a probe records beside its columns, of another type than float64 and of more than one value a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
)


@dataclass(frozen=True)
class Block:
    """What a block is, for one run and one row.

    It has no NaN to say that a run has no value: from its divergence on a run has zeros, which readers leave out.

    Attributes:
        dtype: Type of its values, one of `TYPES`.
        shape: Shape of one run; of one value, ().
    """

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def stored(self) -> np.dtype:
        """Its type in a file, the same on every machine."""
        return np.dtype(self.dtype).newbyteorder("<")

    @classmethod
    def of(cls, dtype: Any, shape: tuple[int, ...]) -> Block:
        """Return the block of a type and the shape of one run."""
        return cls(np.dtype(dtype).newbyteorder("=").name, tuple(shape))


@dataclass(frozen=True)
class BlockRows:
    """A block of one run, up to where it diverged."""

    steps: np.ndarray  # Shape (T,), ascending integers.
    values: np.ndarray  # Shape (T, ...), of the block's type.

    def __len__(self) -> int:
        return len(self.steps)

    def until(self, step: int) -> BlockRows:
        """Return the rows up to a step."""
        return self.where(self.steps <= step)

    def where(self, chosen: np.ndarray) -> BlockRows:
        """Return some of the rows, chosen by a mask (T,)."""
        return self if chosen.all() else BlockRows(self.steps[chosen], self.values[chosen])
