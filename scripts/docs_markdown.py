"""Markdown from plain text, docstrings and rows, as GitHub shows it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

_CODE = re.compile(r"(`[^`]*`)")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are Markdown of one line, whatever bars and line feeds are in them."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    # A bar ends a cell even within code.
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """Return a word as code; nothing for an empty one."""
    return f"`{value}`" if str(value) else ""


def value(item: Any) -> str:
    """Return a value of a configuration as one types it, as code."""
    return code(_typed(item))


def _typed(item: Any) -> str:
    if item is None or item == "":
        return "null"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, list | tuple):
        return f"[{', '.join(map(_typed, item))}]"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{key}: {_typed(inner)}" for key, inner in item.items()) + "}"
    if isinstance(item, float):
        return f"{item:g}"
    return str(item).removeprefix("${").removesuffix("}")  # Another key's value.


def prose(text: str) -> str:
    """Return plain text as Markdown that shows its stars, underscores and angles; code between backticks stays."""
    return "".join(part if part.startswith("`") else _escaped(part) for part in _CODE.split(text))


def _escaped(text: str) -> str:
    text = re.sub(r"[*~\\]|](?=\()", r"\\\g<0>", text).replace("<", "&lt;")
    # Between letters an underscore is itself.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def docstring(text: str | None) -> str:
    """Return a docstring as Markdown: paragraphs and lists as they are, indented parts as code."""
    blocks = []
    for block in inspect.cleandoc(text or "").split("\n\n"):
        if block.startswith("    "):
            blocks.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            blocks.append(prose(block))
    return "\n\n".join(blocks)
