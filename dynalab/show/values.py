"""Findings of an analysis that says nothing itself: its values and lists as plain tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dynalab.show.blocks import Table

MOST = 500


def tables_of(values: Mapping[str, Any]) -> Iterator[Table]:
    """Yield plain values as tables: single ones in one, every list of objects in one of its own."""
    facts = [[key, value] for key, value in values.items() if not isinstance(value, list | Mapping)]
    if facts:
        yield Table(["", ""], facts, sortable=False)
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield records(key, value)


def records(title: str, rows: list[Mapping[str, Any]], *, folded: bool = False) -> Table:
    """Return a table of a list of objects, at most 500 of them."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_plain(row.get(key)) for key in header] for row in rows[:MOST]]
    more = f" (the first {MOST} of {len(rows):,})" if len(rows) > MOST else ""
    return Table(header, cells, f"{title}{more}", folded=folded)


def _plain(value: Any) -> Any:
    if isinstance(value, list | Mapping):
        text = json.dumps(value)
        return text if len(text) <= 120 else f"{text[:117]}..."
    return value
