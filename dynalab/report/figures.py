"""The figures of a page by name, one at a time and in any size: for a paper.

What stands on the page is taken from it. An analysis may have figures of its paper besides: `PAPERS` of its module,
name -> a function of label -> group that returns a `Figure`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from dynalab.analysis.base import Group
from dynalab.analysis.command import needs_of, trains
from dynalab.config.registry import Part, names, search_path
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.plugins import naming
from dynalab.core.words import listed, plain
from dynalab.report.choice import part_of
from dynalab.report.gather import Shown
from dynalab.report.names import MADE_BY
from dynalab.report.page import Page, numbered
from dynalab.show.blocks import Figure, Picture
from dynalab.show.page import settled
from dynalab.store.runfile import STATUSES

Paper = Callable[[Mapping[str, Group]], Figure]


@dataclass(frozen=True)
class Named:
    """A figure that can be asked for."""

    name: str  # by which it is
    number: int | None  # on the page; None: it is a paper's and is not there
    about: str  # what it shows, in a line
    where: str  # title of its section, and what it is of
    picture: Picture  # it


def figures(page: Page, shown: Sequence[Shown]) -> list[Named]:
    """Return the figures of a page in its order, and those of papers that its ensembles have everything for."""
    made = []
    for number, (section, picture) in enumerate(numbered(page), 1):
        of = [item.title for item in shown if section.anchor.startswith(item.anchor)]
        where = ", ".join([section.title, *(of if len(shown) > 1 else [])])
        made.append(Named(picture.name, number, _about(picture), where, picture))
    for name, (part, draw) in papers().items():
        try:
            made.append(_of_paper(name, part, draw, shown))
        except NothingMatched:
            continue
    return made


def papers() -> dict[str, tuple[Part, Paper]]:
    """Return name -> the analysis and the function of every paper's figure."""
    parts = [part for kind in names("analysis", search_path()) if (part := part_of(kind)) is not None]
    return {name: (part, draw) for part in parts for name, draw in getattr(part.module, "PAPERS", {}).items()}


def _of_paper(name: str, part: Part, draw: Paper, shown: Sequence[Shown]) -> Named:
    groups = {
        item.title: item.ensemble.group(STATUSES, [run.id for run in item.runs], needs_of(part).names)
        for item in shown
    }
    with naming(draw):
        drawn = settled(draw(groups))
    assert isinstance(drawn, Picture)
    return Named(name, None, _about(drawn), str(getattr(part.module, "TITLE", part.name)), drawn)


def _about(picture: Picture) -> str:
    """Return what a figure shows: what its caption begins with."""
    return re.split(r"\.(?:\s|$)", plain(picture.caption))[0] or picture.alt


def named(name: str, page: Page, shown: Sequence[Shown]) -> Named:
    """Return the figure of a name, or of a number on the page.

    Raises:
        ConfigError: There is no figure of this name at all, or there are several here.
        NothingMatched: There is one, and these runs do not have it: the line says what makes it.
    """
    if (paper := papers().get(name)) is not None:
        return _of_paper(name, *paper, shown)
    there = figures(page, shown)
    same = [item for item in there if name in (item.name, str(item.number))]
    if len(same) > 1:
        which = listed([f"{item.number} ({item.where})" for item in same], 4)
        raise ConfigError(
            f"{name}: {len(same)} figures have this name: {which}; give a number, or name an ensemble or --setting"
        )
    if same:
        return same[0]
    ids = [item.ensemble.id for item in shown]
    about = listed(ids, 3)
    if (how := MADE_BY.get(name)) is not None:
        raise NothingMatched(f"{about} has no figure {name}: {how}")
    for kind in names("analysis", search_path()):
        part = part_of(kind)
        if part and any(fnmatchcase(name, known) for known in getattr(part.module, "FIGURES", ())):
            raise NothingMatched(f"{about} has no figure {name}: {_how(part, shown, ids)}")
    here = {item.name for item in there}
    near = did_you_mean(name, {*here, *_plain(_declared())})
    raise ConfigError(f"no figure {name}{near}; figures here are {listing(here, 30)}")


def check_name(name: str) -> None:
    """Raise a `ConfigError` where nothing says that it has a figure of a name, which is no number on a page either."""
    declared = _declared()
    if not name.isdecimal() and not any(fnmatchcase(name, known) for known in declared):
        near = did_you_mean(name, _plain(declared))
        raise ConfigError(f"no figure {name}{near}; figures are {listing(declared, 60)}")


def _declared() -> set[str]:
    """Return the names of the page's figures and those of analyses, `profile-*` where some begin so."""
    parts = map(part_of, names("analysis", search_path()))
    return {
        *MADE_BY,
        *papers(),
        *(name for part in parts if part for name in getattr(part.module, "FIGURES", ())),
    }


def _plain(declared: set[str]) -> set[str]:
    return {name for name in declared if "*" not in name}


def _how(part: Part, shown: Sequence[Shown], ids: Sequence[str]) -> str:
    """Return what makes the figures of an analysis: what it needs to be recorded, or the command itself."""
    needs: Any = needs_of(part)
    missing = [needs.missing(item.ensemble.metrics, item.ensemble.blocks) for item in shown]
    if any(missing):
        return f"it needs {listed(next(filter(None, missing)))}, which `dynalab train ... {needs.record}` records"
    if any(result.kind == part.name for item in shown for result in item.results):
        return f"analysis {part.name} is stored and shows no such figure of these runs"
    command = shlex.join(["dynalab", "analyze", part.name, *ids[:3]])
    return f"`{command}` makes it{', which trains' if trains(part) else ''}"
