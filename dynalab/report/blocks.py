"""A part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynalab.show.blocks import Block


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
