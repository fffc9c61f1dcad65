"""The keys of an analysis: each is declared once, with its default, its range and what it is.

Help, `--cfg job` and the errors are made from what is declared.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dynalab.config.schema import require
from dynalab.config.suggest import did_you_mean

_TESTS = {
    "above": (lambda a, b: a > b, "above"),
    "least": (lambda a, b: a >= b, "of at least"),
    "below": (lambda a, b: a < b, "below"),
    "most": (lambda a, b: a <= b, "of at most"),
}


def key(
    default: Any,
    about: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    one_of: tuple[str, ...] | None = None,
    stored: str | None = None,
) -> Any:
    """Declare a key of a `Config`.

    Args:
        default: Its value where none is given.
        about: What it is, in a few words.
        above: Values are above this.
        least: Values are at least this.
        below: Values are below this.
        most: Values are at most this.
        one_of: The words that it may be.
        stored: It names another stored result, of an analysis of this name: `analyse` is given a `Stored`.
    """
    limits = {"above": above, "least": least, "below": below, "most": most}
    about_it: dict[str, Any] = {"about": about, "one_of": one_of, "stored": stored}
    about_it |= {k: v for k, v in limits.items() if v is not None}
    if isinstance(default, list | dict) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=about_it)
    return dataclasses.field(default=default, metadata=about_it)


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


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Base of the `Config` of an analysis: the keys that all have, and the check of the ranges of its own."""

    steps: int | None = key(None, "look only at rows up to this step", least=0)

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the key and what is legal."""
        for field in dataclasses.fields(self):
            value, declared = getattr(self, field.name), field.metadata
            if value is None or not declared:
                continue
            if words := declared["one_of"]:
                require(value in words, field.name, value, " or ".join(words) + did_you_mean(value, words))
            if limits := [(*_TESTS[name], declared[name]) for name in _TESTS if name in declared]:
                holds = math.isfinite(value) and all(test(value, limit) for test, _, limit in limits)
                noun = "an integer" if str(field.type).startswith("int") else "a number"
                legal = f"{noun} {' and '.join(f'{word} {limit:g}' for _, word, limit in limits)}"
                require(holds, field.name, value, legal)


def documented(cls: type[Any], kind: str) -> str:
    """Return the keys of an analysis with their defaults and what they are, as YAML."""
    import yaml

    lines = [f"# dynalab analyze {kind} [KEY=VALUE]...: these keys, or with {kind}. before them."]
    fields = sorted(dataclasses.fields(cls), key=lambda field: field.name == "steps")
    for field in fields:
        default = field.default if field.default is not dataclasses.MISSING else None
        if default is None and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        # An empty word cannot be given: it stands for what another key decides.
        default = None if default == "" else default
        if dataclasses.is_dataclass(default):
            default = dataclasses.asdict(default)  # type: ignore[arg-type]
        text = yaml.safe_dump({field.name: default}, sort_keys=False).rstrip()
        about = field.metadata.get("about")
        first, *rest = text.splitlines()
        lines += [f"{first:<24} # {about}" if about else first, *rest]
    return "\n".join(lines)
