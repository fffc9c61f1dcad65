"""Composition: conf/, a user's folders and the command's overrides become one plain tree per ensemble.

The only module that imports Hydra (with `overrides`), through its Compose API: `@hydra.main` would run one seed a
job, and crashes on Python 3.14.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dynalab.config import registry
from dynalab.config.overrides import key_of
from dynalab.config.suggest import did_you_mean, listing
from dynalab.errors import ConfigError

GROUPS = ("task", "model", "optimizer", "schedule", "experiment")


def compose(root: str, overrides: Sequence[str], folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Compose a configuration.

    Args:
        root: Name of the primary YAML file in conf/, `train`.
        overrides: Hydra overrides without sweeps.
        folders: A user's configuration folders, searched before conf/.

    Raises:
        ConfigError: A group, key or value that does not exist or does not parse.
    """
    own = [text for text in overrides if key_of(text) == "probe" or key_of(text).startswith("probe.")]
    rest = [text for text in overrides if text not in own]
    _check_groups(rest, folders)
    tree = _hydra(root, rest, folders)
    _add_probes(tree, own, folders)
    try:
        plain = OmegaConf.to_container(tree, resolve=True)
    except Exception as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _hydra(root: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    searched = ",".join(f"'file://{folder}'" for folder in [*folders, *registry.entry_folders()])
    extra = [f"hydra.searchpath=[{searched}]"] if searched else []
    try:
        # A notebook may have a Hydra of its own; it is put back.
        before = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(registry.conf_dir()), version_base="1.3"):
            tree = hydra_compose(root, overrides=[*extra, *overrides])
        GlobalHydra.instance().hydra = before
    except HydraException as error:
        raise _explained(error, root, overrides, folders) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration file is no YAML: {' '.join(str(error).split())}") from error
    OmegaConf.set_struct(tree, False)
    return tree


def _explained(error: Exception, root: str, overrides: Sequence[str], folders: Sequence[Path]) -> ConfigError:
    """Turn Hydra's message into one line that names the key, and the key that may have been meant."""
    choices = [text for text in overrides if key_of(text) in GROUPS]
    values = [text for text in overrides if text not in choices]
    if values:
        try:
            known = _dotted(_hydra(root, choices, folders))
        except ConfigError as inner:
            return inner
        for text in values:
            key = key_of(text)
            if text[0] != "+" and key not in known:
                suggestion = did_you_mean(key, known)
                hint = "" if suggestion else "; `dynalab config` shows every key"
                return ConfigError(f"{key}: no such key{suggestion}{hint}")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ConfigError(" ".join(lines[:2]) if lines else type(error).__name__)


def _dotted(tree: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, tree):
        dotted = f"{prefix}{name}"
        keys.append(dotted)
        child = tree._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            keys.extend(_dotted(child, f"{dotted}."))
    return keys


def _check_groups(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    for text in overrides:
        key, value = key_of(text), text.partition("=")[2].strip("'\"")
        if key in GROUPS and not text.startswith("~") and "/" not in value and value != "null":
            legal = registry.names(key, folders)
            alone = [path for folder in folders if (path := folder / key / f"{value}.py").is_file()]
            if value not in legal and alone:
                raise ConfigError(f"{key}={value}: {alone[0]} has no {value}.yaml beside it")
            if value not in legal:
                options = listing(legal) or "none"
                raise ConfigError(
                    f"{key}={value}: no such {key}{did_you_mean(value, legal)}; there are {options}"
                )


def _add_probes(tree: DictConfig, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Give every probe that is listed its YAML file's keys, then what experiments and the command say of them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    probes = tree.get("probes")
    if not OmegaConf.is_list(probes):
        raise ConfigError(f"probes={probes!r}: expected a list, for example probes=[weights,gradients]")
    assert probes is not None
    said = tree.get("probe") or {}
    nodes = {}
    legal = registry.names("probe", folders)
    for name in probes:
        path = next(
            (
                candidate
                for folder in [*folders, *registry.entry_folders(), registry.conf_dir()]
                if (candidate := folder / "probe" / f"{name}.yaml").is_file()
            ),
            None,
        )
        if path is None:
            raise ConfigError(
                f"probes: no probe {name}{did_you_mean(str(name), legal)}; there are {listing(legal)}"
            )
        nodes[name] = OmegaConf.merge(OmegaConf.load(path), said.get(name) or {})
    unknown = [name for name in said if name not in nodes]
    for text in overrides:
        key = key_of(text)
        _, _, field = key.partition(".")
        name, _, field = field.partition(".")
        if name in nodes and field:
            OmegaConf.update(nodes[name], field, OverridesParser.create().parse_override(text).value())
        else:
            unknown.append(name or "probe")
    if unknown:
        name = unknown[0]
        hint = f"; add it: probes=[{','.join([*map(str, probes), name])}]" if name in legal else ""
        raise ConfigError(f"probe.{name}: the probe {name} is not among probes={list(probes)}{hint}")
    tree.probe = nodes
