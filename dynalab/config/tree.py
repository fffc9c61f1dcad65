"""Configurations as plain trees: keys with dots in them, merging, interpolations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from dynalab.core.errors import ConfigError

Tree = dict[str, Any]


def parts_of(key: str) -> list[str]:
    """Return the parts of a dotted key, indices in brackets included."""
    return [part for part in re.split(r"[.\[\]]+", key) if part]


def has(tree: Any, parts: Sequence[str]) -> bool:
    """Return whether a tree has a key, given in parts; those of a list are its places."""
    for part in parts:
        if isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        else:
            return False
    return True


def value_at(tree: Any, parts: Sequence[str]) -> Any:
    """Return the value of a key, given in parts; None of one that a tree has not."""
    if not has(tree, parts):
        return None
    for part in parts:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def placed(node: Any, parts: Sequence[str], value: Any) -> Any:
    """Return a tree with a value at a key, given in parts; the tree itself stays, and what does not change is shared.

    Sections that are not there are made, and a mapping is merged into one.

    Raises:
        KeyError: A part of the way is no section, and no list with such an index.
    """
    part, *rest = parts
    node = {} if node is None else node
    if not isinstance(node, Mapping) and not has(node, [part]):
        raise KeyError(part)
    before = value_at(node, [part])
    if rest:
        value = placed(before, rest, value)
    elif isinstance(value, Mapping) and isinstance(before, Mapping):
        value = merged(before, value)
    return _replaced(node, part, value)


def _replaced(node: Any, part: str, value: Any) -> Any:
    if isinstance(node, Mapping):
        return {**node, part: value}
    return [*node[: int(part)], value, *node[int(part) + 1 :]]


def without(node: Any, parts: Sequence[str]) -> Any:
    """Return a tree without a key that it has, given in parts; the tree itself stays."""
    part, *rest = parts
    if rest:
        return _replaced(node, part, without(value_at(node, [part]), rest))
    if isinstance(node, Mapping):
        return {key: value for key, value in node.items() if key != part}
    return [*node[: int(part)], *node[int(part) + 1 :]]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Return keys under stronger ones: mappings are merged, anything else is replaced, `???` by nothing."""
    tree = dict(base)
    for key, value in over.items():
        before = tree.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            tree[key] = merged(before, value)
        elif key not in tree or not isinstance(value, str) or value != "???":
            tree[key] = value
    return tree


def dotted_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every key of a tree, with dots, those of its sections as well."""
    for name, child in tree.items():
        yield f"{prefix}{name}"
        if isinstance(child, Mapping):
            yield from dotted_keys(child, f"{prefix}{name}.")


def resolved(tree: Tree) -> Tree:
    """Return a tree with its interpolations resolved.

    Raises:
        ConfigError: One of them cannot be, or a mandatory value, `???`, is missing.
    """
    special = {key: text for key, text in texts(tree) if "${" in text or text == "???"}
    if missing := [key for key, text in special.items() if text == "???"]:
        raise ConfigError(f"{missing[0]}: needs a value, {missing[0]}=VALUE")
    if not special:
        return tree
    try:
        with _clock():
            container = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except InterpolationKeyError as error:
        named = re.search(r"'([^']+)' not found", str(error))
        key, name = str(error.full_key), named[1] if named else "a key"
        raise ConfigError(f"{key}={special.get(key)}: there is no {name} here; give {key}=VALUE") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        reason = str(error).splitlines()[0].rpartition("raised while resolving interpolation: ")[2]
        raise ConfigError(f"{key}{reason.strip(chr(34))}") from error
    except Exception as error:  # A resolver is a function of somebody's.
        raise ConfigError(f"an interpolation cannot be resolved: {error}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@contextlib.contextmanager
def _clock() -> Iterator[None]:
    """Have Hydra's `${now:%Y-%m-%d}` for a while; a program around keeps the resolvers that it has."""
    if OmegaConf.has_resolver("now"):
        yield
        return
    OmegaConf.register_new_resolver("now", lambda pattern: datetime.now().strftime(pattern))
    try:
        yield
    finally:
        OmegaConf.clear_resolver("now")


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the text of every value that is text."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, key)
    elif isinstance(value, str):
        yield key, value
