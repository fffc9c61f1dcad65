"""`model=encoder`: a small pre-norm transformer encoder in the manner of BERT, for `task=mlm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import heads, require_heads, require_kind, residual_width

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "encoder of {layers} layers and width {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the encoder."""

    name: str = "encoder"
    layers: int = key(2, "number of blocks", least=1)
    width: int = residual_width(64)
    heads: int = heads(4)
    mlp_width: int = key(256, "hidden units of an MLP", least=1)
    dropout: float = key(
        0.0,
        "share of entries dropped in training, of the embeddings and of what attention and MLP add",
        least=0,
        below=1,
    )
    tied: bool = key(True, "use the table of embeddings as the output head's matrix")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_heads(self.width, self.heads)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_kind(config.name, spec, ["tokens"], "sequences of tokens", "text (task=mlm)")
    from dynalab.models.nets.encoder import Encoder

    return Encoder(spec.symbols, spec.classes, spec.shape[0], config)
