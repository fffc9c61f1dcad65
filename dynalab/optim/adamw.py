"""AdamW (Loshchilov and Hutter 2019): weight decay apart from the gradient, multiplied by the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.optim.base import check_betas, check_decay, check_rate, grouped

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config:
    """Fields as `torch.optim.AdamW` names them."""

    name: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
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

    return torch.optim.AdamW(
        grouped(params, config.decay),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
        foreach=True,
    )
