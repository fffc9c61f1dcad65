"""What may stand in a result, told by the types that declare it and by what stands in results: where a name is none.

An empty list tells nothing of what its places hold, null nothing of what would stand there: no name is missed there.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dynalab.config import registry
from dynalab.core.columns import AVERAGED, OF_EMBEDDING, OF_UPDATES, declared

TEXT, NUMBER, TRUTH = "text", "a number", "true or false"


@dataclass(frozen=True)
class Shape:
    """What may stand at a place; one with nothing of all this is not known, as of null.

    Attributes:
        keys: Of an object: key -> what stands under it; a number at the end of a key is `#`.
        others: What stands under keys of other names; None: there are none.
        items: What the places of a list hold; None: it is none.
        values: Of what has no parts: what it is, in words.
        open: Whether anything may stand there beside this.
    """

    keys: Mapping[str, Shape] = field(default_factory=dict)
    others: Shape | None = None
    items: Shape | None = None
    values: frozenset[str] = frozenset()
    open: bool = False

    @property
    def is_object(self) -> bool:
        """Whether an object may stand there."""
        return bool(self.keys) or self.others is not None

    @property
    def is_known(self) -> bool:
        """Whether nothing else than what is known may stand there."""
        return not self.open and (self.is_object or self.items is not None or bool(self.values))

    @property
    def said(self) -> str:
        """What it is, in words."""
        kinds = ["an object"] * self.is_object + ["a list"] * (self.items is not None)
        return " or ".join([*kinds, *sorted(self.values)]) or "null"

    def under(self, key: str) -> Shape | None:
        """Return what stands under a key; None where no such key may be there."""
        if form := declared(key, self.keys):
            return self.keys[form]
        return self.others or (None if self.is_known else ANYTHING)

    def filled(self, seen: Shape) -> Shape:
        """Return it with the names that were seen where it leaves them open: those of objects that hold parts.

        Under names that stand for data, as verdicts that are counted, one that was not seen is one that did not occur.
        """
        if self.open:
            return dataclasses.replace(self, open=False).joined(seen) if seen.is_known else self
        keys = {key: inner.filled(seen.keys.get(key, NOTHING)) for key, inner in self.keys.items()}
        others = self.others
        if others is not None and seen.keys and (others.open or others.is_object or others.items is not None):
            keys = {key: others.filled(inner) for key, inner in seen.keys.items()} | keys
            others = None
        items = None if self.items is None else self.items.filled(seen.items or NOTHING)
        return Shape(keys, others, items, self.values)

    def joined(self, other: Shape) -> Shape:
        """Return what may stand where one of the two does."""
        names = dict.fromkeys([*self.keys, *other.keys])
        keys = {name: joined(s.keys[name] for s in (self, other) if name in s.keys) for name in names}
        return Shape(
            keys,
            _either(self.others, other.others),
            _either(self.items, other.items),
            self.values | other.values,
            self.open or other.open,
        )


NOTHING = Shape()
ANYTHING = Shape(open=True)
A_TEXT, A_NUMBER, A_TRUTH = (Shape(values=frozenset([word])) for word in (TEXT, NUMBER, TRUTH))
_OF_VALUES = {str: A_TEXT, int: A_NUMBER, float: A_NUMBER, bool: A_TRUTH}


def joined(shapes: Iterable[Shape]) -> Shape:
    """Return what may stand where one of these does."""
    return functools.reduce(Shape.joined, shapes, NOTHING)


def _either(one: Shape | None, other: Shape | None) -> Shape | None:
    return one.joined(other) if one and other else one or other


def of_value(value: Any) -> Shape:
    """Return what plain values tell."""
    if isinstance(value, Mapping):
        return Shape({str(key): of_value(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return Shape(items=joined(map(of_value, value)))
    return _OF_VALUES.get(type(value), NOTHING)


def of_type(hint: Any, inside: tuple[Any, ...] = ()) -> Shape:
    """Return what a type declares; anything where it declares nothing, or itself again."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return joined(of_type(arg, inside) for arg in args if arg not in (type(None), msgspec.UnsetType))
    if origin is typing.Literal:
        return joined(map(of_value, args))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = of_type(args[1], inside)
        named = typing.get_args(args[0]) if typing.get_origin(args[0]) is typing.Literal else ()
        return Shape(dict.fromkeys(named, inner), None if named else inner)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return Shape(items=joined(of_type(arg, inside) for arg in args if arg is not ...))
    if isinstance(hint, type) and hint not in inside:
        if hint in _OF_VALUES:
            return _OF_VALUES[hint]
        if names := _names(hint):
            return Shape({key: of_type(inner, (*inside, hint)) for key, inner in names.items()})
    return ANYTHING


def _names(cls: type[Any]) -> dict[str, Any]:
    """Return key -> type of a class of findings; none of another class, or of one whose types cannot be read."""
    if issubclass(cls, msgspec.Struct):
        fields = {item.name: item.encode_name for item in msgspec.structs.fields(cls)}
    elif dataclasses.is_dataclass(cls):
        fields = {item.name: item.name for item in dataclasses.fields(cls)}
    else:
        return {}
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):
        return {}
    return {key: hints[name] for name, key in fields.items()}


# What every stored analysis has beside its findings.
_OF_ALL = Shape(
    {
        **dict.fromkeys(("id", "kind", "ensemble", "dynalab", "created", "decoded_with"), A_TEXT),
        **dict.fromkeys(("ensembles", "warnings", "tables"), Shape(items=A_TEXT)),
        **dict.fromkeys(("config", "keys"), ANYTHING),
        **dict.fromkeys(("version", "schema_version"), A_NUMBER),
        "inputs": Shape(items=of_value({"run": "", "steps": 0, "attempt": 0})),
    }
)


def of_analysis(module: Any) -> Shape:
    """Return what a result of an analysis may hold, given its module."""
    return _OF_ALL.joined(of_type(getattr(module, "Findings", Any)))


def of_training(config: Shape, columns: Shape) -> Shape:
    """Return what `train --json` may hold of an ensemble, given its configuration and columns."""
    row = Shape({"step": A_NUMBER}).joined(columns)
    landmarks = dict.fromkeys(("memorised_step", "generalised_step", "diverged_step"), A_NUMBER)
    summary = Shape({**landmarks, "final": row, "final_steps": row})
    run = of_value({"id": "", "seed": 0, "status": "", "steps": 0, "requested_steps": 0})
    runs = run.joined(Shape({"summary": summary, "rows": Shape(items=row)}))
    return Shape({"id": A_TEXT, "config": config, "runs": Shape(items=runs)})


@functools.cache
def columns_of(task: str, probes: tuple[str, ...], averaged: bool = False) -> Shape:
    """Return the columns that a training of a task with some probes may record, as keys of a row.

    With `averaged` it averages its weights.
    """
    folders = registry.search_path()
    own = getattr(registry.find("task", task, folders).module, "COLUMNS", None)
    evaluated = [f"{part}_{name}" for part in ("train", "test") for name in own or ()]
    names = [*OF_UPDATES, *OF_EMBEDDING, *evaluated, *(f"{AVERAGED}{name}" for name in evaluated if averaged)]
    listed = [getattr(registry.find("probe", name, folders).module, "COLUMNS", None) for name in probes]
    names += [name for columns in listed for name in columns or ()]
    # A part of a user's own may record what it does not declare.
    others = ANYTHING if None in (own, *listed) else None
    return Shape(dict.fromkeys(names, A_NUMBER), others)


def recorded_by(column: str) -> str:
    """Return the probe that records a column; nothing where none does."""
    folders = registry.search_path()
    for name in registry.names("probe", folders):
        if declared(column, getattr(registry.find("probe", name, folders).module, "COLUMNS", {})):
            return name
    return ""
