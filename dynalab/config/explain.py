"""What every key is: its words, type, range and default, for help, `dynalab config`, completion and docs.

Made from the dataclasses that hold the keys; imports neither torch nor OmegaConf.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config import registry, schema
from dynalab.config.keys import about_of, hints_of, kind_of, range_of
from dynalab.config.plain import key_of, neutral_of

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig

# Groups of which every configuration of `train` has one part.
PARTS = ("task", "model", "optimizer", "schedule")
# And one of which it may have one.
AVERAGE = "average"

# Groups whose parts a configuration chooses, and what a part of each is.
GROUPS = {
    "task": "what is learnt: data, loss and metrics",
    "model": "the network",
    "optimizer": "how weights follow from gradients",
    "schedule": "how the learning rate moves",
    "average": "an average of the weights, which is evaluated beside them; null: none",
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
        key = f"{prefix}.{key_of(field.name)}" if prefix else key_of(field.name)
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
        group: `task`, `model`, `optimizer`, `schedule`, `average`, `probe`, `edit` or `analysis`.
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
        # Those that all have stand behind its own.
        own = sorted(section(cls, ""), key=lambda item: item.key == "steps")
        return [*own, *section(schema.Analyze, "")]
    prefix = f"probe.{name}" if group == "probe" else group
    return [item for item in section(cls, prefix) if item.key != f"{prefix}.name"]


def title(group: str, name: str, folders: Sequence[Path] = ()) -> str:
    """Return what a part is, in a line: the first of its module's docstring; empty where there is none.

    Raises:
        ConfigError: There is no such part, or its module cannot be imported.
    """
    lines = (registry.find(group, name, folders).module.__doc__ or "").strip().splitlines()
    return re.sub(r"^`\S+`: ", "", lines[0]).removesuffix(".") if lines else ""


def of_config(config: EnsembleConfig) -> dict[str, Explained]:
    """Return key -> what it is, of every key that a configuration has."""
    items = [item for keys in shared().values() for item in keys]
    for group in (*PARTS, AVERAGE):
        if (keys := getattr(config, group)) is not None:
            items += of_part(group, "", type(keys))
    for name, keys in config.probe.items():
        items += of_part("probe", name, type(keys))
    return {item.key: item for item in items}


def null_of(about: str) -> str:
    """Return what null means, as the words about a key say; empty where they do not."""
    return next((clause[6:] for clause in about.split("; ") if clause.startswith("null: ")), "")
