"""Tables as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

_GAP, _LEAST = 2, 10


def aligned(
    rows: Sequence[Sequence[str]], right: Sequence[bool] = (), width: int | None = None
) -> Iterator[str]:
    """Yield rows of cells as lines, in columns.

    Args:
        rows: The cells.
        right: Which columns are numbers, set to the right.
        width: Columns of the terminal: where all do not fit, the widest texts are broken into several lines.
    """
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [*right] or [False] * len(wide)
    while width and sum(wide) + _GAP * (len(wide) - 1) > width:
        widest, place = max((0 if right[place] else w, place) for place, w in enumerate(wide))
        if widest <= _LEAST:
            break
        wide[place] -= 1
    for row in rows:
        parts = [
            [text] if len(text) <= w else textwrap.wrap(text, w, break_on_hyphens=False)
            for text, w in zip(row, wide, strict=True)
        ]
        for pieces in zip_longest(*parts, fillvalue=""):
            cells = zip(pieces, wide, right, strict=True)
            yield (" " * _GAP).join(t.rjust(w) if r else t.ljust(w) for t, w, r in cells).rstrip()
