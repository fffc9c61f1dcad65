"""Dataclasses as plain values that JSON and YAML can hold; no OmegaConf, which is slow to import."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def key_of(name: str) -> str:
    """Return the key of a field: where it is a word of Python, which no field can be, the field has a `_` behind it."""
    return name.removesuffix("_")


def plain(instance: Any) -> dict[str, Any]:
    """Return a dataclass as plain values that JSON and YAML can hold."""
    fields = dataclasses.fields(instance)
    return {key_of(field.name): plain_value(getattr(instance, field.name)) for field in fields}


def neutral_of(field: dataclasses.Field[Any]) -> Any:
    """Return a field's neutral default as a plain value; None of one without."""
    if field.default is not dataclasses.MISSING:
        return plain_value(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return plain_value(field.default_factory())
    return None


def plain_value(value: Any) -> Any:
    """Return a value of Python's as JSON and YAML have it: lists for tuples, numbers for NumPy's scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_value(item) for item in value]
    return plain_value(value.tolist()) if hasattr(value, "tolist") else value
