"""What a user typed, taken apart: seeds, sweeps, the keys Hydra gets, and the keys that are refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dynalab.config.schema import STREAMS
from dynalab.errors import ConfigError

_KEY = re.compile(r"(\+\+|\+|~)?([^=]*)")
_REFUSED = {
    "hydra.run.dir": "use outputs=DIR or --outputs",
    "hydra.sweep": "use outputs=DIR or --outputs; folders are named by content",
    "hydra.job": "there are no Hydra jobs; see `dynalab train --help`",
    "hydra/launcher": "use launcher=inline or launcher=local",
    "hydra.launcher": "use compute.workers= and compute.width=",
    "hydra/sweeper": "sweeps need no sweeper: give a key several values, optimizer.lr=0.1,0.01",
    "hydra.sweeper": "sweeps need no sweeper: give a key several values, optimizer.lr=0.1,0.01",
    "hydra.mode": "sweeps need no mode: give a key several values, optimizer.lr=0.1,0.01",
    "train.precision": "mixed precision is not supported yet; train.loss_dtype=float64 is",
    "train.amp": "mixed precision is not supported yet; train.loss_dtype=float64 is",
    "precision": "mixed precision is not supported yet; train.loss_dtype=float64 is",
}
# What the parser says in terms of its grammar.
_GRAMMAR = ("mismatched input", "extraneous input", "no viable alternative", "token recognition", "missing ")
# Swept, these would make one command write to several places or run in several ways at once.
_NOT_SWEPT = ("outputs", "launcher", "device", "compute.", "checkpoint.", "design")


@dataclass(frozen=True)
class Parsed:
    """The overrides of one command.

    Attributes:
        cells: One list of Hydra overrides for each combination of swept values.
        seed: The text given for `seed`, or None.
        streams: Stream -> text given for `seed_streams.<stream>`.
        verbose: `hydra.verbose` was set.
    """

    cells: list[list[str]]
    seed: str | None = None
    streams: dict[str, str] = field(default_factory=dict)
    verbose: bool = False


def key_of(text: str) -> str:
    """Return the key of an override, without its prefix and package."""
    match = _KEY.match(text)
    assert match is not None
    return match[2].partition("@")[0]


def unreadable(text: str, error: Exception) -> ConfigError:
    """Return what a user is told of an override that Hydra's parser did not take.

    Args:
        text: The override.
        error: What the parser said: of functions in plain words, of the rest in those of its grammar.
    """
    value = text.partition("=")[2].strip()
    reason = str(error).splitlines()[0]
    if value.endswith(",") or value.startswith(",") or ",," in value.replace(" ", ""):
        reason = "a value is missing beside a comma"
    elif any(value.count(opened) != value.count(closed) for opened, closed in ("()", "[]", "{}")):
        reason = "a bracket has no other end"
    elif any(value.count(quote) % 2 for quote in "'\""):
        reason = "a quote has no other end"
    elif any(word in reason for word in _GRAMMAR):
        reason = "values with special characters need quotes"
    return ConfigError(f"{text}: cannot be parsed: {reason}")


def parse(texts: Sequence[str]) -> Parsed:
    """Take a command's overrides apart.

    Raises:
        ConfigError: An override cannot be parsed, or names something that dynalab does otherwise.
    """
    seed: str | None = None
    streams: dict[str, str] = {}
    verbose = False
    rest: list[str] = []
    for text in texts:
        value = text.partition("=")[2]
        bare = key_of(text)
        if ("=" not in text and not text.startswith("~")) or not bare:
            raise ConfigError(f"{text}: expected KEY=VALUE, for example task=grokking or seed=0..19")
        for refused, instead in _REFUSED.items():
            if bare == refused or bare.startswith(refused + "."):
                raise ConfigError(f"{bare} is not supported: {instead}")
        if text.startswith("~") and (bare == "seed" or bare.startswith("seed_streams")):
            raise ConfigError(f"{text}: a seed cannot be deleted; without seed= it is 0")
        if bare == "seed":
            seed = value
        elif bare.startswith("seed_streams."):
            name = bare.removeprefix("seed_streams.")
            if name not in STREAMS:
                raise ConfigError(f"{bare}: no such stream; there are {', '.join(STREAMS)}")
            streams[name] = value
        elif bare == "hydra.verbose":
            verbose = value.lower() not in ("false", "null", "0")
        elif bare.startswith("hydra"):
            raise ConfigError(f"{bare} is not supported: Hydra's own keys have no effect here")
        else:
            rest.append(text)
    return Parsed(_cells(rest), seed, streams, verbose)


def _cells(texts: list[str]) -> list[list[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    axes: list[list[str]] = []
    for text in texts:
        try:
            override = parser.parse_override(text)
            if not override.is_sweep_override():
                axes.append([text])
                continue
            key = override.get_key_element()
            values = list(override.sweep_string_iterator())
        except HydraException as error:
            raise unreadable(text, error) from error
        bare = key_of(text)
        if bare.startswith(_NOT_SWEPT):
            raise ConfigError(f"{text}: {bare} takes one value a command")
        if not values:
            raise ConfigError(f"{text}: names no value")
        axes.append([f"{key}={value}" for value in values])
    return [list(cell) for cell in itertools.product(*axes)]
