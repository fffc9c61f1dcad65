"""The analyses that a report of a sweep begins with: made, and stored, before the page is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dynalab.analysis.command import analyse, gather, needs_of
from dynalab.config.analysis import read_analysis
from dynalab.config.registry import Part, find, names, search_path
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.report.choice import part_of
from dynalab.store.find import Selection
from dynalab.store.reader import Ensemble
from dynalab.store.results import Result


def sweeps(
    selection: Selection[Ensemble], outputs: Path, named: Sequence[Result] = ()
) -> tuple[list[Result], list[str]]:
    """Return what is said of the ensembles of each task together, where it has several, and why some was not made.

    Args:
        selection: Ensembles and the runs that are shown.
        outputs: The outputs folder.
        named: Results that were asked for: of their kinds nothing is made.

    Raises:
        StoreError: A result cannot be stored.
    """
    tasks: dict[str, list[Ensemble]] = {}
    for item, _ in selection:
        if not item.imported:
            tasks.setdefault(item.task, []).append(item)
    several = {task: items for task, items in tasks.items() if len(items) > 1}
    kinds = (
        [part for part in _of_sweeps() if part.name not in {result.kind for result in named}]
        if several
        else []
    )
    made, refused = [], []
    for part in kinds:
        for task, items in several.items():
            ids = {item.id for item in items}
            part, config = read_analysis(part.name, [])
            try:
                (inputs,) = gather([one for one in selection if one[0].id in ids], part, config)
                made.append(analyse(inputs, part, config, outputs))
            except (ConfigError, NothingMatched) as error:
                refused.append(f"{task}: no {part.name}: {error}")
    return made, refused


def leads(result: Result) -> bool:
    """Return whether a result is one that a report of a sweep begins with."""
    part = part_of(result.kind)
    return part is not None and needs_of(part).sweeps


def _of_sweeps() -> list[Part]:
    """Return the analyses that say they are of sweeps; one that cannot be imported is not looked at."""
    folders, found = search_path(), []
    for name in names("analysis", folders):
        try:
            part = find("analysis", name, folders)
        except ConfigError:
            continue
        if needs_of(part).sweeps:
            found.append(part)
    return found
