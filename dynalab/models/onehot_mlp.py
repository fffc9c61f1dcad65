"""`model=onehot_mlp`: a ReLU network with biases on the one-hot vectors of both symbols, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_hidden, require_pairs

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "one-hot MLP {hidden}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the one-hot MLP."""

    name: str = "onehot_mlp"
    hidden: list[int] = key([128, 128], "widths of the hidden layers", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_hidden(self.hidden, example=128)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.pairs import OneHotMLP

    return OneHotMLP(spec.symbols, spec.classes, config.hidden)
