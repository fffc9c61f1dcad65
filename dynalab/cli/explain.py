"""What `dynalab config --explain` says of keys."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.cli.options import columns_of_terminal, echo, emit_json
from dynalab.config import registry
from dynalab.config.commented import value_in_words
from dynalab.config.explain import AVERAGE, GROUPS, PARTS, Explained, of_part, shared
from dynalab.config.lookup import Answer, look_up

if TYPE_CHECKING:
    from dynalab.config.command import Command


@dataclass(frozen=True)
class Configuration:
    """The configurations that a command line asks for.

    Attributes:
        command: The command.
        trees: Dotted key -> value as it is shown, of each of its ensembles.
        seeds: The words that are about seeds, which no ensemble's own words have.
    """

    command: Command
    trees: Sequence[Mapping[str, Any]]
    seeds: Sequence[str]

    def chosen(self) -> dict[str, tuple[str, list[Explained]]]:
        """Return group -> the part that is chosen, in all ensembles, and its keys."""
        chosen = {}
        for group in (*PARTS, AVERAGE):
            first, *others = (getattr(request.config, group) for request in self.command.requests)
            if first is not None and all(type(other) is type(first) for other in others):
                chosen[group] = (first.name, of_part(group, first.name, type(first)))
        return chosen

    def values(self, answer: Answer) -> list[dict[str, Any]]:
        """Return the values of a key, one for each ensemble: the words that choose it, the value, what says it."""
        from dynalab.config.compose import Composer
        from dynalab.config.overrides import parse

        composer, values = Composer(self.command.settings.folders), []
        group, _, field = answer.key.partition(".")
        for request, tree in zip(self.command.requests, self.trees, strict=True):
            is_part = group in (*PARTS, AVERAGE)
            key = f"{group}.name" if is_part and not field else answer.key
            part = getattr(request.config, group) if is_part else None
            if key not in tree or (field and part is not None and part.name not in answer.defaults):
                continue
            cell = parse([*request.overrides, *self.seeds])
            # An optimizer around another has the inner one's fields, which the task says with that one.
            inner = getattr(part, "beside", {}).get(field)
            own = f"{getattr(part, 'inner', '')}.{inner}" if inner else f"{getattr(part, 'name', '')}.{field}"
            said = composer.source(key, cell, f"tuned.{group}.{own}" if part is not None and field else "")
            if not field and part is not None:
                said = "your word" if any(item.key == group for item in cell) else ""
            overrides = " ".join(request.overrides)
            values.append({"overrides": overrides, "value": tree[key], "from": said or "the default"})
        return values


def explain(words: Sequence[str], configuration: Configuration | None, as_json: bool) -> None:
    """Print what is said of keys, with the values of a configuration where one is given.

    Raises:
        ConfigError: One of the words is no key.
    """
    chosen = configuration.chosen() if configuration else {}
    folders = registry.search_path()
    answers = [
        answer
        for word in words or [*GROUPS, *filter(None, shared())]
        for answer in look_up(word, folders, chosen)
    ]
    values = [configuration.values(answer) if configuration else [] for answer in answers]
    if as_json:
        emit_json(
            {"keys": [_plain(*pair, configuration is not None) for pair in zip(answers, values, strict=True)]}
        )
        return
    width = columns_of_terminal()
    for answer, here in zip(answers, values, strict=True):
        for line in _lines(answer, here, width):
            echo(line)
        name, _ = chosen.get(answer.key.partition(".")[0], ("", ()))
        if name and answer.kind and name not in answer.defaults:
            echo(f"  {answer.key.partition('.')[0]}={name}, which is chosen, does not have it")


def _plain(answer: Answer, values: Sequence[Mapping[str, Any]], configured: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {"key": answer.key, "about": answer.about}
    if answer.options:
        plain |= {"options": [{"name": name, "about": about} for name, about in answer.options.items()]}
    else:
        parts = [{"part": name or None, "default": default} for name, default in answer.defaults.items()]
        plain |= {"kind": answer.kind, "range": answer.legal or None, "defaults": parts}
    return plain | ({"values": list(values)} if configured else {})


def _lines(answer: Answer, values: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    lines = textwrap.wrap(
        f"{answer.key}: {answer.about}" if answer.about else answer.key, width, subsequent_indent="  "
    )
    indented = {"width": width, "initial_indent": "  ", "subsequent_indent": "    "}
    if answer.options:
        column = max(map(len, answer.options)) + 2
        for name, about in answer.options.items():
            lines.append(
                textwrap.shorten(f"  {name}", width) if not about else _option(name, about, column, width)
            )
    elif answer.kind:
        lines += textwrap.wrap(f"{_legal(answer)}; {_defaults(answer)}", **indented)  # type: ignore[arg-type]
    same = len({(value_in_words(value["value"]), value["from"]) for value in values}) == 1
    for value in values[:1] if same else values:
        head = "here" if same else f"with {value['overrides']}:"
        said = value["from"]
        source = f", {said}" if said in ("your word", "the default") else f", from {said}"
        source = "" if answer.options and said == "the default" else source
        lines += textwrap.wrap(f"{head} {value_in_words(value['value'])}{source}", **indented)  # type: ignore[arg-type]
    return lines


def _option(name: str, about: str, column: int, width: int) -> str:
    return f"  {name:<{column}}{textwrap.shorten(about, max(width - column - 2, 16), placeholder=' ...')}"


def _legal(answer: Answer) -> str:
    of = "of " if answer.legal.startswith("at ") else ""
    noun = answer.kind.removesuffix(" or null")
    return (
        f"{noun} {of}{answer.legal}{', or null' if noun != answer.kind else ''}"
        if answer.legal
        else answer.kind
    )


def _defaults(answer: Answer) -> str:
    """Return the default, or those of the parts that have the key, parts with the same one together."""
    same: dict[str, list[str]] = {}
    for name, default in answer.defaults.items():
        same.setdefault(value_in_words(default), []).append(name)
    if len(same) == 1 and list(answer.defaults) == [""]:
        return f"default {next(iter(same))}"
    return "default " + ", ".join(f"{value} ({', '.join(names)})" for value, names in same.items())
