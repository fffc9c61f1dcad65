"""A report as a folder: gathered, drawn, and swapped for the one of the same name."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dynalab.core.atomic import check_writable, making
from dynalab.core.errors import ConfigError, NothingMatched, StoreError
from dynalab.core.words import count, listed, safe
from dynalab.report import ensemble as parts
from dynalab.report import overview
from dynalab.report.blocks import Section
from dynalab.report.gather import Shown, gather
from dynalab.report.page import Page, render
from dynalab.report.sections import contrasts as beside
from dynalab.report.sections import renderer
from dynalab.report.sections.context import Context
from dynalab.report.sections.contrasts import Contrasts
from dynalab.store.find import Selection
from dynalab.store.paths import OutputPaths, refuse_links
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")
LONGEST = 110
# More ensembles than this have a shorter summary.
BRIEF = 6


@dataclass(frozen=True)
class ReportPaths:
    """A report's folder."""

    root: Path

    @property
    def page(self) -> Path:
        """The page."""
        return self.root / "index.html"

    @property
    def figures(self) -> Path:
        """Its figures as files."""
        return self.root / "figures"


def report_name(selection: Selection[Ensemble], results: Sequence[Result] = ()) -> str:
    """Return a name from what is shown: short, stable, and safe as a folder's.

    Args:
        selection: Ensembles and their runs.
        results: Analyses that were asked for by id.
    """
    pieces = []
    if len(selection) == 1:
        item = selection[0][0]
        pieces.append(f"{safe(item.path.name.rpartition('-')[0])[:40]}-{item.id}")
        pieces.insert(0, safe(item.task)[:20])
    else:
        tasks = sorted({item.task for item, _ in selection})
        digest = hashlib.sha256(" ".join(sorted(item.id for item, _ in selection)).encode()).hexdigest()[:10]
        pieces += [safe("-".join(tasks))[:30], f"{len(selection)}-ensembles-{digest}"]
    part = [run.id for item, runs in selection if len(runs) < len(item.runs) for run in runs]
    if len(part) == 1:
        pieces.append(safe(part[0].rpartition("/")[2])[:20])
    elif part:
        digest = hashlib.sha256(" ".join(sorted(part)).encode()).hexdigest()[:6]
        pieces.append(f"{len(part)}-runs-{digest}")
    if len(results) == 1:
        pieces.append(f"{safe(results[0].kind)}-{results[0].id}")
    elif results:
        digest = hashlib.sha256(" ".join(sorted(result.id for result in results)).encode()).hexdigest()[:6]
        pieces.append(f"{len(results)}-analyses-{digest}")
    return "-".join(pieces)[:LONGEST]


def check_name(name: str) -> str:
    """Return a user's name for a report.

    Raises:
        ConfigError: It cannot be a folder's.
    """
    if not _NAME.match(name):
        raise ConfigError(
            f"name={name}: expected letters, digits, '.', '_' and '-', at most 100, and no dot at the beginning"
        )
    return name


def write_report(
    selection: Selection[Ensemble],
    results: Mapping[str, Sequence[Result]],
    outputs: Path,
    name: str | None = None,
    commands: Sequence[str] = (),
    others: Mapping[str, Sequence[Result]] | None = None,
) -> Path:
    """Write a report; one of the same name is replaced in one go.

    Args:
        selection: Ensembles and the runs of each that are shown.
        results: Ensemble id -> its analyses; one that covers several ensembles may stand under each.
        outputs: The outputs folder.
        name: Name of the report; None derives it from what is shown.
        commands: Commands that make this page again, for its foot.
        others: Ensemble id -> its analyses that are listed, not shown.

    Returns:
        The page, `outputs/reports/<name>/index.html`.

    Raises:
        StoreError: Everything is damaged, or the disk is full.
        NothingMatched: There is no run to show.
        ConfigError: The name or the outputs folder cannot be used.
    """
    name = check_name(name) if name is not None else report_name(selection)
    target = ReportPaths(OutputPaths(outputs).report(name))
    shown, lost = [], []
    for item, runs in selection:
        try:
            found = gather(item, runs, results.get(item.id) or (), (others or {}).get(item.id) or ())
        except StoreError as error:
            item.damaged.append(item.path.name)
            item.warnings.append(f"{error}; {item.id} is left out")
            lost += item.warnings
            continue
        # On the page, paths are relative: it may be shown elsewhere.
        found.warnings = [line.replace(f"{outputs}{os.sep}", "") for line in found.warnings]
        if found.runs:
            shown.append(found)
        else:
            lost += item.warnings or [f"{item.id} has no runs yet"]
    if not shown:
        if any(item.damaged for item, _ in selection):
            raise StoreError("; ".join(lost))
        raise NothingMatched(f"nothing to show: {'; '.join(lost) or 'no runs'}")
    refuse_links(target.root.parent)
    check_writable(target.root.parent)
    if target.root.is_dir() and any(target.root.iterdir()) and not target.page.is_file():
        raise ConfigError(f"{target.root} is no report, it is left alone; choose another --name")
    # What is compared is computed, and stored, before the page is drawn, which only reads.
    contrasts, refused = beside.contrasts(shown, outputs)
    lost += refused
    # Its files are not synced one by one: what a power loss takes is drawn again.
    with making(target.root, replace=True) as folder:
        own = ReportPaths(folder)
        own.figures.mkdir()
        away = [line.replace(f"{outputs}{os.sep}", "") for line in lost]
        page = _page(shown, away, target.root, commands, contrasts)
        own.page.write_text(render(page, own.figures), encoding="utf-8")
    return target.page


def _page(
    shown: list[Shown],
    lost: Sequence[str],
    home: Path,
    commands: Sequence[str],
    contrasts: Sequence[Contrasts],
) -> Page:
    keys = overview.name_ensembles(shown)
    pooled: dict[str, tuple[Result, list[Shown]]] = {}
    own: dict[str, list[Result]] = {}
    for item in shown:
        for result in item.results:
            about = [other for other in shown if other.ensemble.id in result.ensembles]
            if len(about) > 1:
                pooled[result.id] = (result, about)
            else:
                own.setdefault(item.anchor, []).append(result)
    sections: list[Section] = []
    if len(shown) > 1:
        sections.append(overview.comparison(shown, keys, contrasts))
    summary = []
    for item in shown:
        lines = parts.summary(item, own.get(item.anchor, []))
        # Of many ensembles a paragraph each is enough; the table below has the numbers.
        lines = [" ".join(lines)] if len(shown) > BRIEF else lines
        summary.append(("" if len(shown) == 1 else item.title, lines))
    together = []
    for result, about in pooled.values():
        context = Context(about, "pooled")
        together.append(renderer(result.kind).section(result, context))
        summary.append(
            (
                f"{listed([item.title for item in about], 4)} together",
                renderer(result.kind).summary(result, context),
            )
        )
    if together:
        sections.append(Section("Analyses over several ensembles", "pooled", (), together))
    for item in shown:
        part = parts.section(item, own.get(item.anchor, []), home)
        # One ensemble alone needs no heading of its own: its parts are the page's.
        sections += part.sections if len(shown) == 1 else [part]
    damaged = [line for item in shown for line in item.warnings]
    analyses = [(result, [item]) for item in shown for result in own.get(item.anchor, [])] + list(
        pooled.values()
    )
    doubts = [
        f"{result.kind}-{result.id}: {line}"
        for result, about in analyses
        for line in Context(about, "").warnings(result)
    ]
    return Page(
        _title(shown),
        summary,
        list(dict.fromkeys([*lost, *damaged, *doubts])),
        sections,
        commands,
        datetime.now(UTC).isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC"),
    )


def _title(shown: list[Shown]) -> str:
    runs = count(sum(len(item.runs) for item in shown), "run")
    if len(shown) == 1:
        return f"{shown[0].title}, {runs}"
    tasks = listed(sorted({item.ensemble.task for item in shown}), 4)
    return f"{tasks}: {len(shown)} ensembles, {runs}"
