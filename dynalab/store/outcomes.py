"""What became of runs, a row each: landmarks, last metrics, and the keys in which their ensembles differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from dynalab.config.settings import differing
from dynalab.config.typed import flat
from dynalab.core.forks import parent_and_step
from dynalab.store.find import Selection
from dynalab.store.notebook import LANDMARKS

if TYPE_CHECKING:
    from dynalab.store.stored import StoredEnsemble, StoredRun

# Not keys that one chooses; forks and imported ensembles have columns of their own.
_NO_KEY = re.compile(r"(sources|named|parent)\b|task\.name$|probe\.\w+\.name$")
# Columns that are integers, missing or not.
_INTEGERS = ("seed", "parent_step", "final.step", *LANDMARKS)


def outcomes(selection: Selection[Any]) -> pd.DataFrame:
    """Return a data frame with a row a run of ensembles; `dynalab.ensembles_frame` says which columns it has."""
    settings = differing_keys(selection)
    rows = [
        {**about, **_fate(run)}
        for (ensemble, runs), keys in zip(selection, settings, strict=True)
        for run, about in _described(ensemble, runs, keys)
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    # What only some have does not come last.
    last = [*LANDMARKS, *(name for name in names if name.startswith("final."))]
    order = [*(name for name in names if name not in last), *last]
    return pd.DataFrame({name: column(name, [row.get(name) for row in rows]) for name in order})


def differing_keys(selection: Selection[Any]) -> list[dict[str, Any]]:
    """Return for each ensemble the keys in which they differ -> its value; None where it has no such key."""
    # Of an imported ensemble no key is known.
    trees = [{} if ensemble.imported else flat(ensemble.config) for ensemble, _ in selection]
    keys = [key for key in differing([tree for tree in trees if tree]) if not _NO_KEY.match(key)]
    # A key stands as one types it: a part is chosen by its group.
    return [{key.removesuffix(".name"): tree.get(key) for key in keys} for tree in trees]


def _described(
    ensemble: StoredEnsemble, runs: Sequence[StoredRun], keys: Mapping[str, Any]
) -> Iterator[tuple[StoredRun, dict[str, Any]]]:
    """Yield each run with what is known of it before it was trained."""
    origin: dict[str, Any] = {}
    if ensemble.parent is not None:
        origin = dict(zip(("parent", "parent_step"), parent_and_step(ensemble.parent), strict=True))
    if ensemble.names:
        origin["name"] = ensemble.names[-1]
    for run in runs:
        own = {name: getattr(run, name) for name in ("seed", "label", "status", "steps", "requested_steps")}
        yield run, {"ensemble": ensemble.id, "task": ensemble.task, "run": run.id, **own, **keys, **origin}


def _fate(run: StoredRun) -> dict[str, Any]:
    """Return what became of a run; of one that is being trained nothing is known yet."""
    summary = run.summary or {}
    final = {f"final.{name}": value for name, value in (summary.get("final") or {}).items()}
    return {name: summary.get(name) for name in LANDMARKS} | final


def column(name: str, values: list[Any]) -> pd.Series:
    """Return values as a column: numbers stay numbers, whole ones stay whole where some are missing."""
    known = [value for value in values if value is not None]
    if name in _INTEGERS:
        return pd.Series(values, dtype="Int64")
    if any(isinstance(value, list | Mapping) for value in known):
        # Lists cannot be grouped by.
        return pd.Series([None if value is None else _word(value) for value in values])
    types = {type(value) for value in known}
    whole = len(known) == len(values)
    if types == {bool}:
        return pd.Series(values, dtype="bool" if whole else "boolean")
    if types == {int}:
        return pd.Series(values, dtype="int64" if whole else "Int64")
    if types and types <= {int, float}:
        return pd.Series(values, dtype="float64")
    if not known:
        return pd.Series(values, dtype="float64" if name.startswith("final.") else object)
    return pd.Series(values) if types == {str} else pd.Series(values, dtype=object)


def _word(value: Any) -> str:
    """Return a value as it is typed, `[weights,gradients]`."""
    return f"[{','.join(map(_word, value))}]" if isinstance(value, list) else str(value)
