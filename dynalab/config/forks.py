"""From the words of one `fork` command to the configurations that it asks for: a stored one with some keys changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.combined import check_combined
from dynalab.config.command import Settings, length_of, readable, seeds_of, settings_of
from dynalab.config.compose import Composer
from dynalab.config.ensemble import EnsembleConfig, from_stored, from_tree
from dynalab.config.overrides import Override, cells, parse
from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.tree import Tree, resolved
from dynalab.config.typed import plain
from dynalab.core.errors import ConfigError
from dynalab.core.forks import names_parent, parent_and_step

# What a fork may change, and what is about how it is trained.
_CHANGES = (
    *("optimizer", "schedule", "average", "train", "task", "model"),
    *("probes", "probe", "snapshots", "edit"),
)
_SETTINGS = (
    "checkpoint.",
    "launcher",
    "on_error",
    "outputs",
    "compute.workers",
    "compute.width",
    "compute.snapshot_gb",
)
_KEPT = {
    **dict.fromkeys(("task", "model"), "a fork goes on with its parent's weights"),
    **dict.fromkeys(
        ("device", "compute.exact", "compute.threads", "compute.compile"),
        "a fork is trained as its parent was",
    ),
    "eval.every": "a fork's rows stand on its parent's grid",
    "seed_streams": "name the stream, for example seed_streams.order=3",
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


def parse_fork(words: Iterable[str | Override]) -> list[Override]:
    """Take the words of `fork` apart.

    Raises:
        ConfigError: A word cannot be parsed, or is about what a fork does not change.
    """
    folders = registry.search_path()
    overrides = parse(
        words, lambda group: registry.names(group, folders) if group in registry.PACKAGES else ()
    )
    for item in overrides:
        _check_key(item)
    return overrides


def read_forks(origin: Origin, overrides: Sequence[Override], *, outputs: str | Path | None = None) -> Forks:
    """Read what forks do otherwise.

    Args:
        origin: What the forks go on from.
        overrides: Those of the command.
        outputs: The command's `--outputs`.

    Raises:
        ConfigError: Something in the overrides cannot be used, or a plug-in of the parent has changed.
    """
    folders = tuple(registry.search_path())
    # That its plug-ins are what they were.
    parent = from_stored(origin.tree, folders)
    composer = Composer(folders)
    seeds = {item.key: item for item in overrides if item.is_seeds}
    about = [item for item in overrides if item.key.startswith(_SETTINGS)]
    tree = composer.compose([*about, *(item.unread() for item in seeds.values())])
    changes = [item for item in overrides if item not in about and not item.is_seeds]
    variants: dict[str, Variant] = {}
    for cell in cells(changes):
        for streams in _streams(seeds, tree, parent):
            variant = _variant(origin, cell, streams, composer)
            variants.setdefault(variant.config.id, variant)
    chosen = seeds_of("seed", tree, seeds) if "seed" in seeds else None
    return Forks(list(variants.values()), settings_of(tree, outputs, folders), chosen)


def is_setting(item: Override) -> bool:
    """Return whether a word of `fork` says how it is trained, or which runs are: it changes no fork's identity."""
    return item.key.startswith(_SETTINGS) or item.key == "seed"


def _check_key(item: Override) -> None:
    """Refuse what a fork cannot change."""
    if item.is_seeds:
        return
    if item.sign == "~":
        raise ConfigError(f"{item.written}: a fork's keys are set; {item.key}=null takes a value away")
    if reason := _KEPT.get(item.key):
        raise ConfigError(f"{item.written}: {reason}")
    head = item.key.partition(".")[0]
    if head not in _CHANGES and not item.key.startswith(_SETTINGS):
        legal = [*_CHANGES, "seed", "seed_streams", "checkpoint", "launcher", "outputs", "compute.workers"]
        raise ConfigError(
            f"{item.key}: no key that a fork changes{did_you_mean(item.key, legal)}; there are {listing(legal)}"
        )


def _streams(
    seeds: Mapping[str, Override], tree: Mapping[str, Any], parent: EnsembleConfig
) -> list[dict[str, int]]:
    """Return the combinations of values of the streams that are set from the fork on."""
    combinations: list[dict[str, int]] = [{}]
    for key, item in seeds.items():
        stream = key.removeprefix("seed_streams.")
        if key == "seed" or item.values == (None,):
            continue
        if stream == "init":
            raise ConfigError(f"{item.written}: a fork is initialised already")
        if parent.design == "crossed":
            raise ConfigError(f"{item.written}: the runs of a crossed design are told apart by their streams")
        combinations = [
            {**one, stream: value} for one in combinations for value in seeds_of(key, tree, seeds)
        ]
    return combinations


# Sections of a stored configuration that are a fork's own, or follow from others.
_OF_FORKS = ("parent", "origin", "edit", "sources")


def _variant(
    origin: Origin, changes: Sequence[Override], streams: dict[str, int], composer: Composer
) -> Variant:
    tree: dict[str, Any] = {key: value for key, value in origin.tree.items() if key not in _OF_FORKS}
    for item in _in_place(tree, changes, composer):
        tree = item.applied(tree)
    tree["seed_streams"] = {**(tree.get("seed_streams") or {}), **streams}
    # What is stored has no interpolations (`from_stored`): these are the command's.
    config = from_tree(resolved(tree), composer.folders)
    config = replace(config, parent=origin.ref, origin=dict(origin.tree))
    keys = {item.key for item in changes}
    longest = int(config.train.steps or origin.steps) if config.depends_on_total else origin.steps
    steps = length_of(config, keys) if {"train.steps", "train.epochs"} & keys else longest
    if steps <= origin.step:
        raise ConfigError(
            f"train.steps={steps}: a fork at step {origin.step:,} needs more; steps are counted from the parent's start"
        )
    check_combined(config, steps, composer.folders)
    config = replace(config, train=replace(config.train, steps=steps, epochs=None))
    held = [Override.of(f"seed_streams.{name}", value) for name, value in streams.items()]
    words = [f"parent={origin.ref}", *map(str, [*changes, *held])]
    return Variant(config, steps, words, _slug(origin, changes, streams), streams)


def _in_place(tree: Tree, changes: Sequence[Override], composer: Composer) -> Iterator[Override]:
    """Yield what is set in a parent's configuration: where another option of a group is chosen, its whole section.

    The section is as the parent's task has it with the words about it.
    """
    groups = ("optimizer", "schedule", "average")
    chosen = {item.key for item in changes if item.key in groups and composer.chooses(item)}
    for group in sorted(chosen):
        about = [item for item in changes if item.key.partition(".")[0] == group]
        task = Override.of("task", tree["task"]["name"])
        config = from_tree(composer.compose([task, *about]), composer.folders)
        # Set first to nothing, as sections are merged.
        yield Override.of(group, None)
        if (part := getattr(config, group)) is not None:
            yield Override.of(group, plain(part))
        if group == "optimizer":
            yield Override.of("named", list(config.named) or None)
    for item in sorted(changes, key=lambda item: item.key.count(".")):
        if item.key == "edit" and item.value is not None and not isinstance(item.value, dict):
            yield replace(item, values=({"name": item.value},))
        elif item.key.partition(".")[0] not in chosen:
            yield item


def _slug(origin: Origin, changes: Sequence[Override], streams: Mapping[str, int]) -> str:
    pieces = [
        (readable(item.value) if item.value is not None else f"no_{item.key}")
        if item.key in ("edit", "optimizer", "schedule", "average")
        else f"{item.key.rpartition('.')[2]}_{readable(item.value)}"
        for item in {item.key: item for item in changes}.values()
        if item.key != "train.steps"
    ]
    pieces += [f"{name}_{value}" for name, value in streams.items()]
    text = "-".join([f"at{origin.step}", *pieces])
    text = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)[:40]
    return f"{origin.slug[: 59 - len(text)]}-{text}".strip("-_.")


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
