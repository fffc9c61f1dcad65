"""Words fitted to the room that a layout leaves them: long ones are broken, ticks that would meet are left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, Locator, LogLocator, MaxNLocator

# Times that a layout is made anew after its words were changed.
ROUNDS = 3
# Points between two labels of an axis, and around what is broken into lines.
APART, MARGIN = 3.0, 4.0
# Degrees by which names along an axis are turned where they would meet.
TURN = 40.0
# What matplotlib says of a figure that has no room for axes.
COLLAPSED = ".*not applied because axes sizes collapsed"
# Of a line, in sizes of its letters.
LINE = 1.2


class Fitted(ConstrainedLayoutEngine):
    """Makes room for the labels of a figure, and can fit those to the room that are too long for any."""

    def __init__(self, *, free: bool) -> None:
        """Begin without anything to fit; `free`: the height may grow with the lines that words are broken into."""
        super().__init__(w_pad=0.06, h_pad=0.06)
        self.free = free
        # Each puts some words in their places in a figure that is laid out.
        self.places: list[Callable[[], None]] = []
        # Whether nothing has to be laid out at the resolution and size of now.
        self.settled: tuple[float, float, float] | None = None

    def execute(self, fig: Figure) -> None:
        """Lay a figure out as if no axes were square: what these leave free is no room for words."""
        square = [(ax, ax.get_aspect()) for ax in fig.axes if ax.get_aspect() != "auto"]
        for ax, _ in square:
            ax.set_aspect("auto")
        try:
            super().execute(fig)
        finally:
            for ax, aspect in square:
                ax.set_aspect(aspect)

    def settle(self, figure: Figure) -> None:
        """Lay a figure out until its words have room, unless its axes have none."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", COLLAPSED, UserWarning)
            try:
                self._settle(figure)
            except UserWarning:
                return
        self.settled = _state(figure)

    def _settle(self, figure: Figure) -> None:
        for _ in range(ROUNDS):
            self.execute(figure)
            for put in self.places:
                put()
            if not _fit(figure, self.free):
                break
        if self.places:
            self.execute(figure)
            for put in self.places:
                put()


def settle(figure: Figure) -> None:
    """Lay a figure out, unless it is, or stands fixed."""
    engine = figure.get_layout_engine()
    if isinstance(engine, Fitted) and engine.settled != _state(figure):
        engine.settle(figure)
    elif engine is not None and not isinstance(engine, Fitted):
        engine.execute(figure)


def place(ax: Axes, put: Callable[[], None]) -> None:
    """Have words of axes put in their places now, and again when their figure is laid out."""
    engine = figure_of(ax).get_layout_engine()
    if isinstance(engine, Fitted):
        engine.places.append(put)
    put()


def grow(figure: Figure, points: float) -> None:
    """Make a figure higher, where its height is free."""
    engine = figure.get_layout_engine()
    if isinstance(engine, Fitted) and engine.free:
        figure.set_figheight(figure.get_figheight() + points / 72)


def figure_of(artist: Artist) -> Figure:
    """Return the figure that something stands in."""
    figure = artist.figure
    assert isinstance(figure, Figure)
    return figure


def _state(figure: Figure) -> tuple[float, float, float]:
    return figure.dpi, figure.get_figwidth(), figure.get_figheight()


def _fit(figure: Figure, free: bool) -> bool:
    """Fit titles, labels and ticks; return whether any changed."""
    changed, more = False, dict[float, float]()
    for ax in figure.axes:
        ax.apply_aspect()
    for ax in figure.axes:
        if not ax.axison:
            continue
        for text, room in _words(figure, ax):
            lines = text.get_text().count("\n")
            if wrapped(text, room):
                changed = True
                if text not in (ax.yaxis.label,):
                    # Of what stands in a row, the highest.
                    row = round(
                        ax.get_position().y1 if text is not ax.xaxis.label else ax.get_position().y0, 3
                    )
                    extra = (text.get_text().count("\n") - lines) * LINE * float(text.get_fontsize())
                    more[row] = max(more.get(row, 0.0), extra)
        for axis in (ax.xaxis, ax.yaxis):
            changed |= thinned(axis)
    if free and more:
        grow(figure, sum(more.values()))
    return changed


def _words(figure: Figure, ax: Axes) -> list[tuple[Text, float]]:
    """Return the titles and labels of axes that are laid out, each with the pixels that it may be long."""
    box, edge = ax.get_window_extent(), figure.bbox
    others = [other.get_window_extent() for other in figure.axes if other is not ax and other.axison]
    beside = [one for one in others if one.y0 < box.y1 and one.y1 > box.y0]
    right = min([edge.x1, *(one.x0 for one in beside if one.x0 >= box.x1 - 1)])
    left = max([edge.x0, *(one.x1 for one in beside if one.x1 <= box.x0 + 1)])
    # Its neighbour's label needs the other half of what lies between them.
    ends = [
        (box.x0 + left) / 2 if left > edge.x0 else left,
        (box.x1 + right) / 2 if right < edge.x1 else right,
    ]
    titles = [one for one in ax.get_children() if isinstance(one, Text) and one not in ax.texts]
    made = [(one, right - box.x0) for one in titles if one.get_text()]
    half = min((box.x0 + box.x1) / 2 - ends[0], ends[1] - (box.x0 + box.x1) / 2)
    made.append((ax.xaxis.label, max(2 * half, box.width)))
    middle = (box.y0 + box.y1) / 2
    stacked = [one for one in others if one.x0 < box.x1 and one.x1 > box.x0]
    above = min([edge.y1, *(one.y0 for one in stacked if one.y0 >= box.y1 - 1)])
    below = max([edge.y0, *(one.y1 for one in stacked if one.y1 <= box.y0 + 1)])
    made.append((ax.yaxis.label, 2 * min(above - middle, middle - below)))
    return [(text, room) for text, room in made if text.get_text()]


def wrapped(text: Text, room: float) -> bool:
    """Break a text, level or upright, into lines that are no longer than so many pixels; return whether it changed."""
    room -= MARGIN * figure_of(text).dpi / 72

    def length(words: str) -> float:
        text.set_text(words)
        box = text.get_window_extent()
        return float(box.height if text.get_rotation() else box.width)

    was = text.get_text()
    if length(was) <= room:
        return False
    lines: list[str] = []
    for word in was.replace("\n", " ").split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and length(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    text.set_text("\n".join(lines))
    return text.get_text() != was


class _Fewer(Locator):
    """Some of the ticks of another locator."""

    def __init__(self, inner: Locator, kept: Sequence[float]) -> None:
        self.inner, self.kept = inner, np.asarray(kept, float)

    def __call__(self) -> Sequence[float]:
        """Return the ticks."""
        return self.tick_values(0.0, 0.0)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks, which are the same for all limits."""
        return [float(x) for x in self.kept]


def thinned(axis: Axis) -> bool:
    """Leave out ticks until no two labels of an axis meet, and turn names; return whether anything changed."""
    for attempt in range(9):
        if not (met := _meeting(axis)):
            return attempt > 0
        where, labels = met
        locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
        # What `set_ticks` was given labels for is written by a partial.
        names = isinstance(getattr(formatter, "func", None), partial)
        if isinstance(locator, MaxNLocator):
            if len(where) < 3:
                return attempt > 0
            locator.set_params(nbins=max(len(where) - 2 - attempt // 2, 1))
        elif isinstance(locator, LogLocator) and attempt == 0:
            locator.set_params(subs=(1.0,))
        elif names and isinstance(axis, XAxis) and not labels[0].get_rotation():
            for label in labels:
                label.set(rotation=TURN, ha="right", rotation_mode="anchor")
        elif names:
            apart(labels, isinstance(axis, XAxis))
            return True
        elif isinstance(locator, FixedLocator) and axis.get_scale() == "linear":
            axis.set_ticks(where[::2])
        else:
            kept = _apart(labels, isinstance(axis, XAxis))
            axis.set_major_locator(_Fewer(locator, [where[row] for row in kept]))
            return True
    return True


def _meeting(axis: Axis) -> tuple[list[float], list[Text]] | None:
    """Return where the labels of an axis stand, and these, if some meet."""
    axis.get_ticklabels()
    low, high = sorted(axis.get_view_interval())
    reach = 1e-6 * (high - low)
    ticks = [
        (float(tick.get_loc()), tick.label2 if tick.label2.get_visible() else tick.label1)
        for tick in axis.get_major_ticks()
        if low - reach <= float(tick.get_loc()) <= high + reach
    ]
    shown = [(loc, label) for loc, label in ticks if label.get_visible() and label.get_text()]
    shown.sort(key=lambda pair: pair[0])
    labels = [label for _, label in shown]
    if len(_apart(labels, isinstance(axis, XAxis))) == len(labels):
        return None
    return [loc for loc, _ in shown], labels


def apart(labels: Sequence[Text], level: bool = True) -> None:
    """Hide those of some words in a row, or one above another, that would meet one before them."""
    for label in labels:
        label.set_visible(True)
    kept = _apart(labels, level)
    for row, label in enumerate(labels):
        label.set_visible(row in kept)


def _apart(labels: Sequence[Text], level: bool) -> list[int]:
    """Return which labels of an axis, in their order, stand apart from those before them."""
    kept: list[int] = []
    boxes = [label.get_window_extent() for label in labels]
    for row, (label, box) in enumerate(zip(labels, boxes, strict=True)):
        if not kept:
            kept.append(row)
            continue
        last, points = boxes[kept[-1]], figure_of(label).dpi / 72
        if label.get_rotation():
            # Of turned ones the right ends are at the ticks.
            clear = (box.x1 - last.x1) * np.sin(np.deg2rad(label.get_rotation())) > (
                LINE * float(label.get_fontsize()) * points
            )
        elif level:
            clear = max(box.x0 - last.x1, last.x0 - box.x1) > APART * points
        else:
            clear = max(box.y0 - last.y1, last.y0 - box.y1) > 0
        if clear:
            kept.append(row)
    return kept
