"""`average=lawa`: the mean of the latest weights (Kaddour 2022, arXiv 2209.14981).

It is over the last `window` weights, `every` steps apart, or as many as there are; it holds a copy of each. A window of
about a hundredth of training was found best (Ajroldi, Orvieto and Geiping 2025, arXiv 2502.06761). Batch statistics are
estimated anew for it, on the training examples that are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.averages.base import Keys
from dynalab.config.keys import key
from dynalab.core.errors import ConfigError
from dynalab.core.machine import free_memory

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.averages.base import Average


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Configuration of the average."""

    name: str = "lawa"
    window: int = key(10, "weights that the mean is over; a copy of each is held", least=1)
    every: int = key(10, "steps between the weights that are taken into the average", least=1)


# Bytes that a tensor takes at least.
_LEAST = 512


def build(config: Config, tensors: list[Tensor]) -> Average:
    """Build the average of stacked tensors.

    Raises:
        ConfigError: There is no memory for so many copies.
    """
    import torch

    on_card = tensors[0].device.type == "cuda"
    free = torch.cuda.mem_get_info(tensors[0].device)[0] if on_card else free_memory()
    needed = config.window * sum(max(tensor.nbytes, _LEAST) for tensor in tensors)
    if free and needed > free:
        raise ConfigError(
            f"average.window={config.window}: so many copies of the weights of {len(tensors[0])} runs take "
            f"{needed / 1e9:,.3g} GB, and {free / 1e9:,.3g} GB are free"
        )
    return Lawa(config.window, tensors)


class Lawa:
    """The average itself: a ring of copies of the tensors; implements `Average`."""

    def __init__(self, window: int, tensors: list[Tensor]) -> None:
        from dynalab.averages.copies import Copy

        self._ring = [Copy(tensors) for _ in range(window)]

    def take(self, tensors: list[Tensor], count: int) -> None:
        """Put the tensors in the place of the oldest."""
        self._ring[count % len(self._ring)].approach(tensors, 1.0)

    def towards(self, count: int) -> tuple[Sequence[Tensor], float]:
        """Return the oldest, whose place they take."""
        return self._ring[count % len(self._ring)].tensors, 1.0

    def mean(self, count: int) -> Sequence[Tensor]:
        """Return the mean over the ring, or over what it holds so far."""
        import torch

        first, *others = self._ring[:count]
        mean = [tensor.clone() for tensor in first.tensors]
        for copy in others:
            torch._foreach_add_(mean, copy.tensors)
        torch._foreach_div_(mean, len(others) + 1)
        return mean

    def state(self) -> Mapping[str, Sequence[Tensor]]:
        """Return the ring."""
        return {str(place): copy.tensors for place, copy in enumerate(self._ring)}
