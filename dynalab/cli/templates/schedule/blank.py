"""`schedule=blank`: the rate falls from its full value along half a cosine, and begins again, period after period."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.keys import Section, key


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="schedule"):
    """The keys `schedule.*`; blank.yaml lists them, too. What is not at its default here enters the id."""

    name: str = "blank"
    period: int = key(100, "updates from one beginning to the next", least=1)
    low: float = key(0.0, "share of the rate that a period comes down to", least=0, most=1)


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training, which then cannot be prolonged."""
    return False


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return what `optimizer.lr` is multiplied by at the update `step` -> `step + 1`; `total` is the length."""

    def factor(step: int) -> float:
        height = 0.5 * (1 + math.cos(math.pi * (step % config.period) / config.period))
        return config.low + (1 - config.low) * height

    return factor
