"""A figure as inline SVG: no names that clash with another figure's, no addresses, titles for the pointer."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from dynalab.show.plots.style import CYCLE, GRID, INK, MUTED, style

# What a browser finds on its machine; matplotlib measured the text in DejaVu Sans, which is the widest of them.
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
# Colours that the page has names for: ink, paper and lines, which follow its light or dark, and those of letters, which
# a palette for lines on white is too light for.
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid"}
_LETTERS = dict(zip(CYCLE, ("blue", "red", "green", "pink", "sky", "amber", "grey"), strict=True))
_COLOUR = re.compile(r"(?<=: )#[0-9a-f]{6}\b")
_LONG_NUMBER = re.compile(r"(-?\d+\.\d\d)\d+")
RASTER_DPI = 200
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
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, dpi=RASTER_DPI)
    text = buffer.getvalue()
    # A hundredth of a point is finer than any screen; this halves the size of long curves.
    return re.sub(r' d="[^"]*"', lambda match: _LONG_NUMBER.sub(r"\1", match[0]), text)


def inline(svg: str, prefix: str, label: str, titles: Mapping[str, str] | None = None) -> str:
    """Return an SVG document as an element for an HTML page, with a label for those who do not see it.

    The prefix stands before every id, so that the figures of a page do not clash; `titles` are id of a part (a
    matplotlib gid) -> text that appears under the pointer.
    """
    body = svg[svg.index("<svg") :]
    # Its rules would hold for the whole page; the page has them for all figures.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", body)
    for part, text in (titles or {}).items():
        mark = f'<g id="{part}">'
        body = body.replace(mark, f"{mark}<title>{html.escape(text)}</title>", 1)
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


def _named(tag: str, kind: str) -> str:
    """Return a tag of an SVG document with its colours by the page's names, where it has some."""
    names = {colour.lower(): name for colour, name in _NAMES.items()}
    if kind == "text":
        names |= {colour.lower(): name for colour, name in _LETTERS.items()}
    else:
        names |= {"#ffffff": "paper", CYCLE[-1].lower(): "grey"}
    return _COLOUR.sub(
        lambda match: f"var(--{names[match[0]]}, {match[0]})" if match[0] in names else match[0], tag
    )


def save(figure: Figure, svg: str, folder: Path, name: str) -> None:
    """Write a figure as SVG and as PNG."""
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    with style():
        figure.savefig(folder / f"{name}.png", dpi=RASTER_DPI, metadata={"Software": None})
