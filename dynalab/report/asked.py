"""What the references of a command mean for a page: ensembles, their runs, and the analyses that go with them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalab.config.registry import search_path
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.report.choice import Choice, choose
from dynalab.report.sweeps import sweeps
from dynalab.reproduce.reading import sheet_names
from dynalab.reproduce.result import find, read
from dynalab.reproduce.sheet import SCALES
from dynalab.store.find import Selection, select
from dynalab.store.paths import OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result, find_result, tell_apart
from dynalab.store.stored import StoredEnsemble


@dataclass(frozen=True)
class Asked:
    """What is shown."""

    selection: Selection[Ensemble]  # ensembles, and the runs of each
    choices: Mapping[str, Choice]  # id of an ensemble -> its analyses
    named: Sequence[Result]  # the analyses that were asked for
    papers: Sequence[str]  # the reproductions that were
    refs: Sequence[str]  # the other references, `@last` by what it meant
    refused: Sequence[str]  # why an analysis of a sweep was not made

    @property
    def words(self) -> list[str]:
        """What asks for the same again."""
        return [*self.papers, *self.refs, *(f"{result.kind}-{result.id}" for result in self.named)]


def asked(
    root: Path,
    refs: Sequence[str],
    filter_text: str | None = None,
    forks: bool = False,
    *,
    sweeping: bool = True,
) -> Asked:
    """Return what some references mean; what is said of settings together is made, and stored, where it is missing.

    Args:
        root: The outputs folder.
        refs: Runs, ensembles, analyses and reproductions; none: what was trained last.
        filter_text: Terms that hold for the runs.
        forks: Whether forks that nothing names are among them.
        sweeping: Whether what is said of settings together is made; not of those that are trained yet.

    Raises:
        NothingMatched: There is nothing of the kind.
        ConfigError: A reference cannot be understood, or an analysis is about other runs.
        StoreError: A result cannot be read or stored.
    """
    refs, papers = _reproduced(root, refs)
    refs, folders = tell_apart(root, refs)
    chosen = [find_result(root, paths.root.name) for paths in folders]
    if chosen and not (refs or papers):
        ids = {paths.digest for paths in OutputPaths(root).ensembles()}
        refs = list(dict.fromkeys(about for result in chosen for about in result.ensembles if about in ids))
    if "@last" in refs or not (refs or papers or filter_text):
        # It moves on: the page names what it was.
        last = [item.id for item, _ in select(root, ["@last"], None, Ensemble)]
        refs = list(
            dict.fromkeys(name for ref in refs or ["@last"] for name in (last if ref == "@last" else [ref]))
        )
    claimed = [run for runs in papers.values() for run in runs]
    reproduced = [path.parent.name for path in OutputPaths(root).stored_reproductions()]
    try:
        selection = select(root, [*claimed, *refs], filter_text, Ensemble, forks, reproduced)
    except NothingMatched as error:
        line = next(filter(None, (_untried(ref, reproduced) for ref in refs)), str(error))
        raise NothingMatched(line) from error
    for result in chosen:
        if not any(item.id in result.ensembles for item, _ in selection):
            about = ", ".join(result.ensembles)
            raise ConfigError(f"{result.kind}-{result.id} is about {about}, which is not among the runs")
    made, refused = sweeps(selection, root, chosen) if sweeping else ([], [])
    choices = {item.id: choose(root, item.id, [*chosen, *made]) for item, _ in selection}
    return Asked(selection, choices, chosen, [*papers], refs, refused)


def _reproduced(root: Path, refs: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the references that name no reproduction, and those that do, each with what it is about.

    Those of its removals alone are not among them: they are no settings to be compared with the others.
    """
    found = {ref: read(path) for ref in refs if (path := find(root, ref)) is not None}
    stored = {item.id: item for item in map(StoredEnsemble, OutputPaths(root).ensembles())} if found else {}
    named: dict[str, list[str]] = {}
    for ref, made in found.items():
        apart, named[ref] = {*made.removed_runs}, []
        for item in (stored[digest] for digest in made.ensembles if digest in stored):
            runs = [run.id for run in item.runs]
            named[ref] += [run for run in runs if run not in apart] if apart & {*runs} else [item.id]
        if not named[ref]:
            raise NothingMatched(f"{ref}: its ensembles are not stored any more; reproduce it again")
    return [ref for ref in refs if ref not in found], named


def _untried(ref: str, reproduced: Sequence[str]) -> str:
    """Return a line about a sheet that nothing is stored of; empty where a reference is no sheet, or something is."""
    name, dash, scale = ref.rpartition("-")
    name, scales = (name, [scale]) if dash and scale in SCALES else (ref, list(SCALES))
    if name not in sheet_names(search_path()) or {f"{name}-{scale}" for scale in scales} & {*reproduced}:
        return ""
    words = [name, *(["--scale", *scales] if len(scales) == 1 else [])]
    return f"{ref}: no claims of it are stored; `{shlex.join(['dynalab', 'reproduce', *words])}` tries them"
