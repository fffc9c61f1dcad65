"""Stochastic gradient descent, with torch's momentum, dampening, Nesterov and coupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.optim.base import build_of_torch, decayed, orthogonal, rate, weight_decay

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "SGD, lr {lr}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="optimizer"):
    """Fields as `torch.optim.SGD` names them."""

    name: str = "sgd"
    lr: float = rate(0.1)
    momentum: float = key(0.0, "share of the last step that the next one keeps", least=0, below=1)
    dampening: float = key(0.0, "share of the gradient that is kept out of the momentum")
    nesterov: bool = key(False, "take the gradient ahead of the momentum")
    weight_decay: float = weight_decay(0.0, "strength of weight decay, as L2 in the gradient")
    decay: str = decayed()
    orthogonal: bool = orthogonal()

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        legal = not self.nesterov or (self.momentum > 0 and self.dampening == 0)
        self._require(legal, "nesterov", "false unless momentum > 0 and dampening = 0")


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.SGD, config, params)
