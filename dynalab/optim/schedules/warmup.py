"""Linear warm-up, then the rate as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.keys import Section, key

TITLE = "warm-up {steps}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="schedule"):
    """The factor is (step + 1) / `steps` until it is 1."""

    name: str = "warmup"
    steps: int = key(10, "first steps, over which the rate rises linearly", least=1)


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return False


def warmup(config: Config) -> int:
    """Return the steps over which the rate rises."""
    return config.steps


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    return lambda step: min((step + 1) / config.steps, 1.0)
