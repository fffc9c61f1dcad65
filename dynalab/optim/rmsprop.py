"""RMSprop (Tieleman and Hinton 2012), as torch has it: eps outside the root, no bias correction, L2 in the gradient."""

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
    """Fields as `torch.optim.RMSprop` names them."""

    name: str = "rmsprop"
    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False
    decay: str = "all"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_rate(self.lr)
        check_decay(self.weight_decay, self.decay)
        require(0 <= self.alpha < 1, "optimizer.alpha", self.alpha, "a number in [0, 1)")
        require(self.eps >= 0, "optimizer.eps", self.eps, "a number of at least 0")
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "a number in [0, 1)")


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.RMSprop, config, params)
