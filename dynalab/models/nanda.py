"""`model=nanda`: the one-layer transformer of Nanda et al. 2023 (arXiv 2301.05217), read at `=`.

Published with modulus 113, 30% of the pairs, full-batch AdamW at lr 1e-3, weight decay 1, betas (.9, .98).
`layer_norm` makes it the stabilised network of Hu et al. 2023 (arXiv 2308.09543).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import heads, require_heads, require_pairs, residual_width

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "one-layer transformer of width {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of Nanda's transformer."""

    name: str = "nanda"
    width: int = residual_width(128)
    heads: int = heads(4)
    mlp_width: int = key(512, "hidden units of the MLP", least=1)
    layer_norm: bool = key(
        False, "put a layer norm after each residual addition (Hu et al. 2023, stabilised)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self.width, self.heads)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.transformers import NandaTransformer

    return NandaTransformer(
        spec.symbols, spec.classes, config.width, config.heads, config.mlp_width, config.layer_norm
    )
