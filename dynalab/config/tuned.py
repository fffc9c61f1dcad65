"""What a task says of the other parts: `tuned` in its YAML fills what the command leaves open.

Settings that train a task with `sgd` are that optimizer's own wherever it works, inside Lookahead as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.typed import neutral_of
from dynalab.core.errors import ConfigError


def filled(node: dict[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the nulls of a part's section with what the task's YAML says of that part."""
    said = tuned.get(str(node.get("name"))) or {}
    _refuse_unknown(f"tuned.{node.get('name')}", said, list(node))
    return {key: said.get(key) if value is None else value for key, value in node.items()}


def _refuse_unknown(where: str, said: Mapping[str, Any], legal: Sequence[str]) -> None:
    for key in said:
        if key not in legal:
            raise ConfigError(
                f"{where}.{key}: no such key{did_you_mean(key, legal)}; there are {listing(legal)}"
            )


# Finds a part of a group by its name and by the key that says it, `optimizer.inner`.
Find = Callable[[str, str, str], registry.Part]


def config_class(
    group: str, tree: Mapping[str, Any], folders: Sequence[Path], find: Find | None = None
) -> Any:
    """Return the configuration class of the part that a tree has of a group; a wrapper's has the inner one's fields.

    Raises:
        ConfigError: There is no such part.
    """
    find = find or (lambda group, name, key: registry.find(group, name, folders, key=key))
    node = tree.get(group) or {}
    outer = find(group, str(node.get("name")), group).config_class
    if not hasattr(outer, "around"):
        return outer
    inner = node.get("inner") or _usual_inner(outer, group, tree, folders)
    return outer.around(find(group, str(inner), f"{group}.inner"))


def _usual_inner(outer: Any, group: str, tree: Mapping[str, Any], folders: Sequence[Path]) -> str:
    """Return the inner part of a wrapper where the command names none: the task's word for it, or the task's own."""
    node, tuned = tree.get(group) or {}, (tree.get("tuned") or {}).get(group) or {}
    said = (tuned.get(str(node.get("name"))) or {}).get("inner")
    own = _own_choice(tree, group, folders) if outer.follows_task and not said else None
    return str(said or own or outer.inner)


def around(
    outer: Any, group: str, tree: Mapping[str, Any], folders: Sequence[Path], find: Find
) -> tuple[Any, dict[str, Any], list[str]]:
    """Choose the inner part of a wrapper (`outer`, an `optim.base.Wrapper`) and fill the nulls of both.

    Returns:
        The class with the inner part's fields beside, the section for it, and the fields that enter the identity also
        at their neutral value.
    """
    node, tuned = tree.get(group) or {}, (tree.get("tuned") or {}).get(group) or {}
    name = str(node.get("name"))
    said = tuned.get(name) or {}
    whole = config_class(group, tree, folders, find)
    inner = str(node.get("inner") or whole.part.name)
    usual = inner if not node.get("inner") or not said else _usual_inner(outer, group, tree, folders)
    fields = {item.name: item for item in dataclasses.fields(whole)}
    # What the task says of the inner settings it says for the inner part that it says it with.
    own_names = {item.name for item in dataclasses.fields(outer)}
    settings = {key: value for key, value in said.items() if inner == usual or key in own_names}
    below: dict[str, Any] = {}
    for part in [getattr(whole.inner_class, "inner", None), inner]:
        own_fields = tuned.get(str(part)) or {}
        below |= {key: own_fields[own] for key, own in whole.beside.items() if own in own_fields}
        _refuse_unknown(f"tuned.{part}", own_fields, ["inner", *whole.beside.values()])
    _refuse_unknown(f"tuned.{name}", settings, list(fields))
    settings = {**below, **settings, "inner": inner}
    # Of an older ensemble, whose section has the fields of all inner parts, those that were not said are null.
    given = {key: value for key, value in node.items() if value is not None}
    section = {**settings, **given}
    said_here = [key for key in settings if key in whole.beside]
    neutral = {key: neutral_of(fields[key]) for key in whole.beside}
    if inner == outer.inner and all(settings[key] == neutral[key] for key in said_here):
        # Such settings were no part of the identity before they were taken without `inner` being named.
        said_here = []
    if not tuned and len(given) < len(node):
        said_here = [key for key in given if key in whole.beside]
    if isinstance(kept := tree.get("named"), list):
        return whole, section, [key for key in whole.beside if key in kept]
    named = [key for key in said_here if section[key] == neutral[key]] if outer.hashes_tuned else []
    return whole, section, named


def _own_choice(tree: Mapping[str, Any], group: str, folders: Sequence[Path]) -> str | None:
    """Return the option of a group that a tree's task takes where none is named."""
    task = registry.find("task", str((tree.get("task") or {}).get("name")), folders)
    root = (registry.conf_dir() / "train.yaml").read_text()
    return registry.chosen(task.defaults(folders), group) or registry.chosen(root, group)
