"""`model=si_convnet`: the scale-invariant ConvNet of Lobacheva et al. 2021 (arXiv 2106.15739), with a frozen head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.models.nets.checks import require_image, require_positive

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the scale-invariant ConvNet.

    Attributes:
        width: Channels of the first convolution; the others have 2, 4 and 8 times as many.
        head_norm: Norm of the frozen head's weight.
    """

    name: str = "si_convnet"
    width: int = 32
    head_norm: float = 10.0

    def __post_init__(self) -> None:
        require_positive("model.width", self.width)
        require(self.head_norm > 0, "model.head_norm", self.head_norm, "a positive norm")


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    shape = require_image(config.name, spec, least=8)
    from dynalab.models.nets.scale_invariant import ScaleInvariantConvNet

    return ScaleInvariantConvNet(shape, spec.classes, config.width, config.head_norm)
