"""What crosses the walls between tasks, models and what measures them: examples of S seeds, and what they look like.

Every tensor here carries the seeds of a shard on axis 0 (S), since a shard trains its seeds in lockstep.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a model must know of a task to be built for it."""

    # `pairs` (two integer symbols in one row), `vector` (a row of floats), `image` (a row of floats, laid out as
    # `shape`) or a task's own word.
    kind: str
    symbols: int  # Number of distinct input symbols (`pairs`), or the length of the row (`vector`, `image`).
    classes: int  # Number of outputs.
    # Of one example where `symbols` does not say it; (channels, height, width) of an `image`.
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Bits:
    """Batches of S seeds, one behind the other, as bits: inputs are signs, labels products of them."""

    # Shape (S, bytes), uint8, the highest bit of a byte first; 0 is +1, 1 is -1. 8 bytes follow those that count.
    packed: Tensor
    size: int  # Number of examples of one seed in a batch, B.
    n: int  # Inputs of one example.
    k: int  # Of how many, the first, the label is the product.
    first: int = 0  # The place of the first bit.
    count: int = 1  # Number of batches.
    flips: Tensor | None = None  # Shape (S, count B), bool: whether a label is turned over.


@dataclass(frozen=True)
class Batch:
    """Examples of S seeds side by side."""

    inputs: Tensor  # Shape (S, B, ...).
    targets: Tensor  # Shape (S, B, ...).
    bits: Bits | None = field(default=None, kw_only=True)  # The same, where they are known as bits.

    @property
    def size(self) -> int:
        """Number of examples of one seed, B."""
        return self.targets.shape[1]

    def part(self, first: int, last: int) -> Batch:
        """Return the examples `first` to `last` - 1 of every seed, views."""
        own = self.bits
        if own is not None:
            flips = None if own.flips is None else own.flips[:, first:last]
            size = len(range(*slice(first, last).indices(self.size)))
            own = replace(own, size=size, first=own.first + first * own.n, flips=flips)
        return Batch(self.inputs[:, first:last], self.targets[:, first:last], bits=own)

    def by_runs(self, make: Callable[[Tensor], Tensor]) -> Batch:
        """Return what is made of the tensors of all runs, (S, ...) each; of bits as well."""
        own = self.bits
        if own is not None:
            flips = None if own.flips is None else make(own.flips)
            own = replace(own, packed=make(own.packed), flips=flips)
        return Batch(make(self.inputs), make(self.targets), bits=own)
