"""`model=resnet18`: ResNet-18 for small images: a 3 x 3 first convolution of stride 1 and no pooling after it.

Four stages of two basic blocks, 64, 128, 256 and 512 channels, shortcuts projected where sizes differ, torch's own
initialisation: the network of Hu et al. 2023 (arXiv 2308.09543) on CIFAR-100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dynalab.models.nets.resnet_config import ResNetConfig
from dynalab.models.nets.resnet_config import build as build

TITLE = "ResNet-18 of width {width}"


@dataclass(frozen=True, kw_only=True)
class Config(ResNetConfig):
    """Configuration of ResNet-18; the fields are those of `ResNetConfig`."""

    stages: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    projections, he_normal, channels_last = True, False, False

    name: str = "resnet18"
    width: int = 64
