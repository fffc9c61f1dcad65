"""Inverse square root decay after a linear warm-up (Vaswani et al. 2017, section 5.3, normalised to 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.keys import Section, key

TITLE = "inverse square root schedule, warm-up {warmup}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="schedule"):
    """The factor rises to 1 over `warmup` steps and then falls as sqrt(warmup / step)."""

    name: str = "inverse_sqrt"
    warmup: int = key(100, "first steps, over which the rate rises linearly", least=1)


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return False


def warmup(config: Config) -> int:
    """Return the steps over which the rate rises."""
    return config.warmup


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    return lambda step: min((step + 1) / config.warmup, math.sqrt(config.warmup / (step + 1)))
