"""Drops at given steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.keys import Section, key

TITLE = "rate lowered at {milestones}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="schedule"):
    """The rate is multiplied by `gamma` at each of `milestones`."""

    name: str = "step"
    milestones: list[int] = key(
        [], "steps at which the rate is multiplied by gamma", kind="a list of ascending steps"
    )
    gamma: float = key(0.1, "factor on the rate at every milestone", above=0)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        self._require(sorted(self.milestones) == list(self.milestones), "milestones")


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return False


def milestones(config: Config) -> list[int]:
    """Return the steps at which the rate is lowered."""
    return config.milestones


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    return lambda step: config.gamma ** sum(step >= milestone for milestone in config.milestones)
