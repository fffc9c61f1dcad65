"""Findings of an analysis that says nothing itself: its values and lists as plain tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dynalab.show.blocks import Table

MOST = 500


def tables_of(values: Mapping[str, Any]) -> Iterator[Table]:
    """Yield plain values as tables: single ones in one, every list of objects in one of its own, of at most 500."""
    facts = [[key, value] for key, value in values.items() if not isinstance(value, list | Mapping)]
    if facts:
        yield Table(["", ""], facts, sortable=False)
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            header = list(dict.fromkeys(name for row in value for name in row))
            cells = [[_plain(row.get(name)) for name in header] for row in value[:MOST]]
            more = f" (the first {MOST} of {len(value):,})" if len(value) > MOST else ""
            yield Table(header, cells, f"{key}{more}")


def _plain(value: Any) -> Any:
    if isinstance(value, list | Mapping):
        text = json.dumps(value)
        return text if len(text) <= 120 else f"{text[:117]}..."
    return value
