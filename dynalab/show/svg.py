"""A figure as inline SVG: no names that clash with another figure's, no addresses, titles for the pointer."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from dynalab.show.plots.style import CYCLE, GRID, INK, MUTED, style

# What a browser finds on its machine; matplotlib measured the text in DejaVu Sans, which is the widest of them.
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
# Colours that the page has names for: ink, paper and lines, which follow its light or dark, and those of letters, which
# a palette for lines on white is too light for.
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid"}
_LETTERS = dict(
    zip(map(str.lower, CYCLE), ("blue", "red", "green", "pink", "sky", "amber", "grey"), strict=True)
)
_OF_TEXT = _NAMES | _LETTERS
_OF_SHAPES = _NAMES | {"#ffffff": "paper", CYCLE[-1].lower(): "grey"}
_COLOUR = re.compile(r"(?<=: )#[0-9a-f]{6}\b")
_MARKS = re.compile(r'<g id="run-([\d-]+)"')
_LONG_NUMBER = re.compile(r"(-?\d+\.\d\d)\d+")
RASTER_DPI = 200
# Of what is pixels within an SVG, which a page carries: more than one for each of its own.
PAGE_DPI = 120
# Pixels of the page for a point of the figure: figures of full width fill the page's column.
SCALE = 1.54


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG document; the same figure gives the same bytes."""
    buffer = io.StringIO()
    with style():
        # Once, not at every save: finding room for the labels takes as long as drawing.
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, dpi=PAGE_DPI)
    text = buffer.getvalue()
    # A hundredth of a point is finer than any screen; this halves the size of long curves.
    return re.sub(r' d="[^"]*"', lambda match: _LONG_NUMBER.sub(r"\1", match[0]), text)


def scales(figure: Figure) -> str:
    """Return where the axes of a laid-out figure lie and what they show, as JSON for the reading under the pointer.

    A list `[left, top, right, bottom, x axis, y axis]` of each, in the units of its SVG document; an axis is `[first
    number, last number, whether it is logarithmic, its name]`, or null where it has no numbers.
    """
    height, made = figure.get_figheight() * 72, []
    for ax in figure.axes:
        box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        place = [72 * box.x0, height - 72 * box.y1, 72 * box.x1, height - 72 * box.y0]
        axes = [_axis(ax.xaxis, ax.get_xlabel()), _axis(ax.yaxis, ax.get_title(loc="left"))]
        if ax.axison and axes[0]:
            made.append([*(round(x, 1) for x in place), *axes])
    return json.dumps(made, separators=(",", ":"))


def _axis(axis: Axis, name: str) -> list[Any] | None:
    scale = axis.get_scale()
    words = isinstance(axis.get_major_locator(), FixedLocator)
    if scale not in ("linear", "log") or words or not len(axis.get_majorticklocs()):
        return None
    return [
        *(float(f"{x:.6g}") for x in axis.get_view_interval()),
        int(scale == "log"),
        name.partition(" (")[0],
    ]


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
    body = _MARKS.sub(lambda match: f'<g class="run"{_marked(match[1], runs)}', body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r"<(text|path|g|use)\b[^>]*>", lambda match: _named(match[0], match[1]), body)
    body = body.replace("'DejaVu Sans'", _FONTS)
    match = re.match(r"<svg([^>]*)>", body)
    assert match is not None
    width = re.search(r'viewBox="0 0 ([\d.]+) ', match[1])
    attributes = re.sub(r'\s(?:width|height)="[^"]*"', "", match[1])
    size = f' style="max-width:{float(width[1]) * SCALE:.0f}px"' if width else ""
    head = f'<svg{attributes} role="img" aria-label="{html.escape(label, quote=True)}"{size}>'
    return head + body[match.end() :].rstrip()


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


def save(figure: Figure, svg: str, folder: Path, name: str) -> None:
    """Write a figure as SVG and as PNG."""
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    with style():
        figure.savefig(folder / f"{name}.png", dpi=RASTER_DPI, metadata={"Software": None})
