"""What is said of runs and analyses, as data: sentences, tables and figures, without a word of HTML.

Figures are in `dynalab.show.figures`; their names are here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dynalab.show.figures import Arrow as Arrow
from dynalab.show.figures import Dots as Dots
from dynalab.show.figures import Effect as Effect
from dynalab.show.figures import Figure as Figure
from dynalab.show.figures import Graph as Graph
from dynalab.show.figures import Halved as Halved
from dynalab.show.figures import Heatmap as Heatmap
from dynalab.show.figures import Intervals as Intervals
from dynalab.show.figures import Levels as Levels
from dynalab.show.figures import Lines as Lines
from dynalab.show.figures import Map as Map
from dynalab.show.figures import Node as Node
from dynalab.show.figures import Panel as Panel
from dynalab.show.figures import Picture as Picture
from dynalab.show.figures import Polygons as Polygons
from dynalab.show.figures import Profiles as Profiles
from dynalab.show.figures import Ranking as Ranking
from dynalab.show.figures import Raster as Raster
from dynalab.show.figures import Regions as Regions
from dynalab.show.figures import Response as Response
from dynalab.show.figures import Selection as Selection
from dynalab.show.figures import Similarities as Similarities
from dynalab.show.figures import SimilarityMap as SimilarityMap
from dynalab.show.figures import Span as Span
from dynalab.show.figures import Strip as Strip
from dynalab.show.figures import Strips as Strips
from dynalab.show.figures import Surface as Surface
from dynalab.show.figures import Surfaces as Surfaces
from dynalab.show.figures import Tiling as Tiling
from dynalab.show.figures import telling as telling


@dataclass(frozen=True)
class Say:
    """A paragraph."""

    text: str  # plain text; `**` around words makes them bold, `` ` `` makes them code
    # Whether it is what the analysis comes to: it leads the terminal, the section and the page's summary.
    headline: bool = False
    note: bool = False  # whether it is small print


@dataclass(frozen=True)
class Cell:
    """A cell that is more than a plain value."""

    value: float | str | None  # what a click on the column's head sorts by; None is last and shown as a dash
    text: str = ""  # what is shown; empty: the value, as numbers are written
    # `bad` for what went wrong, `quiet` for what did not happen, `found` for what did, `whole` for what must not be
    # broken into lines, or nothing.
    tone: str = ""
    run: str = ""  # id of the run that the cell names
    setting: str = ""  # id of the ensemble that the cell names
    swatch: str = ""  # colour of a small square before the text
    link: str = ""  # a relative address, or an anchor on the page
    # Place of its colour among those of states, and their number, in place of `swatch`.
    state: tuple[int, int] | None = None


def run_label(run: str) -> str:
    """Return the last part of a run's id, its name within its ensemble."""
    return run.rpartition("/")[2]


def run_cell(run: str) -> Cell:
    """Return the cell that names a run."""
    return Cell(run, run_label(run), run=run)


@dataclass(frozen=True)
class Table:
    """A table."""

    header: Sequence[str]  # names of the columns
    rows: Sequence[Sequence[Any]]  # plain values or cells; whoever renders them decides how numbers look
    caption: str = ""  # above it
    folded: bool = False  # whether it opens on a click only, under its caption; a terminal leaves it out
    sortable: bool = True  # whether a click on a column's head sorts it


@dataclass(frozen=True)
class Code:
    """Text to be copied; a terminal leaves it out."""

    text: str  # the lines
    caption: str = ""  # above it
    folded: bool = False  # whether it opens on a click only, under its caption


@dataclass(frozen=True)
class Warnings:
    """Lines that a reader must see before trusting the numbers."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Number:
    """A number that is written large at the top of a page; a terminal and a section leave it out."""

    value: str  # the number
    name: str  # what it is
    about: str = ""  # its spread, and of how many runs


Block = Say | Table | Code | Warnings | Number | Figure


def in_order(said: Iterable[Block], warnings: Sequence[str] = ()) -> list[Block]:
    """Return what an analysis says as it is read: headlines, what must be known before the numbers, the rest."""
    blocks = list(said)
    opening = [block for block in blocks if isinstance(block, Say) and block.headline]
    known = [Warnings(warnings)] if warnings else []
    return [*opening, *known, *(block for block in blocks if block not in opening)]
