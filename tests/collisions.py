"""What the words of a drawn figure do to each other: those that overlap, and those that leave the figure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from dynalab.show.blocks import Block
from dynalab.show.blocks import Figure as Shown
from dynalab.show.plots import draw
from dynalab.show.plots.fit import settle
from dynalab.show.plots.style import style

# Widths of figures of papers, in inches: one column, one and a half, two.
WIDTHS = (3.25, 5.0, 7.0)
# Points by which boxes may meet: those of letters have some room in them.
MEET = 0.4


def collisions(figure: Figure) -> list[str]:
    """Return a line about every pair of words that overlap, and about all that are cut at the figure's edges."""
    boxes = drawn(figure)
    width, height = 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    made = []
    for words, box in boxes:
        low, high = box.min(0), box.max(0)
        if (low < -MEET).any() or high[0] > width + MEET or high[1] > height + MEET:
            made.append(
                f"{words!r} is cut: {low.round(1)} to {high.round(1)} of {width:.0f} x {height:.0f} points"
            )
    made += [
        f"{a!r} and {b!r} overlap" for (a, one), (b, other) in combinations(boxes, 2) if overlap(one, other)
    ]
    return made


def collisions_of(blocks: Iterable[Block]) -> list[tuple[str, float, list[str]]]:
    """Return name, width and `collisions` of every figure among blocks that has some at one of the widths."""
    figures = [block for block in blocks if isinstance(block, Shown)]
    assert figures
    made = [
        (one.name, width, collisions(draw(one, size=(width, None)))) for one in figures for width in WIDTHS
    ]
    return [item for item in made if item[2]]


def drawn(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """Return the words that a figure shows, each with the corners of its box, (4, 2), in points."""
    made: dict[int, tuple[str, np.ndarray]] = {}
    drawing = Text.draw

    def noted(text: Text, renderer: Any) -> None:
        drawing(text, renderer)
        if text.get_visible() and text.get_text().strip():
            made[id(text)] = text.get_text(), corners(text, renderer) * 72 / figure.dpi

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Text, "draw", noted)
        with style():
            # As pages and pictures draw it: it is laid out.
            settle(figure)
            figure.set_layout_engine(None)
            figure.draw_without_rendering()
    return [*made.values()]


def corners(text: Text, renderer: Any) -> np.ndarray:
    """Return the corners of a text's box, (4, 2), in pixels, turned as its letters are."""
    turned, angle = text.get_window_extent(renderer), np.deg2rad(text.get_rotation())
    middle = np.array([turned.x0 + turned.x1, turned.y0 + turned.y1]) / 2
    was = text.get_rotation()
    text.set_rotation(0)
    level = text.get_window_extent(renderer)
    text.set_rotation(was)
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [level.width / 2, level.height / 2]
    return middle + half @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def overlap(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two rectangles (4, 2) share more than an edge: no line along a side of theirs keeps them apart."""
    for box in (one, other):
        for side in (box[1] - box[0], box[2] - box[1]):
            along = side / (np.hypot(*side) or 1.0)
            a, b = one @ along, other @ along
            if min(a.max(), b.max()) - max(a.min(), b.min()) <= MEET:
                return False
    return True
