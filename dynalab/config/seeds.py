"""Seeds: their grammar, `7`, `0..19`, `range(20)`, `[1,2]`, `0..9,20`, and streams on which they have no effect."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dynalab.config.schema import STREAMS
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig

MOST = 100_000
_LEGAL = (
    "an integer, A..B (inclusive), range(...), a list, or a comma-separated union of these, all at least 0"
)
_INTEGER = re.compile(r"[+-]?\d+$")
_SPAN = re.compile(r"([+-]?\d+)\.\.([+-]?\d+)$")
_CALL = re.compile(r"(range|choice)\((.*)\)$")


def parse_seeds(value: Any, key: str = "seed") -> list[int]:
    """Return the seeds that a value names, in order, without duplicates.

    Args:
        value: Text in the grammar, an integer, or a list of such.
        key: Key to name in errors.

    Raises:
        ConfigError: The value is empty, negative, not in the grammar, or names too many seeds.
    """
    seeds = list(dict.fromkeys(_walk(value, key)))
    if not seeds:
        raise ConfigError(f"{key}={value}: names no seed; expected {_LEGAL}")
    return seeds


def _walk(value: Any, key: str) -> Iterable[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [_checked(value, key)]
    if isinstance(value, list | tuple | range):
        if len(value) > MOST:
            raise ConfigError(f"{key}: {len(value)} seeds are too many for one command (at most {MOST})")
        return [seed for item in value for seed in _walk(item, key)]
    if isinstance(value, str):
        return [seed for piece in _split(_unquote(value.strip())) for seed in _atom(piece, value, key)]
    raise ConfigError(f"{key}={value}: expected {_LEGAL}")


def _atom(text: str, whole: str, key: str) -> Iterable[int]:
    text = _unquote(text.strip())
    if _INTEGER.match(text):
        return [_checked(int(text), key)]
    if span := _SPAN.match(text):
        first, last = _checked(int(span[1]), key), _checked(int(span[2]), key)
        if last < first:
            raise ConfigError(f"{key}={whole}: {text} is empty; A..B counts up and includes both ends")
        return _walk(range(first, last + 1), key)
    if text.startswith("[") and text.endswith("]"):
        return _walk([piece for piece in _split(text[1:-1]) if piece.strip()], key)
    if call := _CALL.match(text):
        inner = [piece.strip() for piece in _split(call[2])]
        if call[1] == "choice":
            return _walk(inner, key)
        numbers = [piece.partition("=")[2] or piece for piece in inner]
        if 1 <= len(numbers) <= 3 and all(_INTEGER.match(number) for number in numbers):
            bounds = [int(number) for number in numbers]
            if len(bounds) < 3 or bounds[2] != 0:
                return _walk(range(*bounds), key)
    raise ConfigError(f"{key}={whole}: expected {_LEGAL}")


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    pieces, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            pieces.append(text[start:place])
            start = place + 1
    return [*pieces, text[start:]]


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" else text


def _checked(seed: int, key: str) -> int:
    if seed < 0:
        raise ConfigError(f"{key}={seed}: a seed is at least 0")
    if seed >= 2**63:
        raise ConfigError(f"{key}={seed}: a seed is below 2^63")
    return seed


def format_seeds(seeds: Iterable[int]) -> str:
    """Return seeds in the grammar, as short as it goes: `0..9,20`."""
    spans: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in spans)


def without_effect(config: EnsembleConfig) -> dict[str, str]:
    """Return stream -> why nothing comes of it, for every stream that is known to have no effect.

    A task says so itself (`dynalab.tasks.base.TaskConfig.idle_streams`). One that does not say is taken to use every
    stream, but for `order` where each update takes the whole training set. `noise` also feeds the network's dropout;
    of a network from a plug-in it is not known whether it has some.
    """
    size_of, says = (getattr(config.task, name, None) for name in ("train_size", "idle_streams"))
    size, batch = size_of() if size_of else None, config.train.batch_size
    full = batch == "full" or (size is not None and batch >= size)
    given = "train.batch_size=full" if batch == "full" else f"train.batch_size={batch} of {size} examples"
    found: dict[str, str] = says(full) if says else {"order": ""} if full else {}
    if "order" in found:
        found["order"] = f"with {given} there is no order"
    own_network = "model" in config.sources or config.model.name == "task"
    if own_network or getattr(config.model, "dropout", 0.0):
        found.pop("noise", None)
    return {name: found[name] for name in STREAMS if name in found}


def idle_streams(config: EnsembleConfig) -> list[str]:
    """Return a line for each stream that was given a seed of its own and has no effect."""
    return [
        f"seed_streams.{name} has no effect: {why}"
        for name, why in without_effect(config).items()
        if getattr(config.seed_streams, name) is not None
    ]
