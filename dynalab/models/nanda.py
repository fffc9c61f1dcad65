"""`model=nanda`: the one-layer transformer of Nanda et al. 2023 (arXiv 2301.05217), read at `=`.

Published with modulus 113, 30% of the pairs, full-batch AdamW at lr 1e-3, weight decay 1, betas (.9, .98).
`layer_norm` makes it the stabilised network of Hu et al. 2023 (arXiv 2308.09543).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.models.nets.checks import require_heads, require_pairs, require_positive

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of Nanda's transformer.

    Attributes:
        width: Length of the residual stream.
        heads: Number of attention heads; divides the width.
        mlp_width: Hidden units of the MLP.
        layer_norm: Put a layer norm after each residual addition.
    """

    name: str = "nanda"
    width: int = 128
    heads: int = 4
    mlp_width: int = 512
    layer_norm: bool = False

    def __post_init__(self) -> None:
        require_heads(self.width, self.heads)
        require_positive("model.mlp_width", self.mlp_width)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.transformers import NandaTransformer

    return NandaTransformer(
        spec.symbols, spec.classes, config.width, config.heads, config.mlp_width, config.layer_norm
    )
