"""The configuration of an analysis: conf/analysis/KIND.yaml and overrides relative to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from dynalab.config import registry
from dynalab.config.overrides import values_of
from dynalab.config.tree import merged, resolved
from dynalab.config.typed import flat, nested, plain, typed
from dynalab.core.errors import ConfigError


def read_analysis(
    kind: str,
    overrides: Sequence[str],
    values: Mapping[str, Any] | None = None,
) -> tuple[registry.Part, Any]:
    """Return the analysis and its typed configuration.

    Args:
        kind: `hmm`, ...
        overrides: `key=value` or `<kind>.key=value`; a list may be written `metrics=a,b`.
        values: Keys as plain values, nested ones as mappings: what Python gives in the place of overrides.

    Raises:
        ConfigError: No such analysis, an unknown key, an empty value, a wrong type or a value out of range.
    """
    folders = registry.search_path()
    part = registry.find("analysis", kind, folders)
    path = part.file(folders)
    tree = OmegaConf.load(path) if path else OmegaConf.create()
    for text in overrides:
        words = values_of(text)
        listed = [word.value for word in words]
        OmegaConf.update(
            tree,
            words[0].key.removeprefix(f"{kind}."),
            listed if len(words) > 1 else listed[0],
            force_add=True,
        )
    container = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(container, dict)
    # Before typing: a preset may fill in keys that were not given.
    keys = merged(resolved({str(key): value for key, value in container.items()}), values or {})
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
