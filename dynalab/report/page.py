"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from dynalab.core.progress import counted
from dynalab.core.version import __version__
from dynalab.report.blocks import Section
from dynalab.show import svg
from dynalab.show.blocks import Number, Picture
from dynalab.show.drawer import Drawer
from dynalab.show.page import drawing, environment
from dynalab.show.plots.style import again
from dynalab.show.save import save


@dataclass(frozen=True)
class Page:
    """A report before it is written."""

    title: str  # its heading
    summary: Sequence[tuple[str, Sequence[str]]]  # paragraphs at the top, each a list of sentences
    warnings: Sequence[str]  # what a reader must see first
    sections: Sequence[Section]  # its parts
    commands: Sequence[str]  # commands that make this page again
    stored: str  # when the newest of it was stored; empty where nobody knows
    numbers: Sequence[Number] = ()  # what is written large at the top
    answers: Sequence[str] = ()  # sentences above the picture: what was found
    subtitle: str = ""  # what was trained, where the heading is the user's
    note: Sequence[str] = ()  # paragraphs of the user's, under the heading


def walk(sections: Sequence[Section]) -> Iterator[tuple[Section, Picture]]:
    """Yield every figure of a page with the section that it stands in."""
    for section in sections:
        yield from ((section, block) for block in section.blocks if isinstance(block, Picture))
        yield from walk(section.sections)


def _first(sections: Sequence[Section]) -> tuple[Section, Picture] | None:
    """Return the picture that answers the page's question: the first that a section names as such, else the first."""
    pictures = [*walk(sections)]
    named = [pair for pair in pictures if pair[0].lead == pair[1].name]
    return next(iter([*named, *pictures]), None)


def _without(sections: Sequence[Section], lead: Picture) -> list[Section]:
    """Return sections without a picture, and without a part that it leaves empty."""
    kept = [
        replace(
            section,
            blocks=[block for block in section.blocks if block is not lead],
            sections=_without(section.sections, lead),
        )
        for section in sections
    ]
    return [
        new for new, old in zip(kept, sections, strict=True) if new.blocks or new.sections or not old.blocks
    ]


def numbered(page: Page) -> list[tuple[Section, Picture]]:
    """Return the figures of a page with their sections, in the order of their numbers, the top one first."""
    lead = _first(page.sections)
    return [*([lead] if lead else []), *walk(_without(page.sections, lead[1]) if lead else page.sections)]


def render(page: Page, folder: Path, *, papers: bool = False, drawer: Drawer | None = None) -> str:
    """Return the page as HTML, and save its figures in a folder beside it; they are numbered as they come.

    `papers`: as PDF as well. `drawer`: who may have drawn some of it.
    """
    lead, drawn = _first(page.sections), dict[tuple[str, str], dict[str, Any]]()
    sections = _without(page.sections, lead[1]) if lead else page.sections
    for number, (section, picture) in enumerate(counted(numbered(page), "figures", "writing"), 1):
        if number == 1 and svg.is_small(picture.figure):
            # What is folded away is drawn small; at the top it is not.
            picture = replace(picture, figure=again(picture.figure, None) or picture.figure)
        name = f"{section.anchor}-{picture.name}"
        figure = picture.figure
        document = svg.to_svg(figure)
        svg.save(figure, document, folder, name, drawer)
        if papers:
            # Before its values are turned to the other scale.
            save(figure, folder / f"{name}.pdf")
        made = drawing(picture, name, document, f"{folder.name}/{name}", page=True, drawer=drawer)
        drawn[section.anchor, picture.name] = made | {"number": number}
    top = (lead[1], drawn[lead[0].anchor, lead[1].name]) if lead else None
    return _template().render(page=page, sections=sections, lead=top, drawn=drawn, version=__version__)


@lru_cache(maxsize=1)
def _template() -> Template:
    return environment(Path(__file__).parent / "templates").get_template("page.html.j2")
