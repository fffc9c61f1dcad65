"""What a user typed, taken apart once: each word as a key and its values, and the keys that are refused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynalab.config.plain import plain_value
from dynalab.config.schema import STREAMS
from dynalab.config.seeds import parse_seeds
from dynalab.config.suggest import did_you_mean
from dynalab.config.tree import Tree, dotted_keys, parts_of, placed, resolved, value_at
from dynalab.config.words import MOST, shown, values_of, word_of
from dynalab.core.errors import ConfigError

_KEY = re.compile(r"(\+\+|\+|~)?([^=@]*)")
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
# Swept, these would make one command write to several places or run in several ways at once.
_NOT_SWEPT = (
    "outputs",
    "name",
    "pool",
    "launcher",
    "on_error",
    "device",
    "compute.",
    "checkpoint.",
    "design",
)


@dataclass(frozen=True)
class Override:
    """One word of a command.

    Attributes:
        key: What it sets, `optimizer.lr`, or the group that it chooses from, `optimizer`; without sign and package.
        values: What it sets it to. Several are a sweep, or of seeds the runs; there are none of seeds that an
            interpolation names.
        written: The word as it was typed, or as one of its values alone is typed.
        sign: `+`, `++`, `~` or nothing.
        package: What the key has behind an `@`.
    """

    key: str
    values: tuple[Any, ...]
    written: str
    sign: str = ""
    package: str | None = None

    @classmethod
    def of(cls, key: str, value: Any) -> Override:
        """Return what sets a key to a value that was not typed; NumPy's scalars and arrays become plain values."""
        value = plain_value(value)
        return cls(key, (value,), f"{key}={word_of(value)}")

    def __str__(self) -> str:
        """Return the word."""
        return self.written

    @property
    def value(self) -> Any:
        """Its value, where it has one."""
        (value,) = self.values
        return value

    @property
    def text(self) -> str:
        """Its values as they are written."""
        return self.written.partition("=")[2]

    @property
    def is_seeds(self) -> bool:
        """Whether it is about the seeds of runs, or of their streams."""
        return self.key == "seed" or self.key.startswith("seed_streams.")

    def unread(self) -> Override:
        """Return the override that sets its key to what is written, as files have seeds."""
        return replace(self, values=(self.text,))

    def singles(self) -> list[Override]:
        """Return the overrides of each of its values alone."""
        return [self] if len(self.values) == 1 else list(map(self.with_value, self.values))

    def with_value(self, value: Any) -> Override:
        """Return the override of the same key with one value, as that is typed."""
        package = "" if self.package is None else f"@{self.package}"
        written = f"{self.sign}{self.key}{package}={word_of(value)}"
        return replace(self, values=(value,), written=written)

    def applied(self, tree: Tree) -> Tree:
        """Return a tree with what it sets; sections that are not there are made, and mappings are merged.

        Raises:
            ConfigError: It has a package, adds what is there already, or stands below what is no section.
        """
        self.require_key()
        parts = parts_of(self.key)
        before = value_at(tree, parts) if self.sign == "+" else None
        if before is not None and not isinstance(self.value, dict | list):
            raise ConfigError(
                f"{self.written}: {self.key} is there already, {before}; {self.written[1:]} sets it"
            )
        try:
            changed: Tree = placed(tree, parts, self.value)
        except KeyError as error:
            raise self.unknown(tree) from error
        return changed

    def unknown(self, tree: Tree) -> ConfigError:
        """Return what a user is told of a key that a tree does not have."""
        suggestion = did_you_mean(self.key, dotted_keys(tree))
        hint = "" if suggestion else "; `dynalab config` shows every key"
        return ConfigError(f"{shown(self.key)}: no such key{suggestion}{hint}")

    def require_key(self) -> None:
        """Refuse a package, which only the choice of a group has."""
        if self.package is not None:
            raise ConfigError(f"{self.written}: {self.key} is no group, so it has no package")


def parse(
    words: Iterable[str | Override],
    options: Callable[[str], Sequence[str]] = lambda group: (),
    *,
    seeds: bool = True,
) -> list[Override]:
    """Take a command's words apart; what is an override already stays one.

    Args:
        words: The words.
        options: Group -> its options, which `glob(...)` chooses from; none of what is no group.
        seeds: Whether `seed` and `seed_streams.*` are in the grammar of seeds.

    Raises:
        ConfigError: A word cannot be parsed, or names something that dynalab does otherwise.
    """
    if isinstance(words, str):
        raise ConfigError(f"{shown(words)}: expected a list of words, ['task=grokking', 'seed=0..3']")
    overrides = []
    for word in words:
        if not isinstance(word, str | Override):
            raise ConfigError(f"{shown(str(word))}: expected a word as text, 'KEY=VALUE'")
        if isinstance(word, Override):
            sign, key, written = word.sign, word.key, word.written
        else:
            (sign, key), written = _sign_and_key(word), word
        for refused, instead in _REFUSED.items():
            if key == refused or key.startswith(refused + "."):
                raise ConfigError(f"{key} is not supported: {instead}")
        if key == "hydra.verbose":
            continue
        if key.startswith(("hydra.", "hydra/")) or key == "hydra":
            raise ConfigError(f"{key} is not supported: Hydra's own keys have no effect here")
        if seeds and sign == "~" and key.partition(".")[0] in ("seed", "seed_streams"):
            raise ConfigError(f"{written}: a seed cannot be deleted; without seed= it is 0")
        if seeds and (key == "seed" or key.startswith("seed_streams.")):
            overrides.append(_seeds(written, key))
        else:
            overrides.append(word if isinstance(word, Override) else _read(word, sign, key, options))
    return overrides


def cells(overrides: Sequence[Override]) -> Iterator[list[Override]]:
    """Return the combinations of values, each an override with one value for each that is given.

    Raises:
        ConfigError: There are too many.
    """
    count = math.prod(len(item.values) for item in overrides)
    if count > MOST:
        raise ConfigError(f"{count:,} combinations are too many for one command (at most {MOST:,})")
    return map(list, itertools.product(*(item.singles() for item in overrides)))


def settings(overrides: Sequence[Override], *keys: str) -> tuple[dict[str, Any], list[Override]]:
    """Return the values of keys that are about a command itself, None where none is given, and the other overrides.

    Raises:
        ConfigError: One of them has no value, or several.
    """
    values: dict[str, Any] = dict.fromkeys(keys)
    for item in overrides:
        if item.key in keys:
            if len(item.values) != 1 or item.sign or item.value == "":
                raise ConfigError(f"{item.written}: expected a value, {item.key}=VALUE")
            item.require_key()
            values |= resolved({item.key: item.value})
    return values, [item for item in overrides if item.key not in keys]


def _sign_and_key(word: str) -> tuple[str, str]:
    """Return the sign and the key of a word, without its package."""
    match = _KEY.match(word)
    assert match is not None
    return match[1] or "", match[2]


def _without_value(word: str) -> ConfigError:
    return ConfigError(f"{shown(word)}: expected KEY=VALUE, for example task=grokking or seed=0..19")


def _seeds(word: str, key: str) -> Override:
    """Return the override of a word about seeds."""
    if key != "seed" and key.removeprefix("seed_streams.") not in STREAMS:
        raise ConfigError(f"{key}: no such stream; there are {', '.join(STREAMS)}")
    if "=" not in word:
        raise _without_value(word)
    text = word.partition("=")[2]
    if key != "seed" and text == "null":
        return Override(key, (None,), word)
    return Override(key, () if "${" in text or text == "???" else tuple(parse_seeds(text, key)), word)


def _read(word: str, sign: str, key: str, options: Callable[[str], Sequence[str]]) -> Override:
    """Return the override of any other word."""
    if ("=" not in word and sign != "~") or not key:
        raise _without_value(word)
    values, package, sweep = values_of(word, key, options)
    if sweep and key.startswith(_NOT_SWEPT):
        raise ConfigError(f"{word}: {key} takes one value a command")
    override = Override(key, tuple(values), word, sign, package)
    return override.with_value(values[0]) if sweep and len(values) == 1 else override
