"""What an average is: other weights of S runs, made of those that training goes through, and evaluated beside them.

An average module holds a configuration dataclass `Config` (from `Keys`) and
`build(config, tensors: list[Tensor]) -> Average`. Importing it imports no torch. Training itself is not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from dynalab.config.keys import Section, key
from dynalab.core.columns import AVERAGED, Column, Columns

if TYPE_CHECKING:
    from torch import Tensor

# Those of the evaluation with accuracies; a task's other metrics have the same names with the prefix.
COLUMNS: Columns = {
    f"{AVERAGED}{split}_{name}": Column(
        f"`{split}_{name}` of the averaged weights, with batch statistics of their own; NaN before `average.from`",
        unit,
    )
    for split in ("train", "test")
    for name, unit in (("loss", "loss"), ("accuracy", "1"))
}


@dataclass(frozen=True, kw_only=True)
class Keys(Section, of="average"):
    """The keys of every average.

    Attributes:
        averages_statistics: Whether batch statistics (running means and variances) are averaged as the weights are;
            else those of averaged weights are estimated anew, on the training examples that are evaluated.
    """

    averages_statistics: ClassVar[bool] = False

    name: str = ""
    every: int = key(1, "steps between the weights that are taken into the average", least=1)
    from_: int = key(
        0, "first step whose weights are taken into the average; 0: the initialisation is among them", least=0
    )


class Average(Protocol):
    """The average of some tensors of S runs, each of shape (S, ...).

    Nothing may reduce over the runs. What it holds it holds from the beginning, so that a trial meets its memory.

    An optional method `towards(count)` says what `take` comes to where it moves a `Copy`: which tensors move, and by
    which share, so that compiled code can.
    """

    def take(self, tensors: list[Tensor], count: int) -> None:
        """Take the tensors in, as they are now; `count` times some were taken before."""
        ...

    def mean(self, count: int) -> Sequence[Tensor]:
        """Return the average, after tensors were taken `count` times: what is held itself, where it is held.

        Into that a checkpoint is copied, and runs that diverged are emptied in it.
        """
        ...

    def state(self) -> Mapping[str, Sequence[Tensor]]:
        """Return what else is held: name -> tensors (S, ...) in the order of those of `build`, themselves."""
        ...
