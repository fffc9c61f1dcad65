"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dynalab.core.version import __version__
from dynalab.report import svg
from dynalab.report.blocks import Picture, Section
from dynalab.report.words import plain

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Page:
    """A report before it is written.

    Attributes:
        title: Its heading.
        summary: Paragraphs at the top, each a list of sentences.
        warnings: What a reader must see first.
        sections: Its parts.
        commands: Commands that make this page again.
        created: When it was made.
    """

    title: str
    summary: Sequence[tuple[str, Sequence[str]]]
    warnings: Sequence[str]
    sections: Sequence[Section]
    commands: Sequence[str]
    created: str


def rich(text: str) -> Markup:
    """Return text as HTML: everything escaped, then `**bold**` and `` `code` ``."""
    safe = str(escape(text))
    return Markup(_CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<strong>\1</strong>", safe)))


def walk(sections: Sequence[Section]) -> Iterator[tuple[Section, Picture]]:
    """Yield every figure of a page with the section that it stands in."""
    for section in sections:
        yield from ((section, block) for block in section.blocks if isinstance(block, Picture))
        yield from walk(section.sections)


def render(page: Page, folder: Path) -> str:
    """Return the page as HTML, and save its figures.

    Args:
        page: The page.
        folder: The figures' folder, `figures/` beside the page.
    """
    drawn: dict[tuple[str, str], dict[str, Any]] = {}
    for section, picture in walk(page.sections):
        name = f"{section.anchor}-{picture.name}"
        document = svg.to_svg(picture.figure)
        svg.save(picture.figure, document, folder, name)
        element = svg.inline(document, name, picture.alt, picture.titles)
        drawn[section.anchor, picture.name] = {"svg": Markup(element), "file": f"{folder.name}/{name}"}
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, drawn=drawn, version=__version__)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rich"] = rich
    environment.filters["plain"] = plain
    return environment
