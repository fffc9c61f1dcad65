"""Cosine decay (Loshchilov and Hutter 2017, without restarts), after an optional linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.schema import require


@dataclass(frozen=True, kw_only=True)
class Config:
    """From 1 to `final` over `total` steps (null: the whole of training), the first `warmup` of them rising."""

    name: str = "cosine"
    total: int | None = None
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.total is None or self.total >= 1, "schedule.total", self.total, "an integer of at least 1"
        )
        require(self.warmup >= 0, "schedule.warmup", self.warmup, "an integer of at least 0")
        require(0 <= self.final <= 1, "schedule.final", self.final, "a number in [0, 1]")


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return config.total is None


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    length = config.total or total

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        progress = min((step - config.warmup) / max(length - config.warmup, 1), 1.0)
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor
