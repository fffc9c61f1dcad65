"""`model=si_convnet`: the scale-invariant ConvNet of Lobacheva et al. 2021 (arXiv 2106.15739), with a frozen head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_image

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "scale-invariant ConvNet {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the scale-invariant ConvNet."""

    # Its network names such weights.
    scale_invariant: ClassVar[bool] = True

    name: str = "si_convnet"
    width: int = key(
        32, "channels of the first convolution; the other three have 2, 4 and 8 times as many", least=1
    )
    head_norm: float = key(10.0, "norm of the frozen head's weight", above=0)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    shape = require_image(config.name, spec, least=8)
    from dynalab.models.nets.scale_invariant import ScaleInvariantConvNet

    return ScaleInvariantConvNet(shape, spec.classes, config.width, config.head_norm)
