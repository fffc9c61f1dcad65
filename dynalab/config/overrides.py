"""What a user typed, taken apart once: each word as a key and its values, and the keys that are refused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dynalab.config.schema import STREAMS
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override as Parsed

MOST = 100_000
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
class Override:
    """One word of a command, with one of its values.

    Attributes:
        key: What it sets, `optimizer.lr`, or the group that it chooses from, `optimizer`; without sign and package.
        value: The value: plain, or text in the seed grammar.
        text: The word that gives this value alone.
        sign: `+`, `++`, `~` or nothing.
        swept: Whether the word that was typed gives several values.
        parsed: The word as Hydra reads it; None of seeds.
    """

    key: str
    value: Any
    text: str
    sign: str = ""
    swept: bool = False
    parsed: Parsed | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Words:
    """The overrides of one command.

    Attributes:
        axes: For each word its overrides, one a value.
        seeds: `seed` and `seed_streams.*`; the last word of a key counts.
    """

    axes: list[list[Override]]
    seeds: list[Override]

    def cells(self) -> Iterator[list[Override]]:
        """Return the overrides of each combination of swept values.

        Raises:
            ConfigError: There are too many.
        """
        count = math.prod(map(len, self.axes))
        if count > MOST:
            raise ConfigError(f"{count:,} combinations are too many for one command (at most {MOST:,})")
        return map(list, itertools.product(*self.axes))


def _sign_and_key(text: str) -> tuple[str, str]:
    """Return the sign and the key of a word, without its package."""
    match = _KEY.match(text)
    assert match is not None
    return match[1] or "", match[2].partition("@")[0]


def _unreadable(text: str, error: Exception) -> ConfigError:
    """Return what a user is told of an override that Hydra's parser, with this error, did not take."""
    value = text.partition("=")[2].strip()
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    reason = re.sub(r"\w+ while evaluating '.*?': ", "", reason)
    if value.endswith(",") or value.startswith(",") or ",," in value.replace(" ", ""):
        reason = "a value is missing beside a comma"
    elif any(value.count(opened) != value.count(closed) for opened, closed in ("()", "[]", "{}")):
        reason = "a bracket has no other end"
    elif any(value.count(quote) % 2 for quote in "'\""):
        reason = "a quote has no other end"
    elif any(word in reason for word in _GRAMMAR):
        reason = "values with special characters need quotes"
    return ConfigError(f"{shown(text)}: cannot be parsed: {reason}")


def shown(text: str, most: int = 200) -> str:
    """Return a word for a message: in one line, and not without end."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def parse(texts: Sequence[str], options: Callable[[str], Sequence[str]] = lambda group: ()) -> Words:
    """Take a command's overrides apart.

    Args:
        texts: The words.
        options: Group -> its options, which `glob(...)` chooses from; none of what is no group.

    Raises:
        ConfigError: An override cannot be parsed, or names something that dynalab does otherwise.
    """
    axes: list[list[Override]] = []
    seeds: dict[str, Override] = {}
    for text in texts:
        sign, key = _sign_and_key(text)
        for refused, instead in _REFUSED.items():
            if key == refused or key.startswith(refused + "."):
                raise ConfigError(f"{key} is not supported: {instead}")
        if sign == "~" and (key == "seed" or key.startswith("seed_streams")):
            raise ConfigError(f"{text}: a seed cannot be deleted; without seed= it is 0")
        if key == "seed" or key.startswith("seed_streams."):
            stream = key.removeprefix("seed_streams.")
            if key != "seed" and stream not in STREAMS:
                raise ConfigError(f"{key}: no such stream; there are {', '.join(STREAMS)}")
            seeds[key] = Override(key, text.partition("=")[2], text)
        elif key == "hydra.verbose":
            continue
        elif key.startswith(("hydra.", "hydra/")) or key == "hydra":
            raise ConfigError(f"{key} is not supported: Hydra's own keys have no effect here")
        else:
            axes.append(values_of(text, options))
    return Words(axes, list(seeds.values()))


def values_of(text: str, options: Callable[[str], Sequence[str]] = lambda group: ()) -> list[Override]:
    """Return the overrides of one word, one a value; `options` as `parse` has them.

    Raises:
        ConfigError: It cannot be parsed, or names no value.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep, ValueType
    from hydra.errors import HydraException

    sign, key = _sign_and_key(text)
    if ("=" not in text and sign != "~") or not key:
        raise ConfigError(f"{shown(text)}: expected KEY=VALUE, for example task=grokking or seed=0..19")
    try:
        parsed = OverridesParser.create().parse_override(text)
        if not parsed.is_sweep_override():
            return [Override(key, parsed.value(), text, sign, parsed=parsed)]
        values: Any
        if isinstance(parsed._value, IntervalSweep):
            raise ConfigError(
                f"{text}: an interval names no values; list some, {key}=0.1,0.2, or use range()"
            )
        if isinstance(parsed._value, Glob):
            legal = list(options(key))
            values = parsed._value.filter(legal)
            if not values:
                there = f"none of {', '.join(legal)}" if legal else f"{key} is no group, which has options"
                raise ConfigError(f"{text}: names no value: {there}")
        elif isinstance(parsed._value, RangeSweep):
            values = _range(parsed._value, text)
        else:
            values = parsed.sweep_iterator()
        singles = [
            replace(parsed, _value=value, value_type=ValueType.ELEMENT)
            for value in itertools.islice(values, MOST + 1)
        ]
    except (HydraException, ValueError, RecursionError) as error:
        raise _unreadable(text, error) from error
    if key.startswith(_NOT_SWEPT):
        raise ConfigError(f"{text}: {key} takes one value a command")
    if not singles:
        raise ConfigError(f"{text}: names no value")
    left = parsed.get_key_element()
    overrides = []
    for single in singles:
        value = single._value
        # Hydra escapes the brackets of a reference, which then reads as text.
        refers = isinstance(value, str) and "${" in value
        word = f"{left}={value if refers else single.get_value_element_as_str()}"
        single = replace(single, input_line=word)
        overrides.append(Override(key, single.value(), word, sign, len(singles) > 1, single))
    return overrides


def _range(sweep: Any, text: str) -> Sequence[float]:
    """Return the values of a range.

    Its floats are counted up in decimals of 15 digits, as they were typed, so that they are those of the list: in
    binary, as Hydra counts, the third of range(0.1,0.5,0.1) is 0.30000000000000004, another configuration than 0.3.
    """
    bounds = (sweep.start, sweep.stop, sweep.step)
    if any(not math.isfinite(bound) for bound in bounds) or not sweep.step:
        raise ConfigError(f"{text}: expected finite bounds and a step that is not 0")
    whole = all(isinstance(bound, int) for bound in bounds)
    start, stop, step = (Decimal(bound) if whole else Decimal(f"{bound:.15g}") for bound in bounds)
    count = max(math.ceil((stop - start) / step), 0)
    if count > MOST:
        raise ConfigError(f"{text}: {count:,} values are too many for one command (at most {MOST:,})")
    values = [int(start + i * step) if whole else float(start + i * step) for i in range(count)]
    if sweep.shuffle:
        import random

        random.shuffle(values)
    return values
