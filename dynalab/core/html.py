"""A small table in HTML, as a notebook shows an object: everything in it is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from dynalab.core.words import clean, number


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], notes: Iterable[str] = ()) -> str:
    """Return a table under a title, with notes below it.

    Args:
        title: A line of text.
        header: Names of the columns; empty for a table that has none.
        rows: Their values: numbers are right-aligned, a dash stands for None.
        notes: Lines of text.
    """
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    below = "".join(f"<div>{_text(line)}</div>" for line in notes)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<div><div><b>{_text(title)}</b></div><table>{head}<tbody>{body}</tbody></table>{below}</div>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return f'<td style="text-align:right">{number(value)}</td>'
    return f'<td style="text-align:left">{_text(value)}</td>'


def _text(value: object) -> str:
    return html.escape(clean(value))
