"""Keys of the configuration: each is declared once, with its default, its range and what it is.

Help, `dynalab config`, docs and the errors are made from what is declared (`dynalab.config.explain`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from dynalab.config.plain import key_of
from dynalab.config.suggest import did_you_mean
from dynalab.core.errors import ConfigError

_TESTS = {
    "above": (lambda a, b: a > b, "above"),
    "least": (lambda a, b: a >= b, "at least"),
    "below": (lambda a, b: a < b, "below"),
    "most": (lambda a, b: a <= b, "at most"),
}
_KINDS: dict[Any, tuple[str, str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a word", "words"),
    types.NoneType: ("null", "null"),
    Any: ("a value", "values"),
}


def key(
    default: Any,
    about: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    one_of: Sequence[Any] | None = None,
    kind: str = "",
    stored: str | None = None,
) -> Any:
    """Declare a key: a field of a dataclass of keys.

    Limits hold for every entry where the value is a list, and never for null.

    Args:
        default: Its value where none is given; `dataclasses.MISSING` where a subclass says it.
        about: What it is, in a few words, with its unit, and what null means.
        above: Values are above this.
        least: Values are at least this.
        below: Values are below this.
        most: Values are at most this.
        one_of: The words (or numbers) that it may be.
        kind: What it may be, in words, where its type does not say: `full or an integer of at least 1`.
        stored: It names another stored result, of an analysis of this name: `analyse` is given a `Stored`.
    """
    limits = {"above": above, "least": least, "below": below, "most": most}
    declared: dict[str, Any] = {"about": about, "one_of": one_of, "kind": kind, "stored": stored}
    declared |= {name: limit for name, limit in limits.items() if limit is not None}
    if isinstance(default, list | dict) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=declared)
    return dataclasses.field(default=default, metadata=declared)


class Stored(str):
    """The full id of another stored result, `hmm-7ebafd365b`, as the value of a key that names it; and its findings."""

    findings: Any

    @classmethod
    def of(cls, name: str, findings: Any) -> Stored:
        """Return the value of a key."""
        made = cls(name)
        made.findings = findings
        return made


def stored_keys(cls: type[Any]) -> dict[str, str]:
    """Return key -> analysis, of the keys of a `Config` that name other stored results."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return {field.name: field.metadata["stored"] for field in fields if field.metadata.get("stored")}


def require(condition: bool, key: str, given: object, legal: str) -> None:
    """Raise a `ConfigError` that names the key, what was given and what is legal, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={given}: expected {legal}")


class Section:
    """Base of a dataclass of keys, `class Config(Section, of="task")`: refuses what is out of the declared ranges.

    A subclass that has more to check calls this `__post_init__` first.
    """

    _of: ClassVar[str] = ""

    def __init_subclass__(cls, *, of: str | None = None, **more: Any) -> None:
        """Take the name that the keys have before their own; an inherited one stays."""
        super().__init_subclass__(**more)
        if of is not None:
            cls._of = of

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the key and what is legal."""
        for name, declared in _declarations(type(self)).items():
            value = getattr(self, name)
            entries = value if isinstance(value, list | tuple) else [value]
            for entry in entries if value is not None else ():
                if words := declared.get("one_of"):
                    legal = f"{legal_of(type(self), name)}{did_you_mean(str(entry), map(str, words))}"
                    require(entry in words, self._dotted(name), value, legal)
                limits = [(test, declared[limit]) for limit, (test, _) in _TESTS.items() if limit in declared]
                if limits and not (
                    math.isfinite(entry) and all(test(entry, limit) for test, limit in limits)
                ):
                    raise ConfigError(f"{self._dotted(name)}={value}: expected {legal_of(type(self), name)}")

    def _dotted(self, name: str) -> str:
        """Return a field's key, as one types it."""
        return f"{self._of}.{key_of(name)}" if self._of else key_of(name)

    def _require(self, condition: bool, name: str, legal: str = "") -> None:
        """Refuse a field's value unless the condition holds; what is legal is by default what was declared."""
        require(condition, self._dotted(name), getattr(self, name), legal or legal_of(type(self), name))


@dataclass(frozen=True, kw_only=True)
class Keys(Section):
    """Base of the `Config` of an analysis: the keys that all have."""

    steps: int | None = key(None, "look only at rows up to this step", least=0)


def _declarations(cls: type[Any]) -> dict[str, Mapping[str, Any]]:
    return {
        field.name: declared
        for field in dataclasses.fields(cls)
        if (declared := declaration(cls, field.name))
    }


def declaration(cls: type[Any], name: str) -> Mapping[str, Any]:
    """Return what is declared of a field: by its class, else by a base that has it too; nothing of a plain field."""
    for base in cls.__mro__:
        field = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if field is not None and "about" in field.metadata:
            declared: Mapping[str, Any] = field.metadata
            return declared
    return {}


def about_of(cls: type[Any], name: str) -> str:
    """Return what a field is: as declared, else as the section `Attributes:` of a docstring says; else nothing."""
    if declared := declaration(cls, name):
        return str(declared["about"])
    told = (_attributes(base.__dict__.get("__doc__") or "").get(name) for base in cls.__mro__)
    return next(filter(None, told), "")


def _attributes(docstring: str) -> dict[str, str]:
    """Return name -> text of the section `Attributes:` of a Google-style docstring."""
    lines = iter(docstring.expandtabs().splitlines())
    head = next((line for line in lines if line.strip() == "Attributes:"), None)
    if head is None:
        return {}
    outer, inner = len(head) - len(head.lstrip()), 0
    attributes: dict[str, list[str]] = {}
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        inner = inner or indent
        if indent <= outer:
            break
        entry = re.match(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)", line.strip()) if indent == inner else None
        if entry:
            attributes[entry[1]] = [entry[2]]
        elif attributes:
            attributes[next(reversed(attributes))].append(line.strip())
    return {name: " ".join(filter(None, words)).removesuffix(".") for name, words in attributes.items()}


def hints_of(cls: type[Any]) -> dict[str, Any]:
    """Return field -> type; empty where a type cannot be told here."""
    try:
        return get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        return {}


def kind_of(cls: type[Any], name: str) -> str:
    """Return what a field may be, in words: `an integer or null`, `relu, tanh or gelu`."""
    declared, hint = declaration(cls, name), hints_of(cls).get(name, Any)
    if kind := declared.get("kind"):
        return str(kind)
    parts = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    if words := declared.get("one_of"):
        null = ["null"] if types.NoneType in parts else []
        return alternatives([*map(str, words), *null])
    words = [word for part in parts for word in _kind(part).split(" or ")]
    return alternatives(words)


def _kind(hint: Any) -> str:
    if hint in _KINDS:
        return _KINDS[hint][0]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return alternatives(map(str, inner))
    if (origin or hint) in (list, tuple):
        fixed = origin is tuple and Ellipsis not in inner
        entries = _KINDS.get(inner[0], ("", "values"))[1] if inner else "values"
        return f"a list of {len(inner)} {entries}" if fixed else f"a list of {entries}"
    if isinstance(hint, type) and issubclass(hint, str):
        return _KINDS[str][0]
    return "keys and values" if (origin or hint) in (dict, Mapping) else "a value"


def range_of(cls: type[Any], name: str) -> str:
    """Return the range of a field, in words: `above 0`, `at least 0 and below 1`; empty where there is none."""
    declared = declaration(cls, name)
    if "least" in declared and "most" in declared:
        return f"from {_number(declared['least'])} to {_number(declared['most'])}"
    return " and ".join(
        f"{word} {_number(declared[limit])}" for limit, (_, word) in _TESTS.items() if limit in declared
    )


def legal_of(cls: type[Any], name: str) -> str:
    """Return what is legal for a field, for an error: `an integer of at least 1, or null`."""
    kind, limits = kind_of(cls, name), range_of(cls, name)
    if not limits:
        return kind
    noun = kind.removesuffix(" or null")
    legal = f"{noun} of {limits}" if limits.startswith("at ") else f"{noun} {limits}"
    return legal if noun == kind else f"{legal}, or null"


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def alternatives(words: Any) -> str:
    """Return words as a choice: `a`, `a or b`, `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else str(last)
