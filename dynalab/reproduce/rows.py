"""From results to a table: a row for each run, event or pair that a claim is about, with a value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jmespath.exceptions import JMESPathError

from dynalab.config.suggest import did_you_mean, listing
from dynalab.config.typed import flat
from dynalab.core.errors import ConfigError
from dynalab.reproduce.expression import Expression
from dynalab.reproduce.sheet import Claim, compiled


@dataclass(frozen=True)
class Document:
    """One result: what `train --json` says of an ensemble, or `analyze --json` of an analysis.

    Attributes:
        kind: `train`, or the analysis.
        tree: Plain values.
        keys: Ensemble, or run -> key -> value: of its configuration, and `command`, the name of what trained it;
            of an analysis `analysis` as well, the name of what made it. A run's go before its ensemble's.
        seeds: Id of a run -> its seed.
    """

    kind: str
    tree: Mapping[str, Any]
    keys: Mapping[str, Mapping[str, Any]]
    seeds: Mapping[str, int | None]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        value: Its value: a number, true or false; None where there is none, as of a step that never came.
        keys: Key -> value: those of its ensemble, and `ensemble`, `run` and `seed`.
        terms: Name -> value.
    """

    value: float | bool | None
    keys: Mapping[str, Any]
    terms: Mapping[str, float | bool | None] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The seed of its run."""
        seed: int | None = self.keys["seed"]
        return seed


def keys_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration as one types them: a part is chosen by its group."""
    return {key.removesuffix(".name"): value for key, value in flat(config).items()}


def rows_of(claim: Claim, documents: Sequence[Document]) -> list[Row]:
    """Return the rows that a claim is about.

    Raises:
        ConfigError: A path leads to what is no value, or `where` names what is not there.
    """
    each = compiled(claim.rows.each)
    terms = {name: compiled(path) for name, path in claim.rows.terms.items()}
    rows: list[Row] = []
    for document in documents:
        if document.kind != claim.rows.analysis:
            continue
        # What an analysis did not find is null, and has no rows.
        listed = _ask(each, document.tree, "rows.each")
        if listed is not None and not isinstance(listed, list):
            raise ConfigError(
                f"rows.each: {claim.rows.each!r} gives {_shown(listed)} in {document.kind}, no list"
            )
        for item in listed or ():
            keys = _keys(item, document)
            if _holds(claim.where, keys):
                found = {name: _value(path, item, f"rows.terms.{name}") for name, path in terms.items()}
                rows.append(Row(_of(claim, item, {**keys, **found}), keys, found))
    return rows


def _keys(item: Any, document: Document) -> dict[str, Any]:
    """Return what is known of the run or the ensemble that a row is about."""
    item = item if isinstance(item, Mapping) else {}
    run = item.get("run") or (item.get("id") if item.get("id") in document.seeds else None)
    ensemble = str(run or "").partition("/")[0] or item.get("ensemble") or document.tree.get("ensemble")
    if document.kind == "train":
        ensemble = document.tree["id"]
    own = {"ensemble": ensemble, "run": run, "seed": document.seeds.get(str(run))}
    return {**document.keys.get(str(ensemble), {}), **document.keys.get(str(run), {}), **own}


def _holds(where: Mapping[str, Any], keys: Mapping[str, Any]) -> bool:
    for key, wanted in where.items():
        if key not in keys:
            # Another task, model or optimizer may not have it; what none of this name's kind has is a mistake.
            if key.partition(".")[0] not in {name.partition(".")[0] for name in keys}:
                raise ConfigError(
                    f"where: {key} is no key{did_you_mean(key, keys)}; there are {listing(keys)}"
                )
            return False
        if not same(keys[key], wanted):
            return False
    return True


def same(value: Any, wanted: Any) -> bool:
    """Return whether a key has a value that a sheet names; 1 is 1.0, and a list is as it is typed."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, rel_tol=1e-9)
    return str(value) == str(wanted) or (value is None and wanted is None)


def _of(claim: Claim, item: Any, names: Mapping[str, Any]) -> float | bool | None:
    if claim.rows.formula:
        return Expression(claim.rows.formula).value(names)
    return _value(compiled(claim.rows.value), item, "rows.value")


def _value(path: Any, item: Any, key: str) -> float | bool | None:
    value = _ask(path, item, key)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    raise ConfigError(
        f"{key}: {path.expression!r} gives {_shown(value)}: expected a number, true, false or null; "
        "a word can be compared, verdict == 'at_edge'"
    )


def _ask(path: Any, tree: Any, key: str) -> Any:
    try:
        return path.search(tree)
    except (JMESPathError, RecursionError) as error:
        raise ConfigError(f"{key}: {path.expression!r}: {str(error).splitlines()[0]}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
