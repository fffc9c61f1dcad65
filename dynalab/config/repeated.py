"""Keys that are given twice in one command, of which only the last would count."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dynalab.core.errors import ConfigError

_WORD = re.compile(r"(?:\+\+|\+|~)?([^/=]+)(?:=(.*))?", re.DOTALL)


def require_once(words: Iterable[str], section: str = "", *, sweeps: bool = False) -> None:
    """Refuse a key that words set to different things; other words than keys are passed over.

    Mappings are merged, `train={steps: 10} train={batch_size: 3}`, so that none of two is lost.

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
        if before.removeprefix(section) != word.removeprefix(section):
            one, other = (text.partition("=")[2] for text in (before, word))
            both = bool(one and other and "~" not in (before[0], word[0]))
            each = f"; both: {key}={one},{other}" if sweeps and both else ""
            raise ConfigError(f"{before} {word}: {key} is given twice, and only the last would count{each}")
