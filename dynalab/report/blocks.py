"""A part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynalab.show.blocks import Block


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str  # the heading
    anchor: str  # its id, unique on the page; also the beginning of its figures' file names
    blocks: Sequence[Block] = ()  # what stands in it
    sections: Sequence[Section] = ()  # parts under headings of the next level
    folded: bool = False  # whether it opens on a click only
    lead: str = ""  # name of the figure that answers what it is about; empty: none does
