"""The keys that the residual networks share, their checks and what builds them; no torch at import."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import Section, key
from dynalab.core.errors import ConfigError
from dynalab.models.nets.checks import require_image

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

NORMS = ("batch", "layer", "group", "none")


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Section, of="model"):
    """What every residual network has.

    Attributes:
        stages: Number of blocks of every stage; each stage after the first halves height and width.
        projections: Where sizes differ, shortcuts are normalised 1 x 1 convolutions; else zeros fill up.
        he_normal: Draw convolutions from N(0, 2 / fan-in), else as torch does.
        channels_last: Order of maps in memory; decides speed, and bits.
    """

    stages: ClassVar[tuple[int, ...]]
    projections: ClassVar[bool]
    he_normal: ClassVar[bool]
    channels_last: ClassVar[bool]

    name: str
    width: int = key(MISSING, "channels of the first stage; each further stage has twice as many", least=1)
    norm: str = key("batch", "normalisation; layer: over all channels and places of an image", one_of=NORMS)
    groups: int = key(8, "number of groups of norm=group; divides width", least=1)
    residual: bool = key(True, "add each block's input to its result; false: no shortcuts")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm == "group" and self.width % self.groups:
            raise ConfigError(f"model.width={self.width}: must be a multiple of model.groups={self.groups}")

    def least_batch(self, shape: tuple[int, int, int] | None) -> int:
        """Return the least number of images of which there are batch statistics: one pixel has none."""
        last_is_a_pixel = shape is not None and max(shape[1:]) <= 1 << (len(self.stages) - 1)
        return 2 if self.norm == "batch" and last_is_a_pixel else 1


def build(config: ResNetConfig, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    shape = require_image(config.name, spec)
    from dynalab.models.nets.resnet import ResNet

    return ResNet(shape, spec.classes, config)
