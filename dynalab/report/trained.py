"""What was trained, in words with its values: the title of a page.

A part says itself in its module's `TITLE`, a template with names of its keys: `"MLP {hidden}"`. Keys that it leaves out
follow where they differ from their default.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import Any

from dynalab.config.keys import alternatives
from dynalab.config.plain import key_of, neutral_of
from dynalab.config.registry import Part, find, search_path
from dynalab.config.schema import Train
from dynalab.config.settings import spoken_key
from dynalab.core.errors import DynalabError
from dynalab.core.forks import parent_and_step
from dynalab.core.words import count, listed, number

# Different settings of a part that are named one by one.
NAMED = 4
_SILENT = ("name", "batch_size", "decay")
_LENGTH = ("steps", "epochs")
Sections = Sequence[Mapping[str, Any]]


class _Values(string.Formatter):
    """Fills a template with the values of keys, several settings' as alternatives; `:share` writes a percentage."""

    def format_field(self, value: Any, format_spec: str) -> str:
        scale, unit = (100, "%") if format_spec == "share" else (1, "")
        shown = (f"{number(x * scale)}{unit}" if unit else _value(x) for x in value)
        return alternatives([*dict.fromkeys(shown)])


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        whole = all(isinstance(x, int) for x in value)
        return "-".join(map(str, value)) if whole else f"({', '.join(map(_value, value))})"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return "none" if value is None else str(value)


def _part(group: str, name: str) -> Part | None:
    try:
        return find(group, name, search_path())
    except DynalabError:
        return None


def _neutral(cls: type[Any]) -> dict[str, Any]:
    return {key_of(field.name): neutral_of(field) for field in dataclasses.fields(cls)}


def _piece(group: str, sections: Sections) -> str:
    """Return what is said of one part over settings of the same name."""
    name = str(sections[0]["name"])
    part = _part(group, name)
    template = str(getattr(part.module, "TITLE", name)) if part else name
    template = template if part and hasattr(part.module, "TITLE") else template.replace("_", " ")
    defaults = _neutral(part.config_class) if part else {}
    inner = _part(group, str(sections[0].get("inner"))) if "inner" in sections[0] else None
    defaults = {**(_neutral(inner.config_class) if inner else {}), **defaults}
    values = {key: [section.get(key) for section in sections] for key in sections[0]}
    try:
        made = _Values().vformat(template, (), values)
    except (KeyError, IndexError, ValueError, TypeError):
        # Of another version, without a key of the template.
        made = name.replace("_", " ")
    said = {field for _, field, _, _ in string.Formatter().parse(template) if field}
    return ", ".join(
        [made, *_others(group, {key: own for key, own in values.items() if key not in said}, defaults)]
    )


def _others(group: str, values: Mapping[str, Sequence[Any]], defaults: Mapping[str, Any]) -> list[str]:
    """Return words for the keys of a section that differ from their defaults in some setting."""
    return [
        f"{spoken_key(f'{group}.{key}')} {alternatives([*dict.fromkeys(map(_value, own))])}"
        for key, own in values.items()
        if key not in _SILENT and not all(value == defaults.get(key) for value in own)
    ]


def _over(group: str, configs: Sections, last: str = "or") -> str:
    """Return what is said of one part over all settings, `last` before the last one; empty where they have none."""
    sections = [section for config in configs if isinstance(section := config.get(group), Mapping)]
    by_name: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for section in sections:
        if section.get("name"):
            # What is around something else has the keys of that.
            by_name.setdefault((str(section["name"]), str(section.get("inner"))), []).append(section)
    pieces = [_piece(group, own) for own in by_name.values()]
    if group == "task":
        pieces[1:] = [x[0].lower() + x[1:] if x[1:2].islower() else x for x in pieces[1:]]
    if len(pieces) > NAMED:
        return count(len(pieces), group)
    if len(pieces) > 1:
        # Of several, what belongs to each stands in brackets.
        pieces = [_bracketed(*x.partition(", ")[::2]) for x in pieces]
    return listed(pieces, last=last) if pieces else ""


def _bracketed(head: str, more: str) -> str:
    """Return what is said of a part with its keys in brackets, in those that it has already."""
    return (f"{head[:-1]}, {more})" if head.endswith(")") else f"{head} ({more})") if more else head


def _forks(configs: Sections) -> list[str]:
    """Return at which step forks leave their parents, and how they are edited."""
    parents = [str(parent) for config in configs if (parent := config.get("parent"))]
    if not parents:
        return []
    steps = alternatives([*dict.fromkeys(f"{parent_and_step(parent)[1]:,}" for parent in parents)])
    some = "" if len(parents) == len(configs) else "in part "
    return [f"{some}forked at step {steps}", _over("edit", configs)]


def trained(configs: Sections) -> str:
    """Return what was trained with some configurations, as plain values; empty where none has a task."""
    if not any(isinstance(config.get("task"), Mapping) for config in configs):
        return ""
    if len({str((config.get("task") or {}).get("name")) for config in configs}) > 1:
        # Which of the models learns which of the tasks stands below, ensemble by ensemble.
        return _over("task", configs, "and")
    pieces = [_over(group, configs) for group in ("task", "model", "optimizer")]
    constant = all((config.get("schedule") or {}).get("name", "constant") == "constant" for config in configs)
    pieces += [] if constant else [_over("schedule", configs)]
    train = [config.get("train") or {} for config in configs]
    sizes = [*dict.fromkeys(section.get("batch_size") for section in train)]
    if sizes != [None]:
        of = ["full batch"] if "full" in sizes else []
        if own := [str(size) for size in sizes if size and size != "full"]:
            of.append(f"batches of {alternatives(own)}")
        pieces.append(alternatives(of))
    kept = {key: [section.get(key) for section in train] for key in train[0] if key not in _LENGTH}
    averaged = sum(bool(config.get("average")) for config in configs)
    average = f"{'in part ' * (averaged < len(configs))}{_over('average', configs)}" if averaged else ""
    pieces += [*_others("train", kept, _neutral(Train)), average, *_forks(configs)]
    return "; ".join(filter(None, pieces))
