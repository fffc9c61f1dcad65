"""From the words of one `train` command to the ensembles and runs that it asks for, and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.combined import check_combined, of_task
from dynalab.config.compose import CHOSEN, Composer
from dynalab.config.ensemble import EnsembleConfig, RunSpec, from_tree, runs_of
from dynalab.config.overrides import Override, cells, parse
from dynalab.config.places import outputs_root
from dynalab.config.schema import LAUNCHERS, ON_ERROR, STREAMS, Checkpoint, Compute, Slurm
from dynalab.config.seeds import parse_seeds
from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.tree import parts_of, value_at
from dynalab.config.typed import flat, typed
from dynalab.core.errors import ConfigError, DynalabError

SECTIONS = (
    *(*CHOSEN, "train", "eval", "probes", "probe", "snapshots"),
    *("seed", "seed_streams", "design", "device", "compute", "checkpoint", "launcher", "on_error", "outputs"),
    *("tuned", "convergence", "levels"),
)
# Those that are a value, and not made of keys.
_VALUES = ("probes", "seed", "design", "device", "launcher", "on_error", "outputs")
DEFAULT_STEPS = 1000


@dataclass(frozen=True)
class Settings:
    """How a command works, as opposed to what it computes."""

    compute: Compute
    checkpoint: Checkpoint
    device: str
    launcher: str
    outputs: Path
    on_error: str = "continue"
    folders: tuple[Path, ...] = ()
    slurm: Slurm = field(default_factory=Slurm)


@dataclass(frozen=True)
class Request:
    """One ensemble that a command asks for.

    Attributes:
        config: What decides the results.
        runs: The runs asked for.
        steps: The length asked for.
        overrides: The words that chose this ensemble.
        slug: Readable part of the folder's name, from the differences to the task's defaults.
    """

    config: EnsembleConfig
    runs: list[RunSpec]
    steps: int
    overrides: list[str]
    slug: str


@dataclass(frozen=True)
class Command:
    """A whole command: the ensembles it spans, without duplicates, and its settings.

    Attributes:
        requests: The ensembles.
        settings: How it works.
        notes: What files say of options that the command replaced, and was left out; a line each.
    """

    requests: list[Request]
    settings: Settings
    notes: list[str] = field(default_factory=list)


def read_command(words: Sequence[str | Override], *, outputs: str | Path | None = None) -> Command:
    """Read the words of `train`: Hydra's grammar, with sweeps, and the grammar of seeds.

    Args:
        words: The words.
        outputs: The command's `--outputs`.

    Raises:
        ConfigError: Something in the words cannot be used.
    """
    folders = tuple(registry.search_path())
    composer = Composer(folders)
    overrides = parse(words, composer.options)
    # Of several words about a stream the last counts.
    seeds = {item.key: item for item in overrides if item.is_seeds}
    swept = [item for item in overrides if not item.is_seeds]
    usual = cache(lambda task: _usual(task, composer))
    known: dict[Any, Any] = {}
    requests: dict[str, Request] = {}
    settings: Settings | None = None
    for cell in cells(swept):
        try:
            tree = composer.compose([*cell, *(item.unread() for item in seeds.values())])
            _check_sections(tree)
            own = seeds_of("seed", tree, seeds)
            for streams, held in _stream_cells(tree, seeds, own):
                config = from_tree({**tree, "seed_streams": streams}, folders, known)
                request = _request(config, own, [*cell, *held], usual, folders)
                requests.setdefault(request.config.id, request)
            settings = settings or settings_of(tree, outputs, folders)
        except ConfigError as error:
            several = [item.written for item, whole in zip(cell, swept, strict=True) if len(whole.values) > 1]
            explained = composer.explain(
                error, cell, lambda word: read_command([*words, word], outputs=outputs)
            )
            if not several:
                raise explained from error
            raise ConfigError(f"{explained} (in the combination {' '.join(several)})") from error
    assert settings is not None
    return Command(list(requests.values()), settings, composer.notes)


def seeds_of(key: str, tree: Mapping[str, Any], typed: Mapping[str, Override]) -> list[int]:
    """Return the seeds of a key: those of a word, else (in a file, or by an interpolation) those that a tree names."""
    if key in typed and typed[key].values:
        return list(typed[key].values)
    return parse_seeds(value_at(tree, parts_of(key)), key)


def _stream_cells(
    tree: Mapping[str, Any], typed: Mapping[str, Override], own: Sequence[int]
) -> Iterator[tuple[dict[str, Any], tuple[Override, ...]]]:
    """Yield values of all streams and the words for them: lists under `design=crossed`, else each stream is swept.

    The runs of a crossed design have no seed: `seed=` holds its other streams, as seeds of their own in its identity.
    Its default leaves them at 0 without a word.
    """
    streams, crossed = tree.get("seed_streams") or {}, tree.get("design") == "crossed"
    axes: list[list[Override]] = []
    for name, text in streams.items():
        key = f"seed_streams.{name}"
        if text is None or text == "null":
            axes += [[Override.of(key, seed)] for seed in own if crossed and seed]
            continue
        seeds = seeds_of(key, tree, typed)
        if crossed:
            axes.append([Override(key, (seeds if len(seeds) > 1 else seeds[0],), f"{key}={text}")])
        else:
            axes.append([Override.of(key, seed) for seed in seeds])
    for held in itertools.product(*axes):
        values = {item.key.removeprefix("seed_streams."): item.value for item in held}
        yield {**dict.fromkeys(streams), **values}, held


def _check_sections(tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if key not in SECTIONS:
            raise ConfigError(
                f"{key}: no such key{did_you_mean(key, SECTIONS)}; there are {listing(SECTIONS)}"
            )
        if key not in _VALUES and not isinstance(value, Mapping | None):
            raise ConfigError(f"{key}={value}: expected its keys, {key}.NAME=VALUE")
    for group, parts in (tree.get("tuned") or {}).items():
        for name, keys in parts.items() if isinstance(parts, Mapping) else [("", parts)]:
            if not isinstance(keys, Mapping | None):
                key = f"tuned.{group}.{name}".rstrip(".")
                raise ConfigError(f"{key}={keys}: expected its keys, {key}.NAME=VALUE")


def _request(
    config: EnsembleConfig,
    seeds: Sequence[int],
    cell: Sequence[Override],
    usual: Callable[[str], Mapping[str, Any]],
    folders: Sequence[Path],
) -> Request:
    steps = length_of(config, {item.key for item in cell})
    config = replace(config, train=replace(config.train, steps=steps, epochs=None))
    check_combined(config, steps, folders)
    slug = _slug(config, cell, usual(str(config.task.name)))
    return Request(config, runs_of(config, seeds), steps, [item.written for item in cell], slug)


def length_of(config: EnsembleConfig, typed_keys: set[str]) -> int:
    """Return the length in steps. Of steps and epochs the command's own word wins over a YAML file's."""
    train = config.train
    if {"train.steps", "train.epochs"} <= typed_keys:
        raise ConfigError(f"train.epochs={train.epochs}: give only one of train.steps and train.epochs")
    if train.epochs is None or "train.steps" in typed_keys:
        return train.steps if train.steps is not None else DEFAULT_STEPS
    size = of_task(config, "train_size")
    if size is None:
        raise ConfigError(f"train.epochs={train.epochs}: this task has no epochs; use train.steps")
    batches = 1 if train.batch_size == "full" else -(-size // int(train.batch_size))
    return round(train.epochs * batches / train.accumulate)


def settings_of(tree: Mapping[str, Any], outputs: str | Path | None, folders: tuple[Path, ...]) -> Settings:
    """Return the settings that a composed tree has."""
    chosen, folder = tree.get("launcher"), tree.get("outputs")
    # A file may have the bare word, as all had before launchers had keys.
    own = dict(chosen) if isinstance(chosen, Mapping) else {"name": chosen}
    launcher = own.pop("name", None)
    if isinstance(folder, list | Mapping):
        raise ConfigError(f"outputs={folder}: expected a folder")
    if launcher not in LAUNCHERS:
        hint = did_you_mean(str(launcher), LAUNCHERS)
        raise ConfigError(f"launcher={launcher}: expected {' or '.join(LAUNCHERS)}{hint}")
    if (on_error := tree.get("on_error")) not in ON_ERROR:
        hint = did_you_mean(str(on_error), ON_ERROR)
        raise ConfigError(f"on_error={on_error}: expected {' or '.join(ON_ERROR)}{hint}")
    device = str(tree.get("device"))
    index = device.removeprefix("cuda:")
    if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and index.isdigit()):
        raise ConfigError(f"device={device}: expected auto, cpu, cuda or cuda:N")
    return Settings(
        compute=typed(Compute, tree.get("compute") or {}, "compute"),
        checkpoint=typed(Checkpoint, tree.get("checkpoint") or {}, "checkpoint"),
        device=device,
        launcher=str(launcher),
        on_error=str(on_error),
        outputs=outputs_root(outputs if folder in (None, "") else str(folder)),
        folders=folders,
        slurm=_slurm(str(launcher), own),
    )


def _slurm(launcher: str, keys: Mapping[str, Any]) -> Slurm:
    """Return the keys of `launcher=slurm`; no other launcher has any."""
    if keys and launcher != "slurm":
        raise ConfigError(f"launcher.{next(iter(keys))}: launcher={launcher} has no keys; launcher=slurm has")
    return typed(Slurm, keys, "launcher")


def _usual(task: str, composer: Composer) -> dict[str, Any]:
    """Return the configuration of a task without any word, with dotted keys; nothing where it cannot be composed."""
    try:
        return flat(composer.defaults(task).as_dict())
    except ConfigError:
        return {}


def _slug(config: EnsembleConfig, cell: Sequence[Override], base: Mapping[str, Any]) -> str:
    """Name an ensemble by its experiment and by the words of the command that differ from the task's defaults."""
    # What enters the identity by its content, or not at all, says nothing about the results; it may be a path.
    own = flat({key: part for key, part in config.as_dict().items() if key not in ("convergence", "levels")})
    unnamed = {"train.steps", "design", *(f"task.{name}" for name in getattr(config.task, "by_content", ()))}
    pieces: list[str] = []
    # Of several words about a key the last counts.
    for item in {item.key: item for item in cell}.values():
        key, value = item.key, item.text
        if key == "experiment" and value != "null":
            pieces.insert(0, value)
        elif f"{key}.name" in own and key != "task":
            pieces += [value] if own[f"{key}.name"] != base.get(f"{key}.name") else []
        elif key in own and key not in unnamed and own[key] != base.get(key):
            pieces.append(f"{key.rpartition('.')[2]}_{readable(own[key])}")
    if config.design == "crossed":
        pieces = [piece for piece in pieces if not piece.startswith(STREAMS)] + ["crossed"]
    text = "-".join(pieces) or "default"
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
    return plain[:60].strip("-_.") or "default"


def readable(value: Any) -> str:
    """Return a value as a part of a folder's name: short, and of a path its last part."""
    if isinstance(value, list):
        return "_".join(map(readable, value))[:24]
    return str(value).rstrip("/").rpartition("/")[2][:24]


def words_of(config: EnsembleConfig) -> list[str] | None:
    """Return words of `train` that compose to a configuration; None where none do, as of a fork.

    They name its groups, its probes, and the keys in which it differs from what these bring with them.
    """
    tree = config.as_dict()
    overrides = [Override.of(group, tree[group]["name"]) for group in CHOSEN if group in tree]
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
