"""The rate as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynalab.config.keys import Section


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="schedule"):
    """No keys of its own."""

    name: str = "constant"


def needs_total(config: Config) -> bool:
    """Return whether the factor depends on the length of training."""
    return False


def build(config: Config, total: int) -> Callable[[int], float]:
    """Return the factor of a step."""
    return lambda step: 1.0
