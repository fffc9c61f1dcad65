"""Composition: conf/, a user's folders and the command's overrides become one plain tree per ensemble.

Files are put together once for each choice of groups; the combinations of a sweep are made from that by setting values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig, from_tree
from dynalab.config.experiments import ABOUT
from dynalab.config.explain import AVERAGE, PARTS
from dynalab.config.overrides import Override, cells, parse
from dynalab.config.plain import key_of
from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.tree import Tree, has, merged, parts_of, placed, resolved, value_at, without
from dynalab.config.tuned import config_class
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from dynalab.config.layers import Folders, Layer

CHOSEN = (*PARTS, AVERAGE)
# The primary file in conf/.
ROOT = "train"


def compose(words: Sequence[str | Override], folders: Sequence[Path] = ()) -> Tree:
    """Compose one configuration of `train` from overrides without sweeps.

    Raises:
        ConfigError: A group, key or value that does not exist or does not parse.
    """
    overrides = parse(words)
    (cell,) = cells([item for item in overrides if not item.is_seeds])
    seeds = (item for item in overrides if item.is_seeds)
    return Composer(folders).compose([*cell, *(item.with_value(_one_or_list(item.values)) for item in seeds)])


def _one_or_list(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


@dataclass(frozen=True)
class Base:
    """The files that a choice of groups names, each stronger than those before; their keys; what was left out."""

    layers: list[Layer]
    tree: Tree
    notes: list[str] = field(default_factory=list)

    def source(self, key: str) -> Layer | None:
        """Return the file that a key has its value from; None where none says it."""
        return next((layer for layer in reversed(self.layers) if has(layer.tree, parts_of(key))), None)

    def own(self, group: str) -> Layer | None:
        """Return the file of the option that a part has."""
        node = self.tree.get(group)
        name = node.get("name") if isinstance(node, dict) else None
        return next((layer for layer in self.layers if layer.name == f"{group}/{name}"), None)


class Composer:
    """Composes the configurations of one command.

    Args:
        folders: A user's configuration folders, searched before conf/.

    Attributes:
        notes: What files set for options that other words replaced, and is left out; a line each.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self.folders = tuple(folders)
        self.notes: list[str] = []
        self._bases: dict[tuple[str, ...], Base] = {}
        self._names: dict[str, list[str]] = {}

    @cached_property
    def _files(self) -> Folders:
        from dynalab.config.layers import Folders

        return Folders(self.folders)

    def options(self, group: str) -> list[str]:
        """Return the options of a group; none of what is no group."""
        return self._names_of(group) if self._is_group(group) else []

    def _names_of(self, group: str) -> list[str]:
        """Return the names of a group's options, which are looked for once."""
        if group not in self._names:
            self._names[group] = registry.names(group, self.folders)
        return self._names[group]

    def defaults(self, task: str) -> EnsembleConfig:
        """Return the configuration of a task without any other word."""
        return from_tree(self.compose([Override.of("task", task)]), self.folders)

    def _is_group(self, key: str) -> bool:
        # Probes are listed, and an analysis is no part of training.
        return key not in ("probe", "analysis", "edit") and "." not in key and self._files.group_exists(key)

    def chooses(self, override: Override) -> bool:
        """Return whether an override chooses an option of a group."""
        return self._is_group(override.key) and not isinstance(override.value, dict)

    def compose(self, overrides: Sequence[Override]) -> Tree:
        """Compose one combination of a command's overrides.

        Raises:
            ConfigError: A group, key or value that does not exist or cannot stand there.
        """
        base = self._base([item for item in overrides if self.chooses(item)])
        self.notes += [line for line in base.notes if line not in self.notes]
        tree = {"probe": {}, **base.tree}
        values = [item for item in overrides if not self.chooses(item)]
        of_probes = [item for item in values if item.key.startswith("probe.")]
        # That a file speaks of a probe is taken away before it is asked whether the probe is listed.
        of_probes = [item for item in of_probes if item.sign != "~" or item.key.count(".") > 1]
        for item in values:
            if item not in of_probes:
                tree = _changed(tree, item, base)
        self._add_probes(tree, base, overrides)
        for item in of_probes:
            tree = _changed(tree, item, base)
        for name, keys in tree["probe"].items():
            if not isinstance(keys, Mapping | None):
                raise ConfigError(
                    f"probe.{name}={keys}: expected its keys, for example probe.{name}.every=20"
                )
        return resolved(tree)

    def explain(
        self, error: ConfigError, overrides: Sequence[Override], read: Callable[[str], object]
    ) -> ConfigError:
        """Return an error about a key that nobody typed with the file that sets it, and what gets rid of it.

        Args:
            error: The error.
            overrides: One combination of a command's overrides.
            read: Reads the command with a word more.
        """
        strange = "no such key" in str(error) or "is not among" in str(error)
        key = (re.match(r"([a-z_]\w*(?:\.\w+)*)[=:]", str(error)) or [""])[0].rstrip("=:")
        key = key if "." in key or strange else ""
        choices = [item for item in overrides if self.chooses(item)]
        typed = [item.key for item in overrides if item not in choices]
        if not key or any(key == name or key.startswith(f"{name}.") for name in typed):
            return error
        try:
            source = self._base(choices).source(key)
        except ConfigError:
            return error
        if source is None or source.name == ROOT:
            return error
        rid = f"~{key}" if strange else f"{key}=null"
        try:
            read(rid)
        except ConfigError as again:
            # Null is a default, which may be no better.
            if str(again).startswith((f"{key}=", f"{key}:")):
                return ConfigError(f"{error}; {source.title} sets it")
        return ConfigError(f"{error}; {source.title} sets it, {rid} takes it away")

    def source(self, key: str, overrides: Sequence[Override], tuned: str = "") -> str:
        """Return what says the value of a key: `your word`, or a file; empty where none does, and the default stands.

        Args:
            key: `optimizer.lr`.
            overrides: One combination of a command's overrides.
            tuned: The key below `tuned` that stands in for a null, `tuned.optimizer.adamw.lr`.
        """
        choices = [item for item in overrides if self.chooses(item)]
        if any(
            key == item.key or key.startswith(f"{item.key}.") for item in overrides if item not in choices
        ):
            return "your word"
        base = self._base(choices)
        for name, title in ((key, ""), (tuned, f" ({tuned.rpartition('.')[0]})")):
            layer = base.source(name) if name else None
            if layer is not None and value_at(layer.tree, parts_of(name)) is not None:
                return f"{layer.title}{title}"
        if key.startswith("probe."):
            path, of_file = self._files.read("/".join(key.split(".")[:2]))
            if of_file.get(key.split(".")[2]) is not None:
                from dynalab.config.layers import Layer

                return Layer(f"probe/{path.stem}", path, of_file).title
        return ""

    def _base(self, choices: Sequence[Override]) -> Base:
        key = tuple(item.written for item in choices)
        if key not in self._bases:
            self._bases[key] = self._fitted(choices, self._read(choices))
        return self._bases[key]

    def _read(self, choices: Sequence[Override]) -> Base:
        for item in choices:
            self._check_option(item)
        # No experiment, and no average, is what there is without a word.
        optional = ("experiment", AVERAGE)
        chosen = [
            item for item in choices if item.key not in optional or item.value is not None or item.sign == "~"
        ]
        layers = self._files.layers(ROOT, chosen)
        tree: Tree = {}
        for layer in layers:
            tree = merged(tree, layer.tree)
        # What a file says to Hydra itself has no effect here, nor what it says of itself.
        for key in ("hydra", ABOUT):
            tree.pop(key, None)
        if [item.value for item in choices if item.key == AVERAGE][-1:] == [None]:
            # Also where a file chooses one.
            tree.pop(AVERAGE, None)
        return Base(layers, tree)

    def _check_option(self, item: Override) -> None:
        group = item.key
        if group not in (*CHOSEN, "experiment", "launcher") or item.sign == "~":
            return
        if group in ("experiment", AVERAGE) and item.value is None:
            return
        values = item.value if isinstance(item.value, list) else [item.value]
        legal = self._names_of(group)
        if group in CHOSEN and len(values) != 1:
            several = f"{group}={','.join(map(str, values))} trains each of several"
            hint = several if values else f"there are {listing(legal) or 'none'}"
            raise ConfigError(f"{item.written}: expected one {group}; {hint}")
        for option in ("null" if value is None else str(value) for value in values):
            if "/" in option or option in legal:
                continue
            for folder in self.folders:
                if (path := folder / group / f"{option}.py").is_file():
                    raise ConfigError(f"{group}={option}: {path} has no {option}.yaml beside it")
            hint = did_you_mean(option, legal)
            raise ConfigError(
                f"{group}={option}: no such {group}{hint}; there are {listing(legal) or 'none'}"
            )

    def _fitted(self, choices: Sequence[Override], base: Base) -> Base:
        """Leave out keys that a task's or experiment's file sets for an option which other words have replaced.

        A key that the file's own option does not have either is a mistake in the file, and stays, to be named.
        """
        tree, notes = base.tree, []
        for group in CHOSEN:
            name, fields = self._fields(group, tree)
            own = base.own(group)
            strange: dict[str, list[str]] = {}
            for key in tree[group] if fields is not None else ():
                source = None if key in (fields or ()) else base.source(f"{group}.{key}")
                if source is not None and source is not own:
                    strange.setdefault(source.title, []).append(key)
            for title, keys in strange.items():
                gone = [key for key in keys if key in self._fields_before(group, choices)]
                if gone:
                    kept = {key: value for key, value in tree[group].items() if key not in gone}
                    tree = {**tree, group: kept}
                    notes.append(f"{group}={name} has no {', '.join(gone)}: left out of what {title} sets")
        return Base(base.layers, tree, notes)

    def _fields_before(self, group: str, choices: Sequence[Override]) -> set[str]:
        """Return the fields of the options that files alone would have chosen: without the words that name parts."""
        found: set[str] = set()
        for named in (CHOSEN[1:], CHOSEN):
            fewer = [item for item in choices if item.key not in named]
            if len(fewer) < len(choices):
                with contextlib.suppress(ConfigError):
                    found |= self._fields(group, self._base(fewer).tree)[1] or set()
        return found

    def _fields(self, group: str, tree: Tree) -> tuple[str, set[str] | None]:
        """Return the option that a tree has of a group, and the keys of its configuration (None: not known)."""
        node = tree.get(group)
        if not isinstance(node, dict):
            return "", None
        name = str(node.get("name"))
        try:
            fields = dataclasses.fields(config_class(group, tree, self.folders))
            return name, {key_of(item.name) for item in fields}
        except ConfigError:
            return name, None

    def _add_probes(self, tree: Tree, base: Base, overrides: Sequence[Override]) -> None:
        """Give every probe that is listed its YAML file's keys, then what files and the command say of them."""
        probes = tree.get("probes")
        if not isinstance(probes, list):
            raise ConfigError(f"probes={probes!r}: expected a list, for example probes=[weights,gradients]")
        said = tree.get("probe") or {}
        if not isinstance(said, Mapping):
            raise ConfigError(f"probe={said}: expected keys of probes, for example probe.weights.every=20")
        legal = self._names_of("probe")
        tree["probe"] = {}
        for name in map(str, probes):
            if name not in legal:
                hint = did_you_mean(name, legal)
                raise ConfigError(f"probes: no probe {name}{hint}; there are {listing(legal)}")
            keys = said.get(name)
            of_file = self._files.read(f"probe/{name}")[1]
            tree["probe"][name] = merged(of_file, keys or {}) if isinstance(keys, Mapping | None) else keys
        typed = [
            item.key.split(".")[1] for item in overrides if item.key.startswith("probe.") and item.sign != "~"
        ]
        typed += [name for item in overrides if item.key == "probe" and item.value for name in item.value]
        listed = any(item.key == "probes" for item in overrides)
        for name in dict.fromkeys([*typed, *said]):
            if name in tree["probe"]:
                continue
            source = base.source(f"probe.{name}")
            if listed and name in legal and name not in typed and source is not None:
                line = f"probes={listing(map(str, probes)) or '[]'} has no {name}: left out of what {source.title} sets"
                self.notes += [line] if line not in self.notes else []
                continue
            hint = f"; add it: probes=[{','.join([*map(str, probes), name])}]" if name in legal else ""
            raise ConfigError(f"probe.{name}: the probe {name} is not among probes={list(probes)}{hint}")


def _changed(tree: Tree, item: Override, base: Base) -> Tree:
    """Return a tree with what an override sets, adds or deletes.

    Raises:
        ConfigError: There is no such key, or with `+` there is one already.
    """
    item.require_key()
    *way, last = parts_of(item.key)
    # Of a part's section the part itself knows the keys: those of an optimizer around another depend on the inner one,
    # those of a launcher on which it is.
    if item.sign in ("+", "++") or (len(way) == 1 and way[0] in (*CHOSEN, "launcher") and item.sign != "~"):
        return item.applied(tree)
    if not has(tree, [*way, last]):
        raise item.unknown(tree)
    if item.sign != "~":
        return item.applied(tree)
    before = value_at(tree, [*way, last])
    if item.value is not None and item.value != before:
        raise ConfigError(f"{item.written}: {item.key} is {'null' if before is None else before}")
    own = base.own(way[0]) if way and way[0] in CHOSEN else None
    if own is not None and has(own.tree, [*way, last]):
        # What is taken away of a key that the part's own file lists is what was said of it.
        return dict(placed(tree, [*way, last], None))
    return dict(without(tree, [*way, last]))
