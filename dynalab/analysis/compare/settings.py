"""The settings of a sweep: what tells them apart, and which are compared with which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from typing import Any

from dynalab.config.settings import SETTING, labels, swept
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

    trees: list[dict[str, Any]] = [flat(dict(group.runs[0].config)) if group.runs else {} for group in groups]
    if columns := _constant(groups):
        if len({tuple(own.values()) for own in columns}) == len(groups):
            # They say more than what each import is called.
            trees = [
                {key: value for key, value in tree.items() if not key.startswith("import.")} for tree in trees
            ]
        trees = [tree | own for tree, own in zip(trees, columns, strict=True)]
    keys = [{key.removeprefix(SETTING): value for key, value in own.items()} for own in swept(trees)]
    return keys, labels(trees, [group.id for group in groups])


def _constant(groups: Sequence[Group]) -> list[dict[str, float]]:
    """Return of imports, of which no configuration is known, the columns of one value in each that set them apart.

    A rate that stands in every row of a table is a key of its setting. Empty where there is none, or a group is no
    import.
    """
    if not groups or not all(group.imported for group in groups):
        return []
    found: list[dict[str, float]] = [{} for _ in groups]
    for name in sorted(set.intersection(*(group.columns for group in groups))):
        values = [_value(group, name) for group in groups]
        known = [value for value in values if value is not None]
        if len(known) == len(groups) and len({*known}) > 1:
            for own, value in zip(found, known, strict=True):
                own[name] = value
    return found if found[0] else []


def _value(group: Group, name: str) -> float | None:
    """Return the one value of a column in all rows of all runs, of two rows or more each; None where there is none."""
    seen: set[float] = set()
    for run in group.runs:
        series = run.first(name)
        if series is None or len(series) < max(2, len(run.grid)):
            return None
        seen |= {*series.values.tolist()}
        if len(seen) > 1:
            return None
    return seen.pop() if seen else None


def comparable(settings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield the places of the settings that are compared: with two or more keys those that differ in one alone.

    What the choice of a part brings with it, as an edit its scale, is no other key beside that choice.
    """
    several = bool(settings) and len(settings[0]) > 1
    made = list(combinations(range(len(settings)), 2))
    alike = [(a, b) for a, b in made if _differ(settings[a], settings[b]) == 1]
    yield from alike if several and alike else made


def crossed(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether every setting has every key: none is of a part alone that others do not have."""
    made = list(combinations(settings, 2))
    return not any(_brought(key, one, other) for one, other in made for key in one)


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one[key] != other[key] and not _brought(key, one, other) for key in one)


def _brought(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether one of two settings alone has a key, by its choice of a part."""
    if (one[key] is None) == (other[key] is None):
        return False
    parts = [f"{above}.name" for above in accumulate(key.split(".")[:-1], "{}.{}".format)]
    return any(part != key and one.get(part) != other.get(part) for part in parts)
