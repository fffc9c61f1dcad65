"""Typed findings to plain values and back.

Findings are frozen dataclasses (what stands in them may be msgspec's structs, where a key is no name in Python). A
field of type `Frame` is a table: it stands beside the plain values, in a Parquet file of the field's name, or of the
name that `frame` gives it.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

T = TypeVar("T")

# A pandas data frame.
Frame = Annotated[Any, "table"]


_hints: Callable[[Any], dict[str, Any]] = functools.cache(
    functools.partial(typing.get_type_hints, include_extras=True)
)


def frame(name: str) -> Any:
    """Declare a table that is stored under another name than the field's."""
    return dataclasses.field(default=None, metadata={"table": name})


def table_names(cls: type[Any]) -> dict[str, str]:
    """Return field -> name of the table, of the fields of a class of findings that are tables."""
    hints = _hints(cls)
    fields = [field for field in dataclasses.fields(cls) if hints[field.name] is Frame]
    return {field.name: field.metadata.get("table", field.name) for field in fields}


def tables(findings: Any) -> dict[str, Any]:
    """Return the tables of findings by name; those that are None are left out."""
    names = table_names(type(findings)).items()
    return {name: table for field, name in names if (table := getattr(findings, field)) is not None}


def plain(findings: Any) -> dict[str, Any]:
    """Return findings as JSON has them, without their tables and warnings; NaN and infinities are null.

    A field that is msgspec's `UNSET` is not there.
    """
    import msgspec

    apart = {*table_names(type(findings)), "warnings"}
    values = {name: getattr(findings, name) for name in _fields(type(findings)) if name not in apart}
    return {
        name: finite(msgspec.to_builtins(value, str_keys=True, enc_hook=_scalar))
        for name, value in values.items()
        if value is not msgspec.UNSET
    }


def restore(cls: type[T], data: Mapping[str, Any], table: Callable[[str], Any] = lambda name: None) -> T:
    """Return findings of a class from plain values, the inverse of `plain`; keys that it does not have are left out.

    Args:
        cls: The class of the findings.
        data: Plain values.
        table: Name -> data frame.

    Raises:
        ValueError: The values are no such findings; the message names the place.
    """
    import msgspec

    findings: T = msgspec.convert({key: data[key] for key in _fields(cls) if key in data}, cls, strict=False)
    names = table_names(cls).items()
    frames = {field: frame for field, name in names if (frame := table(name)) is not None}
    return dataclasses.replace(findings, **frames) if frames else findings  # type: ignore[type-var]


def _fields(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _scalar(value: Any) -> Any:
    """Return NumPy's scalars and arrays as plain values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} is no plain value")


def finite(value: Any) -> Any:
    """Return plain values, NumPy's among them, with NaN and infinities as null, since JSON has neither."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return finite(value.tolist()) if hasattr(value, "tolist") else value
