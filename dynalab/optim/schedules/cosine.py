"""Cosine decay (Loshchilov and Hutter 2017, without restarts), after an optional linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.keys import Section, key

TITLE = "cosine schedule"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="schedule"):
    """From 1 to `final` over `total` steps, the first `warmup` of them rising."""

    name: str = "cosine"
    total: int | None = key(
        None,
        "steps over which the rate falls; null: the whole of training, which then cannot be prolonged",
        least=1,
    )
    warmup: int = key(0, "first steps, over which the rate rises linearly", least=0)
    final: float = key(0.0, "share of the rate that is left in the end", least=0, most=1)


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return config.total is None


def warmup(config: Config) -> int:
    """Return the steps over which the rate rises."""
    return config.warmup


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    length = config.total or total

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        progress = min((step - config.warmup) / max(length - config.warmup, 1), 1.0)
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor
