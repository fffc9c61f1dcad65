"""Words beside, above and under what is drawn: names of curves and rows, marked steps, legends, notes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

from dynalab.show.plots.fit import LINE, figure_of, grow, place
from dynalab.show.plots.style import INK, MUTED, NARROW, Size, fraction, is_narrow

# Names of curves stand beside their ends where they take no more than this share of the width.
BESIDE = 0.3
# Inches that a letter of a name of a row takes, and the height of a line of these.
LETTER, NAME = 0.066, 0.15
# Above a narrow figure's row, in its heights: where its name begins.
ABOVE = 0.56
# Of legends and of names of curves, in points.
LEGEND, END = 7.5, 8.0
_ENDS = "names of curves"


def key(colour: str, label: str, width: float = 1.4, **line: Any) -> Line2D:
    """Return a line of a legend."""
    return Line2D([], [], color=colour, linewidth=width, label=label, **line)


def keys(figure: Figure, handles: Sequence[Artist], columns: int, name: str = "") -> list[Text]:
    """Write a legend above the axes of a figure, in so many columns as there is room for, and return its words."""
    width = figure.get_figwidth()
    labels = [
        textwrap.fill(str(handle.get_label()), max(int((width - 0.6) / 0.062), 10)) for handle in handles
    ]
    columns = fitting(labels, columns, width)
    made = figure.legend(
        handles=handles,
        labels=labels,
        loc="outside upper left",
        ncols=columns,
        fontsize=LEGEND,
        handlelength=1.6,
    )
    made.set_label(name)
    return [*made.get_texts()]


def by_row(handles: Sequence[Artist], columns: int) -> list[Artist]:
    """Return handles in the order in which a legend of so many columns, which fills these, reads row by row."""
    return [handle for column in range(columns) for handle in handles[column::columns]]


def fitting(labels: Sequence[str], most: int, width: float) -> int:
    """Return in how many columns the labels of a legend fit a width in inches, `most` at most."""
    for columns in range(min(most, len(labels)), 1, -1):
        longest = [max(map(len, column)) for column in np.array_split(np.array(labels), columns)]
        # A letter of 7.5 points, and the line with the space around it.
        if sum(0.058 * letters + 0.42 for letters in longest) <= width:
            return columns
    return 1


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return places moved apart to at least `gap`, in the same order, as near as can be to where they were.

    Least squares: without the gaps they have to ascend, and those that do not are pooled at their mean (pool adjacent
    violators, Ayer et al. 1955).
    """
    order = np.argsort(places, kind="stable")
    blocks: list[tuple[float, int]] = []
    for row, value in enumerate(np.asarray(places, dtype=float)[order]):
        blocks.append((float(value) - gap * row, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    moved = np.repeat([mean for mean, _ in blocks], [n for _, n in blocks]) + gap * np.arange(len(order))
    return [float(moved[row]) for row in np.argsort(order)]


def label_ends(ax: Axes, labels: Iterable[tuple[float, str, str]]) -> list[Text]:
    """Write labels, (y in data units, text, colour), beside the right end of their lines, and return them.

    Where they are too long or too many for that, they stand in a legend above all axes.
    """
    items = [(y, text, colour) for y, text, colour in labels if np.isfinite(y)]
    across: dict[str, Any] = {"transform": ax.transAxes, "va": "center", "ha": "left", "fontsize": END}
    made = [ax.text(1.015, 0.0, text, color=colour, **across) for _, text, colour in items]
    figure = figure_of(ax)
    longest = max((text.get_window_extent().width for text in made), default=0.0)
    if longest > BESIDE * figure.bbox.width or len(made) * LINE * END > 60 * figure.get_figheight():
        for text in made:
            text.remove()
        return _above(figure, [(text, colour) for _, text, colour in items])

    def put(_: object = None) -> None:
        # Not as the words were drawn last: that may have been at another resolution.
        gap = LINE * END * figure.dpi / 72 / max(float(ax.get_window_extent().height), 1.0)
        places = [float(np.clip(fraction(ax.yaxis, y), 0, 1)) for y, _, _ in items]
        moved, least = spread(places, gap), 0.0
        for row in np.argsort(moved, kind="stable"):
            # Not beside the labels of the axis below.
            least = max(moved[row], least)
            made[row].set_y(least)
            least += gap

    place(ax, put)
    # The other scale of values has them elsewhere.
    ax.callbacks.connect("ylim_changed", put)
    return made


def _above(figure: Figure, items: Sequence[tuple[str, str]]) -> list[Text]:
    """Write names of curves, (text, colour), in the legend of all axes, and return its words for these."""
    handles: dict[str, Artist] = {}
    for legend in [one for one in figure.legends if one.get_label() == _ENDS]:
        handles |= {str(handle.get_label()): handle for handle in legend.legend_handles if handle is not None}
        legend.remove()
    before = -(-len(handles) // 4)
    handles |= {text: key(colour, text) for text, colour in items if text not in handles}
    words = dict(zip(handles, keys(figure, [*handles.values()], 4, _ENDS), strict=True))
    columns = fitting([*handles], 4, figure.get_figwidth())
    grow(figure, 1.4 * LEGEND * (-(-len(handles) // columns) - before))
    return [words[text] for text, _ in items]


def marks(ax: Axes, steps: Mapping[str, float | None], *, named: bool = True) -> None:
    """Mark steps by vertical lines, which are named above the axes, under their title."""
    made: list[tuple[float, Annotation]] = []
    for label, step in sorted(steps.items(), key=lambda item: item[1] if item[1] is not None else -1.0):
        if step is None or not np.isfinite(step):
            continue
        ax.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1.8)
        at = fraction(ax.xaxis, step)
        if named:
            text = ax.annotate(
                label, (at, 1.0), (0, 2), xycoords="axes fraction", textcoords="offset points", va="bottom", fontsize=7,
                color=MUTED, gid=f"at-{step:g}",
            )  # fmt: skip
            made.append((at, text))

    def put() -> None:
        points = figure_of(ax).dpi / 72
        width = float(ax.get_window_extent().width)
        rows: list[float] = []
        for at, text in made:
            long = float(text.get_window_extent().width)
            middle = at * width
            side = "left" if middle < long / 2 else "right" if middle + long / 2 > width else "center"
            first = middle - {"left": 0.0, "center": long / 2, "right": long}[side]
            row = next((row for row, last in enumerate(rows) if first > last + 4 * points), len(rows))
            rows[row : row + 1] = [first + long]
            text.set(horizontalalignment=side)
            text.xyann = (0, 2 + 9 * row)
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=7 + 9 * len(rows))

    if made:
        place(ax, put)


def footnote(figure: Figure, lines: Iterable[str]) -> int:
    """Write notes under a figure, each once; return in how many lines of text."""
    text = textwrap.fill("; ".join(dict.fromkeys(lines)), int(18 * figure.get_figwidth()))
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color=MUTED)
    return len(text.splitlines())


def row_height(names: Sequence[str], notes: Sequence[str], each: float, size: Size | None) -> float:
    """Return the height in inches of a row of a figure, where it has `each` with its name beside it."""
    lines = _lines(names, notes, size[0]) if size is not None and size[0] < NARROW else 0
    return each + (NAME * lines + 0.05 if lines else 0.0)


def name_rows(
    ax: Axes, names: Sequence[str], notes: Sequence[str] = (), colours: Sequence[str] = ()
) -> list[Sequence[Text]]:
    """Name rows at 0, 1, ... of axes that have a row a name, with notes; return the words of each.

    Names stand to the left and notes to the right; in a narrow figure both stand above their row, where the axes then
    have room for them.
    """
    ax.tick_params(axis="y", length=0, labelsize=8.5)
    ax.spines["left"].set_visible(False)
    shades = [*colours] or [INK] * len(names)
    figure = figure_of(ax)
    made: list[Sequence[Text]] = []
    if not is_narrow(figure):
        for row, tick in enumerate(ax.set_yticks(range(len(names)), names)):
            beside = [
                ax.text(
                    1.015, row, note, transform=ax.get_yaxis_transform(), ha="left", va="center", fontsize=7.5,
                    color=shades[row], linespacing=1.3,
                )
                for note in notes[row : row + 1]
            ]  # fmt: skip
            made.append([tick.label1, *beside])
        return made
    ax.set_yticks([])
    lines = _lines(names, notes, figure.get_figwidth())
    low, high = ax.get_ylim()
    rows = max(len(names), 1)
    # What a line takes of a row of what the axes get.
    share = NAME * 1.05 * rows / max(figure.get_figheight() - 0.6, 0.5)
    ax.set_ylim(low, min(high, -ABOVE - share * lines))
    for row, name in enumerate(names):
        note = notes[row].replace("\n", ", ") if row < len(notes) else ""
        across: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "bottom", "linespacing": 1.15}
        together = _above_row(name, note, figure.get_figwidth())
        words = [ax.text(0, row - ABOVE, "\n".join(together or [name]), ha="left", fontsize=8, **across)]
        if note and not together:
            words.append(ax.text(1, row - ABOVE, note, ha="right", fontsize=7.5, color=shades[row], **across))
        made.append(words)
    return made


def _lines(names: Sequence[str], notes: Sequence[str], width: float) -> int:
    """Return in how many lines at most the names of rows stand above these."""
    own = [*notes, *[""] * (len(names) - len(notes))]
    return max((len(_above_row(*pair, width)) or 1 for pair in zip(names, own, strict=True)), default=0)


def _above_row(name: str, note: str, width: float) -> list[str]:
    """Return the lines of a name and its note above a row of a figure; none where both have room in one line."""
    room = max(int((width - 0.25) / LETTER), 10)
    words = f"{name}: {note}".replace("\n", ", ") if note else name
    return textwrap.wrap(words, room) if len(words) + 1 > room else []
