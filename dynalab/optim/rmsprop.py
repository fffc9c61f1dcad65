"""RMSprop (Tieleman and Hinton 2012), as torch has it: eps outside the root, no bias correction, L2 in the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.optim.base import build_of_torch, decayed, orthogonal, rate, weight_decay

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "RMSprop, lr {lr}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="optimizer"):
    """Fields as `torch.optim.RMSprop` names them."""

    name: str = "rmsprop"
    lr: float = rate(0.01)
    alpha: float = key(0.99, "decay rate of the mean square of the gradient", least=0, below=1)
    eps: float = key(1e-8, "added to the root of the mean square", least=0)
    weight_decay: float = weight_decay(0.0, "strength of weight decay, as L2 in the gradient")
    momentum: float = key(0.0, "share of the last step that the next one keeps", least=0, below=1)
    centered: bool = key(False, "take the square of the mean gradient away from the mean square")
    decay: str = decayed()
    orthogonal: bool = orthogonal()


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.RMSprop, config, params)
