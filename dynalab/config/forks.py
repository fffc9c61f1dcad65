"""From the words of one `fork` command to the configurations that it asks for: a stored one with some keys changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.command import Settings, length_of, readable, settings_of
from dynalab.config.compose import Composer
from dynalab.config.ensemble import EnsembleConfig, from_stored, from_tree
from dynalab.config.overrides import Override, Words, parse
from dynalab.config.schema import STREAMS
from dynalab.config.seeds import parse_seeds
from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.typed import plain
from dynalab.core.errors import ConfigError

# What a fork may change, and what is about how it is trained.
_CHANGES = ("optimizer", "schedule", "train", "task", "model", "probes", "probe", "snapshots", "edit")
_SETTINGS = ("checkpoint.", "launcher", "outputs", "compute.workers", "compute.width")
_KEPT = {
    **dict.fromkeys(("task", "model"), "a fork goes on with its parent's weights"),
    **dict.fromkeys(("device", "compute.exact", "compute.threads"), "a fork is trained as its parent was"),
    "eval.every": "a fork's rows stand on its parent's grid",
    "design": "a fork's runs are its parent's",
    "experiment": "a fork goes on with its parent's configuration; give the keys that change",
}


@dataclass(frozen=True)
class Origin:
    """What forks go on from.

    Attributes:
        id: The ensemble.
        tree: Its stored configuration.
        step: The step.
        attempt: Of its runs.
        slug: Readable part of its folder's name.
        steps: Length that was asked of its runs.
    """

    id: str
    tree: Mapping[str, Any]
    step: int
    attempt: int = 1
    slug: str = ""
    steps: int = 0

    @property
    def ref(self) -> str:
        """The ensemble and the step, as a fork's identity has them."""
        return f"{self.id}@{self.step}" + (f"-a{self.attempt}" if self.attempt > 1 else "")


@dataclass(frozen=True)
class Variant:
    """One fork that a command asks for.

    Attributes:
        config: What decides its results.
        steps: Its length, counted from the parent's start.
        overrides: The words that chose it.
        slug: Readable part of the folder's name.
        streams: Stream -> its seed from the fork on, where that is set.
    """

    config: EnsembleConfig
    steps: int
    overrides: list[str]
    slug: str
    streams: Mapping[str, int]


@dataclass(frozen=True)
class Forks:
    """A whole `fork` command.

    Attributes:
        variants: The forks, without duplicates.
        settings: How it works; its device and exactness are the parent's to say.
        seeds: Seeds of the runs that are chosen; None: all.
    """

    variants: list[Variant]
    settings: Settings
    seeds: list[int] | None


def read_forks(origin: Origin, texts: Sequence[str], *, outputs: str | Path | None = None) -> Forks:
    """Read the overrides of `fork`.

    Args:
        origin: What the forks go on from.
        texts: Overrides, sweeps and the seed grammar included.
        outputs: The command's `--outputs`.

    Raises:
        ConfigError: Something in the overrides cannot be used, or a plug-in of the parent has changed.
    """
    folders = tuple(registry.search_path())
    # That its plug-ins are what they were.
    parent = from_stored(origin.tree, folders)
    composer = Composer(folders)
    words = parse(texts, lambda group: registry.names(group, folders) if group in registry.PACKAGES else ())
    for item in (item for axis in words.axes for item in axis):
        _check_key(item)
    about = [item for axis in words.axes for item in axis if item.key.startswith(_SETTINGS)]
    settings = settings_of(composer.compose(about), outputs, folders)
    variants: dict[str, Variant] = {}
    for cell in words.cells():
        changes = [item for item in cell if item not in about]
        for streams in _streams(words, parent):
            variant = _variant(origin, changes, streams, composer)
            variants.setdefault(variant.config.id, variant)
    seeds = next((parse_seeds(item.value) for item in words.seeds if item.key == "seed"), None)
    return Forks(list(variants.values()), settings, seeds)


def _check_key(item: Override) -> None:
    """Refuse what a fork cannot change."""
    if item.sign == "~":
        raise ConfigError(f"{item.text}: a fork's keys are set; {item.key}=null takes a value away")
    if reason := _KEPT.get(item.key):
        raise ConfigError(f"{item.text}: {reason}")
    head = item.key.partition(".")[0]
    if head not in _CHANGES and not item.key.startswith(_SETTINGS):
        legal = [*_CHANGES, "seed", "seed_streams", "checkpoint", "launcher", "outputs", "compute.workers"]
        raise ConfigError(
            f"{item.key}: no key that a fork changes{did_you_mean(item.key, legal)}; there are {listing(legal)}"
        )


def _streams(words: Words, parent: EnsembleConfig) -> list[dict[str, int]]:
    """Return the combinations of values of the streams that are set from the fork on."""
    cells: list[dict[str, int]] = [{}]
    for item in words.seeds:
        stream = item.key.removeprefix("seed_streams.")
        if stream not in STREAMS:
            continue
        if stream == "init":
            raise ConfigError(f"{item.text}: a fork is initialised already")
        if parent.design == "crossed":
            raise ConfigError(f"{item.text}: the runs of a crossed design are told apart by their streams")
        cells = [{**cell, stream: value} for cell in cells for value in parse_seeds(item.value, item.key)]
    return cells


def _variant(origin: Origin, changes: list[Override], streams: dict[str, int], composer: Composer) -> Variant:
    tree: dict[str, Any] = copy.deepcopy({k: v for k, v in origin.tree.items() if k not in _OF_FORKS})
    for group in ("optimizer", "schedule"):
        own = [item for item in changes if item.key == group or item.key.startswith(f"{group}.")]
        if any(item.key == group for item in own):
            _choose(tree, group, own, composer)
    for item in sorted(changes, key=lambda item: item.key.count(".")):
        if item.key not in ("optimizer", "schedule"):
            _set(tree, item)
    if (edit := tree.get("edit")) and "name" not in edit:
        raise ConfigError(f"edit.{next(iter(edit))}: name the edit as well, for example edit=perturb")
    tree["seed_streams"] = {**(tree.get("seed_streams") or {}), **streams}
    config = from_tree(tree, composer.folders)
    config = replace(config, parent=origin.ref, origin=dict(origin.tree))
    said = {item.key for item in changes}
    longest = int(config.train.steps or origin.steps) if config.depends_on_total else origin.steps
    steps = length_of(config, said) if {"train.steps", "train.epochs"} & said else longest
    if steps <= origin.step:
        raise ConfigError(
            f"train.steps={steps}: a fork at step {origin.step:,} needs more; steps are counted from the parent's start"
        )
    config = replace(config, train=replace(config.train, steps=steps, epochs=None))
    texts = [item.text for item in changes] + [
        f"seed_streams.{name}={value}" for name, value in streams.items()
    ]
    return Variant(config, steps, [f"parent={origin.ref}", *texts], _slug(origin, changes, streams), streams)


# Sections of a stored configuration that are a fork's own, or follow from others.
_OF_FORKS = ("parent", "origin", "edit", "sources")


def _choose(tree: dict[str, Any], group: str, own: list[Override], composer: Composer) -> None:
    """Give a configuration another option of a group, as the parent's task has it."""
    (task,) = (item for axis in parse([f"task={tree['task']['name']}"]).axes for item in axis)
    composed = from_tree(composer.compose([task, *own]), composer.folders)
    tree[group] = plain(getattr(composed, group))
    if group == "optimizer":
        tree.pop("named", None)
        tree |= {"named": list(composed.named)} if composed.named else {}


def _set(tree: dict[str, Any], item: Override) -> None:
    """Set what a word says; whether there is such a key is the typed section's to say."""
    if item.key == "edit":
        tree["edit"] = None if item.value is None else {"name": item.value, **(tree.get("edit") or {})}
        return
    *way, last = item.key.split(".")
    node = tree
    for step in way:
        inner = node.get(step)
        if inner is None:
            inner = node[step] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{item.key}: {step} has no keys")
        node = inner
    node[last] = item.value


def _slug(origin: Origin, changes: Sequence[Override], streams: Mapping[str, int]) -> str:
    pieces = [
        readable(item.value)
        if item.key in ("edit", "optimizer", "schedule")
        else f"{item.key.rpartition('.')[2]}_{readable(item.value)}"
        for item in {item.key: item for item in changes}.values()
        if item.key != "train.steps"
    ]
    pieces += [f"{name}_{value}" for name, value in streams.items()]
    text = "-".join([f"at{origin.step}", *pieces])
    text = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)[:40]
    return f"{origin.slug[: 59 - len(text)]}-{text}".strip("-_.")
