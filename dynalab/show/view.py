"""What an analysis says in a notebook: text where there is no browser, HTML with figures where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dynalab.core.plugins import naming
from dynalab.show import terminal
from dynalab.show.blocks import Block


@dataclass(frozen=True, repr=False)
class View:
    """Blocks that a notebook shows, and that can be gone through one by one."""

    blocks: Sequence[Block]  # the blocks; `dynalab.figures.draw` draws those that are figures
    name: str = "dynalab"  # put before the ids in figures, so that those of several results do not clash
    # Width and height of its figures, in inches; None: of each its own.
    size: tuple[float, float | None] | None = None
    made: object = None  # the function that they are from, which errors in drawing them are put down to

    def __iter__(self) -> Iterator[Block]:
        """Go through the blocks."""
        return iter(self.blocks)

    def __len__(self) -> int:
        """Return how many blocks there are."""
        return len(self.blocks)

    def __repr__(self) -> str:
        """Return the lines of a terminal."""
        with naming(self.made):
            return "\n".join(terminal.lines(self.blocks))

    def _repr_html_(self) -> str:
        from dynalab.show.page import html

        with naming(self.made):
            return html(self.blocks, self.name, self.size)
