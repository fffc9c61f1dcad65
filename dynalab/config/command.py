"""From the words of one `train` command to the ensembles and runs that it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.compose import compose
from dynalab.config.ensemble import EnsembleConfig, RunSpec, from_tree, runs_of
from dynalab.config.outputs import outputs_root
from dynalab.config.overrides import key_of, parse
from dynalab.config.schema import STREAMS, Checkpoint, Compute
from dynalab.config.seeds import parse_seeds
from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.typed import typed
from dynalab.errors import ConfigError

SECTIONS = (
    *("task", "model", "optimizer", "schedule", "train", "eval", "probes", "probe", "snapshots"),
    *("seed", "seed_streams", "design", "device", "compute", "checkpoint", "launcher", "outputs"),
    *("tuned", "convergence", "levels"),
)
LAUNCHERS = ("local", "inline")
DEFAULT_STEPS = 1000


@dataclass(frozen=True)
class Settings:
    """How a command works, as opposed to what it computes."""

    compute: Compute
    checkpoint: Checkpoint
    device: str
    launcher: str
    outputs: Path
    folders: tuple[Path, ...] = ()


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
    """A whole command: the ensembles it spans, without duplicates, and its settings."""

    requests: list[Request]
    settings: Settings
    verbose: bool = False


def read_command(
    overrides: Sequence[str], *, outputs: str | None = None, config_dirs: Sequence[str] = ()
) -> Command:
    """Read the overrides of `train`.

    Args:
        overrides: Hydra overrides, sweeps and the seed grammar included.
        outputs: The command's `--outputs`.
        config_dirs: The command's `--config-dir`s.

    Raises:
        ConfigError: Something in the overrides cannot be used.
    """
    folders = tuple(registry.search_path(config_dirs))
    parsed = parse(overrides)
    cells = []
    for cell in parsed.cells:
        tree = compose("train", cell, folders)
        for words, streams in _stream_cells(tree, parsed.streams):
            tree_cell = {**tree, "seed_streams": {**(tree.get("seed_streams") or {}), **streams}}
            cells.append((tree_cell, [*cell, *words]))
    requests: dict[str, Request] = {}
    for tree, words in cells:
        request = _request(tree, parsed.seed, words, folders)
        requests.setdefault(request.config.id, request)
    settings = _settings(cells[0][0], outputs, folders)
    return Command(list(requests.values()), settings, parsed.verbose)


def _stream_cells(
    tree: Mapping[str, Any], given: Mapping[str, str]
) -> list[tuple[list[str], dict[str, Any]]]:
    """Turn stream texts into values: lists under `design=crossed`, else a sweep over each stream's values."""
    crossed = tree.get("design") == "crossed"
    texts = {**{k: v for k, v in (tree.get("seed_streams") or {}).items() if v is not None}, **given}
    cells: list[tuple[list[str], dict[str, Any]]] = [([], {})]
    for name, text in texts.items():
        if text == "null":
            cells = [(words, {**streams, name: None}) for words, streams in cells]
            continue
        values = parse_seeds(text, f"seed_streams.{name}")
        if crossed:
            value = values if len(values) > 1 else values[0]
            said = f"seed_streams.{name}={text}"
            cells = [([*words, said], {**streams, name: value}) for words, streams in cells]
        else:
            cells = [
                ([*words, f"seed_streams.{name}={value}"], {**streams, name: value})
                for words, streams in cells
                for value in values
            ]
    return cells


def _request(
    tree: Mapping[str, Any], seed: str | None, words: list[str], folders: tuple[Path, ...]
) -> Request:
    unknown = [key for key in tree if key not in SECTIONS]
    if unknown:
        key = unknown[0]
        raise ConfigError(f"{key}: no such key{did_you_mean(key, SECTIONS)}; there are {listing(SECTIONS)}")
    config = from_tree(tree, folders)
    steps = _steps(config, {word.partition("=")[0].lstrip("+") for word in words})
    config = replace(config, train=replace(config.train, steps=steps, epochs=None))
    _check_batches(config, steps)
    seeds = parse_seeds(seed if seed is not None else tree.get("seed", 0))
    task = str(config.task.name)
    return Request(config, runs_of(config, seeds), steps, words, _slug(config, words, task, folders))


def _steps(config: EnsembleConfig, said: set[str]) -> int:
    """Return the length in steps. Of steps and epochs the command's own word wins over a YAML file's."""
    train = config.train
    if {"train.steps", "train.epochs"} <= said:
        raise ConfigError(f"train.epochs={train.epochs}: give only one of train.steps and train.epochs")
    if train.epochs is None or "train.steps" in said:
        return train.steps if train.steps is not None else DEFAULT_STEPS
    size_of = getattr(config.task, "train_size", None)
    size = size_of() if size_of else None
    if size is None:
        raise ConfigError(f"train.epochs={train.epochs}: this task has no epochs; use train.steps")
    batches = 1 if train.batch_size == "full" else -(-size // int(train.batch_size))
    return round(train.epochs * batches / train.accumulate)


def _check_batches(config: EnsembleConfig, steps: int) -> None:
    """Refuse batches that are too small for the model's batch statistics, if training comes to them."""
    least_of = getattr(config.model, "least_batch", None)
    if least_of is None:
        return
    shape_of, size_of = (getattr(config.task, name, None) for name in ("image_shape", "train_size"))
    size = size_of() if size_of else None
    given = config.train.batch_size
    usual = size if given == "full" or (size is not None and int(given) >= size) else int(given)
    if usual is None:
        return
    batches = -(-(size or usual) // usual)
    last = (size or usual) - (batches - 1) * usual if steps * config.train.accumulate >= batches else usual
    if steps and min(usual, last) < least_of(shape_of() if shape_of else None):
        where = "batches" if last == usual else f"{size} training examples leave a last batch"
        raise ConfigError(
            f"train.batch_size={given}: {where} of 1 example, which has no batch statistics for "
            f"model={config.model.name}; choose a size that leaves none, or another norm"
        )


def _settings(tree: Mapping[str, Any], outputs: str | None, folders: tuple[Path, ...]) -> Settings:
    launcher = tree.get("launcher")
    if launcher not in LAUNCHERS:
        hint = did_you_mean(str(launcher), LAUNCHERS)
        raise ConfigError(f"launcher={launcher}: expected {' or '.join(LAUNCHERS)}{hint}")
    device = str(tree.get("device"))
    index = device.removeprefix("cuda:")
    if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and index.isdigit()):
        raise ConfigError(f"device={device}: expected auto, cpu, cuda or cuda:N")
    return Settings(
        compute=typed(Compute, tree.get("compute") or {}, "compute"),
        checkpoint=typed(Checkpoint, tree.get("checkpoint") or {}, "checkpoint"),
        device=device,
        launcher=str(launcher),
        outputs=outputs_root(tree.get("outputs") or outputs),
        folders=folders,
    )


@lru_cache(maxsize=32)
def _base(task: str, folders: tuple[Path, ...]) -> dict[str, Any]:
    return _flat(from_tree(compose("train", [f"task={task}"], folders), folders).as_dict())


def _slug(config: EnsembleConfig, words: Sequence[str], task: str, folders: tuple[Path, ...]) -> str:
    """Name an ensemble by its experiment and by the words of the command that differ from the task's defaults."""
    own = _flat(config.as_dict())
    try:
        base = _base(task, folders)
    except ConfigError:
        base = {}
    pieces: list[str] = []
    for word in words:
        key, value = key_of(word), word.partition("=")[2]
        if key == "experiment" and value != "null":
            pieces.insert(0, value)
        elif f"{key}.name" in own and key != "task":
            pieces += [value] if own[f"{key}.name"] != base.get(f"{key}.name") else []
        elif key in own and key not in ("train.steps", "design") and own[key] != base.get(key):
            pieces.append(f"{key.rpartition('.')[2]}_{own[key]}")
    if config.design == "crossed":
        pieces = [piece for piece in pieces if not piece.startswith(STREAMS)] + ["crossed"]
    text = "-".join(pieces) or "default"
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)[:60].strip(
        "-_."
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
