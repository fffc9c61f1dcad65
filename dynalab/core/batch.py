"""What crosses the walls between tasks, models and what measures them: examples of S seeds, and what they look like.

Every tensor here carries the seeds of a shard on axis 0 (S), since a shard trains its seeds in lockstep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
class Batch:
    """Examples of S seeds side by side."""

    inputs: Tensor  # Shape (S, B, ...).
    targets: Tensor  # Shape (S, B, ...).

    @property
    def size(self) -> int:
        """Number of examples of one seed, B."""
        return self.targets.shape[1]
