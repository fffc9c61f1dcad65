"""A report as a folder: gathered, drawn, and swapped for the one of the same name."""

from __future__ import annotations

import gc
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from dynalab.core.atomic import check_writable, making
from dynalab.core.errors import ConfigError, NothingMatched, StoreError
from dynalab.core.plugins import PluginError
from dynalab.core.progress import counted
from dynalab.core.words import count, listed, safe
from dynalab.report import ensemble as parts
from dynalab.report import fork, overview, provenance
from dynalab.report.archive import write_archive
from dynalab.report.blocks import Section
from dynalab.report.gather import Shown, gather
from dynalab.report.page import Page, render
from dynalab.report.reproductions import claimed, headline, reproductions
from dynalab.report.reproductions import section as reproduced
from dynalab.report.sections import Rendered
from dynalab.report.sections import contrasts as beside
from dynalab.report.sections import render as analysed
from dynalab.report.sections.context import Context
from dynalab.report.sections.contrasts import Contrasts
from dynalab.report.sweeps import leads
from dynalab.report.trained import trained
from dynalab.reproduce.result import Reproduction
from dynalab.show import svg
from dynalab.show.blocks import Number, Say
from dynalab.show.drawer import Drawer
from dynalab.show.plots.style import room, telling
from dynalab.store.find import Selection
from dynalab.store.paths import OutputPaths, refuse_links
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")
LONGEST = 110
# More ensembles than this have a shorter summary.
BRIEF = 6
# Sentences of analyses above the picture; the others stand below it.
ANSWERS = 4
# Numbers that are written large.
LARGE = 5


def report_name(selection: Selection[Ensemble], results: Sequence[Result] = ()) -> str:
    """Return a name from what is shown and was asked for by id: short, stable, and safe as a folder's."""
    items = [item for item, _ in selection]
    if len(items) == 1:
        slug = safe(items[0].path.name.rpartition("-")[0])[:40]
        pieces = [safe(items[0].task)[:20], f"{slug}-{items[0].id}"]
    else:
        tasks = safe("-".join(sorted({item.task for item in items})))[:30]
        pieces = [tasks, f"{len(items)}-ensembles-{_digest([item.id for item in items], 10)}"]
    part = [run.id for item, runs in selection if len(runs) < len(item.runs) for run in runs]
    if len(part) == 1:
        pieces.append(safe(part[0].rpartition("/")[2])[:20])
    elif part:
        pieces.append(f"{len(part)}-runs-{_digest(part, 6)}")
    if len(results) == 1:
        pieces.append(f"{safe(results[0].kind)}-{results[0].id}")
    elif results:
        pieces.append(f"{len(results)}-analyses-{_digest([result.id for result in results], 6)}")
    return "-".join(pieces)[:LONGEST]


def _digest(ids: Sequence[str], length: int) -> str:
    return hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:length]


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
    *,
    title: str = "",
    note: str = "",
    archive: bool = False,
    drawer: Drawer | None = None,
) -> Path:
    """Write a report; one of the same name is replaced in one go.

    Args:
        selection: Ensembles and the runs of each that are shown.
        results: Ensemble id -> its analyses; one that covers several ensembles may stand under each.
        outputs: The outputs folder.
        name: Name of the report; None derives it from what is shown.
        commands: Commands that make this page again, for its foot.
        others: Ensemble id -> its analyses that are listed, not shown.
        title: The page's heading, above what was trained; empty: what was trained is the heading.
        note: Text under it; an empty line ends a paragraph.
        archive: Whether all of it is put into one archive as well, `<name>.zip` beside the page.
        drawer: A second process that draws; the bytes are the same without it.

    Returns:
        The page, `outputs/reports/<name>/index.html`.

    Raises:
        StoreError: Everything is damaged, or the page cannot be written.
        NothingMatched: There is no run to show.
        ConfigError: The name cannot be used.
        PluginError: A plug-in's part of the page could not be made; the page is there without it.
    """
    name = check_name(name) if name is not None else report_name(selection)
    home = OutputPaths(outputs).report(name)
    shown, lost = gathered(selection, results, outputs, others)
    refuse_links(home.parent)
    check_writable(home.parent)
    if home.is_dir() and any(home.iterdir()) and not (home / "index.html").is_file():
        raise ConfigError(f"{home} is no report, it is left alone; choose another --name")
    with _seldom_collected(), telling(drawer.add if drawer else None):
        page = composed(shown, lost, outputs, home, commands, folded=svg.PHONE)
    if title:
        page = replace(page, title=title, subtitle=page.subtitle or page.title)
    page = replace(page, note=[part.strip() for part in re.split(r"\n\s*\n", note) if part.strip()])
    # Its files are not synced one by one: what a power loss takes is drawn again.
    with making(home, replace=True) as folder, _seldom_collected():
        (folder / "figures").mkdir()
        text = render(page, folder / "figures", papers=archive, drawer=drawer)
        (folder / "index.html").write_text(text, encoding="utf-8")
        if archive:
            write_archive(page, folder, name)
    if broken := [error for item in shown for error in item.broken]:
        lines = "; ".join(dict.fromkeys(map(str, broken)))
        raise PluginError(f"{lines}; the page is without it: {home / 'index.html'}") from broken[0].__cause__
    return home / "index.html"


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Look for garbage seldom: figures are many small things that stay, and a tenth of the time went there."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def gathered(
    selection: Selection[Ensemble],
    results: Mapping[str, Sequence[Result]],
    outputs: Path,
    others: Mapping[str, Sequence[Result]] | None = None,
) -> tuple[list[Shown], list[str]]:
    """Return what is shown of each ensemble, as `write_report` is given it, and lines about what is left out.

    Raises:
        StoreError: Everything is damaged.
        NothingMatched: There is no run to show.
    """
    shown: list[Shown] = []
    lost: list[str] = []
    for item, runs in selection:
        try:
            own = gather(item, runs, results.get(item.id) or (), (others or {}).get(item.id) or ())
        except StoreError as error:
            item.damaged.append(item.path.name)
            item.warnings.append(f"{error}; {item.id} is left out")
            lost += item.warnings
            continue
        # On the page, paths are relative: it may be shown elsewhere.
        own.warnings = [line.replace(f"{outputs}{os.sep}", "") for line in own.warnings]
        if own.runs:
            shown.append(own)
        else:
            lost += item.warnings or [f"{item.id} has no runs yet"]
    if not shown:
        if any(item.damaged for item, _ in selection):
            raise StoreError("; ".join(lost))
        raise NothingMatched(f"nothing to show: {'; '.join(lost) or 'no runs'}")
    return shown, lost


def composed(
    shown: list[Shown],
    lost: Sequence[str],
    outputs: Path,
    home: Path,
    commands: Sequence[str] = (),
    *,
    folded: float | None = None,
) -> Page:
    """Return the page of some ensembles: all that it says and shows, before it is laid out in its folder.

    Figures of what is folded away are as wide as `folded` says, in inches; None: as all others.
    """
    # What is compared is computed, and stored, before the page is drawn, which only reads.
    contrasts, refused = beside.contrasts(shown, outputs)
    papers, damaged = reproductions(outputs, [item.ensemble.id for item in shown])
    away = [line.replace(f"{outputs}{os.sep}", "") for line in [*lost, *refused, *damaged]]
    return _page(shown, away, home, commands, contrasts, papers, folded)


def _page(
    shown: list[Shown],
    lost: Sequence[str],
    home: Path,
    commands: Sequence[str],
    contrasts: Sequence[Contrasts],
    papers: Sequence[Reproduction],
    folded: float | None = None,
) -> Page:
    keys = overview.name_ensembles(shown)
    pooled: dict[str, tuple[Result, Context]] = {}
    single: dict[str, list[tuple[Result, Context]]] = {item.anchor: [] for item in shown}
    for item in shown:
        for result in item.results:
            about = [other for other in shown if other.ensemble.id in result.ensembles]
            if len(about) > 1:
                pooled[result.id] = result, Context(about, "pooled")
            else:
                single[item.anchor].append((result, Context([item], item.anchor)))
        # What it says beside settings that are not on the page comes after what is its own.
        single[item.anchor].sort(key=lambda pair: pair[0].across)
    analyses = [*chain.from_iterable(single.values()), *pooled.values()]
    # Of several ensembles what is theirs alone is folded away.
    width = folded if len(shown) > 1 else None
    rendered = {}
    for result, context in counted(analyses, "analyses", "drawing"):
        with room(None if result.id in pooled else width):
            made = analysed(result, context)
        if len(shown) > 1 and result.id not in pooled:
            made = made._replace(numbers=_titled(context.shown[0], made.numbers))
        if result.across and result.id not in pooled:
            made = made._replace(section=replace(made.section, lead=""))
        rendered[result.id] = made
    leading = [key for key, (result, _) in pooled.items() if leads(result)]
    sections = [*map(reproduced, papers), *(rendered[key].section for key in leading)]
    if len(shown) > 1:
        sections.append(overview.comparison(shown, keys, contrasts, ranked=bool(leading)))
    single_sections: list[Section] = []
    ahead: list[Number] = []
    compared = [line for key in leading for line in rendered[key].lines]
    # Of a paper's claims the page says whether they hold; which of their settings is better comes later.
    answers = [*map(headline, papers)] or compared
    summary: list[tuple[str, Sequence[str]]] = (
        [("Settings beside each other", compared)] if papers and compared else []
    )
    for item in counted(shown, "ensembles", "drawing"):
        own_words, own = parts.summary(item), [rendered[result.id] for result, _ in single[item.anchor]]
        n_own = sum(not result.across for result, _ in single[item.anchor])
        found = [*chain.from_iterable(made.lines for made in own)]
        states = next((made.states for made in own if made.states is not None), None)
        with room(width):
            made_of = [made.section for made in own]
            part = parts.section(item, made_of[:n_own], home, states, made_of[n_own:])
        if len(shown) == 1:
            # One ensemble alone needs no heading of its own: its parts are the page's.
            ahead = fork.numbers(part)
            answers += [*provenance.answers(item), *fork.answers(part), *found[:ANSWERS]]
            single_sections += part.sections
            lines = [*own_words, *found[ANSWERS:]]
        else:
            if leading:
                # Above stands how they compare; here what is theirs alone, and the rest with their own figures.
                part = replace(part, blocks=[*map(Say, own_words), *part.blocks])
                own_words = parts.troubles(item)
            lines = [*own_words, *found]
            single_sections.append(replace(part, folded=True))
        # Of many ensembles a paragraph each is enough; the table below has the numbers.
        lines = [" ".join(lines)] if len(shown) > BRIEF else lines
        if any(lines):
            summary.append(("" if len(shown) == 1 else item.title, lines))
    for result, context in (item for key, item in pooled.items() if key not in leading):
        titles = listed([item.title for item in context.shown], 4)
        summary.append((f"{titles} together", rendered[result.id].lines))
    if together := [rendered[key].section for key in pooled if key not in leading]:
        sections.append(Section("Analyses over several ensembles", "pooled", (), together))
    damaged = [line for item in shown for line in item.warnings]
    # What is odd about an analysis stands in its section.
    doubts = [
        f"{result.kind}-{result.id}: {count(len(lines), 'warning')} in its section"
        for result, context in analyses
        if (lines := context.warnings(result))
    ]
    title, subtitle = _title(shown), ""
    if len(papers) == 1 and {item.ensemble.id for item in shown} <= {*papers[0].ensembles}:
        title, subtitle = ": ".join(filter(None, (papers[0].paper, papers[0].title))), title
    return Page(
        title,
        summary,
        list(dict.fromkeys([*lost, *damaged, *doubts])),
        [*sections, *single_sections],
        commands,
        _newest(shown),
        [*ahead, *_numbers(shown, papers, [*rendered.values()])][:LARGE],
        answers,
        subtitle,
    )


def _numbers(
    shown: Sequence[Shown], papers: Sequence[Reproduction], analyses: Sequence[Rendered]
) -> list[Number]:
    """Return what is written large: of claims, else of the analyses that lead, of the runs, of the other analyses."""
    if papers:
        return [*map(claimed, papers)]
    leading, others = (
        [number for made in analyses if bool(made.section.lead) is first for number in made.numbers]
        for first in (True, False)
    )
    if len(shown) == 1:
        return [*leading, *parts.numbers(shown[0]), *others]
    each = [_titled(item, parts.numbers(item)[:1]) for item in shown] if not leading else []
    return [*leading, *chain.from_iterable(each), *others]


def _titled(item: Shown, numbers: Sequence[Number]) -> list[Number]:
    """Return numbers of one ensemble of several, by its title."""
    return [replace(number, name=f"{item.title}: {number.name}") for number in numbers]


def _newest(shown: list[Shown]) -> str:
    """Return when the newest of what is shown was stored: the same results make the same bytes, at any time."""
    said = [str(result.data.get("created", "")) for item in shown for result in (*item.results, *item.others)]
    for run in (run for item in shown for run in item.runs):
        said += [
            str(attempt.get(key) or "") for attempt in run.record.attempts for key in ("started", "ended")
        ]
    times = []
    for text in dict.fromkeys(said):
        with suppress(ValueError):
            time = datetime.fromisoformat(text)
            times.append(time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC))
    return f"{max(times):%Y-%m-%d %H:%M} UTC" if times else ""


def _title(shown: list[Shown]) -> str:
    """Return what was trained, with its values; of imported runs their name."""
    runs = count(sum(len(item.runs) for item in shown), "run")
    configs = [item.ensemble.config for item in shown if not item.ensemble.imported]
    if len(configs) == len(shown) and (words := trained(configs)):
        longest = max(item.last_step for item in shown)
        shortest = min((run.steps for item in shown for run in item.runs if run.steps), default=longest)
        steps = f"{shortest:,} to {longest:,} steps" if shortest < longest else count(longest, "step")
        if len(shown) > 1:
            return f"{words}; {len(shown)} settings, {runs} of {steps}"
        seeded = all(run.seed is not None for run in shown[0].runs)
        length = f"{count(len(shown[0].runs), 'seed') if seeded else runs}, {steps}"
        return f"{words}; {length}"
    if len(shown) == 1:
        names = listed(shown[0].ensemble.names, 4) if shown[0].ensemble.names else ""
        what = f"Imported runs: {names}" if shown[0].ensemble.imported and names else shown[0].title
        return f"{what}; {runs}, {count(shown[0].last_step, 'step')}"
    tasks = listed(sorted({item.ensemble.task for item in shown}), 4)
    return f"{tasks}: {len(shown)} ensembles, {runs}"
