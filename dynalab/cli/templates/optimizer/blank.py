"""`optimizer=blank`: steps of one size, in the direction that a running mean of the gradients has in each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key

# Every command reads this file, so torch is imported where it is used, not up here.
if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="optimizer"):
    """The keys `optimizer.*`; blank.yaml lists them, too. What is not at its default here enters the id."""

    name: str = "blank"
    lr: float = key(1e-3, "what a weight moves by in a step; a schedule multiplies it", least=0)
    momentum: float = key(0.9, "share of the mean of the gradients that stays in a step", least=0, below=1)


def build(config: Config, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the optimizer over stacked parameters, each (S, ...).

    The S runs must not touch: whatever reduces over a tensor reduces over all axes but the first.
    """
    import torch

    class Optimizer(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is None:
                        continue
                    # Tensors in `state` are in checkpoints, so that a resumed run goes on as it would have.
                    mean = self.state[param].setdefault("mean", torch.zeros_like(param))
                    mean.lerp_(param.grad, 1 - config.momentum)
                    # group["lr"], not config.lr: the schedule is in it.
                    param.add_(mean.sign(), alpha=-group["lr"])

    return Optimizer(params, {"lr": config.lr})
