"""The configuration of an analysis: conf/analysis/KIND.yaml and overrides relative to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dynalab.config import registry
from dynalab.config.overrides import sign_and_key, values_of
from dynalab.config.tree import resolved
from dynalab.config.typed import typed


def read_analysis(
    kind: str,
    overrides: Sequence[str],
    folders: Sequence[Path] = (),
    values: Mapping[str, Any] | None = None,
) -> tuple[registry.Part, Any]:
    """Return the analysis and its typed configuration.

    Args:
        kind: `hmm`, ...
        overrides: `key=value` or `<kind>.key=value`; a list may be written `metrics=a,b`.
        folders: A user's configuration folders.
        values: Keys as plain values, nested ones as mappings: what Python gives in the place of overrides.

    Raises:
        ConfigError: No such analysis, an unknown key, a wrong type or a value out of range.
    """
    part = registry.find("analysis", kind, folders)
    roots = [*folders, *registry.entry_folders(), registry.conf_dir()]
    path = next((p for root in roots if (p := root / "analysis" / f"{kind}.yaml").is_file()), None)
    tree = OmegaConf.load(path) if path else OmegaConf.create()
    for text in overrides:
        given = [item.value for item in values_of(text)]
        key = sign_and_key(text)[1].removeprefix(f"{kind}.")
        OmegaConf.update(tree, key, given if len(given) > 1 else given[0], force_add=True)
    container = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(container, dict)
    # Before typing: a preset may fill in keys that were not given.
    merged = _merged(resolved({str(key): value for key, value in container.items()}), values or {})
    return part, typed(part.config_class, merged, "")


def _merged(base: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    inside = {
        key: _merged(base[key], value)
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        else value
        for key, value in keys.items()
    }
    return {**base, **inside}
