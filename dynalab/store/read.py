"""Reading files that somebody else may have written: plain values and nothing more, or a `StoreError`."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from dynalab.core.errors import StoreError

# No value that dynalab writes is nested half as deep; the most of a configuration is a list of some thousand steps.
_DEPTH = 64
_MOST = 100_000
# Of a value that is wrong, in a message.
_SHOWN = 60
_SURROGATE = re.compile(rb"\\u[dD][89abAB]")


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Read a file, or so many bytes of its beginning.

    Raises:
        StoreError: It is missing, is no file (a pipe or a device has no end), or does not fit into memory.
    """
    with opened(path) as file:
        return file.read(-1 if most is None else most)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Hold a file open for reading; errors are those of `read_bytes`, also of what is read while the block lasts."""
    try:
        # A pipe that nobody writes to would be waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StoreError(f"{path} is damaged: it is no file")
            yield file
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except MemoryError as error:
        raise StoreError(f"{path} is damaged: it is larger than the memory") from error


def read_json(path: Path) -> Any:
    """Read a JSON document, or raise a `StoreError`; JSON has neither NaN nor infinities."""
    data = read_bytes(path)
    try:
        document = json.loads(data, parse_constant=_no_number, parse_float=_finite)
        if _SURROGATE.search(data):
            # Half a character, which no file and no terminal takes.
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return document


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


@cache
def _loader() -> Any:
    """Return a loader without merge keys, which grow exponentially when they are nested; dynalab writes none."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Leave a mapping as it stands."""

    return Loader


def read_yaml(path: Path, text: bytes | None = None) -> Any:
    """Read a YAML document of plain values, or raise a `StoreError`: no dates, no tags, nothing that is not finite.

    `text` is what the file holds, where that is known already.
    """
    # Listing and completion read none, and it is slow to import.
    import yaml

    text = read_bytes(path) if text is None else text
    try:
        tree = yaml.load(text, Loader=_loader())
        _check_plain(tree, _DEPTH, [_MOST])
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {(str(error) or repr(error)).splitlines()[0]}") from error
    return tree


def _check_plain(value: Any, depth: int, left: list[int]) -> None:
    """Check that JSON could hold a value; `left` counts down, since a short document can stand for an endless one."""
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        raise ValueError("it is nested too deep, or has too many values")
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{wrong[0]!r} is no key")
    elif not math.isfinite(value) if isinstance(value, float) else type(value) is int and abs(value) >= 2**64:
        raise ValueError(f"{value!r} is no number")
    elif not isinstance(value, list | str | int | float | None):
        raise ValueError(f"{value!r} is no plain value")
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_plain(item, depth - 1, left)


def check(value: Any, wanted: Any, key: str = "") -> None:
    """Check the types of a document's known fields; what it has beyond them is a newer dynalab's.

    Args:
        value: The document, or a part of it.
        wanted: A predicate; `{field: wanted}` for an object, of which every field may be absent; `[wanted]` for a list;
            `(wanted,)` for what may be null.
        key: Where the part stands.

    Raises:
        ValueError: Names the first field that is something else.
    """
    if isinstance(wanted, tuple):
        if value is None:
            return
        (wanted,) = wanted
    if isinstance(wanted, dict) and isinstance(value, dict):
        for name in wanted.keys() & value.keys():
            check(value[name], wanted[name], f"{key}.{name}" if key else name)
    elif isinstance(wanted, list) and isinstance(value, list):
        for index, item in enumerate(value):
            check(item, wanted[0], f"{key}[{index}]")
    elif not callable(wanted) or not wanted(value):
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise ValueError(f"{key} is {shown}" if key else "it holds no object")


def text(value: Any) -> bool:
    """Return whether a value is a text."""
    return isinstance(value, str)


def flag(value: Any) -> bool:
    """Return whether a value is true or false."""
    return isinstance(value, bool)


def number(value: Any) -> bool:
    """Return whether a value is a number."""
    return type(value) in (int, float)


def whole(value: Any) -> bool:
    """Return whether a value is a count, a step or a seed: an integer from 0 on that 64 bits hold."""
    return type(value) is int and 0 <= value < 2**63


def positive(value: Any) -> bool:
    """Return whether a value is a distance: an integer from 1 on that 64 bits hold."""
    return whole(value) and value > 0


def mark(value: Any) -> bool:
    """Return whether a value is `[rows, crc]`, what is vouched for of a series."""
    return isinstance(value, list) and len(value) == 2 and all(map(whole, value))


def mapping(wanted: Any, key: Callable[[Any], bool] = text) -> Callable[[Any], bool]:
    """Return a predicate for an object whose values (and keys) are something."""

    def holds(value: Any) -> bool:
        if not isinstance(value, dict) or not all(map(key, value)):
            return False
        try:
            for item in value.values():
                check(item, wanted)
        except ValueError:
            return False
        return True

    return holds
