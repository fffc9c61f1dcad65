"""`model=embedding_mlp`: two embedding tables, summed, a square or ReLU, and one linear layer without bias.

The default of grokking: the smallest network that groks modular addition within seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_pairs

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "embedding MLP {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the embedding MLP."""

    name: str = "embedding_mlp"
    width: int = key(128, "length of an embedding", least=1)
    activation: str = key("square", "what the sum of the embeddings goes through", one_of=("square", "relu"))


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.pairs import EmbeddingMLP

    return EmbeddingMLP(spec.symbols, spec.classes, config.width, config.activation)
