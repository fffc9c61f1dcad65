"""What tells the settings of a sweep apart: the keys that were swept, each setting's values of them, and its label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from dynalab.core.runs import Group

# What follows from other keys, or says nothing of how a setting trains.
_DULL = (
    "convergence.",
    "levels.",
    "snapshots.",
    "sources.",
    "origin.",
    "named",
    "probes",
    "probe.",
    "import.file",
)


def swept(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return for each setting its values of the keys that were swept.

    A key that differs only because another does, as an optimizer's own rate beside its name, is none of them.
    """
    from dynalab.config.typed import flat

    trees = [flat(dict(group.runs[0].config)) if group.runs else {} for group in groups]
    names = [
        name for name in dict.fromkeys(name for tree in trees for name in tree) if not name.startswith(_DULL)
    ]
    columns = {name: [repr(tree.get(name)) for tree in trees] for name in names}
    differing = {name: column for name, column in columns.items() if len(set(column)) > 1}
    # The name of a part first: what it brings with it follows from it.
    ordered = sorted(differing, key=lambda name: not name.endswith(".name"))
    kept: list[str] = []
    for name in ordered:
        cells = list(zip(*(differing[other] for other in kept), strict=True)) if kept else [()] * len(trees)
        if len(set(zip(cells, differing[name], strict=True))) > len(set(cells)):
            kept.append(name)
    # In the order of the configuration.
    kept = [name for name in differing if name in kept]
    return [{name: tree.get(name) for name in kept} for tree in trees]


def labels(settings: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> list[str]:
    """Return a label for each setting from what sets it apart: `decay 0.3`, `adamw, lr 0.01`; else its id."""
    made = [", ".join(_words(setting)) for setting in settings]
    return [
        label if label and made.count(label) == 1 else f"{label} ({name})".strip() if label else name
        for label, name in zip(made, ids, strict=True)
    ]


def _words(setting: Mapping[str, Any]) -> list[str]:
    """Return words for what a setting has; what others alone have, as an edit and its keys, is said by its absence."""
    there = [_word(key, value) for key, value in setting.items() if value is not None]
    return there or (["no edit"] if any(key.startswith("edit.") for key in setting) else [])


def _word(key: str, value: Any) -> str:
    name = key.rpartition(".")[2]
    if name == "name":
        return str(value)
    if isinstance(value, bool) or value is None:
        return f"{name.replace('_', ' ')} {str(value).lower() if value is not None else 'none'}"
    short = {"weight_decay": "decay"}.get(name, name.replace("_", " "))
    return f"{short} {value:g}" if isinstance(value, float) else f"{short} {value}"


def comparable(settings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield the places of the settings that are compared: with two or more keys those that differ in one alone."""
    several = bool(settings) and len(settings[0]) > 1
    made = list(combinations(range(len(settings)), 2))
    alike = [(a, b) for a, b in made if _differ(settings[a], settings[b]) == 1]
    yield from alike if several and alike else made


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one[key] != other[key] for key in one)
