"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412), on top of SGD unless another optimizer is named.

The gradient is taken at w + rho g / ||g||, g being the gradient at w on the same batch with the same noise, and
applied at w by the inner optimizer. The norm is over all parameters of one run. Running statistics of batch
normalisation are those of the first pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import key
from dynalab.optim.base import Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "SAM around {inner}, lr {lr}"


@dataclass(frozen=True, kw_only=True)
class Config(Wrapper):
    """The radius; the inner optimizer's fields stand beside it."""

    follows_task: ClassVar[bool] = False
    may_be_inner: ClassVar[bool] = True

    name: str = "sam"
    inner: str = key(
        "sgd",
        "the optimizer inside, whose keys stand beside these; null: the papers' sgd, whatever the task's own is",
        kind="an optimizer or null",
    )
    rho: float = key(
        0.05, "radius of the ball that is climbed to its edge before the gradient is taken", least=0
    )


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the inner optimizer over stacked parameters; its attribute `rho` has the loop take the second gradient."""
    optimizer = config.build_inner(params)
    optimizer.rho = config.rho  # type: ignore[attr-defined]
    return optimizer
