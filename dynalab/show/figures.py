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
    """A figure as data; a terminal leaves it out."""

    name: str  # file name without suffix, unique among the figures of an analysis
    caption: str  # under it; `**` as in `Say`
    alt: str  # what it shows, in a line, for those who do not see it
    titles: Mapping[str, str] = field(default_factory=dict)  # id of a part -> text under the pointer


@dataclass(frozen=True, kw_only=True)
class Picture(Figure):
    """A figure that is drawn."""

    figure: matplotlib.figure.Figure  # by matplotlib
    runs: Sequence[str] = ()  # ids of its runs, in the order of its rows


@dataclass(frozen=True)
class Span:
    """A stretch of steps that is shaded."""

    begin: float  # its first step
    end: float | None  # its last step; None: up to the last row
    kind: str  # what happened there; those of a kind have a colour


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One run of a `Strips`."""

    run: str  # its id
    label: str = ""  # what is said of it in its title; empty: its name alone
    left: Series | None = None  # the curve on the left axis, None where it was not recorded
    right: Series | None = None  # the curve on the right axis
    dashed: Series | None = None  # a dashed curve on the left axis: a threshold
    spans: Sequence[Span] = ()  # stretches that are shaded
    marks: Mapping[str, float | None] = field(default_factory=dict)  # label -> step of a vertical line


@dataclass(frozen=True, kw_only=True)
class Strips(Figure):
    """Curves of runs under each other, stretches shaded and steps marked."""

    strips: Sequence[Strip]  # the runs; the first six are drawn, so those with something to see come first
    left: str  # what the left axes show
    right: str = ""  # what the right axes show; empty: there are none
    dashed: str = ""  # what the dashed curves are


def telling(strips: Sequence[Strip], oddity: Mapping[str, float]) -> Sequence[Strip]:
    """Return strips as they are to be drawn: those with something shaded or marked, then the others, the oddest first.

    Where there is nothing in any, the oddest alone: six curves with nothing to see say less than one.

    Args:
        strips: The runs.
        oddity: Id of a run -> how odd it is.
    """
    some: list[Strip] = []
    others: list[Strip] = []
    for strip in strips:
        seen = strip.spans or any(step is not None for step in strip.marks.values())
        (some if seen else others).append(strip)
    others.sort(key=lambda strip: -oddity[strip.run])
    return [*some, *others] if some else others[:1]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of `Lines`."""

    title: str  # what it shows
    # Label -> id of a run -> its curve; each label has a median and a band, the runs are thin lines.
    curves: Mapping[str, Mapping[str, Series]]
    logarithmic: bool = False  # whether y is, where the values allow it
    level: float | None = None  # where a dotted line runs across; None: nowhere
    # Label -> a dashed curve in its colour: a threshold.
    dashed: Mapping[str, Series] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lines(Figure):
    """Curves of all runs in panels under each other, over the same steps, or places on another axis."""

    panels: Sequence[Panel]  # from above
    # Label -> step of a vertical line through all panels; None is left out.
    marks: Mapping[str, float | None] = field(default_factory=dict)
    diverged: Mapping[str, float] = field(default_factory=dict)  # id of a run -> step at which it diverged
    axis: str = ""  # what the curves are over, where it is not steps


@dataclass(frozen=True, kw_only=True)
class Map:
    """One run of a `Heatmap`."""

    run: str  # its id
    steps: np.ndarray  # of its rows, shape (T,)
    values: np.ndarray  # in every row and bin, shape (T, B)
    line: Series | None = None  # a curve on the map
    dashed: Series | None = None  # a dashed one


@dataclass(frozen=True, kw_only=True)
class Heatmap(Figure):
    """Shares in bins over steps, a map a run; bins lie on either side of 0 as in `dynalab.curvature.bins`."""

    maps: Sequence[Map]  # the runs; the first four are drawn, so those with something to see come first
    edges: np.ndarray  # of the bins, shape (B + 1,)
    line: str = ""  # what the curves are; empty: there are none
    dashed: str = ""  # what the dashed ones are


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A picture of `Surfaces`."""

    title: str  # above it
    x: np.ndarray  # places along the first axis, ascending, shape (n,)
    y: np.ndarray  # places along the second one, shape (m,)
    values: np.ndarray  # shape (n, m)
    level: float | None = None  # a line runs where the values have it; None: nowhere
    path: np.ndarray = field(
        default_factory=lambda: np.empty((0, 2))
    )  # a way over it, dots joined, shape (k, 2)
    points: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # crosses over it, shape (k, 2)


@dataclass(frozen=True, kw_only=True)
class Surfaces(Figure):
    """A number over planes, as colours with contour lines, pictures beside each other on one scale."""

    surfaces: Sequence[Surface]  # three in a row
    axes: tuple[str, str]  # what the axes are
    unit: str  # what the values are
    logarithmic: bool = False  # whether colours go by their logarithm, where the values allow it


@dataclass(frozen=True, kw_only=True)
class SimilarityMap:
    """A map of `Similarities`."""

    title: str  # above it
    steps: np.ndarray  # of its rows, which are its columns, shape (m,)
    values: np.ndarray  # cosines, shape (m, m); NaN where there is none
    spread: bool = False  # whether they are standard deviations of cosines


@dataclass(frozen=True, kw_only=True)
class Similarities(Figure):
    """Cosines between the weights of all pairs of steps, or of other rows, maps beside each other."""

    maps: Sequence[SimilarityMap]  # two in a row
    axis: str = "step, on both axes"  # what rows and columns are
    unit: str = "cosine"  # what the values are


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """A picture of `Polygons`."""

    title: str  # above it
    polygons: Sequence[np.ndarray]  # corners of each, (n, 2)
    values: np.ndarray  # one a polygon, shape (K,)
    boundary: np.ndarray  # the ends of every piece of a line over it, shape (n, 2, 2)
    points: np.ndarray  # crosses over it, shape (m, 2)


@dataclass(frozen=True, kw_only=True)
class Polygons(Figure):
    """Polygons of a plane, coloured by a number or a class, pictures beside each other."""

    tilings: Sequence[Tiling]  # three in a row
    unit: str  # what the values are
    classes: bool = False  # whether they are classes
    logarithmic: bool = False  # whether colours go by their logarithm


@dataclass(frozen=True, kw_only=True)
class Halved(Strips):
    """Sharpness of forks whose rate was halved (left) and of their runs (right), on one axis, against a threshold."""


@dataclass(frozen=True)
class Levels:
    """A column of dots beside `Intervals`: values by the level of a factor; their mean at each level is a dash."""

    name: str  # what the levels are of
    levels: np.ndarray  # of every dot, shape (S,)
    values: np.ndarray  # of every dot, shape (S,); NaN is not drawn


@dataclass(frozen=True, kw_only=True)
class Intervals(Figure):
    """Shares with their intervals."""

    labels: Sequence[str]  # of the Q rows
    shares: np.ndarray  # between 0 and 1, shape (Q,)
    intervals: np.ndarray  # shape (Q, 2)
    axis: str  # what the shares are of
    columns: Sequence[Levels] = ()  # columns of dots beside them, those of the first rows
    values: str = ""  # what these dots are
    runs: Sequence[str] = ()  # ids of the runs that the dots are of


@dataclass(frozen=True, kw_only=True)
class Dots(Figure):
    """Estimates with their intervals, a row each, about zero."""

    labels: Sequence[str]  # names of the N rows
    values: Sequence[float | None]  # the estimates; None where there is none
    # Bounds; one of None lies beyond what was seen, an interval of None is not drawn.
    intervals: Sequence[Sequence[float | None] | None]
    marked: Sequence[bool]  # whether each is what is looked for
    notes: Sequence[str]  # words beside each
    unit: str  # of the estimates
    way: str = "later"  # what a positive one is


@dataclass(frozen=True, kw_only=True)
class Regions(Figure):
    """Estimates with their intervals, a row each on an axis of its own, against regions where they have to lie."""

    labels: Sequence[str]  # names of the N rows
    values: Sequence[float]  # the estimates
    intervals: Sequence[Sequence[float | None] | None]  # bounds, as of `Dots`
    regions: Sequence[Sequence[float | None]]  # bounds; one of None is none
    notes: Sequence[str] = ()  # words beside each
    # `inside`, `outside` or `open`, by which each is coloured and marked; none: as its interval lies
    places: Sequence[str] = ()
    axes: Sequence[str] = ()  # what the values of each are


@dataclass(frozen=True, kw_only=True)
class Ranking(Figure):
    """Values of settings, a dot a run and a row a setting, with what is estimated of each and its interval."""

    labels: Sequence[str]  # names of the N rows, the best first
    values: Sequence[
        Sequence[float | None]
    ]  # of every run of each; None: it never came, and is later than all others
    estimates: Sequence[float | None]  # of each; None where there is none
    intervals: Sequence[Sequence[float | None]]  # bounds; one of None lies beyond what was seen
    notes: Sequence[str]  # words beside each
    axis: str  # what the values are
    last: float | None = None  # up to where steps were watched; None of other values
    grain: float | None = None  # distance of the rows that steps are of; None of other values
    runs: Sequence[Sequence[str]] = ()  # ids of the runs of each, as `values`; none where they are not known
    settings: Sequence[str] = ()  # id of each setting


@dataclass(frozen=True, kw_only=True)
class Response(Figure):
    """Values over those of a key: a dot a run, the estimates as a line, their intervals as a band."""

    key: str  # name of the key
    at: Sequence[float]  # its N values, ascending
    values: Sequence[Sequence[float | None]]  # as in `Ranking`
    estimates: Sequence[float | None]
    intervals: Sequence[Sequence[float | None]]
    axis: str  # what the values are
    # the range of values of the key that the best is not told apart from
    best: tuple[float, float] | None = None
    last: float | None = None  # as in `Ranking`
    grain: float | None = None
    # lower end, middle and upper end of what all are held against, a band across; None: there is none
    band: tuple[float, float, float] | None = None
    beside: str = ""  # what the band is
    runs: Sequence[Sequence[str]] = ()  # as in `Ranking`
    settings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Effect(Figure):
    """Estimates over the values of one key, a line for each value of another."""

    key: str  # name of the key along the axis
    at: Sequence[str]  # its N values
    lines: Sequence[str]  # the M values of the other, with its name
    estimates: Sequence[Sequence[float | None]]  # M by N; None where there is none
    intervals: Sequence[Sequence[Sequence[float | None]]]  # of these; one of None lies beyond what was seen
    axis: str  # what the values are
    ratios: (
        bool  # whether an effect is a factor, so that lines without an interaction are parallel by logarithm
    )


@dataclass(frozen=True, kw_only=True)
class Raster(Figure):
    """A row a run, coloured by its state over the steps."""

    runs: Sequence[str]  # ids of the S runs
    steps: Sequence[np.ndarray]  # of every run's rows, shapes (T,)
    states: Sequence[np.ndarray]  # at these, integers from 0, shapes (T,)
    n_states: int  # K
    # What the runs are sorted by, the least on top, and None (never) last; None: the last of `landmarks`.
    order: Sequence[float | None] | None = None
    begins: float | None = None  # when the first change of state comes; None where none does
    # Label -> step of every run, None where it never came; the page adds those that it knows.
    landmarks: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Profiles(Figure):
    """Numbers about zero in a map, a row a state."""

    values: np.ndarray  # shape (K, M); NaN where there is none
    columns: Sequence[str]  # names of the M columns
    unit: str  # of the numbers


@dataclass(frozen=True)
class Node:
    """A state of a `Graph`."""

    text: str  # under it
    share: float  # of all rows, for its size
    runs: int  # number of runs that visit it


@dataclass(frozen=True)
class Arrow:
    """A way between two states of a `Graph`."""

    start: int  # place of the state it leaves
    end: int  # place of the state it enters
    runs: int  # number of runs that take it, for its width
    marked: bool = False  # whether it is one of several that runs part on


@dataclass(frozen=True, kw_only=True)
class Graph(Figure):
    """States from left to right, and the ways between them; in `titles` they are `state-0` and `edge-0-1`."""

    nodes: Sequence[Node]  # the states in their order
    arrows: Sequence[Arrow]  # the ways
    total: int  # number of runs


@dataclass(frozen=True, kw_only=True)
class Selection(Figure):
    """A score and a criterion against the sizes of a model that were tried."""

    tried: Sequence[int]  # the N sizes
    scores: Sequence[float | None]  # score of each, with its error; None where there is none
    errors: Sequence[float | None]  # likewise
    criterion: Sequence[float | None]  # a second number of each
    chosen: int  # the size that was taken
    converged: Sequence[bool]  # whether each fit converged
    paired: bool = False  # whether an error is that of the difference to the best score
