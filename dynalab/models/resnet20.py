"""`model=resnet20`: the network of 6 n + 2 layers for CIFAR of He et al. 2016 (arXiv 1512.03385, section 4.2), n = 3.

Three stages of three basic blocks, 16, 32 and 64 channels, shortcuts without parameters (option A: every second place,
missing channels zero), convolutions drawn from N(0, 2 / fan-in).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dynalab.models.nets.resnet_config import ResNetConfig
from dynalab.models.nets.resnet_config import build as build

TITLE = "ResNet-20 of width {width}"


@dataclass(frozen=True, kw_only=True)
class Config(ResNetConfig):
    """Configuration of ResNet-20; the fields are those of `ResNetConfig`."""

    stages: ClassVar[tuple[int, ...]] = (3, 3, 3)
    projections, he_normal, channels_last = False, True, True

    name: str = "resnet20"
    width: int = 16
