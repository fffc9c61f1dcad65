"""The words of a command that makes a configuration again, from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynalab.config.command import read_command
from dynalab.config.ensemble import EnsembleConfig
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
    """Return overrides of `train` that compose to a configuration; None where none do, as of a fork.

    They name its groups, its probes, and the keys in which it differs from what these bring with them.
    """
    tree = config.as_dict()
    words = [f"{group}={tree[group]['name']}" for group in GROUPS]
    if "inner" in tree["optimizer"]:
        words.append(f"optimizer.inner={tree['optimizer']['inner']}")
    words += [f"probes={_word(tree['probes'])}", f"design={tree['design']}"]
    crossed = [f"seed_streams.{name}={_word(value)}" for name, value in tree["seed_streams"].items() if value]
    try:
        (base,) = read_command([*words, *crossed]).requests
        usual = dict(_keys(base.config.as_dict()))
        words += [
            f"{key}={_word(value)}"
            for key, value in _keys(tree)
            if key not in usual
            or usual[key] != value
            or (key.startswith("seed_streams.") and value is not None)
        ]
        (again,) = read_command(words).requests
    except (DynalabError, ValueError):
        return None
    return words if again.config.id == config.id else None


def _keys(tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the dotted keys of a configuration that a command can set, with their values."""
    pairs: list[tuple[str, Any]] = []
    for section, keys in tree.items():
        if section == "probe":
            pairs += [(f"probe.{key}", value) for name in keys for key, value in _keys({name: keys[name]})]
        elif section not in ("probes", "design", "sources", "named", "parent"):
            pairs += [(f"{section}.{name}", value) for name, value in keys.items() if name != "name"]
    return pairs


def _word(value: Any) -> str:
    """Return a value in the grammar of overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not (
        value.isidentifier() and value.lower() not in ("null", "true", "false")
    ):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
