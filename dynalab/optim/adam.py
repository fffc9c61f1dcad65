"""Adam (Kingma and Ba 2015); weight decay is L2 in the gradient, as torch has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.optim.base import betas, build_of_torch, decayed, orthogonal, rate, weight_decay

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "Adam, lr {lr}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="optimizer"):
    """Fields as `torch.optim.Adam` names them."""

    name: str = "adam"
    lr: float = rate(1e-3)
    betas: tuple[float, float] = betas()
    eps: float = key(1e-8, "added to the root of the second moment", least=0)
    weight_decay: float = weight_decay(0.0, "strength of weight decay, as L2 in the gradient")
    amsgrad: bool = key(False, "divide by the root of the largest second moment so far")
    decay: str = decayed()
    orthogonal: bool = orthogonal()

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        self._require(len(self.betas) == 2, "betas")


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters."""
    import torch

    return build_of_torch(torch.optim.Adam, config, params)
