"""An analysis without a section of its own: its values and lists as plain tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dynalab.report.blocks import Section
from dynalab.report.sections.context import Context
from dynalab.report.words import count
from dynalab.show.blocks import Block, Table, Warnings
from dynalab.store.results import Result

# Keys that every result has and the page shows elsewhere.
_KNOWN = (
    "schema_version",
    "id",
    "kind",
    "ensemble",
    "ensembles",
    "warnings",
    "config",
    "inputs",
    "version",
    "created",
    "dynalab",
)
MOST = 500


def summary(result: Result, context: Context) -> list[str]:
    """Return a sentence that names the analysis."""
    inputs = result.data.get("inputs") or []
    return [f"Analysis **{result.kind}** of {count(len(inputs), 'run')}: see below."]


def section(result: Result, context: Context) -> Section:
    """Return the section of any analysis."""
    blocks: list[Block] = []
    if lines := context.warnings(result):
        blocks.append(Warnings(lines))
    own = {key: value for key, value in result.data.items() if key not in _KNOWN}
    if facts := {key: value for key, value in own.items() if not isinstance(value, list | Mapping)}:
        blocks.append(Table(["", ""], [[key, value] for key, value in facts.items()], sortable=False))
    blocks += [records(key, value) for key, value in own.items() if _is_table(value)]
    return Section(f"{result.kind}", context.anchor(result), blocks)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


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
