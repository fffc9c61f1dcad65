"""`average=swa`: the mean of all weights since a step (Izmailov et al. 2018, arXiv 1803.05407).

With `average.from=0` it is the mean of the whole path, as Polyak and Ruppert have it. Batch statistics are estimated
anew for it, on the training examples that are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.averages.base import Keys
from dynalab.config.keys import key

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.averages.base import Average


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Configuration of the average."""

    name: str = "swa"
    every: int = key(10, "steps between the weights that are taken into the average", least=1)


def build(config: Config, tensors: list[Tensor]) -> Average:
    """Build the average of stacked tensors."""
    return Swa(tensors)


class Swa:
    """The average itself: one copy of the tensors; implements `Average`."""

    def __init__(self, tensors: list[Tensor]) -> None:
        from dynalab.averages.copies import Copy

        self._mean = Copy(tensors)

    def take(self, tensors: list[Tensor], count: int) -> None:
        """Move towards the tensors by their share in the mean."""
        self._mean.approach(tensors, self.towards(count)[1])

    def towards(self, count: int) -> tuple[Sequence[Tensor], float]:
        """Return the copy, and the share of the way that it goes."""
        return self._mean.tensors, 1 / (count + 1)

    def mean(self, count: int) -> Sequence[Tensor]:
        """Return the copy."""
        return self._mean.tensors

    def state(self) -> Mapping[str, Sequence[Tensor]]:
        """Return nothing more."""
        return {}
