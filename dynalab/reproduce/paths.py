"""JMESPaths against what may stand in a result: a name that is none there is found before any result is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jmespath.functions import Functions

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.columns import declared
from dynalab.core.errors import ConfigError
from dynalab.reproduce.shapes import (
    A_NUMBER,
    A_TEXT,
    A_TRUTH,
    ANYTHING,
    NOTHING,
    Shape,
    joined,
    of_value,
    recorded_by,
)
from dynalab.reproduce.sheet import GIVEN, OF_SHARES, Claim, compiled, placed

Node = Mapping[str, Any]
_FUNCTIONS: Mapping[str, Mapping[str, Any]] = Functions.FUNCTION_TABLE
# What functions return that do not return a part of what they are given.
_RETURNS = {
    **dict.fromkeys(("length", "avg", "sum", "abs", "ceil", "floor", "to_number"), A_NUMBER),
    **dict.fromkeys(("contains", "starts_with", "ends_with"), A_TRUTH),
    **dict.fromkeys(("join", "type", "to_string"), A_TEXT),
    "keys": Shape(items=A_TEXT),
}


def require_names(claim: Claim, shape: Shape) -> bool:
    """Refuse paths of a claim to what no result may hold.

    Returns:
        Whether all was told: not, where a path leads through what may hold anything.

    Raises:
        SheetError: A name is none where it stands, or a path leads to what is no list or no value.
    """
    (at, each), *others = claim.rows.paths()
    with placed("rows", *at):
        path = _Path(each)
        listed = path.of(shape)
        if listed.is_known and listed.items is None:
            raise ConfigError(f"{each!r} gives {listed.said}, no list")
    told = path.told
    for at, text in others:
        with placed("rows", *at):
            path = _Path(text)
            found = path.of(listed.items or ANYTHING)
            told &= path.told
            if at == ("interval",):
                if found.is_known and found.items is None:
                    raise ConfigError(f"{text!r} gives {found.said}: {GIVEN} takes a list, [low, high]")
            elif found.is_known:
                _require_value(claim, text, found, at == ("value",))
    return told


def _require_value(claim: Claim, text: str, found: Shape, is_value: bool) -> None:
    """Refuse what is no value, and values that the statistic is not of where they are all of one kind."""
    numbers, truths = A_NUMBER.values, A_TRUTH.values
    if not found.values & (numbers | truths):
        word = "; a word can be compared, verdict == 'at_edge'" if found.values else ""
        raise ConfigError(f"{text!r} gives {found.said}: expected a number, true, false or null{word}")
    if not is_value or claim.statistic == "difference":
        return
    shares = claim.statistic in OF_SHARES
    if found.values == (numbers if shares else truths):
        needs = (
            "what is true or false, as steps < `100`"
            if shares
            else "numbers; of what is true or false, share"
        )
        raise ConfigError(f"{text!r} gives {found.said}: a {claim.statistic} is of {needs}")


class _Path:
    """A JMESPath that is gone along without a result.

    Attributes:
        told: Whether every name on the way so far is known to be there.
    """

    def __init__(self, text: str) -> None:
        self.text, self.told = text, True

    def of(self, shape: Shape) -> Shape:
        """Return what the path may give of what may stand where it begins."""
        try:
            return self._of(compiled(self.text).parsed, shape)
        except RecursionError as error:
            raise ConfigError(f"{self.text[:40]!r}...: a path of so many parts is too deep") from error

    def _of(self, node: Node, shape: Shape) -> Shape:
        value, children = node.get("value"), node["children"]
        match node["type"]:
            case "field":
                return self._field(str(value), shape)
            case "subexpression" | "index_expression" | "pipe":
                for child in children:
                    shape = self._of(child, shape)
                return shape
            case "index":
                return self._items(shape, "[]")
            case "slice":
                return Shape(items=self._items(shape, "[]"))
            case "flatten":
                inner = self._items(self._of(children[0], shape), "[]")
                # Places that hold lists give theirs.
                own = Shape(inner.keys, inner.others, None, inner.values, inner.open)
                return Shape(items=joined([own, inner.items or own]))
            case "projection":
                return Shape(items=self._of(children[1], self._items(self._of(children[0], shape), "[]")))
            case "filter_projection":
                inner = self._items(self._of(children[0], shape), "[?]")
                self._of(children[2], inner)
                return Shape(items=self._of(children[1], inner))
            case "value_projection":
                return Shape(items=self._of(children[1], _inside(self._of(children[0], shape))))
            case "comparator":
                self._compared(children, shape)
                return A_TRUTH
            case "not_expression":
                self._of(children[0], shape)
                return A_TRUTH
            case "or_expression" | "and_expression":
                return joined(self._of(child, shape) for child in children)
            case "multi_select_list":
                return Shape(items=joined(self._of(child, shape) for child in children))
            case "multi_select_dict":
                return Shape({child["value"]: self._of(child["children"][0], shape) for child in children})
            case "literal":
                return of_value(value)
            case "function_expression":
                return self._function(str(value), children, shape)
            case _:  # current, identity
                return shape

    def _field(self, name: str, shape: Shape) -> Shape:
        if name == "null":
            # Nothing has a key of this name, so that it gives null, and people write it for that.
            return NOTHING
        found = shape.under(name)
        if found is None:
            raise ConfigError(f"{name} in {self.text!r}: {_missed(name, shape)}")
        self.told &= declared(name, shape.keys) is not None
        return found

    def _items(self, shape: Shape, brackets: str) -> Shape:
        """Return what the places of a list hold."""
        if shape.is_known and shape.items is None:
            raise ConfigError(f"{brackets} in {self.text!r}: {shape.said} stands there, no list")
        return shape.items or ANYTHING

    def _compared(self, sides: Sequence[Node], shape: Shape) -> None:
        for side in sides:
            try:
                self._of(side, shape)
            except ConfigError as error:
                if side["type"] != "field" or "did you mean" in str(error):
                    raise
                word, quote = side["value"], "`" if side["value"] in ("true", "false") else "'"
                raise ConfigError(f"{error}; a value stands in quotes, {quote}{word}{quote}") from error

    def _function(self, name: str, children: Sequence[Node], shape: Shape) -> Shape:
        if name not in _FUNCTIONS:
            hint = did_you_mean(name, _FUNCTIONS)
            raise ConfigError(
                f"{name}() in {self.text!r}: no such function{hint}; there are {listing(_FUNCTIONS, 40)}"
            )
        takes = _FUNCTIONS[name]["signature"]
        if len(children) != len(takes) and not (takes and takes[-1].get("variadic")):
            raise ConfigError(f"{name}() in {self.text!r}: takes {len(takes)}, and {len(children)} are given")
        given = [self._of(child, shape) for child in children if child["type"] != "expref"]
        first = given[0] if given else ANYTHING
        # What stands behind & is asked in every place of the list beside it.
        keys = [child["children"][0] for child in children if child["type"] == "expref"]
        asked = [self._of(key, first.items or ANYTHING) for key in keys]
        match name:
            case "max" | "min" | "max_by" | "min_by":
                return first.items or ANYTHING
            case "sort" | "sort_by" | "reverse":
                return first
            case "map":
                return Shape(items=joined(asked))
            case "values":
                return Shape(items=_inside(first))
            case "not_null" | "merge":
                return joined(given)
            case "to_array":
                return first if first.items else Shape(items=first)
        return _RETURNS.get(name, ANYTHING)


def _inside(shape: Shape) -> Shape:
    """Return what stands under the keys of an object."""
    return (
        joined([*shape.keys.values(), *([shape.others] if shape.others else [])])
        if shape.is_object
        else ANYTHING
    )


def _missed(name: str, shape: Shape) -> str:
    """Return why a name is none where it stands, and what there is."""
    if shape.is_object:
        hint = did_you_mean(name, shape.keys)
        probe = "" if hint else recorded_by(name)
        return f"no such name{hint}; there are {listing(shape.keys)}" + (
            f"; probes=[{probe}] records it" if probe else ""
        )
    if shape.items is not None:
        return f"a list stands there; [] goes through its places, as in [].{name}"
    return f"{shape.said} stands there, which has no keys"
