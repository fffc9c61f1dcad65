"""What a page is made of: sections of words, figures, tables and code. Sections of analyses are built from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Attributes:
        text: Plain text; `**` around words makes them bold.
        tone: `lead` for the summary, `note` for small print, or nothing.
    """

    text: str
    tone: str = ""
    kind: str = "words"


@dataclass(frozen=True)
class Warnings:
    """Lines that a reader must see before trusting the numbers."""

    lines: Sequence[str]
    kind: str = "warnings"


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: File name without suffix, unique in its section.
        figure: The figure.
        caption: Under it; `**` as in `Words`.
        alt: What it shows, in a line, for those who do not see it.
        titles: Id of a part -> text under the pointer.
    """

    name: str
    figure: Figure
    caption: str
    alt: str
    titles: Mapping[str, str] = field(default_factory=dict)
    kind: str = "picture"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What is shown.
        sort: What a click on the column's head sorts by; None is last.
        number: Whether it stands right-aligned.
        tone: `bad` for what went wrong, `quiet` for what did not happen, or nothing.
        swatch: Colour of a small square before the text.
        link: A relative address, or an anchor on the page.
    """

    text: str
    sort: float | str | None = None
    number: bool = False
    tone: str = ""
    swatch: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Names of the columns.
        rows: Cells.
        caption: Above it.
        folded: Whether it opens on a click only, under its caption.
        sortable: Whether a click on a column's head sorts it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False
    sortable: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Code:
    """Text to be copied.

    Attributes:
        text: The lines.
        caption: Above it.
        folded: Whether it opens on a click only, under its caption.
    """

    text: str
    caption: str = ""
    folded: bool = False
    kind: str = "code"


Block: TypeAlias = Words | Warnings | Picture | Table | Code


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading.

    Attributes:
        title: The heading.
        anchor: Its id, unique on the page; also the beginning of its figures' file names.
        blocks: What stands in it.
        sections: Parts under headings of the next level.
    """

    title: str
    anchor: str
    blocks: Sequence[Block] = ()
    sections: Sequence[Section] = ()


def cell(value: Any, *, tone: str = "", swatch: str = "", link: str = "") -> Cell:
    """Return a cell of a plain value: numbers right-aligned and sorted as numbers, a dash for what is missing."""
    from dynalab.report.words import number

    if value is None:
        return Cell("\u2013", None, True, tone or "quiet", swatch, link)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", str(value), False, tone, swatch, link)
    if isinstance(value, int | float):
        return Cell(number(value), float(value), True, tone, swatch, link)
    text = str(value)
    return Cell(text, text, False, tone, swatch, link)
