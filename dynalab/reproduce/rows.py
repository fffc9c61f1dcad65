"""From results to a table: a row for each run, event or pair that a claim is about, with a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jmespath.exceptions import JMESPathError

from dynalab.config.suggest import did_you_mean
from dynalab.config.typed import flat
from dynalab.core.errors import ConfigError
from dynalab.core.words import count
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
        interval: The value's own, where the claim asks for it; a bound of None lies beyond what is known.
    """

    value: float | bool | None
    keys: Mapping[str, Any]
    terms: Mapping[str, float | bool | None] = field(default_factory=dict)
    interval: tuple[float | None, float | None] | None = None

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
        ConfigError: A path leads to what is no value.
    """
    terms = {name: compiled(path) for name, path in claim.rows.terms.items()}
    bounds = compiled(claim.rows.interval) if claim.rows.interval else None
    rows: list[Row] = []
    for item, keys in _listed(claim, documents):
        if all(_holds(key, wanted, keys) for key, wanted in claim.where.items()):
            found = {name: _value(path, item, f"rows.terms.{name}") for name, path in terms.items()}
            value = _of(claim, item, {**keys, **found})
            rows.append(Row(value, keys, found, None if bounds is None else _bounds(bounds, item)))
    return rows


def why_none(claim: Claim, documents: Sequence[Document]) -> str:
    """Return which part of a claim left no row."""
    if not documents:
        return f"there is no result of {claim.rows.analysis}"
    listed = [keys for _, keys in _listed(claim, documents)]
    if not listed:
        return f"rows.each gives no row in {count(len(documents), 'result')} of {claim.rows.analysis}"
    line = f"where leaves 0 of {count(len(listed), 'row')}"
    for key, wanted in claim.where.items():
        there = {name for keys in listed for name in keys}
        if key not in there:
            return f"{line}: none has the key {key}{did_you_mean(key, there)}"
        if not any(_holds(key, wanted, keys) for keys in listed):
            return f"{line}: {never_is(key, wanted, [keys[key] for keys in listed if key in keys])}"
    return f"{line}: none has all of its keys"


def _listed(claim: Claim, documents: Sequence[Document]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield what `each` gives, and the keys of the run or the ensemble that it is about."""
    each = compiled(claim.rows.each)
    for document in documents:
        if document.kind != claim.rows.analysis:
            continue
        # What an analysis did not find is null, and has no rows.
        listed = _ask(each, document.tree, "rows.each")
        if listed is not None and not isinstance(listed, list):
            raise ConfigError(
                f"rows.each: {claim.rows.each!r} gives {_shown(listed)} in {document.kind}, no list"
            )
        yield from ((item, _keys(item, document)) for item in listed or ())


def _keys(item: Any, document: Document) -> dict[str, Any]:
    """Return what is known of the run or the ensemble that a row is about."""
    item = item if isinstance(item, Mapping) else {}
    run = item.get("run") or (item.get("id") if item.get("id") in document.seeds else None)
    ensemble = str(run or "").partition("/")[0] or item.get("ensemble") or document.tree.get("ensemble")
    if document.kind == "train":
        ensemble = document.tree["id"]
    own = {"ensemble": ensemble, "run": run, "seed": document.seeds.get(str(run))}
    return {**document.keys.get(str(ensemble), {}), **document.keys.get(str(run), {}), **own}


def _holds(key: str, wanted: Any, keys: Mapping[str, Any]) -> bool:
    """Return whether a row has a value of a key; another task, model or optimizer may not have the key."""
    return key in keys and same(keys[key], wanted)


def same(value: Any, wanted: Any) -> bool:
    """Return whether a key has a value that a sheet names; 1 is 1.0, and a list may be in quotes, as it is typed."""
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(same(one, other) for one, other in zip(value, wanted, strict=True))
        )
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, rel_tol=1e-9)
    return str(value) == str(wanted) or (value is None and wanted is None)


def written(value: Any) -> str:
    """Return a value of a key as a sheet has it; YAML's numbers are read as 128.0."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else str(value)


def never_is(key: str, wanted: Any, values: Iterable[Any], commands: Sequence[Any] = ()) -> str:
    """Return in words that a key never has a value, which it has, and whether `command` is what tells runs apart.

    Args:
        key: The key.
        wanted: The value.
        values: Those that it has.
        commands: The names of the commands that trained the runs.
    """
    there = list(dict.fromkeys(map(written, values)))
    hint = did_you_mean(wanted, there) if isinstance(wanted, str) else ""
    line = f"{key} is never {written(wanted)}{hint}; it is {' or '.join(there[:20]) or 'not there'}"
    if key != "command" and len(commands) > 1 and (wanted in commands or len(there) < 2):
        line += (
            f"; what tells the runs apart is by: command, which is {' or '.join(map(written, commands[:20]))}"
        )
    return line


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


def _bounds(path: Any, item: Any) -> tuple[float | None, float | None] | None:
    """Return a value's own interval; None where it has none."""
    found = _ask(path, item, "rows.interval")
    if found is None:
        return None
    if (
        not isinstance(found, list)
        or len(found) != 2
        or not all(
            end is None or (isinstance(end, int | float) and not isinstance(end, bool)) for end in found
        )
    ):
        raise ConfigError(f"rows.interval: {path.expression!r} gives {_shown(found)}: expected [low, high]")
    low, high = found
    return low, high


def _ask(path: Any, tree: Any, key: str) -> Any:
    try:
        return path.search(tree)
    except (JMESPathError, RecursionError) as error:
        raise ConfigError(f"{key}: {path.expression!r}: {str(error).splitlines()[0]}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
