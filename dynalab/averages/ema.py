"""`average=ema`: the exponential moving average of the weights, a <- decay a + (1 - decay) w.

It begins at the first weights that it takes, as `torch.optim.swa_utils.AveragedModel` does, and reaches back about
`every / (1 - decay)` steps. Batch statistics are averaged as the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.averages.base import Keys
from dynalab.config.keys import key

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.averages.base import Average


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Configuration of the average."""

    averages_statistics: ClassVar[bool] = True

    name: str = "ema"
    decay: float = key(0.99, "share of the average that stays when weights are taken in", above=0, below=1)


def build(config: Config, tensors: list[Tensor]) -> Average:
    """Build the average of stacked tensors."""
    return Ema(config.decay, tensors)


class Ema:
    """The average itself: one copy of the tensors; implements `Average`."""

    def __init__(self, decay: float, tensors: list[Tensor]) -> None:
        from dynalab.averages.copies import Copy

        self._share, self._mean = 1 - decay, Copy(tensors)

    def take(self, tensors: list[Tensor], count: int) -> None:
        """Move towards the tensors; the first are taken whole."""
        self._mean.approach(tensors, self.towards(count)[1])

    def towards(self, count: int) -> tuple[Sequence[Tensor], float]:
        """Return the copy, and the share of the way that it goes."""
        return self._mean.tensors, self._share if count else 1.0

    def mean(self, count: int) -> Sequence[Tensor]:
        """Return the copy."""
        return self._mean.tensors

    def state(self) -> Mapping[str, Sequence[Tensor]]:
        """Return nothing more."""
        return {}
