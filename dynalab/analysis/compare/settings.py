"""The settings of a sweep: what tells them apart, and which are compared with which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from dynalab.config.settings import labels, swept
from dynalab.core.runs import Group


def in_order(groups: Sequence[Group]) -> list[Group]:
    """Return groups by the values of the keys that were swept: nothing that is found depends on how they are named."""
    by_id = sorted(groups, key=lambda group: group.id)
    keys, _ = told_apart(by_id)
    order = sorted(range(len(by_id)), key=lambda place: [*map(rank_of, keys[place].values())])
    return [by_id[place] for place in order]


def rank_of(value: object) -> tuple[bool, float, str]:
    """Return what values of a key are sorted by: numbers by size, before words."""
    plain = isinstance(value, int | float)
    return not plain, float(value) if isinstance(value, int | float) else 0.0, str(value)


def told_apart(groups: Sequence[Group]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return for each setting its values of the keys that were swept, and its label."""
    from dynalab.config.typed import flat

    trees = [flat(dict(group.runs[0].config)) if group.runs else {} for group in groups]
    return swept(trees), labels(trees, [group.id for group in groups])


def comparable(settings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield the places of the settings that are compared: with two or more keys those that differ in one alone."""
    several = bool(settings) and len(settings[0]) > 1
    made = list(combinations(range(len(settings)), 2))
    alike = [(a, b) for a, b in made if _differ(settings[a], settings[b]) == 1]
    yield from alike if several and alike else made


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one[key] != other[key] for key in one)
