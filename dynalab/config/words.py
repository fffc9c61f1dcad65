"""The grammar of words, which is Hydra's: the values that a word gives, and the text that gives a value."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from dynalab.core.errors import ConfigError

MOST = 100_000
# What the parser says in terms of its grammar.
_GRAMMAR = ("mismatched input", "extraneous input", "no viable alternative", "token recognition", "missing ")
_SPECIAL = "values with special characters need quotes"
# Their values are texts, also where the grammar would need quotes or reads a number.
_TEXTS = ("outputs", "name")
# Text that is read as it stands, without quotes, and text that is read as a number.
_PLAIN = re.compile(r"(?:[\w/.+%@?|-]|\$\{[\w.:]+\})+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[\d.][\d_.]*(?:e[+-]?[\d_]+)?|inf|nan)", re.ASCII | re.IGNORECASE)


def values_of(
    word: str, key: str, options: Callable[[str], Sequence[str]] = lambda group: ()
) -> tuple[list[Any], str | None, bool]:
    """Return the values of a word, the package behind its key, and whether it is a sweep, which may be of one value.

    Args:
        word: The word.
        key: Its key.
        options: Group -> its options, which `glob(...)` chooses from; none of what is no group.

    Raises:
        ConfigError: It cannot be read, or names no value or too many.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override as Parsed
    from hydra.errors import HydraException

    text = word.partition("=")[2].strip()
    try:
        parsed = OverridesParser.create().parse_override(word)
        if not parsed.is_sweep_override():
            value = parsed.value()
            return (
                [text if key in _TEXTS and isinstance(value, int | float) else value],
                parsed.package,
                False,
            )
        # One more than there may be, so that too many are seen to be.
        swept = itertools.islice(_swept(parsed, key, word, options), MOST + 1)
        values = list(map(Parsed._convert_value, swept))
    except (HydraException, ValueError, RecursionError) as error:
        reason = _reason(text, error)
        if key in _TEXTS and reason == _SPECIAL:
            return [text], None, False
        raise ConfigError(f"{shown(word)}: cannot be parsed: {reason}") from error
    if not values:
        raise ConfigError(f"{word}: names no value")
    return values, parsed.package, True


def _swept(parsed: Any, key: str, word: str, options: Callable[[str], Sequence[str]]) -> Iterable[Any]:
    """Return the values of a word that Hydra reads as a sweep."""
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

    sweep = parsed._value
    if isinstance(sweep, IntervalSweep):
        raise ConfigError(f"{word}: an interval names no values; list some, {key}=0.1,0.2, or use range()")
    if isinstance(sweep, RangeSweep):
        return _range(sweep, word)
    if not isinstance(sweep, Glob):
        swept: Iterable[Any] = parsed.sweep_iterator()
        return swept
    legal = list(options(key))
    chosen: list[str] = sweep.filter(legal)
    if not chosen:
        there = f"none of {', '.join(legal)}" if legal else f"{key} is no group, which has options"
        raise ConfigError(f"{word}: names no value: {there}")
    return chosen


def _reason(value: str, error: Exception) -> str:
    """Return what a user is told of a value that Hydra's parser, with this error, did not take."""
    if value.endswith(",") or value.startswith(",") or ",," in value.replace(" ", ""):
        return "a value is missing beside a comma"
    if any(value.count(opened) != value.count(closed) for opened, closed in ("()", "[]", "{}")):
        return "a bracket has no other end"
    if any(value.count(quote) % 2 for quote in "'\""):
        return "a quote has no other end"
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    reason = re.sub(r"\w+ while evaluating '.*?': ", "", reason)
    return _SPECIAL if any(name in reason for name in _GRAMMAR) else reason


def _range(sweep: Any, word: str) -> Sequence[float]:
    """Return the values of a range.

    Its floats are counted up in decimals of 15 digits, as they were typed, so that they are those of the list: in
    binary, as Hydra counts, the third of range(0.1,0.5,0.1) is 0.30000000000000004, another configuration than 0.3.
    """
    bounds = (sweep.start, sweep.stop, sweep.step)
    if any(not math.isfinite(bound) for bound in bounds) or not sweep.step:
        raise ConfigError(f"{word}: expected finite bounds and a step that is not 0")
    whole = all(isinstance(bound, int) for bound in bounds)
    start, stop, step = (Decimal(bound) if whole else Decimal(f"{bound:.15g}") for bound in bounds)
    count = max(math.ceil((stop - start) / step), 0)
    if count > MOST:
        raise ConfigError(f"{word}: {count:,} values are too many for one command (at most {MOST:,})")
    values = [int(start + i * step) if whole else float(start + i * step) for i in range(count)]
    if sweep.shuffle:
        import random

        random.shuffle(values)
    return values


def word_of(value: Any) -> str:
    """Return a value in the grammar of overrides, with quotes only where it needs them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(word_of, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{word_of(item)}' for key, item in value.items())}}}"
    text = str(value)
    if not isinstance(value, str) or (
        _PLAIN.fullmatch(text)
        and not _NUMBER.fullmatch(text)
        and text.lower() not in ("null", "true", "false")
    ):
        return text
    # Only what stands before a quote is an escape.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def shown(text: str, most: int = 200) -> str:
    """Return a word for a message: in one line, and not without end."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
