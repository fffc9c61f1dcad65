"""The look of every figure: one style, colour-blind-safe palettes, and the small tools that axes share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator, NullFormatter

from dynalab.core.errors import ConfigError
from dynalab.show.plots.fit import Fitted, settle

INK, MUTED, GRID = "#20242c", "#697080", "#e4e7ec"
# A page by night turns INK light; what stands on a light colour stays dark.
ON_LIGHT = "#20242b"
# Okabe & Ito's colour-blind-safe set, without its yellow, which is too light for lines on white.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
SPLITS = {"train": CYCLE[0], "test": CYCLE[1]}

P = ParamSpec("P")
# Width and height, in inches; a height of None is what the figure takes at that width.
Size = tuple[float, float | None]
LEAST, MOST, NARROW, PAGE = 0.5, 100.0, 5.0, 7.6

# No axis is logarithmic in silence.
LOG_SCALE = "log scale"
# What axes of steps are called, also where no words stand below them; the share of a decade that 0 to the first
# recorded step takes on a logarithmic one.
STEPS, LINEAR = "steps", 0.35
# Of thresholds.
DASHED = (0, (4, 2))

# Of seven to twelve states, from dark to light: steps of lightness are equal, so that a print without colours keeps the
# order, and hues as far apart as a search found for every colour blindness (Machado et al. 2009; 22 in Lab at least).
_SETS = {len(colours.split()): colours.split() for colours in (
    "762906 733fb5 1b856b d87a17 a8a7f8 ffbf8c 9cfaff",
    "811a02 305893 9f5b5e 956afe f8785b 4dc2fe fbc4b7 cefb4f",
    "1d4c02 734766 6657cd df454f 299dc4 eb933f a9c5a4 fad00c 91fdfb",
    "841030 5c4494 c7190d 366eee a77b9d fa7066 aca7ef feb433 88e7db fcec96",
    "32435f 962b0f 7e41be a25d63 e34f11 6499ae f5836c e398fd bfd115 28f1e7 c0fabb",
    "1331b1 69464f bd0d0e c12699 71814a cb5ae3 71a490 e9982e 42d281 c1c6fd fbd926 b2fbd6",
)}  # fmt: skip

STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    # Also of bars of colours.
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    # Where they are anyway; else every drawing looks for labels above the axes, which takes a tenth of its time.
    "axes.titley": 1.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    # Names are names: a metric may be called a$b$c.
    "text.parse_math": False,
    # Widths as browsers have them: hinted at screen resolution they are up to a tenth off, and labels are cut.
    "text.hinting": "none",
    "svg.fonttype": "none",
    # Letters that other programs can read and change.
    "pdf.fonttype": 42,
    "svg.hashsalt": "dynalab",
    # A figure that asks for no layout has none.
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


@contextmanager
def style() -> Iterator[None]:
    """Hold matplotlib's settings at dynalab's own, as a context or a decorator; the user's are back afterwards."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        # Letters of a name that the font lacks: a browser finds them in another, and a picture has a box.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing", UserWarning)
        yield


@dataclass(frozen=True)
class Call:
    """A call that draws a figure, which can be made again, here or in another process."""

    function: Callable[..., Figure]  # what draws
    args: Sequence[Any]  # what it is given
    keys: Mapping[str, Any]  # and by name; `size` among them

    def draw(self, **other: Any) -> Figure:
        """Draw the figure anew, with some keys in place of its own."""
        return self.function(*self.args, **{**self.keys, **other})


_CALLS: WeakKeyDictionary[Figure, Call] = WeakKeyDictionary()

# The width that figures take which are not asked for one; None: of each its own.
_ROOM: ContextVar[float | None] = ContextVar("room", default=None)
# What is told of every figure that is drawn.
_TOLD: ContextVar[Callable[[Figure, Call], None] | None] = ContextVar("told", default=None)


@contextmanager
def room(width: float | None) -> Iterator[None]:
    """Draw figures whose size is not asked for in a width, in inches; None: in that of each."""
    token = _ROOM.set(width)
    try:
        yield
    finally:
        _ROOM.reset(token)


@contextmanager
def telling(told: Callable[[Figure, Call], None] | None) -> Iterator[None]:
    """Tell a function of every figure that is drawn, with the call that did; None: nobody."""
    token = _TOLD.set(told)
    try:
        yield
    finally:
        _TOLD.reset(token)


def redrawable(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: it has dynalab's style, and can be drawn in another size."""

    @wraps(function)
    def draw(*args: P.args, **keys: P.kwargs) -> Figure:
        if keys.get("size") is None and (width := _ROOM.get()) is not None:
            keys["size"] = (width, None)
        with style():
            figure = function(*args, **keys)
            settle(figure)
        _CALLS[figure] = call = Call(draw, args, keys)
        if (told := _TOLD.get()) is not None:
            told(figure, call)
        return figure

    return draw


def again(figure: Figure, size: Size | None) -> Figure | None:
    """Return a figure drawn in another size, the figure itself left as it is; None where dynalab did not draw it.

    A size of None is the figure's own on a page.
    """
    call = _CALLS.get(figure)
    return call.draw(size=size) if call else None


def call_of(figure: Figure) -> Call | None:
    """Return the call that drew a figure; None where it is not a function's of dynalab's."""
    return _CALLS.get(figure)


def redrawn(figure: Figure, size: Size) -> Figure:
    """Return a figure drawn in another size; the figure itself, scaled, where it is not by a function of dynalab's."""
    if (drawn := again(figure, size)) is not None:
        return drawn
    width, height = checked(size)
    figure.set_size_inches(width, figure.get_figheight() if height is None else height)
    return figure


def new_figure(
    width: float, height: float, size: Size | None = None, *, fixed: bool = False, stacked: float = 1.0
) -> Figure:
    """Return an empty figure whose axes make room for their labels, unless they stand fixed.

    It is of a size that is asked for, else of a width and a height, in inches. Where a width alone is asked for and it
    is narrow, the height is `stacked` times that: what stood beside each other stands below then.

    Raises:
        ConfigError: The size is no width and height.
    """
    if size is not None:
        width, asked = checked(size)
        tall = min(height * (stacked if width < NARROW else 1.0), MOST)
        height = tall if asked is None else asked
    free = size is None or size[1] is None
    figure = Figure(figsize=(width, height), layout=None if fixed else Fitted(free=free))
    # It measures all words of the figure; without one each is measured by a canvas that is made for it.
    FigureCanvasAgg(figure)
    return figure


def checked(size: Size) -> Size:
    """Return a size, or raise a `ConfigError`: it is no width and height."""
    if isinstance(size, list | tuple) and len(size) == 2:
        known = [x for x in size if x is not None]
        if size[0] is not None and all(isinstance(x, int | float) and LEAST <= x <= MOST for x in known):
            return size[0], size[1]
    raise ConfigError(f"size={size}: expected (width, height) in inches, each from {LEAST:g} to {MOST:g}")


def is_narrow(figure: Figure) -> bool:
    """Return whether a figure stands in one of two columns of a page: what stands side by side stands below then."""
    return figure.get_figwidth() < NARROW


def state_colours(n_states: int) -> list[str]:
    """Return one colour a state: up to 12 from dark to light, and told apart under every colour blindness.

    Up to six are steps of viridis; more need a set whose neighbours differ in hue.
    """
    if n_states in _SETS:
        return [f"#{colour}" for colour in _SETS[n_states]]
    name, low, high = ("viridis", 0.12, 0.96) if n_states <= 6 else ("turbo", 0.04, 0.96)
    return [matplotlib.colors.to_hex(matplotlib.colormaps[name](x)) for x in np.linspace(low, high, n_states)]


def ensemble_colours(n: int) -> list[str]:
    """Return one colour an ensemble: the cycle while it lasts, then an ordered map."""
    if n <= len(CYCLE):
        return list(CYCLE[:n])
    return [matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](x)) for x in np.linspace(0, 0.9, n)]


def text_on(colour: str) -> str:
    """Return the text colour that can be read on a colour, by night as well: the WCAG luminance decides."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "white" if float(linear @ [0.2126, 0.7152, 0.0722]) < 0.3 else ON_LIGHT


def run_mark(*rows: int) -> str:
    """Return the gid of what is drawn of some of a figure's runs, in their order: a page lights a run up by it."""
    return f"run-{'-'.join(map(str, rows))}"


def polish(ax: Axes, grid: str | None = "y") -> None:
    """Set ticks and grid on the axes themselves, so that a figure drawn later looks the same."""
    ax.tick_params(which="both", length=2.5, width=0.6, color=MUTED, labelcolor=INK, labelsize=7.5, pad=2.5)
    ax.tick_params(which="minor", length=1.5)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]


class Decades(Formatter):
    """Writes the ticks of a logarithmic axis all in one way: as numbers where they are few, else as powers of ten."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        """Return a tick's label."""
        assert self.axis is not None
        low, high = sorted(self.axis.get_view_interval())
        least, most = np.log10(max(low, 1e-300)), np.log10(max(high, 1e-300))
        return decade(value, plain=np.ceil(least) >= -3 and np.floor(most) <= 4)


def decade(value: float, *, plain: bool = False) -> str:
    """Return a power of ten as text: no mathematics layout, so the SVG's text stays text.

    Other values, and all where they are to be plain, are written as numbers.
    """
    if value <= 0 or not np.isfinite(value):
        return "0" if value == 0 else ""
    exponent = int(np.round(np.log10(value)))
    if plain or not np.isclose(value, 10.0**exponent, rtol=1e-6):
        return f"{value:g}"
    digits = str(exponent).translate(
        str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )
    return f"10{digits}"


def log_y(ax: Axes, zeros: bool = False) -> None:
    """Make y logarithmic, with plain text labels, and say so beside it, also whether values of 0 are left out."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(Decades())
    ax.yaxis.set_minor_formatter(NullFormatter())
    words = f"{LOG_SCALE}, without 0" if zeros else LOG_SCALE
    ax.set_ylabel(words, fontsize=6.5, color=MUTED, labelpad=1)


def step_span(*grids: np.ndarray) -> tuple[float, float]:
    """Return where an axis of steps begins and ends that shows all of some recorded steps, shapes (T,).

    It begins at 0, or at the first step where that is more than a tenth of the last: what was recorded of a training
    that goes on from elsewhere would be a line at the right end.
    """
    steps = np.concatenate([np.asarray(grid, dtype=float) for grid in grids] or [np.empty(0)])
    first, last = (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 1.0)
    start = first if first > last / 10 else 0.0
    return start, max(last, start + 1.0)


def step_axis(
    ax: Axes, steps: np.ndarray, logarithmic: bool, label: str = "step", *, narrow: bool = False
) -> None:
    """Make x an axis of steps, of `step_span` of what was recorded (T,), in any order; `narrow`: with few labels.

    Where it is logarithmic, if they span a decade, its label says so, and 0 is kept on the axis.
    """
    start, last = step_span(steps)
    above = np.asarray(steps, dtype=float)[np.asarray(steps) > 0]
    least = max(float(above.min()), 1.0) if len(above) else 1.0
    if logarithmic and start == 0 and last / least >= 10:
        ax.set_xscale("symlog", linthresh=least, linscale=LINEAR)
        ax.xaxis.set_minor_formatter(NullFormatter())
        if narrow:
            # The threshold's own label would run into that of 0.
            decades = 10.0 ** np.arange(np.ceil(np.log10(2.5 * least)), np.log10(last) + 1e-9)
            ax.set_xticks([0.0, *decades[-3:]])
        label = label and f"{label} ({LOG_SCALE}{'' if narrow else f' from {least:,.0f} on'})"
    else:
        # As many labels as there is room for: a digit and its share of the space between takes 0.085 inches.
        room = ax.bbox.width / ax.figure.dpi / (0.085 * len(f"{last:,.0f}"))
        most = int(np.clip(room, 2, 3 if narrow else 6))
        ax.xaxis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlim(start, last)
    ax.set_label(STEPS)
    if label:
        ax.set_xlabel(label)


def is_log_spaced(steps: np.ndarray) -> bool:
    """Return whether steps (T,) were recorded on a grid that grows with the step.

    More than half of them then lie in the first tenth of the axis; gaps in the rows of a log do not make a grid so.
    """
    steps = np.unique(steps)
    return len(steps) > 6 and float(np.median(steps)) < float(steps[-1]) / 10


def fraction(axis: Axis, value: float) -> float:
    """Return where a value lies between the beginning (0) and the end (1) of an axis."""
    place, low, high = axis.get_transform().transform(
        np.array([value, *axis.get_view_interval()], dtype=float)
    )
    return float((place - low) / (high - low))


def run_axes(figure: Figure, labels: Sequence[str]) -> Iterator[tuple[int, Axes, str]]:
    """Yield a row of axes a run, under its name, with the label that its axis of steps has: that of the last one."""
    for row, label in enumerate(labels):
        ax = figure.add_subplot(len(labels), 1, row + 1)
        ax.set_title(label, fontsize=8, color=MUTED, pad=3)
        yield row, ax, "step" if row == len(labels) - 1 else ""
