"""`model=resnet18`: ResNet-18 for small images: a 3 x 3 first convolution of stride 1 and no pooling after it.

Four stages of two basic blocks, 64, 128, 256 and 512 channels, shortcuts projected where sizes differ, torch's own
initialisation: the network of Hu et al. 2023 (arXiv 2308.09543) on CIFAR-100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.models.nets.resnet_config import ResNetConfig, build_resnet

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config(ResNetConfig):
    """Configuration of ResNet-18; the fields are those of `ResNetConfig`."""

    stages: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)

    name: str = "resnet18"
    width: int = 64


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator.

    Raises:
        ConfigError: The task's examples are no images.
    """
    return build_resnet(config, config.name, spec, projections=True, he_normal=False, channels_last=False)
