"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412) on top of SGD.

The gradient is taken at w + rho g / ||g||, g being the gradient at w on the same batch with the same noise, and
applied at w by SGD with its momentum and weight decay. The norm is over all parameters of one run. Running statistics
of batch normalisation are those of the first pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.optim import sgd

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config(sgd.Config):
    """The fields of SGD, and the radius.

    Attributes:
        rho: Radius of the ball.
    """

    name: str = "sam"
    rho: float = 0.05

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        require(self.rho >= 0, "optimizer.rho", self.rho, "a number of at least 0")


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build SGD over stacked parameters; its attribute `rho` has the loop take the second gradient."""
    optimizer = sgd.build(config, params)
    optimizer.rho = config.rho  # type: ignore[attr-defined]
    return optimizer
