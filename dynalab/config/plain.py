"""Dataclasses as plain values that JSON and YAML can hold; no OmegaConf, which is slow to import."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def plain(instance: Any) -> dict[str, Any]:
    """Return a dataclass as plain values that JSON and YAML can hold."""
    return {field.name: _plain(getattr(instance, field.name)) for field in dataclasses.fields(instance)}


def neutral_of(field: dataclasses.Field[Any]) -> Any:
    """Return a field's neutral default as a plain value; None of one without."""
    if field.default is not dataclasses.MISSING:
        return _plain(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return _plain(field.default_factory())
    return None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
