"""The keys that the residual networks share, and their checks; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from dynalab.errors import ConfigError
from dynalab.models.nets.checks import require_one_of, require_positive

NORMS = ("batch", "layer", "group", "none")


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """What every residual network has.

    Attributes:
        width: Channels of the first stage; each further stage has twice as many.
        norm: `batch`, `layer` (over all channels and places of an image), `group` or `none`.
        groups: Number of groups of `norm=group`; divides `width`.
        residual: Add each block's input to its result.
    """

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
