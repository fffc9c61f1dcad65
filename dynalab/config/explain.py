"""What every key is: its words, type, range and default, for help, `dynalab config`, completion and docs.

Made from the dataclasses that hold the keys; imports neither torch nor OmegaConf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalab.config import registry, schema
from dynalab.config.keys import about_of, hints_of, kind_of, range_of
from dynalab.config.plain import neutral_of

# Groups whose parts a configuration chooses, and what a part of each is.
GROUPS = {
    "task": "what is learnt: data, loss and metrics",
    "model": "the network",
    "optimizer": "how weights follow from gradients",
    "schedule": "how the learning rate moves",
    "probe": "what is measured while training: probes=[...] lists those that are",
    "edit": "what is done to the state that a fork goes on from",
    "analysis": "what is inferred from stored runs: dynalab analyze KIND",
}


@dataclass(frozen=True)
class Explained:
    """One key, explained.

    Attributes:
        key: As one types it: `train.sphere`.
        about: What it is, with its unit, and what null means; empty where nothing is said.
        kind: What it may be: `an integer`, `a number or null`, `true or false`, `relu, tanh or gelu`.
        legal: Its range: `above 0`; empty where there is none.
        default: The dataclass' own default, as a plain value; a task's YAML may say another.
    """

    key: str
    about: str
    kind: str
    legal: str
    default: Any


def section(cls: type[Any], prefix: str) -> list[Explained]:
    """Return the keys of a dataclass; those of a dataclass in it with dots.

    Args:
        cls: The dataclass.
        prefix: What stands before its keys: `train`; empty for nothing.
    """
    explained: list[Explained] = []
    for field in dataclasses.fields(cls):
        key = f"{prefix}.{field.name}" if prefix else field.name
        inner = hints_of(cls).get(field.name)
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            explained += section(inner, key)
            continue
        words = about_of(cls, field.name), kind_of(cls, field.name), range_of(cls, field.name)
        explained.append(Explained(key, *words, neutral_of(field)))
    return explained


def shared() -> dict[str, list[Explained]]:
    """Return the keys that belong to no part: section -> its keys, and under an empty name those of none."""
    return {name: section(cls, name) for name, cls in schema.SHARED.items()}


def part(group: str, name: str, folders: Sequence[Path] = ()) -> list[Explained]:
    """Return the keys of a part, as one types them: `optimizer.lr`, `probe.weights.every`, of an analysis `max_states`.

    An optimizer around another shows the inner one's keys too, where nothing is said those of its usual inner one.

    Args:
        group: `task`, `model`, `optimizer`, `schedule`, `probe`, `edit` or `analysis`.
        name: The part.
        folders: A user's configuration folders.

    Raises:
        ConfigError: There is no such part, or its module cannot be imported.
    """
    cls = registry.find(group, name, folders).config_class
    if hasattr(cls, "around"):
        cls = cls.around(registry.find(group, cls.inner, folders))
    return of_part(group, name, cls)


def of_part(group: str, name: str, cls: type[Any]) -> list[Explained]:
    """Return the keys of a part whose configuration class is known; its `name` is no key, the group's word is."""
    if group == "analysis":
        return section(cls, "")
    prefix = f"probe.{name}" if group == "probe" else group
    return [item for item in section(cls, prefix) if item.key != f"{prefix}.name"]


def title(group: str, name: str, folders: Sequence[Path] = ()) -> str:
    """Return what a part is, in a line: the first of its module's docstring; empty where there is none.

    Raises:
        ConfigError: There is no such part, or its module cannot be imported.
    """
    lines = (registry.find(group, name, folders).module.__doc__ or "").strip().splitlines()
    return lines[0].removesuffix(".") if lines else ""


def as_yaml(keys: Sequence[Explained]) -> str:
    """Return keys at their defaults with what they are as comments, as YAML."""
    import yaml

    lines = []
    for item in keys:
        # An empty word cannot be given: it stands for what another key decides.
        value = None if item.default == "" else item.default
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
        pair = f"{item.key}: {text}"
        lines.append(f"{pair:<24} # {item.about}" if item.about else pair)
    return "\n".join(lines)
