"""The keys of findings, from the dataclasses that hold them: path, type and meaning of each, as docs/json.md has them.

What a field is stands in its class: as a comment behind it, as comments above it, or under `Attributes:`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from dynalab.core.records import Frame, table_names

WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A key: its path (`runs[].events[].kind`), the type of its value in words, and what it is."""

    path: str
    kind: str
    about: str


def entries(cls: type[Any], before: str = "") -> Iterator[Entry]:
    """Yield the keys of a class of findings, and of the classes in it, depth first; tables and warnings are apart."""
    hints, about = typing.get_type_hints(cls, include_extras=True), abouts(cls)
    for name, key in _names(cls).items():
        if hints[name] is Frame or (name == "warnings" and not before):
            continue
        kind, inner, suffix = _kind(hints[name])
        summary = (inspect.getdoc(inner) or "").split("\n\n")[0] if inner else ""
        yield Entry(f"{before}{key}", kind, _plain(about.get(name) or summary))
        if inner:
            yield from entries(inner, f"{before}{key}{suffix}.")


def tables_of(cls: type[Any]) -> list[str]:
    """Return the names of the tables that are stored beside findings of a class."""
    return list(table_names(cls).values()) if dataclasses.is_dataclass(cls) else []


def _plain(text: str) -> str:
    """Return a comment as a cell of a table has it: without its stop, JSON's null for None."""
    text = re.sub(r"\bNone\b", "null", " ".join(text.split())).removesuffix(".")
    # The first word may be somebody's name.
    return text[:1].lower() + text[1:] if re.match(r"[A-Z][a-z]+(?!'|\w)", text) else text


@cache
def abouts(cls: type[Any]) -> dict[str, str]:
    """Return field -> what it is, as the source of its class says; fields of which it says nothing are not there."""
    source = textwrap.dedent(inspect.getsource(cls))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    found = _attributes(inspect.getdoc(cls) or "")
    for field in node.body:
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        inside = [
            comments[row] for row in range(field.lineno, (field.end_lineno or 0) + 1) if row in comments
        ]
        above = []
        row = field.lineno - 1
        while row in comments and lines[row - 1].lstrip().startswith("#"):
            above.insert(0, comments[row])
            row -= 1
        if words := " ".join(inside or above):
            found[field.target.id] = words
    return found


def _attributes(doc: str) -> dict[str, str]:
    """Return field -> text of a docstring's `Attributes:`; one entry may go on with "; `other`: what that is"."""
    _, _, text = doc.partition("Attributes:\n")
    found = {}
    for entry in re.findall(r"^ {4}(\w+: .*(?:\n {8}.*)*)", text, re.M):
        for part in re.split(r"; (?=`\w+`: )", " ".join(entry.split())):
            name, _, about = part.partition(": ")
            found[name.strip("`")] = about
    return found


def _names(cls: type[Any]) -> dict[str, str]:
    """Return field -> key in JSON."""
    if issubclass(cls, msgspec.Struct):
        return {field.name: field.encode_name for field in msgspec.structs.fields(cls)}
    return {field.name: field.name for field in dataclasses.fields(cls)}


def _kind(hint: Any) -> tuple[str, type[Any] | None, str]:
    """Return a type in words, the class that its values hold, if any, and what stands before a key of that class."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [arg for arg in args if arg not in (type(None), msgspec.UnsetType)]
        parts = [_kind(arg) for arg in rest]
        words = " or ".join(dict.fromkeys(part[0] for part in parts))
        words += " or null" * (type(None) in args) + ", may be absent" * (msgspec.UnsetType in args)
        return words, *next(((inner, at) for _, inner, at in parts if inner), (None, ""))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if args[1] is Any:
            return "object", None, ""
        words, inner, at = _kind(args[1])
        return f"object of {_grouped(words)}", inner, f".NAME{at}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        count = "" if len(args) == 1 or Ellipsis in args else f"{len(args)} "
        words, inner, at = _kind(args[0])
        assert all(arg in (args[0], Ellipsis) for arg in args), hint
        return f"list of {count}{_grouped(words)}", inner, f"[]{at}"
    if dataclasses.is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
        return "object", hint, ""
    return WORDS[str if origin is typing.Literal else hint], None, ""


def _grouped(words: str) -> str:
    """Return the type of what a list or an object holds, in brackets where it is one of several."""
    words = re.sub(r"^(integer|number|text|object)$", r"\1s", words)
    return f"({words})" if " or " in words and words != WORDS[bool] else words
