"""Finding stored runs: by id or its prefix, by folder, by filter, or the last that were trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from dynalab.config.places import real_path
from dynalab.config.suggest import listing, nearest
from dynalab.core.errors import ConfigError, NothingMatched, StoreError
from dynalab.core.forks import parent_and_step
from dynalab.store.filters import Filter
from dynalab.store.paths import EnsemblePaths, OutputPaths
from dynalab.store.read import check, read_json
from dynalab.store.read import text as is_text
from dynalab.store.stored import StoredEnsemble, StoredRun

E = TypeVar("E", bound=StoredEnsemble)
Selection = list[tuple[E, list[StoredRun]]]


def select(
    outputs: Path,
    refs: Sequence[str],
    filter_text: str | None,
    open_as: Callable[[EnsemblePaths], E],
    forks: bool = False,
    also: Collection[str] = (),
) -> Selection[E]:
    """Return the ensembles, each with its runs, that references and a filter name.

    Args:
        outputs: The outputs folder.
        refs: Ids or prefixes of ids of ensembles or runs, names of imported ones, folders, or `@last`; none with a
            filter means everything, none without a filter the last.
        filter_text: Terms that all must hold, `task=grokking status=done optimizer.lr<0.01`; None: no filter. One on
            `parent` or `edit` takes forks in.
        open_as: `Ensemble`, or `StoredEnsemble` where no arrays are needed.
        forks: Whether everything has forks in it, and an ensemble that is named its own; a fork that is named is always
            meant.
        also: What else the command takes by name, for what a word that is none may have meant.

    Raises:
        NothingMatched: Nothing does.
        ConfigError: A prefix is ambiguous or the filter cannot be read.
    """
    # An empty filter is a mistake, not none: a variable of the shell that is not set.
    terms = None if filter_text is None else Filter(filter_text)
    asked, forks = forks, forks or (terms is not None and terms.means_forks)
    paths = OutputPaths(outputs)
    everything = [open_as(folder) for folder in paths.ensembles()]
    if not everything:
        raise NothingMatched(f"{outputs} holds no runs; train some: dynalab train task=grokking seed=0..3")
    wanted = list(refs) or (["@all"] if terms else ["@last"])
    chosen: dict[str, tuple[E, dict[str, StoredRun]]] = {}
    for ref in wanted:
        for ensemble, runs in _resolve(paths, ref, everything, open_as, forks, also):
            chosen.setdefault(ensemble.id, (ensemble, {}))[1].update({run.id: run for run in runs})
    if asked and refs:
        _take_forks(chosen, everything)
    selection = [(ensemble, list(found.values())) for ensemble, found in chosen.values()]
    if terms is not None:
        selection = terms.choose(selection, everything)
        if not selection:
            hint = next(filter(None, (term.meant() for term in terms.terms)), "")
            more = (
                ""
                if forks or not any(item.is_fork for item in everything)
                else " (forks are left out: --forks)"
            )
            raise NothingMatched(
                f"no run fits -f '{filter_text}'{hint}{more}; `dynalab runs list` shows what there is"
            )
    return selection


def _take_forks(chosen: dict[str, tuple[E, dict[str, StoredRun]]], everything: Sequence[E]) -> None:
    """Add to chosen runs those of their forks, and of forks of these."""
    waiting, children = [*chosen], _by_parent(everything)
    while waiting:
        name = waiting.pop()
        labels = {run.label for run in chosen[name][1].values()}
        for item in children.get(name, ()):
            if item.id not in chosen:
                chosen[item.id] = item, {run.id: run for run in item.runs if run.label in labels}
                waiting.append(item.id)


def _by_parent(everything: Iterable[E]) -> dict[str, list[E]]:
    """Return the forks of each ensemble that has some."""
    found: dict[str, list[E]] = {}
    for item in everything:
        if item.is_fork:
            found.setdefault(parent_and_step(str(item.parent))[0], []).append(item)
    return found


def forks_of(outputs: Path, left_out: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the ids of the forks of each ensemble that has some, but for those in `left_out`."""
    every = map(StoredEnsemble, OutputPaths(outputs).ensembles())
    forks = _by_parent(item for item in every if item.id not in left_out)
    return {parent: [item.id for item in some] for parent, some in forks.items()}


def orphaned(outputs: Path, ensemble: StoredEnsemble) -> str | None:
    """Return a line about a fork whose parent is not stored any more; None for any other ensemble."""
    if not ensemble.is_fork:
        return None
    parent, step = parent_and_step(str(ensemble.parent))
    if any(paths.digest == parent for paths in OutputPaths(outputs).ensembles()):
        return None
    return f"{ensemble.id} goes on from {parent}, which is not in {outputs}; up to step {step:,} it has all rows itself"


def readable(selection: Selection[E]) -> tuple[Selection[E], list[str]]:
    """Return a selection without the ensembles whose configuration is damaged, and a line about each of those.

    Raises:
        StoreError: None is left.
    """
    whole: Selection[E] = []
    lines = []
    for ensemble, runs in selection:
        try:
            _ = ensemble.config
            whole.append((ensemble, runs))
        except StoreError as error:
            lines.append(f"{error}; {ensemble.id} is left out")
    if not whole:
        raise StoreError("; ".join(lines))
    return whole, lines


def _resolve(
    paths: OutputPaths,
    ref: str,
    everything: list[E],
    open_as: Callable[[EnsemblePaths], E],
    forks: bool,
    also: Collection[str],
) -> Selection[E]:
    if ref == "@all":
        return [(item, item.runs) for item in everything if forks or not item.is_fork]
    if ref == "@last":
        return _last(paths, everything)
    if "/" in ref and (folder := _folder(ref)):
        # What is in the outputs folder is itself, however it is named.
        own = (item for item in everything if item.path in (folder, real_path(folder)))
        item = next(own, None) or open_as(EnsemblePaths(real_path(folder)))
        return [(item, item.runs)]
    digest, slash, label = ref.partition("/")
    # A name is no hash to be cut short.
    found = (
        [item for item in everything if digest in item.known_names]
        or [item for item in everything if digest and item.id.startswith(digest)]
        or [item for item in everything if item.path.name == digest]
    )
    if not found:
        names = [name for item in everything for name in item.known_names]
        tasks = {item.task: f"-f task={item.task}" for item in everything if not item.imported}
        near = nearest(digest, [*names, *also, *tasks, *(item.id for item in everything)])
        hint = f" (did you mean {tasks.get(near, near)}?)" if near else ""
        more = f", or name {listing(also, 5)}" if also and not near else ""
        raise NothingMatched(
            f"{ref}: no stored ensemble or run has this id{' or name' if names or also else ''}{hint}; see `dynalab "
            f"runs list` (of analyses: `--analyses`){more}"
        )
    if len(found) > 1 and not slash and all(digest in item.known_names for item in found):
        # The settings of one table.
        return [(item, item.runs) for item in found]
    if len(found) > 1:
        raise ConfigError(f"{ref} is ambiguous: {', '.join(item.id for item in found[:5])}")
    (item,) = found
    if not slash:
        return [(item, item.runs)]
    exact = item.by_label.get(label)
    runs = [exact] if exact else [run for run in item.runs if run.label.startswith(label)]
    if not runs:
        raise NothingMatched(f"{ref}: {item.id} has no such run; see `dynalab runs list {item.id}`")
    return [(item, runs)]


def _folder(ref: str) -> Path | None:
    """Return the folder that a path names, links in it not followed; None where there is none with a configuration."""
    try:
        folder = Path(os.path.abspath(Path(ref).expanduser()))
    except RuntimeError:
        # ~somebody who does not exist.
        return None
    return folder if os.path.isfile(EnsemblePaths(folder).config) else None


def _last(paths: OutputPaths, everything: list[E]) -> Selection[E]:
    try:
        document = read_json(paths.last)
        check(document, {"ensembles": [is_text]})
        ids = document["ensembles"]
    except (StoreError, KeyError, ValueError):
        raise NothingMatched(
            f"{paths.root} does not say what was trained last; name a run or filter (-f 'task=grokking')"
        ) from None
    by_id = {item.id: item for item in everything}
    found = [(by_id[digest], by_id[digest].runs) for digest in ids if digest in by_id]
    if not found:
        raise NothingMatched(f"the last ensembles ({', '.join(ids)}) are no longer in {paths.root}")
    return found
