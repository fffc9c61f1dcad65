"""The configuration of an analysis: conf/analysis/KIND.yaml and overrides relative to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from dynalab.config import registry
from dynalab.config.overrides import Override, parse, settings
from dynalab.config.tree import resolved
from dynalab.config.typed import flat, nested, plain, typed
from dynalab.core.errors import ConfigError


def keys_of(kind: str, words: Iterable[str | Override]) -> list[Override]:
    """Return the overrides of words about an analysis, without its name before their keys."""
    overrides = parse(words, seeds=False)
    return [replace(item, key=item.key.removeprefix(f"{kind}.")) for item in overrides]


def pooled(overrides: Sequence[Override]) -> tuple[bool, list[Override]]:
    """Return whether overrides ask for one analysis over all ensembles, and the others.

    Raises:
        ConfigError: They say neither yes nor no.
    """
    own, others = settings(overrides, "pool")
    if not isinstance(own["pool"], bool | None):
        raise ConfigError(f"pool={own['pool']}: expected true or false")
    return bool(own["pool"]), others


def read_analysis(kind: str, words: Iterable[str | Override]) -> tuple[registry.Part, Any]:
    """Return the analysis and its typed configuration.

    Args:
        kind: `hmm`, ...
        words: `key=value` or `<kind>.key=value`; several values are a list, `metrics=a,b`.

    Raises:
        ConfigError: No such analysis, an unknown key, an empty value, a wrong type or a value out of range.
    """
    folders = registry.search_path()
    part = registry.find("analysis", kind, folders)
    path = part.file(folders)
    tree: Any = OmegaConf.to_container(OmegaConf.load(path)) if path else {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values")
    for item in keys_of(kind, words):
        if item.sign == "~" and item.value is not None:
            raise ConfigError(
                f"{item.written}: expected ~{item.key}, which is its default, or {item.key}=VALUE"
            )
        value = item.value if len(item.values) == 1 else list(item.values)
        tree = replace(item, values=(value,)).applied(tree)
    # Before typing: a preset may fill in keys that were not given.
    keys = resolved(tree)
    if empty := [key for key, value in flat(keys).items() if value == ""]:
        raise ConfigError(f"{empty[0]}=: expected a value, or null for the default")
    return part, typed(part.config_class, keys, "")


def given_keys(config_class: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fewest dotted keys that make a configuration of what is default, as somebody would type them.

    Args:
        config_class: The analysis' configuration.
        config: Field -> value, as a result holds it; one of another version may have other fields.
    """
    full = flat(config)
    try:
        base = flat(plain(config_class()))
    except TypeError:
        # A plug-in's may have keys without a default.
        base = {}
    given = {key: value for key, value in full.items() if key not in base or base[key] != value}

    def makes(keys: Mapping[str, Any]) -> bool:
        try:
            made = flat(plain(typed(config_class, nested(keys), "")))
        except (ConfigError, TypeError):
            return False
        return all(made.get(key) == value for key, value in full.items())

    # Some values follow from another key, as a preset's do.
    for key in reversed(given):
        fewer = {name: value for name, value in given.items() if name != key}
        given = fewer if makes(fewer) else given
    return given
