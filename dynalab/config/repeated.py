"""Keys that are given twice in one command, of which only the last would count."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dynalab.core.errors import ConfigError

_WORD = re.compile(r"(?:\+\+|\+|~)?([^/=]+)(?:=(.*))?", re.DOTALL)


def require_once(words: Iterable[str], section: str = "", *, sweeps: bool = False) -> None:
    """Refuse a key that words set to different things; other words than keys are passed over.

    Mappings are passed over: they are merged key by key, `train={steps: 10} train={batch_size: 3}`.

    Args:
        words: The words of a command, as they were typed.
        section: What may stand before a key and means the same, `hmm.`.
        sweeps: Whether several values of a key are asked for by one word.

    Raises:
        ConfigError: A key is given twice.
    """
    given: dict[str, str] = {}
    for word in words:
        match = _WORD.fullmatch(word)
        if (
            match is None
            or (match[2] is None and not word.startswith("~"))
            or (match[2] or "").startswith("{")
        ):
            continue
        key = match[1].removeprefix(section)
        before = given.setdefault(key, word)
        one, other = (text.partition("=")[2] for text in (before, word))
        if (before[0] == "~") != (word[0] == "~") or not _same(one, other):
            both = bool(one and other and "~" not in (before[0], word[0]))
            each = f"; both: {key}={one},{other}" if sweeps and both else ""
            raise ConfigError(f"{before} {word}: {key} is given twice, and only the last would count{each}")


def _same(one: str, other: str) -> bool:
    """Return whether two values are, as 1e-3 and 0.001."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False
