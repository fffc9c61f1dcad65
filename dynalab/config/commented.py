"""A configuration as YAML with what each key is beside it, as comments."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from dynalab.config.explain import Explained

# Comments begin at the same column, but for pairs that are longer.
COLUMN = 32
# Less says nothing.
LEAST = 24


def commented(
    tree: Mapping[str, Any], explained: Mapping[str, Explained], width: int | None, prefix: str = ""
) -> str:
    """Return a tree as YAML with comments.

    Args:
        tree: The configuration, or a part of it.
        explained: Dotted key -> what it is.
        width: Columns of a line: a longer comment is cut; None: none is.
        prefix: The part's key, with a dot behind it; empty of a whole configuration.
    """
    pairs = list(_pairs(tree, prefix, ""))
    column = min(COLUMN, max((len(text) for text, _, _ in pairs), default=0))
    return "\n".join(
        _with_comment(text, explained[key], value, column, width or sys.maxsize) if key in explained else text
        for text, key, value in pairs
    )


def _pairs(tree: Mapping[str, Any], prefix: str, indent: str) -> Iterator[tuple[str, str, Any]]:
    """Yield text, dotted key and value of every line; what has keys of its own is a line and theirs."""
    for name, value in tree.items():
        key, text = f"{prefix}{name}", f"{indent}{_dumped(str(name))}:"
        if isinstance(value, Mapping) and value:
            yield text, "", None
            yield from _pairs(value, f"{key}.", f"{indent}  ")
        else:
            yield f"{text} {_dumped(value)}", key, value


def _dumped(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=100_000).removesuffix("...\n").rstrip("\n")


def value_in_words(value: Any) -> str:
    """Return a value as one types it."""
    # An empty word cannot be typed: it stands for what another key decides.
    return value or "null" if isinstance(value, str) else _dumped(value)


def comment(item: Explained, value: Any, room: int) -> str:
    """Return what is said of a key beside its value: not what the value says itself, nor what null would mean.

    Args:
        item: The key.
        value: Its value.
        room: Letters that there are; of what is cut, what a null means stays.
    """
    clauses = [clause for clause in " ".join(item.about.split()).split("; ") if clause != value]
    null = [clause for clause in clauses if clause.startswith("null: ")]
    rest = "; ".join(clause for clause in clauses if clause not in null)
    tail = "; ".join(["", *null] if rest else null) if value is None else ""
    if room - len(tail) < LEAST:
        return textwrap.shorten(rest + tail, room, placeholder=" ...")
    return textwrap.shorten(rest, room - len(tail), placeholder=" ...") + tail


def _with_comment(text: str, item: Explained, value: Any, column: int, width: int) -> str:
    room = width - max(column, len(text)) - 3
    # A value of several lines has no room beside it.
    said = comment(item, value, room) if room >= LEAST and "\n" not in text else ""
    return f"{text:<{column}} # {said}" if said else text
