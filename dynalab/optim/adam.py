"""Adam (Kingma and Ba 2015); weight decay is L2 in the gradient, as torch has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.optim.base import build_of_torch, check_betas, check_decay, check_rate

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config:
    """Fields as `torch.optim.Adam` names them."""

    name: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    decay: str = "all"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_rate(self.lr)
        check_betas(self.betas)
        check_decay(self.weight_decay, self.decay)
        require(self.eps >= 0, "optimizer.eps", self.eps, "a number of at least 0")


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.Adam, config, params)
