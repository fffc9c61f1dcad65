"""The crossed design behind the labels of runs: `init3-order1` is level 3 of init and level 1 of order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from dynalab.core.errors import NothingMatched

STREAMS = ("init", "split", "order", "noise")
_PIECE = re.compile(r"([a-z]+)(\d+)$")
CROSSED = "design=crossed seed_streams.init=0..4 seed_streams.order=0..4"
HOW = f"train one: {CROSSED}"


@dataclass(frozen=True)
class Design:
    """A full grid of cells, one run a cell; some cells may be empty."""

    factors: tuple[str, ...]  # crossed streams, in the order of the labels
    levels: tuple[tuple[int, ...], ...]  # seeds of each, ascending
    cells: np.ndarray  # place of every run in the grid, integers of shape (S, F)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of levels of every factor."""
        return tuple(len(seeds) for seeds in self.levels)

    @property
    def empty(self) -> list[str]:
        """Labels of the cells without a run."""
        there = {tuple(cell) for cell in self.cells.tolist()}
        return [
            "-".join(
                f"{name}{seeds[i]}" for name, seeds, i in zip(self.factors, self.levels, cell, strict=True)
            )
            for cell in product(*map(range, self.shape))
            if cell not in there
        ]


def read(runs: Sequence[str]) -> Design:
    """Read the design off the runs' ids.

    Raises:
        NothingMatched: The labels are not those of a crossed design of two streams or more, or are those of several.
    """
    seeds = []
    for run in runs:
        label = run.rpartition("/")[2]
        if (parsed := _parse(label)) is None:
            raise NothingMatched(f"variance needs the runs of a crossed design, and {label} is none; {HOW}")
        seeds.append(parsed)
    factors = tuple(seeds[0])
    if any(tuple(own) != factors for own in seeds):
        raise NothingMatched("variance: the runs are of several designs; analyse one ensemble at a time")
    levels = tuple(tuple(sorted({own[name] for own in seeds})) for name in factors)
    kept = [place for place, level in enumerate(levels) if len(level) > 1]
    if len(kept) < 2:
        raise NothingMatched(
            "variance needs two or more crossed streams with two or more seeds each: where one stream alone varies, "
            f"all of the spread is its own; {HOW}"
        )
    factors, levels = tuple(factors[i] for i in kept), tuple(levels[i] for i in kept)
    cells = np.array(
        [[level.index(own[name]) for name, level in zip(factors, levels, strict=True)] for own in seeds]
    )
    if len(np.unique(cells, axis=0)) < len(cells):
        raise NothingMatched("variance: several runs have the same seeds; analyse one ensemble at a time")
    return Design(factors, levels, cells)


def level_of(run: str, stream: str) -> int:
    """Return the seed of a stream that stands in a run's id."""
    return (_parse(run.rpartition("/")[2]) or {})[stream]


def _parse(label: str) -> dict[str, int] | None:
    pieces = [_PIECE.match(piece) for piece in label.split("-")]
    seeds = {piece[1]: int(piece[2]) for piece in pieces if piece is not None}
    return seeds if len(seeds) == len(pieces) and set(seeds) <= set(STREAMS) else None
