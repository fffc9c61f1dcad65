"""What is said of runs and analyses, as data: sentences, tables and figures, without a word of HTML.

A figure is data as well; a `Picture` is one that matplotlib has drawn already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.core.runs import Series

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True)
class Say:
    """A paragraph.

    Attributes:
        text: Plain text; `**` around words makes them bold, `` ` `` makes them code.
        headline: Whether it is what the analysis comes to: it leads the terminal, the section and the page's summary.
        note: Whether it is small print.
    """

    text: str
    headline: bool = False
    note: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell that is more than a plain value.

    Attributes:
        value: What a click on the column's head sorts by; None is last and shown as a dash.
        text: What is shown; empty: the value, as numbers are written.
        tone: `bad` for what went wrong, `quiet` for what did not happen, `found` for what did, `whole` for what must
            not be broken into lines, or nothing.
        run: Id of the run that the cell names.
        swatch: Colour of a small square before the text.
        link: A relative address, or an anchor on the page.
    """

    value: float | str | None
    text: str = ""
    tone: str = ""
    run: str = ""
    swatch: str = ""
    link: str = ""


def run_label(run: str) -> str:
    """Return the last part of a run's id, its name within its ensemble."""
    return run.rpartition("/")[2]


def run_cell(run: str) -> Cell:
    """Return the cell that names a run."""
    return Cell(run, run_label(run), run=run)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Names of the columns.
        rows: Plain values or cells; whoever renders them decides how numbers look.
        caption: Above it.
        folded: Whether it opens on a click only, under its caption; a terminal leaves it out.
        sortable: Whether a click on a column's head sorts it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    folded: bool = False
    sortable: bool = True


@dataclass(frozen=True)
class Code:
    """Text to be copied; a terminal leaves it out.

    Attributes:
        text: The lines.
        caption: Above it.
        folded: Whether it opens on a click only, under its caption.
    """

    text: str
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Warnings:
    """Lines that a reader must see before trusting the numbers."""

    lines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as data; a terminal leaves it out.

    Attributes:
        name: File name without suffix, unique among the figures of an analysis.
        caption: Under it; `**` as in `Say`.
        alt: What it shows, in a line, for those who do not see it.
        titles: Id of a part -> text under the pointer.
    """

    name: str
    caption: str
    alt: str
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Picture(Figure):
    """A figure that is drawn.

    Attributes:
        figure: By matplotlib.
    """

    figure: matplotlib.figure.Figure


@dataclass(frozen=True)
class Span:
    """A stretch of steps that is shaded.

    Attributes:
        begin: Its first step.
        end: Its last step; None: up to the last row.
        kind: What happened there; those of a kind have a colour.
    """

    begin: float
    end: float | None
    kind: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One run of a `Strips`.

    Attributes:
        run: Its id.
        label: What is said of it in its title; empty: its name alone.
        left: The curve on the left axis, None where it was not recorded.
        right: The curve on the right axis.
        dashed: A dashed curve on the left axis: a threshold.
        spans: Stretches that are shaded.
        marks: Label -> step of a vertical line.
    """

    run: str
    label: str = ""
    left: Series | None = None
    right: Series | None = None
    dashed: Series | None = None
    spans: Sequence[Span] = ()
    marks: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Strips(Figure):
    """Curves of runs under each other, stretches shaded and steps marked.

    Attributes:
        strips: The runs; the first six are drawn, so those with something to see come first.
        left: What the left axes show.
        right: What the right axes show; empty: there are none.
        dashed: What the dashed curves are.
    """

    strips: Sequence[Strip]
    left: str
    right: str = ""
    dashed: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of `Lines`.

    Attributes:
        title: What it shows.
        curves: Label -> id of a run -> its curve; each label has a median and a band, the runs are thin lines.
        logarithmic: Whether y is, where the values allow it.
        level: Where a dotted line runs across; None: nowhere.
    """

    title: str
    curves: Mapping[str, Mapping[str, Series]]
    logarithmic: bool = False
    level: float | None = None


@dataclass(frozen=True, kw_only=True)
class Lines(Figure):
    """Curves of all runs in panels under each other, over the same steps.

    Attributes:
        panels: From above.
        marks: Label -> step of a vertical line through all panels; None is left out.
        diverged: Id of a run -> step at which it diverged.
    """

    panels: Sequence[Panel]
    marks: Mapping[str, float | None] = field(default_factory=dict)
    diverged: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Map:
    """One run of a `Heatmap`.

    Attributes:
        run: Its id.
        steps: Of its rows, shape (T,).
        values: In every row and bin, shape (T, B).
        line: A curve on the map.
        dashed: A dashed one.
    """

    run: str
    steps: np.ndarray
    values: np.ndarray
    line: Series | None = None
    dashed: Series | None = None


@dataclass(frozen=True, kw_only=True)
class Heatmap(Figure):
    """Shares in bins over steps, a map a run; bins lie on either side of 0 as in `dynalab.curvature.bins`.

    Attributes:
        maps: The runs; the first four are drawn, so those with something to see come first.
        edges: Of the bins, shape (B + 1,).
        line: What the curves are; empty: there are none.
        dashed: What the dashed ones are.
    """

    maps: Sequence[Map]
    edges: np.ndarray
    line: str = ""
    dashed: str = ""


@dataclass(frozen=True, kw_only=True)
class Halved(Strips):
    """Sharpness of forks whose rate was halved (left) and of their runs (right), on one axis, against a threshold."""


@dataclass(frozen=True)
class Levels:
    """A column of dots beside `Intervals`: values by the level of a factor; their mean at each level is a dash.

    Attributes:
        name: What the levels are of.
        levels: Of every dot, shape (S,).
        values: Of every dot, shape (S,); NaN is not drawn.
    """

    name: str
    levels: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Intervals(Figure):
    """Shares with their intervals.

    Attributes:
        labels: Of the Q rows.
        shares: Between 0 and 1, shape (Q,).
        intervals: Shape (Q, 2).
        axis: What the shares are of.
        columns: Columns of dots beside them, those of the first rows.
        values: What these dots are.
    """

    labels: Sequence[str]
    shares: np.ndarray
    intervals: np.ndarray
    axis: str
    columns: Sequence[Levels] = ()
    values: str = ""


Block = Say | Table | Code | Warnings | Figure


def in_order(said: Iterable[Block], warnings: Sequence[str] = ()) -> list[Block]:
    """Return what an analysis says as it is read: headlines, what must be known before the numbers, the rest."""
    blocks = list(said)
    opening = [block for block in blocks if isinstance(block, Say) and block.headline]
    known = [Warnings(warnings)] if warnings else []
    return [*opening, *known, *(block for block in blocks if block not in opening)]
