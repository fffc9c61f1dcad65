"""`model=encoder`: a small pre-norm transformer encoder in the manner of BERT, for `task=mlm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.core.errors import ConfigError
from dynalab.models.nets.checks import require_heads, require_kind, require_positive

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the encoder.

    Attributes:
        layers: Number of blocks.
        width: Length of the residual stream.
        heads: Number of attention heads; divides the width.
        mlp_width: Hidden units of an MLP.
        dropout: Share of entries dropped in training, of the embeddings and of what attention and MLP add.
        tied: Use the table of embeddings as the output head's matrix.
    """

    name: str = "encoder"
    layers: int = 2
    width: int = 64
    heads: int = 4
    mlp_width: int = 256
    dropout: float = 0.0
    tied: bool = True

    def __post_init__(self) -> None:
        require_positive("model.layers", self.layers)
        require_heads(self.width, self.heads)
        require_positive("model.mlp_width", self.mlp_width)
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout={self.dropout}: must be at least 0 and below 1")


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_kind(config.name, spec, ["tokens"], "sequences of tokens", "text (task=mlm)")
    from dynalab.models.nets.encoder import Encoder

    return Encoder(spec.symbols, spec.classes, spec.shape[0], config)
