"""Drops at given steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dynalab.config.schema import require


@dataclass(frozen=True, kw_only=True)
class Config:
    """The rate is multiplied by `gamma` at each of `milestones`."""

    name: str = "step"
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check ranges."""
        ascending = sorted(self.milestones) == list(self.milestones)
        require(ascending, "schedule.milestones", self.milestones, "ascending steps")
        require(self.gamma > 0, "schedule.gamma", self.gamma, "a positive number")


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return False


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    return lambda step: config.gamma ** sum(step >= milestone for milestone in config.milestones)
