"""The keys that the residual networks share, their checks and what builds them; no torch at import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.core.errors import ConfigError
from dynalab.models.nets.checks import require_one_of, require_positive
from dynalab.models.nets.images import require_image

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

NORMS = ("batch", "layer", "group", "none")


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """What every residual network has.

    Attributes:
        width: Channels of the first stage; each further stage has twice as many.
        norm: `batch`, `layer` (over all channels and places of an image), `group` or `none`.
        stages: Number of blocks of every stage; each stage after the first halves height and width.
        groups: Number of groups of `norm=group`; divides `width`.
        residual: Add each block's input to its result.
    """

    stages: ClassVar[tuple[int, ...]]

    width: int
    norm: str = "batch"
    groups: int = 8
    residual: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: Names the key, the value and what is legal.
        """
        require_positive("model.width", self.width)
        require_one_of("model.norm", self.norm, NORMS)
        require_positive("model.groups", self.groups)
        if self.norm == "group" and self.width % self.groups:
            raise ConfigError(f"model.width={self.width}: must be a multiple of model.groups={self.groups}")

    def least_batch(self, shape: tuple[int, int, int] | None) -> int:
        """Return the least number of images of which there are batch statistics: one pixel has none."""
        last_is_a_pixel = shape is not None and max(shape[1:]) <= 1 << (len(self.stages) - 1)
        return 2 if self.norm == "batch" and last_is_a_pixel else 1


def build_resnet(
    config: ResNetConfig,
    name: str,
    spec: InputSpec,
    *,
    projections: bool,
    he_normal: bool,
    channels_last: bool,
) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator.

    Args:
        config: The user's keys.
        name: The model, for errors.
        spec: The task's examples.
        projections: As `ResNet` has it, like the rest.
        he_normal: Likewise.
        channels_last: Likewise.

    Raises:
        ConfigError: The task's examples are no images.
    """
    shape = require_image(name, spec)
    from dynalab.models.nets.resnet import ResNet

    return ResNet(
        shape,
        spec.classes,
        width=config.width,
        stages=config.stages,
        norm=config.norm,
        groups=config.groups,
        residual=config.residual,
        projections=projections,
        he_normal=he_normal,
        channels_last=channels_last,
    )
