"""Finding stored runs: by id or its prefix, by folder, by filter, or the last that were trained."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dynalab.config.seeds import parse_seeds
from dynalab.config.suggest import did_you_mean
from dynalab.errors import ConfigError, NothingMatched, StoreError
from dynalab.store.paths import EnsemblePaths, OutputPaths
from dynalab.store.read import check, read_json
from dynalab.store.read import text as is_text
from dynalab.store.stored import StoredEnsemble, StoredRun

E = TypeVar("E", bound=StoredEnsemble)
Selection = list[tuple[E, list[StoredRun]]]

_TERM = re.compile(r"([\w.]+)(!=|<=|>=|=|<|>)(.*)$")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def select(
    outputs: Path, refs: Sequence[str], filter_text: str | None, open_as: Callable[[EnsemblePaths], E]
) -> Selection[E]:
    """Return the ensembles, each with its runs, that references and a filter name.

    Args:
        outputs: The outputs folder.
        refs: Ids or prefixes of ids of ensembles or runs, names of imported ones, folders, or `@last`; none with a
            filter means everything, none without a filter the last.
        open_as: `Ensemble`, or `StoredEnsemble` where no arrays are needed.
        filter_text: Terms that all must hold, `task=grokking status=done optimizer.lr<0.01`.

    Raises:
        NothingMatched: Nothing does.
        ConfigError: A prefix is ambiguous or the filter cannot be read.
    """
    paths = OutputPaths(outputs)
    everything = [open_as(folder) for folder in paths.ensembles()]
    if not everything:
        raise NothingMatched(f"{outputs} holds no runs; train some: dynalab train task=grokking seed=0..3")
    wanted = list(refs) or (["@all"] if filter_text else ["@last"])
    chosen: dict[str, tuple[E, list[StoredRun]]] = {}
    for ref in wanted:
        for ensemble, runs in _resolve(paths, ref, everything, open_as):
            _, before = chosen.get(ensemble.id, (ensemble, []))
            chosen[ensemble.id] = (ensemble, [*before, *(run for run in runs if run not in before)])
    selection = list(chosen.values())
    if filter_text:
        terms = _terms(filter_text)
        selection = [(item, [run for run in runs if _holds(item, run, terms)]) for item, runs in selection]
        selection = [(item, runs) for item, runs in selection if runs]
        if not selection:
            raise NothingMatched(f"no run fits -f '{filter_text}'; `dynalab runs list` shows what there is")
    return selection


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
        except StoreError as error:
            lines.append(f"{error}; {ensemble.id} is left out")
        else:
            whole.append((ensemble, runs))
    if not whole:
        raise StoreError("; ".join(lines))
    return whole, lines


def _resolve(
    paths: OutputPaths, ref: str, everything: list[E], open_as: Callable[[EnsemblePaths], E]
) -> Selection[E]:
    if ref == "@all":
        return [(item, item.runs) for item in everything]
    if ref == "@last":
        return _last(paths, everything)
    if "/" in ref and (folder := _folder(ref)):
        # What is in the outputs folder is itself, however it is named.
        own = (item for item in everything if item.path in (folder, folder.resolve()))
        item = next(own, None) or open_as(EnsemblePaths(folder.resolve()))
        return [(item, item.runs)]
    digest, slash, label = ref.partition("/")
    found = _named(digest, everything)
    if not found:
        found = [item for item in everything if item.id.startswith(digest)] if digest else []
    if not found:
        found = [item for item in everything if item.path.name == digest]
    if not found:
        names = [name for item in everything if item.imported for name in _names(item)]
        hint = did_you_mean(digest, [*names, *(item.id for item in everything)])
        raise NothingMatched(
            f"{ref}: no stored ensemble or run has this id{' or name' if names else ''}{hint}; see `dynalab runs list`"
        )
    if len(found) > 1:
        raise ConfigError(f"{ref} is ambiguous: {', '.join(item.id for item in found[:5])}")
    (item,) = found
    if not slash:
        return [(item, item.runs)]
    exact = [run for run in item.runs if run.label == label]
    runs = exact or [run for run in item.runs if run.label.startswith(label)]
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


def _names(item: StoredEnsemble) -> list[str]:
    try:
        return item.names
    except StoreError:
        return []


def _named(name: str, everything: list[E]) -> list[E]:
    """Return the imported ensemble of a name: the whole name, since a name is no hash to be cut short."""
    return [item for item in everything if item.imported and name in _names(item)]


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


def _terms(text: str) -> list[tuple[str, str, str]]:
    terms = []
    for word in text.split():
        match = _TERM.match(word)
        if not match:
            raise ConfigError(f"-f '{text}': {word} is no term; expected KEY=VALUE, with = != < > <= or >=")
        if not match[3]:
            raise ConfigError(f"-f '{text}': {word} compares with nothing")
        terms.append((match[1], match[2], match[3]))
    return terms


def _holds(ensemble: StoredEnsemble, run: StoredRun, terms: list[tuple[str, str, str]]) -> bool:
    for key, sign, text in terms:
        value = _field(ensemble, run, key)
        if key == "seed" and sign in ("=", "!="):
            holds = (value in parse_seeds(text)) == (sign == "=")
        else:
            holds = _compare(value, sign, text)
        if not holds:
            return False
    return True


def _field(ensemble: StoredEnsemble, run: StoredRun, key: str) -> Any:
    own = {
        "id": run.id,
        "run": run.id,
        "ensemble": ensemble.id,
        "task": ensemble.task,
        "name": next(iter(_names(ensemble)), None),
        "seed": run.seed,
        "status": run.status,
        "steps": run.steps,
        "started": run.started,
        "memorised": (run.summary or {}).get("memorised_step"),
        "generalised": (run.summary or {}).get("generalised_step"),
    }
    if key in own:
        return own[key]
    if run.summary and key in run.summary:
        return run.summary[key]
    value: Any = ensemble.config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ConfigError(f"-f: {key} is neither a field of a run nor a configuration key")
        value = value[part]
    return value.get("name", value) if isinstance(value, dict) else value


def _compare(value: Any, sign: str, text: str) -> bool:
    if value is None:
        return (text in ("null", "None")) == (sign == "=") if sign in ("=", "!=") else False
    if isinstance(value, bool):
        return _COMPARE[sign](str(value).lower(), text.lower())
    if isinstance(value, int | float):
        try:
            return _COMPARE[sign](float(value), float(text))
        except ValueError as error:
            raise ConfigError(f"-f: {text} is no number to compare with {value}") from error
    return _COMPARE[sign](str(value), text)
