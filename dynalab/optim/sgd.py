"""Stochastic gradient descent, with torch's momentum, dampening, Nesterov and coupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.optim.base import build_of_torch, check_decay, check_rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config:
    """Fields as `torch.optim.SGD` names them."""

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay: str = "all"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_rate(self.lr)
        check_decay(self.weight_decay, self.decay)
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "a number in [0, 1)")
        legal = not self.nesterov or (self.momentum > 0 and self.dampening == 0)
        require(legal, "optimizer.nesterov", self.nesterov, "false unless momentum > 0 and dampening = 0")


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.SGD, config, params)
