"""A few runs of a stack at a time, so that what a pass makes of them stays in a core's cache."""

from __future__ import annotations

from itertools import pairwise, starmap

# One network alone is trained beside a copy of itself: at width 1 batched products pick other kernels, and a seed's
# bits would depend on whether it was trained alone.
LEAST_WIDTH = 2


def parts(width: int, size: int) -> list[slice]:
    """Cut `width` runs into parts of `size` runs, the last one of up to one more; none is below the least width."""
    size = max(size, LEAST_WIDTH)
    return [*starmap(slice, pairwise([*range(0, max(width - LEAST_WIDTH, 0) + 1, size), width]))]
