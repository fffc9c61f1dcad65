"""`model=embedding_mlp`: two embedding tables, summed, a square or ReLU, and one linear layer without bias.

The default of grokking: the smallest network that groks modular addition within seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.models.nets.checks import require_one_of, require_pairs, require_positive

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the embedding MLP.

    Attributes:
        width: Length of an embedding.
        activation: `square` or `relu`.
    """

    name: str = "embedding_mlp"
    width: int = 128
    activation: str = "square"

    def __post_init__(self) -> None:
        require_positive("model.width", self.width)
        require_one_of("model.activation", self.activation, ("square", "relu"))


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.pairs import EmbeddingMLP

    return EmbeddingMLP(spec.symbols, spec.classes, config.width, config.activation)
