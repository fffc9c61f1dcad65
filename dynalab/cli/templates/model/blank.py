"""`model=blank`: a network of two hidden layers, the second around a skip connection; reads rows of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.core.errors import ConfigError

# Every command reads this file, so torch is imported where it is used, not up here.
if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.tasks.base import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """The keys `model.*`; blank.yaml lists them, too. What is not at its default here enters the id."""

    name: str = "blank"
    width: int = key(32, "neurons of each hidden layer", least=1)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network; torch's generator is at the run's own stream `init` here.

    dynalab runs S of them at once, by `torch.func.vmap`. What a run changes beside its parameters has to be a buffer.

    Raises:
        ConfigError: The task has other inputs: a sentence for whoever chose the two.
    """
    import torch
    from torch import nn

    if spec.kind not in ("vector", "image"):
        raise ConfigError(f"model=blank: reads rows of numbers, and the task has {spec.kind}")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(spec.symbols, config.width)
            self.second = nn.Linear(config.width, config.width)
            self.head = nn.Linear(config.width, spec.classes)

        def forward(self, inputs: Tensor) -> Tensor:
            """Take one run's batch, (B, symbols), to its outputs, (B, classes)."""
            hidden = torch.relu(self.first(inputs))
            hidden = hidden + torch.relu(self.second(hidden))
            outputs: Tensor = self.head(hidden)
            return outputs

    return Network()
