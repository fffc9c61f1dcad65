"""`model=power`: the two-layer decoder of Power et al. 2022 (arXiv 2201.02177) on `<eos> a op b =`.

Published with modulus 97, AdamW at lr 1e-3, weight decay 1, betas (.9, .98), ten steps of linear warm-up and
batches of min(512, half of the training set). Deviation: the published code also trains and scores the
trivial `<eos>` after the answer; here only the answer's logits, at `=`, are outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import heads, require_heads, require_pairs, residual_width

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "transformer of {layers} layers and width {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of Power's decoder."""

    name: str = "power"
    layers: int = key(2, "number of blocks", least=1)
    width: int = residual_width(128)
    heads: int = heads(4)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self.width, self.heads)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.transformers import PowerTransformer

    return PowerTransformer(spec.symbols, spec.classes, config.width, config.heads, config.layers)
