"""Which settings of a sweep are compared with which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any


def comparable(settings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield the places of the settings that are compared: with two or more keys those that differ in one alone."""
    several = bool(settings) and len(settings[0]) > 1
    made = list(combinations(range(len(settings)), 2))
    alike = [(a, b) for a, b in made if _differ(settings[a], settings[b]) == 1]
    yield from alike if several and alike else made


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one[key] != other[key] for key in one)
