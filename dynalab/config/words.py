"""The words of a command that makes a configuration again, from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynalab.config.command import read_command
from dynalab.config.ensemble import EnsembleConfig
from dynalab.config.overrides import Override
from dynalab.core.errors import DynalabError
from dynalab.core.forks import names_parent, parent_and_step


def fork_command(words: Sequence[str], *more: str) -> list[str] | None:
    """Return the command that makes a fork again, from the words that its folder keeps; None where they name no parent.

    Args:
        words: The first of them `parent=ID@STEP`.
        more: Words for the end of the command.
    """
    key, _, parent = (words[0] if words else "").partition("=")
    if key != "parent" or not names_parent(parent):
        return None
    ref, step = parent_and_step(parent)
    return ["dynalab", "fork", ref, str(step), *words[1:], *more]


GROUPS = ("task", "model", "optimizer", "schedule")


def words_of(config: EnsembleConfig) -> list[str] | None:
    """Return words of `train` that compose to a configuration; None where none do, as of a fork.

    They name its groups, its probes, and the keys in which it differs from what these bring with them.
    """
    tree = config.as_dict()
    overrides = [Override.of(group, tree[group]["name"]) for group in GROUPS]
    if "inner" in tree["optimizer"]:
        overrides.append(Override.of("optimizer.inner", tree["optimizer"]["inner"]))
    overrides += [Override.of(key, tree[key]) for key in ("probes", "design")]
    crossed = [
        Override.of(f"seed_streams.{name}", value) for name, value in tree["seed_streams"].items() if value
    ]
    try:
        (base,) = read_command([*overrides, *crossed]).requests
        usual = dict(_keys(base.config.as_dict()))
        overrides += [
            Override.of(key, value)
            for key, value in _keys(tree)
            if key not in usual
            or usual[key] != value
            or (key.startswith("seed_streams.") and value is not None)
        ]
        (again,) = read_command(overrides).requests
    except (DynalabError, ValueError):
        return None
    return list(map(str, overrides)) if again.config.id == config.id else None


def _keys(tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the dotted keys of a configuration that a command can set, with their values."""
    pairs: list[tuple[str, Any]] = []
    for section, keys in tree.items():
        if section == "probe":
            pairs += [(f"probe.{key}", value) for name in keys for key, value in _keys({name: keys[name]})]
        elif section not in ("probes", "design", "sources", "named", "parent"):
            pairs += [(f"{section}.{name}", value) for name, value in keys.items() if name != "name"]
    return pairs
