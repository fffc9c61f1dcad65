"""The words of points, phases and verdicts, and of intervals."""

from __future__ import annotations

from collections.abc import Sequence

from dynalab.core.words import number, rounded

POINTS = {"train": "training points", "test": "held-out points", "random": "random points"}
VERDICTS = {
    "double_descent": "falls, rises and falls again",
    "ascent_and_descent": "rises and falls",
    "descent_and_ascent": "falls and rises",
    "ascent": "rises",
    "descent": "falls",
    "flat": "does not change",
    "cannot_tell": "cannot be told from noise",
}
LABELS = {"first_descent": "first descent", "ascent": "ascent", "second_descent": "second descent"}


def bounds(ends: Sequence[float | None], brackets: bool = False) -> str:
    """Return an interval in words, ` [1, 2]` or `1 to 2`; nothing where an end is not known."""
    low, high = (None if end is None else number(rounded(end)) for end in ends)
    if low is None or high is None:
        return ""
    return f" [{low}, {high}]" if brackets else f"{low} to {high}"
