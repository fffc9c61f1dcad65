"""What tells ensembles apart: the keys in which their configurations differ, and labels made of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from dynalab.config.words import word_of

# What says nothing of how an ensemble trains, or follows from other keys.
_DULL = (
    *("convergence.", "levels.", "snapshots.", "sources.", "origin.", "named", "probes", "probe."),
    *("import.file", "import.form", "import.options", "import.family"),
)
# Ends of keys that say little without the section.
_VAGUE = ("every", "at", "size", "steps")
IMPORTED = "import.names"
# What a table says that runs were trained with.
SETTING = "import.settings."
Tree = Mapping[str, Any]


def differing(trees: Sequence[Tree]) -> list[str]:
    """Return the keys of configurations with dotted keys whose values are not the same in all; 1 is not 1.0."""
    keys = dict.fromkeys(key for tree in trees for key in tree)
    return [key for key in keys if len({repr(tree.get(key)) for tree in trees}) > 1]


def apart(trees: Sequence[Tree]) -> list[dict[str, Any]]:
    """Return for each configuration its values of the keys that tell them apart.

    What the choice of a part brings with it, as an optimizer's own rate beside its name, is none of them.
    """
    keys = [key for key in differing(trees) if not key.startswith(_DULL)]
    said = [key for key in keys if key.startswith(SETTING)]
    if len({tuple(repr(tree.get(key)) for key in said) for tree in trees}) == len(trees):
        # They say more than what each import is called.
        keys = [key for key in keys if key != IMPORTED]
    parts = [key for key in keys if key.endswith(".name")]
    kept = [key for key in keys if key in parts or _adds(key, parts, trees)]
    return [{key: tree.get(key) for key in kept} for tree in trees]


def swept(trees: Sequence[Tree]) -> list[dict[str, Any]]:
    """Return for each configuration its values of as few keys as tell them apart: none follows from those before."""
    settings = apart(trees)
    names = [*settings[0]] if settings else []
    kept: list[str] = []
    # The name of a part first.
    for key in sorted(names, key=lambda key: not key.endswith(".name")):
        if _adds(key, kept, settings):
            kept.append(key)
    return [{key: setting[key] for key in names if key in kept} for setting in settings]


def _adds(key: str, to: Iterable[str], trees: Sequence[Tree]) -> bool:
    """Return whether a key tells some configurations apart that other keys do not."""
    cells = [tuple(repr(tree.get(other)) for other in to) for tree in trees]
    return len({(*cell, repr(tree.get(key))) for cell, tree in zip(cells, trees, strict=True)}) > len(
        {*cells}
    )


def labels(trees: Sequence[Tree], others: Sequence[str], most: int = 4) -> list[str]:
    """Return a label for each configuration from what tells it apart, `decay 0.3`, `adamw, lr 0.01`.

    Args:
        trees: The configurations, with dotted keys.
        others: What each is called where that is not enough, or behind it in brackets.
        most: Keys of a label; where more differ, as few as are enough.
    """
    settings = apart(trees)
    if settings and len(settings[0]) > most:
        settings = swept(trees)
    ends = Counter(key.rpartition(".")[2] for key in (settings[0] if settings else ()))
    exact = {key for key in (settings[0] if settings else ()) if look_alike([own[key] for own in settings])}
    made = [", ".join(_words(setting, ends, exact)) for setting in settings]
    return [
        label if label and made.count(label) == 1 else f"{label} ({other})" if label else other
        for label, other in zip(made, others, strict=True)
    ]


def look_alike(values: Iterable[Any]) -> bool:
    """Return whether some numbers look alike with six digits."""
    numbers = {value for value in values if isinstance(value, float)}
    return len({f"{value:g}" for value in numbers}) < len(numbers)


def _words(setting: Tree, ends: Mapping[str, int], exact: Container[str]) -> list[str]:
    """Return words for what a setting has; what others alone have, as an edit and its keys, is said by its absence."""
    there = [_word(key, value, ends, key in exact) for key, value in setting.items() if value is not None]
    missing = (("edit.", "no edit"), ("parent", "no fork"))
    return there or [said for start, said in missing if any(key.startswith(start) for key in setting)][:1]


def _word(key: str, value: Any, ends: Mapping[str, int], exact: bool) -> str:
    end = key.rpartition(".")[2]
    if end == "name":
        return str(value)
    if key == IMPORTED:
        return ", ".join(map(str, value))
    if key == "parent":
        return f"fork of {value}"
    name = key if ends[end] > 1 else spoken_key(key)
    if isinstance(value, float):
        return f"{name} {value!r}" if exact else f"{name} {value:g}"
    return f"{name} {word_of(value)}"


def spoken_key(key: str) -> str:
    """Return a key as it is read, `decay` for `optimizer.weight_decay`."""
    end = key.rpartition(".")[2]
    if end in _VAGUE:
        return key.replace(".", " ")
    return {"weight_decay": "decay"}.get(end, end.replace("_", " "))
