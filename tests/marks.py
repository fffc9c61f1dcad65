"""The marks of a figure that is not drawn: lines, bands, spans, texts, ticks and legends, as numbers and colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import dynalab
from dynalab.show.plots.style import CYCLE

FIGURES = dynalab.figures
BLUE, ORANGE, GREEN, PINK = CYCLE[:4]
STEPS = np.arange(0, 100, 10)


def noisy(n_runs: int, rows: int = len(STEPS), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 2, (n_runs, rows))


def xy(line: Line2D) -> list[list[float]]:
    return [np.asarray(part, float).tolist() for part in line.get_data()]


def lines(ax: Axes, **wanted: Any) -> list[Line2D]:
    """Return the lines of some properties: `color`, `linewidth`, `marker`, `linestyle`."""
    return [
        line
        for line in ax.lines
        if all(getattr(line, f"get_{name}")() == value for name, value in wanted.items())
    ]


def upright(ax: Axes, color: str) -> list[float]:
    """Return the steps of the vertical lines of a colour that cross the whole panel."""
    across = ax.get_xaxis_transform()
    return [xy(line)[0][0] for line in lines(ax, color=color) if line.get_transform() == across]


def levels(ax: Axes) -> list[float]:
    """Return the heights of the horizontal lines that cross the whole panel."""
    across = ax.get_yaxis_transform()
    return [xy(line)[1][0] for line in ax.lines if line.get_transform() == across and len(xy(line)[1]) == 2]


def band(ax: Axes, place: int = 0) -> tuple[list[float], list[float], list[float]]:
    """Return steps, lower and upper bounds of a band."""
    vertices = ax.collections[place].get_paths()[0].vertices
    at = np.unique(vertices[:, 0])
    bounds = [vertices[vertices[:, 0] == x, 1] for x in at]
    return at.tolist(), [float(y.min()) for y in bounds], [float(y.max()) for y in bounds]


def texts(ax: Axes) -> dict[str, Any]:
    return {item.get_text(): item for item in ax.texts}


def ticks(axis: Any) -> dict[str, float]:
    """Return label -> place of the ticks that were set."""
    names = [item.get_text() for item in axis.get_ticklabels()]
    return dict(zip(names, map(float, axis.get_ticklocs()), strict=True))


def legend(figure: Figure) -> dict[str, str]:
    """Return label -> colour of a figure's legend."""
    (found,) = figure.legends
    handles = [
        item.get_color() if isinstance(item, Line2D) else item.get_facecolor()
        for item in found.legend_handles
    ]
    return {item.get_text(): to_hex(c) for item, c in zip(found.get_texts(), handles, strict=True)}  # fmt: skip


def note_of(figure: Figure) -> str:
    return "" if figure._supxlabel is None else figure.get_supxlabel().replace("\n", " ")


def title(ax: Axes) -> str:
    return ax.get_title(loc="left")
