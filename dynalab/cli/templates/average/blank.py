"""`average=blank`: the midpoint of the first weights that are taken and the latest ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.averages.base import Keys
from dynalab.config.keys import key

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """The keys `average.*`, with `every` and `from`; blank.yaml lists them, too. Others than its defaults enter the id.

    With `averages_statistics: ClassVar[bool] = True` batch statistics are averaged as the weights are; else those of
    averaged weights are estimated anew.
    """

    name: str = "blank"
    share: float = key(0.5, "share of the latest weights", above=0, below=1)


def build(config: Config, tensors: list[Tensor]) -> Blank:
    """Build the average of tensors (S, ...) of S runs, each run by itself."""
    return Blank(config.share, tensors)


class Blank:
    """What is held: all of it from the beginning, as `dynalab.averages.base.Average` says."""

    def __init__(self, share: float, tensors: list[Tensor]) -> None:
        self.share = share
        self.first = [tensor.clone() for tensor in tensors]
        self.now = [tensor.clone() for tensor in tensors]

    def take(self, tensors: list[Tensor], count: int) -> None:
        """Take the weights of a step in, after `count` others."""
        for first, now, tensor in zip(self.first, self.now, tensors, strict=True):
            now.copy_(tensor)
            if count == 0:
                first.copy_(tensor)

    def mean(self, count: int) -> Sequence[Tensor]:
        """Return the average."""
        return [first.lerp(now, self.share) for first, now in zip(self.first, self.now, strict=True)]

    def state(self) -> Mapping[str, Sequence[Tensor]]:
        """Return what a checkpoint has to hold, where `mean` is made of it."""
        return {"first": self.first, "now": self.now}
