"""A report as one archive: its page, its figures for a paper, its tables as CSV; the same report, the same bytes."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dynalab.core.words import plain, safe
from dynalab.report.blocks import Section
from dynalab.report.page import Page, numbered
from dynalab.show.blocks import Cell, Table

# Of a file in an archive: the earliest time that the format knows, and what everyone may read.
_TIME, _MODE = (1980, 1, 1, 0, 0, 0), 0o100644
# What a text is that says a number and nothing more, rounded.
_NUMBER = re.compile(r"[<>=~]*\s*[-+\u2212]?[\d,.]+(e[-+]?\d+)?\s*%?")
# A spreadsheet takes what begins so for something to be worked out.
_FORMULA = ("=", "+", "-", "@", "\t")


def write_archive(page: Page, folder: Path, name: str) -> None:
    """Put a report that lies whole in a folder into `NAME.zip` beside its page.

    In it are the folder's files, `tables/*.csv`, and `contents.csv`: what each figure and table shows, and where.

    Args:
        page: The report.
        folder: Where its page and figures are.
        name: Name of the report: of the archive, and of the one folder in it.
    """
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    texts: dict[str, str] = {}
    contents: list[list[Any]] = []
    titles = dict(_titles(page.sections))
    for number, (section, picture) in enumerate(numbered(page), 1):
        # Those of the page's links, and the one for a paper.
        file = f"figures/{section.anchor}-{picture.name}.pdf"
        about = plain(picture.caption).partition(".")[0]
        contents.append([f"figure {number}", titles[section.anchor], about, file])
    for number, (section, table) in enumerate(_tables(page.sections), 1):
        file = f"tables/{number:02}-{safe(section.anchor)}.csv"
        texts[file] = _csv([table.header, *table.rows])
        contents.append([f"table {number}", titles[section.anchor], plain(table.caption), file])
    texts["contents.csv"] = _csv([["what", "section", "shows", "file"], *contents])
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        for file in sorted([*files, *texts]):
            info = zipfile.ZipInfo(f"{name}/{file}", _TIME)
            info.create_system, info.external_attr = 3, _MODE << 16
            packed = zipfile.ZIP_STORED if file.endswith(".png") else zipfile.ZIP_DEFLATED
            archive.writestr(
                info, texts[file].encode() if file in texts else files[file].read_bytes(), packed, 6
            )


def _titles(sections: Sequence[Section], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the anchor of every section with its title behind those of what it is in."""
    for section in sections:
        title = f"{above}{section.title}"
        yield section.anchor, title
        yield from _titles(section.sections, f"{title}: ")


def _tables(sections: Sequence[Section]) -> Iterator[tuple[Section, Table]]:
    for section in sections:
        yield from ((section, block) for block in section.blocks if isinstance(block, Table))
        yield from _tables(section.sections)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([[_value(item) for item in row] for row in rows])
    return text.getvalue()


def _value(item: Any) -> Any:
    """Return what a table's cell has in a CSV file: numbers in full, texts as they are read."""
    value, text = (item.value, item.text) if isinstance(item, Cell) else (item, "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and (not text or _NUMBER.fullmatch(text.strip())):
        return value
    said = (text or ("" if value is None else str(value))).replace("\u00a0", " ")
    return f"'{said}" if said.startswith(_FORMULA) and not _NUMBER.fullmatch(said) else said
