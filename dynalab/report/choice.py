"""Which of the stored analyses a page shows, and with which keys each was made."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalab.analysis.base import Needs
from dynalab.analysis.command import needs_of, trains
from dynalab.config.analysis import given_keys
from dynalab.config.keys import stored_keys
from dynalab.config.overrides import Override
from dynalab.config.registry import Part, find, names, search_path
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import naming
from dynalab.core.words import listed
from dynalab.report.blocks import Section
from dynalab.show.blocks import Block, Cell, Say, Table
from dynalab.store.reader import Ensemble
from dynalab.store.results import CONTRAST, Result, results


@dataclass(frozen=True)
class Choice:
    """The analyses of an ensemble."""

    shown: Sequence[Result] = ()  # those that are shown
    others: Sequence[Result] = ()  # those that are stored as well


def choose(root: Path, ensemble: str, named: Sequence[Result]) -> Choice:
    """Choose the analyses that are shown with an ensemble, by its id; some were asked for, also of other ensembles.

    Of each kind these are the named ones. Where none is named it is the one with default keys (of most rows, the
    newest); where there is none, the newest with others. What another stored result went into is a kind beside what
    none did, and what is of several ensembles together one beside what is of each. What an older version of an analysis
    made is shown only where it is named.
    """
    stored = [result for result in results(root, [ensemble]) if result.kind != CONTRAST]
    shown = [result for result in named if ensemble in result.ensembles]
    asked = {_sort(result) for result in named}
    current = [result for result in stored if not newer_version(result)]
    for sort in dict.fromkeys(_sort(result) for result in current if _sort(result) not in asked):
        same = [result for result in current if _sort(result) == sort]
        # Oldest first, and of equals the last counts: one of a few runs, or of shorter ones, hides none of all.
        default = sorted((result for result in same if _is_default(result)), key=_extent)
        shown.append((default or same)[-1])
    ids = {result.id for result in shown}
    return Choice(shown, [result for result in stored if result.id not in ids])


def part_of(kind: str) -> Part | None:
    """Return an analysis; None where there is none of this name, or a plug-in's is broken."""
    try:
        return find("analysis", kind, search_path())
    except ConfigError:
        return None


def _sort(result: Result) -> tuple[str, bool, bool]:
    return result.kind, is_of_another(result), _is_together(result)


def is_of_another(result: Result) -> bool:
    """Return whether another stored result went into an analysis."""
    return bool({*(keys_of(result) or ())} & _references(result.kind))


def _is_default(result: Result) -> bool:
    return not (is_pooled(result) or {*(keys_of(result) or ())} - _references(result.kind))


def _is_together(result: Result) -> bool:
    """Return whether a result is of several ensembles whose analysis is also of each."""
    part = part_of(result.kind)
    return result.across and part is not None and needs_of(part).together


def _references(kind: str) -> set[str]:
    """Return the keys of an analysis that name other stored results; none of one that is not there."""
    part = part_of(kind)
    return {*stored_keys(part.config_class)} if part else set()


def _extent(result: Result) -> tuple[int, int]:
    inputs = result.data.get("inputs") or []
    return len(inputs), sum(item.get("steps") or 0 for item in inputs)


def newer_version(result: Result) -> int | None:
    """Return the version of the analysis where an older one made the result; None where it did not."""
    part, made = part_of(result.kind), result.data.get("version")
    version = int(getattr(part.module, "VERSION", 1)) if part else 0
    return version if isinstance(made, int) and made < version else None


def older(result: Result) -> str:
    """Return a line about a result of an older version, with the command that makes the new one; empty of another."""
    version = newer_version(result)
    if version is None:
        return ""
    return (
        f"{result.kind}-{result.id} was made by version {result.data['version']} of the analysis, which is at "
        f"{version}: `{analyze_command(result)}` makes it anew"
    )


def superseded(result: Result, stored: Sequence[Result]) -> bool:
    """Return whether a result of the current version is stored as well that has the same keys and ensembles."""
    return any(
        (other.kind, other.ensembles, keys_of(other)) == (result.kind, result.ensembles, keys_of(result))
        and not newer_version(other)
        for other in stored
    )


def keys_of(result: Result) -> dict[str, Any] | None:
    """Return the keys that an analysis was given, dotted; None where neither it nor its module says."""
    keys = result.data.get("keys")
    if isinstance(keys, dict):
        return keys
    # Results of before do not hold them.
    part = part_of(result.kind)
    return given_keys(part.config_class, result.data.get("config") or {}) if part else None


def key_words(result: Result) -> list[str]:
    """Return the words of a command that give an analysis its keys; none for the default ones."""
    words = [str(Override.of(key, value)) for key, value in (keys_of(result) or {}).items()]
    return [*words, "pool=true"] if is_pooled(result) else words


def is_pooled(result: Result) -> bool:
    """Return whether ensembles were put together that the analysis would have taken one by one."""
    part = part_of(result.kind)
    needs = needs_of(part) if part is not None else Needs()
    return result.across and not (needs.across or needs.together)


def analyze_command(result: Result) -> str:
    """Return the command that makes an analysis again: its ensembles, and the keys that it was given."""
    words = ["dynalab", "analyze", result.kind, *result.ensembles, *key_words(result)]
    return shlex.join([*words, *_config_dir(result.kind)])


def _config_dir(kind: str) -> list[str]:
    """Return the words that lead a command to an analysis in a folder of the user's; none for any other."""
    try:
        folder = find("analysis", kind, search_path()).folder
    except ConfigError:
        return []
    return [] if folder is None else ["--config-dir", str(folder)]


def unmade(ensemble: Ensemble, stored: Sequence[Result]) -> list[str]:
    """Return the commands of the analyses that an ensemble recorded everything for, and that are not stored.

    Those that read whatever was recorded are not among them.
    """
    commands = []
    for kind in sorted({*names("analysis", search_path())} - {result.kind for result in stored}):
        try:
            part = part_of(kind)
            # What trains is made where it is asked for.
            if part is None or trains(part):
                continue
            with naming(part.config_class):
                needs = needs_of(part, part.config_class())
        except (ConfigError, TypeError):
            # A plug-in's may have keys without a default, and a `NEEDS` that does not work: who calls it is told.
            continue
        if (needs.columns or needs.blocks) and not needs.missing(ensemble.metrics, ensemble.blocks):
            commands.append(shlex.join(["dynalab", "analyze", kind, ensemble.id, *_config_dir(kind)]))
    return commands


def others(anchor: str, ensemble: Ensemble, shown: Sequence[Result], hidden: Sequence[Result]) -> Section:
    """Return the section that lists the analyses that are not shown, and how they are, and those to be made."""
    blocks: list[Block] = []
    stored = [*shown, *hidden]
    if commands := unmade(ensemble, stored):
        blocks.append(Say(f"Recorded, and not analysed: {listed([f'`{line}`' for line in commands])}."))
    lines = [line for result in hidden if (line := older(result)) and not superseded(result, stored)]
    blocks += [Say(f"{line}.") for line in lines]
    rows = [
        [
            Cell(f"{result.kind}-{result.id}", tone="whole"),
            " ".join(key_words(result)) or "default",
            len(result.data.get("inputs") or ()),
            Cell(str(result.data.get("created") or "").replace("T", " ")[:16] or None, tone="whole"),
            shlex.join(
                ["dynalab", "report", ensemble.id, f"{result.kind}-{result.id}", *_config_dir(result.kind)]
            ),
        ]
        for result in reversed(hidden)
    ]
    if rows:
        header = ["analysis", "keys", "runs", "made", "shown by"]
        caption = "Stored, and not shown here: of each kind the page shows the analysis with default keys"
        blocks.append(Table(header, rows, caption, sortable=False))
    return Section("Other analyses", f"{anchor}-others", blocks)
