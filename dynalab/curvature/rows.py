"""How many rows tell whether a run was at the edge of stability, and how close they have to be."""

from __future__ import annotations

# Rows with a ratio of sharpness to threshold, and steps at the beginning of an adaptive optimizer that are not looked
# at, for its preconditioner is not settled.
FEWEST, SKIPPED = 10, 10


def close_enough(last: int, skip: int = 0, unit: int = 1) -> int | None:
    """Return the widest distance, in steps, of rows of which `FEWEST` are looked at; None where none is so close.

    Args:
        last: Step at which the run ends; rows begin at step 0.
        skip: The first step that is looked at.
        unit: A distance beyond this is a multiple of it.
    """
    every = last // (FEWEST - 1)
    while every and last // every - (skip - 1) // every < FEWEST:
        every -= 1
    return (every - every % unit or every) or None
