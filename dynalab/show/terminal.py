"""Blocks as lines of a terminal: sentences, and tables under their captions, of the first rows; no figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dynalab.core.tables import aligned
from dynalab.core.words import number, plain
from dynalab.show.blocks import Block, Cell, Say, Table, Warnings

MOST = 20
PLAIN = "Every run"
_INDENT = "  "


def lines(blocks: Iterable[Block], width: int | None = None) -> Iterator[str]:
    """Yield what blocks say, line by line, tables in lines of at most `width` columns where that can be."""
    for block in blocks:
        if isinstance(block, Say):
            yield plain(block.text)
        elif isinstance(block, Warnings):
            yield from map(plain, block.lines)
        elif isinstance(block, Table) and not block.folded and block.rows:
            yield from _table(block, width)


def _table(table: Table, width: int | None) -> Iterator[str]:
    # Of a table with a row a run its first column says as much.
    if table.caption != PLAIN:
        yield from filter(None, [plain(table.caption)])
    rows = [[_text(value) for value in row] for row in table.rows[:MOST]]
    shown = [list(table.header), *rows]
    right = [_is_number(table.rows, place) for place in range(len(table.header))]
    room = None if width is None else width - len(_INDENT)
    for line in aligned(shown if any(table.header) else shown[1:], right, room):
        yield f"{_INDENT}{line}".rstrip()
    if len(table.rows) > MOST:
        yield f"  and {len(table.rows) - MOST:,} more"


def _text(value: Any) -> str:
    if isinstance(value, Cell):
        return plain(value.text) or _text(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if value is None or isinstance(value, int | float) else plain(str(value))


def _is_number(rows: Sequence[Sequence[Any]], place: int) -> bool:
    values = [row[place].value if isinstance(row[place], Cell) else row[place] for row in rows]
    some = [value for value in values if value is not None]
    return bool(some) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in some
    )
