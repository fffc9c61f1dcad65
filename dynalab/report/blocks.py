"""A part of the page; and blocks as sections make them whose analyses do not say by themselves what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.show import blocks
from dynalab.show.blocks import Block as Block
from dynalab.show.blocks import Code as Code
from dynalab.show.blocks import Warnings as Warnings
from dynalab.show.page import piece

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


class Words(blocks.Say):
    """A paragraph; its tone is `note` for small print, or nothing."""

    def __init__(self, text: str, tone: str = "") -> None:
        """Take a tone for what `Say` has a field of its own."""
        super().__init__(text, note=tone == "note")


class Picture(blocks.Picture):
    """A figure that is drawn."""

    def __init__(
        self, name: str, figure: Figure, caption: str, alt: str, titles: Mapping[str, str] | None = None
    ) -> None:
        """Take what `blocks.Picture` takes, by place."""
        super().__init__(name=name, figure=figure, caption=caption, alt=alt, titles=titles or {})


class Cell(blocks.Cell):
    """A cell of a table, its text before what it is sorted by."""

    def __init__(
        self,
        text: str,
        sort: float | str | None = None,
        number: bool = False,
        tone: str = "",
        swatch: str = "",
        link: str = "",
    ) -> None:
        """Take what `blocks.Cell` takes in another order; a number is told by its value."""
        super().__init__(sort, text, tone, swatch=swatch, link=link)


@dataclass(frozen=True)
class Table(blocks.Table):
    """A table that is not sorted by a click unless it says so."""

    sortable: bool = False


def cell(value: Any, *, tone: str = "", swatch: str = "", link: str = "") -> Cell:
    """Return a cell of a plain value with its text: a dash for what is missing."""
    shown = piece(blocks.Cell(value, tone=tone))
    return Cell(shown.text, shown.sort, shown.number, shown.tone, swatch, link)
