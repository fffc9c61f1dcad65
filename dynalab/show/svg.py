"""A figure as inline SVG: no names that clash with another figure's, no addresses, titles for the pointer."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from PIL import Image

from dynalab.show.plots.curves import LEAST_RATIO
from dynalab.show.plots.events import OTHER, SHADES
from dynalab.show.plots.fit import settle
from dynalab.show.plots.style import CYCLE, GRID, INK, LINEAR, LOG_SCALE, MUTED, STEPS, Call, log_y, style
from dynalab.show.plots.thin import thin

if TYPE_CHECKING:
    from dynalab.show.drawer import Drawer

# What a browser finds on its machine; matplotlib measured the text in DejaVu Sans, which is the widest of them.
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
# Colours that the page has names for: ink, paper and lines, which follow its light or dark, and those of letters, which
# a palette for lines on white is too light for. Curves and shades have others where the page is dark alone; sky and
# amber can be told from dark paper as they are.
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid"}
_LETTERS = dict(
    zip(map(str.lower, CYCLE), ("blue", "red", "green", "pink", "sky", "amber", "grey"), strict=True)
)
_OF_TEXT = _NAMES | _LETTERS
_SHADES = dict.fromkeys([*SHADES.values(), OTHER])
_OF_SHAPES = {
    **{colour: f"curve-{hue}" for colour, hue in _LETTERS.items() if hue not in ("sky", "amber")},
    **{colour: f"shade-{place}" for place, colour in enumerate(_SHADES)},
    **_NAMES,
    "#ffffff": "paper",
}
_COLOUR = re.compile(r"(?<=: )#[0-9a-f]{6}\b")
# Of what is drawn of runs, of axes, which may be of a run, and of what is written at a step.
_MARKS = re.compile(r'<g id="(?:axes-(\d+)-?)?(?:run-([\d-]*))?"')
_AT = re.compile(r'<g id="at-([^"]+)"')
_TOO_FINE = re.compile(r"(?<=\.\d\d)\d+")
_PIXELS = re.compile(r'(?<=href="data:image/png;base64,)[^"]+')
# Of a palette, whose pixels are a byte each.
COLOURS = 256
_LINES = re.compile(r' d="[ML\d\s.-]+"')
RASTER_DPI = 200
# Of what is pixels within an SVG, which a page carries: more than one for each of its own.
PAGE_DPI = 120
# Pixels of the page for a point of the figure: figures of full width fill the page's column.
SCALE = 1.54
# Inches of a drawing for a phone, and of one that is not drawn again for it; the points of its curves.
PHONE, FITS, PHONE_POINTS = 3.6, 4.4, 150


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG document; the same figure gives the same bytes."""
    buffer = io.StringIO()
    for place, ax in enumerate(figure.axes):
        if not str(ax.get_gid() or "").startswith("axes-"):
            ax.set_gid(f"axes-{place}" + (f"-{ax.get_gid()}" if ax.get_gid() else ""))
    with style():
        # Once: finding room for the labels takes as long as drawing. Where an engine stays, every save draws twice.
        settle(figure)
        figure.set_layout_engine(None)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, dpi=PAGE_DPI)
    text = buffer.getvalue()
    # A hundredth of a point is finer than any screen; this halves the size of long curves.
    text = re.sub(r' d="[^"]*"', lambda match: _TOO_FINE.sub("", match[0]), text)
    return _PIXELS.sub(lambda match: _with_palette(match[0]), text)


def _with_palette(encoded: str) -> str:
    """Return an opaque PNG picture in base64 as one with a palette, if that is shorter.

    Where a picture has more colours than a palette, each becomes the nearest of those that leave the smallest largest
    difference (maximum coverage): less than an eye sees, and pictures of polygons take less than half of the room.
    """
    drawn = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if drawn.has_transparency_data and drawn.getchannel("A").getextrema()[0] != 255:
        return encoded
    image = drawn.convert("RGB")
    few = image.getcolors(COLOURS) is not None
    method = Image.Quantize.MEDIANCUT if few else Image.Quantize.MAXCOVERAGE
    buffer = io.BytesIO()
    image.quantize(COLOURS, method, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return min(encoded, base64.b64encode(buffer.getvalue()).decode(), key=len)


def other_scale(figure: Figure) -> tuple[str, str] | None:
    """Return a laid-out figure with its values on the other scale, as an SVG document, and what that is; it stays so.

    What is logarithmic becomes linear; where nothing is, what is positive and spans a factor of 30 becomes logarithmic.
    None where one scale alone makes sense.
    """
    logged = [ax for ax in figure.axes if ax.get_yscale() == "log" and ax.get_ylabel() == LOG_SCALE]
    turned = logged or [ax for ax in figure.axes if _spans(ax)]
    for ax in turned:
        if logged:
            ax.set_yscale("linear")
            ax.set_ylabel("")
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
        else:
            log_y(ax)
        ax.autoscale(axis="y")
        ax.set_ylim(ax.get_ylim())
    return (to_svg(figure), "linear" if logged else LOG_SCALE.split()[0]) if turned else None


def narrow(call: Call) -> tuple[str, str]:
    """Return a figure drawn for a phone, with fewer points, as an SVG document, and its `scales`."""
    drawn = call.draw(size=(PHONE, None))
    for line in (line for ax in drawn.axes for line in ax.lines):
        x, y = line.get_data(orig=False)
        line.set_data(*thin(np.asarray(x), np.asarray(y), PHONE_POINTS))
    return to_svg(drawn), scales(drawn)


def is_wide(figure: Figure) -> bool:
    """Return whether a figure does not fit a phone: its page has it drawn for one as well."""
    return figure.get_figwidth() > FITS


def is_small(figure: Figure) -> bool:
    """Return whether a figure is drawn for a phone already: it stands on the page once."""
    return figure.get_figwidth() <= PHONE


def _spans(ax: Axes) -> bool:
    """Return whether curves over steps are positive and span enough for a logarithmic axis."""
    low, high = ax.dataLim.intervaly
    return ax.get_label() == STEPS and ax.get_yscale() == "linear" and 0 < LEAST_RATIO * low <= high


def scales(figure: Figure) -> str:
    """Return where the axes of a laid-out figure lie and what they show, as JSON for the script of the page.

    A list `[left, top, right, bottom, x axis, y axis, its place, its title]` of each, in the units of its SVG document;
    an axis is `[first number, last number, how, its name]`, or null where it has no numbers. How: 0 linear, 1
    logarithmic, `[threshold, height]` linear up to a threshold, which is as high as that part of a decade.
    """
    height, made = figure.get_figheight() * 72, []
    for number, ax in enumerate(figure.axes):
        box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        place = [72 * box.x0, height - 72 * box.y1, 72 * box.x1, height - 72 * box.y0]
        title = ax.get_title(loc="left")
        steps = any(one.get_label() == STEPS for one in ax.get_shared_x_axes().get_siblings(ax))
        axes = [_axis(ax.xaxis, "step" if steps else ax.get_xlabel()), _axis(ax.yaxis, title)]
        if ax.axison and axes[0]:
            made.append([*(round(x, 1) for x in place), *axes, number, title])
    return json.dumps(made, separators=(",", ":"))


def _axis(axis: Axis, name: str) -> list[Any] | None:
    scale = axis.get_scale()
    words = isinstance(axis.get_major_locator(), FixedLocator)
    if scale not in ("linear", "log", "symlog") or words or not len(axis.get_majorticklocs()):
        return None
    how: list[float] | int = int(scale == "log")
    if isinstance(transform := axis.get_transform(), SymmetricalLogTransform):
        how = [transform.linthresh, round(LINEAR / (1 - 1 / transform.base), 6)]
    return [*(float(f"{x:.6g}") for x in axis.get_view_interval()), how, name.partition(" (")[0]]


def inline(
    svg: str, prefix: str, label: str, titles: Mapping[str, str] | None = None, runs: Sequence[str] = ()
) -> str:
    """Return an SVG document as an element for an HTML page, with a label for those who do not see it.

    The prefix stands before every id, so that the figures of a page do not clash; `titles` are id of a part (a
    matplotlib gid) -> text that appears under the pointer. `runs` are the ids of the figure's runs, by whose place what
    is drawn of each is marked.
    """
    body = svg[svg.index("<svg") :]
    # Its rules would hold for the whole page; the page has them for all figures.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", body)
    for part, text in (titles or {}).items():
        mark = f'<g id="{part}">'
        body = body.replace(mark, f"{mark}<title>{html.escape(text)}</title>", 1)
    body = _MARKS.sub(lambda match: _mark(match[1], match[2], runs), body)
    body = _AT.sub(r'<g class="at" data-step="\1"', body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r"<(text|path|g|use)\b[^>]*>", lambda match: _named(match[0], match[1]), body)
    body = body.replace("'DejaVu Sans'", _FONTS)
    # A line goes on without its letter, which is a fifth of a curve.
    body = _LINES.sub(lambda match: match[0].replace(" \nL ", " "), body)
    match = re.match(r"<svg([^>]*)>", body)
    assert match is not None
    width = re.search(r'viewBox="0 0 ([\d.]+) ', match[1])
    attributes = re.sub(r'\s(?:width|height)="[^"]*"', "", match[1])
    size = f' style="max-width:{float(width[1]) * SCALE:.0f}px"' if width else ""
    head = f'<svg{attributes} role="img" aria-label="{html.escape(label, quote=True)}"{size}>'
    return head + body[match.end() :].rstrip()


def _mark(axes: str | None, places: str | None, runs: Sequence[str]) -> str:
    """Return the beginning of the tag of axes, by their place, or of what is drawn of runs."""
    own = f' data-axes="{axes}"' if axes else ""
    return f'<g class="run"{own}{_marked(places, runs)}' if places else f"<g{own}"


def _marked(places: str, runs: Sequence[str]) -> str:
    """Return the attribute that names the runs at some places; nothing where they are not known."""
    some = [runs[int(place)] for place in places.split("-") if int(place) < len(runs)]
    if len(some) == 1:
        return f' data-run="{html.escape(some[0], quote=True)}"'
    return f' data-runs="{html.escape(json.dumps(some), quote=True)}"' if some else ""


def _named(tag: str, kind: str) -> str:
    """Return a tag of an SVG document with its colours by the page's names, where it has some."""
    names = _OF_TEXT if kind == "text" else _OF_SHAPES
    return _COLOUR.sub(
        lambda match: f"var(--{names[match[0]]}, {match[0]})" if match[0] in names else match[0], tag
    )


def save(figure: Figure, document: str, folder: Path, name: str, drawer: Drawer | None = None) -> None:
    """Write a figure as SVG, which is drawn, and as PNG, which `drawer` may have drawn."""
    (folder / f"{name}.svg").write_text(document, encoding="utf-8")
    draw = partial(png, figure)
    (folder / f"{name}.png").write_bytes(drawer.take(figure, "png", draw) if drawer else draw())


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG picture."""
    buffer = io.BytesIO()
    with style():
        settle(figure)
        figure.set_layout_engine(None)
        figure.savefig(buffer, format="png", dpi=RASTER_DPI, metadata={"Software": None})
    return buffer.getvalue()
