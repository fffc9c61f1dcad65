"""Blocks as lines of a terminal: sentences, and tables of which the first rows are shown; no figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dynalab.core.words import number, plain
from dynalab.show.blocks import Block, Cell, Say, Table, Warnings

MOST = 20


def lines(blocks: Iterable[Block]) -> Iterator[str]:
    """Yield what blocks say, line by line."""
    for block in blocks:
        if isinstance(block, Say):
            yield plain(block.text)
        elif isinstance(block, Warnings):
            yield from map(plain, block.lines)
        elif isinstance(block, Table) and not block.folded and block.rows:
            yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    rows = [[_text(value) for value in row] for row in table.rows[:MOST]]
    shown = [list(table.header), *rows]
    wide = [max(len(row[place]) for row in shown) for place in range(len(table.header))]
    right = [_is_number(table.rows, place) for place in range(len(table.header))]
    for row in shown if any(table.header) else shown[1:]:
        pieces = [
            text.rjust(width) if number_ else text.ljust(width)
            for text, width, number_ in zip(row, wide, right, strict=True)
        ]
        yield f"  {'  '.join(pieces)}".rstrip()
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
