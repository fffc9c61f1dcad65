"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from dynalab.core.version import __version__
from dynalab.report.blocks import Section
from dynalab.show import svg
from dynalab.show.blocks import Picture
from dynalab.show.page import drawing, environment


@dataclass(frozen=True)
class Page:
    """A report before it is written."""

    title: str  # its heading
    summary: Sequence[tuple[str, Sequence[str]]]  # paragraphs at the top, each a list of sentences
    warnings: Sequence[str]  # what a reader must see first
    sections: Sequence[Section]  # its parts
    commands: Sequence[str]  # commands that make this page again
    created: str  # when it was made


def walk(sections: Sequence[Section]) -> Iterator[tuple[Section, Picture]]:
    """Yield every figure of a page with the section that it stands in."""
    for section in sections:
        yield from ((section, block) for block in section.blocks if isinstance(block, Picture))
        yield from walk(section.sections)


def render(page: Page, folder: Path) -> str:
    """Return the page as HTML, and save its figures in a folder beside it."""
    drawn: dict[tuple[str, str], dict[str, Any]] = {}
    for section, picture in walk(page.sections):
        name = f"{section.anchor}-{picture.name}"
        document = svg.to_svg(picture.figure)
        svg.save(picture.figure, document, folder, name)
        drawn[section.anchor, picture.name] = drawing(picture, name, document, f"{folder.name}/{name}")
    return _template().render(page=page, drawn=drawn, version=__version__)


@lru_cache(maxsize=1)
def _template() -> Template:
    return environment(Path(__file__).parent / "templates").get_template("page.html.j2")
