"""Figures as data: what is drawn, without matplotlib. `dynalab.show.plots` draws them.

A `Picture` is one that matplotlib has drawn already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dynalab.core.runs import Series

if TYPE_CHECKING:
    import matplotlib.figure


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


@dataclass(frozen=True, kw_only=True)
class Dots(Figure):
    """Estimates with their intervals, a row each, about zero.

    Attributes:
        labels: Names of the N rows.
        values: The estimates; None where there is none.
        intervals: Bounds; one of None lies beyond what was seen, an interval of None is not drawn.
        marked: Whether each is what is looked for.
        notes: Words beside each.
        unit: Of the estimates.
    """

    labels: Sequence[str]
    values: Sequence[float | None]
    intervals: Sequence[Sequence[float | None] | None]
    marked: Sequence[bool]
    notes: Sequence[str]
    unit: str


@dataclass(frozen=True, kw_only=True)
class Raster(Figure):
    """A row a run, coloured by its state over the steps.

    Attributes:
        runs: Ids of the S runs.
        steps: Of every run's rows, shapes (T,).
        states: At these, integers from 0, shapes (T,).
        n_states: K.
        order: What the runs are sorted by, the least on top, and None (never) last; None: the last of `landmarks`.
        begins: When the first change of state comes; None where none does.
        landmarks: Label -> step of every run, None where it never came; the page adds those that it knows.
    """

    runs: Sequence[str]
    steps: Sequence[np.ndarray]
    states: Sequence[np.ndarray]
    n_states: int
    order: Sequence[float | None] | None = None
    begins: float | None = None
    landmarks: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Profiles(Figure):
    """Numbers about zero in a map, a row a state.

    Attributes:
        values: Shape (K, M); NaN where there is none.
        columns: Names of the M columns.
        unit: Of the numbers.
    """

    values: np.ndarray
    columns: Sequence[str]
    unit: str


@dataclass(frozen=True)
class Node:
    """A state of a `Graph`.

    Attributes:
        text: Under it.
        share: Of all rows, for its size.
        runs: Number of runs that visit it.
    """

    text: str
    share: float
    runs: int


@dataclass(frozen=True)
class Arrow:
    """A way between two states of a `Graph`.

    Attributes:
        start: Place of the state it leaves.
        end: Place of the state it enters.
        runs: Number of runs that take it, for its width.
        marked: Whether it is one of several that runs part on.
    """

    start: int
    end: int
    runs: int
    marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph(Figure):
    """States from left to right, and the ways between them; in `titles` they are `state-0` and `edge-0-1`.

    Attributes:
        nodes: The states in their order.
        arrows: The ways.
        total: Number of runs.
    """

    nodes: Sequence[Node]
    arrows: Sequence[Arrow]
    total: int


@dataclass(frozen=True, kw_only=True)
class Selection(Figure):
    """A score and a criterion against the sizes of a model that were tried.

    Attributes:
        tried: The N sizes.
        scores: Score of each, with its error; None where there is none.
        errors: Likewise.
        criterion: A second number of each.
        chosen: The size that was taken.
        converged: Whether each fit converged.
        paired: Whether an error is that of the difference to the best score.
    """

    tried: Sequence[int]
    scores: Sequence[float | None]
    errors: Sequence[float | None]
    criterion: Sequence[float | None]
    chosen: int
    converged: Sequence[bool]
    paired: bool = False
