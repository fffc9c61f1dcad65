"""The configuration of an analysis: conf/analysis/KIND.yaml and overrides relative to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dynalab.config import registry
from dynalab.config.overrides import key_of
from dynalab.config.typed import typed
from dynalab.errors import ConfigError


def read_analysis(
    kind: str, overrides: Sequence[str], folders: Sequence[Path] = ()
) -> tuple[registry.Part, Any]:
    """Return the analysis and its typed configuration.

    Args:
        kind: `hmm`, ...
        overrides: `key=value` or `<kind>.key=value`; a list may be written `metrics=a,b`.
        folders: A user's configuration folders.

    Raises:
        ConfigError: No such analysis, an unknown key, a wrong type or a value out of range.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep
    from hydra.errors import HydraException

    part = registry.find("analysis", kind, folders)
    roots = [*folders, *registry.entry_folders(), registry.conf_dir()]
    path = next((p for root in roots if (p := root / "analysis" / f"{kind}.yaml").is_file()), None)
    tree = OmegaConf.load(path) if path else OmegaConf.create()
    for text in overrides:
        key = key_of(text).removeprefix(f"{kind}.")
        try:
            override = OverridesParser.create().parse_override(text)
            value = override._value
            if isinstance(value, ChoiceSweep):
                plain: Any = list(override.sweep_iterator())
            elif override.is_sweep_override():
                raise ConfigError(f"{text}: {key} takes one value a command")
            else:
                plain = override.value()
        except HydraException as error:
            raise ConfigError(f"{text}: cannot be parsed ({str(error).splitlines()[0]})") from error
        OmegaConf.update(tree, key, plain, force_add=True)
    values = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(values, dict)
    return part, typed(part.config_class, {str(k): v for k, v in values.items()}, "")
