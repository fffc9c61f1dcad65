"""AdamW (Loshchilov and Hutter 2019): weight decay apart from the gradient, multiplied by the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.optim import adam
from dynalab.optim.base import build_of_torch, weight_decay

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "AdamW, lr {lr}"


@dataclass(frozen=True, kw_only=True)
class Config(adam.Config):
    """Fields as `torch.optim.AdamW` names them."""

    name: str = "adamw"
    weight_decay: float = weight_decay(
        0.01,
        "strength of weight decay, apart from the gradient: weights shrink by lr * weight_decay in every update",
    )


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.AdamW, config, params)
