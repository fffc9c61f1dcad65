"""Filters of runs, `task=grokking optimizer.lr<0.01`: terms that all must hold, compared as values."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeVar

from dynalab.config.seeds import parse_seeds
from dynalab.config.suggest import did_you_mean, listing, nearest
from dynalab.core.errors import ConfigError
from dynalab.store.runfile import STATUSES
from dynalab.store.stored import StoredEnsemble, StoredRun
from dynalab.store.tags import of_run

E = TypeVar("E", bound=StoredEnsemble)

_TERM = re.compile(r"([\w.]+)(!=|<=|>=|==|=|<|>)(.*)$", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?$|[+-]?inf$", re.IGNORECASE)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
# What every run has, beside its summary and its ensemble's configuration.
FIELDS = (
    *("id", "run", "ensemble", "task", "name", "seed", "status", "steps", "started"),
    *("memorised", "generalised"),
    *("parent", "edit", "tag"),
)
_IDS = ("id", "run", "ensemble")
_ABSENT = object()
_KINDS = {"number": "a number", "bool": "true or false", "list": "a list, [1,2]", "word": "a word"}


@dataclass(frozen=True)
class Given:
    """A value as it is written in a term."""

    value: Any  # None, a bool, a number, a word, or a list of `Given`.
    text: str  # How it is written, without quotes.

    @classmethod
    def read(cls, text: str) -> Given:
        """Read a value: null, true, false, numbers, lists, words; what is quoted is a word."""
        text = text.strip()
        if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
            return cls(text[1:-1], text[1:-1])
        if text.startswith("[") and text.endswith("]"):
            return cls([cls.read(piece) for piece in _split(text[1:-1], ",")], text)
        if text.lower() in ("null", "none"):
            return cls(None, text)
        if text.lower() in ("true", "false"):
            return cls(text.lower() == "true", text)
        return cls(float(text) if _NUMBER.match(text) else text, text)

    def equals(self, stored: Any) -> bool:
        """Return whether a stored value is this one. A stored word is compared with what is written: 007 is a name."""
        if isinstance(stored, str):
            return stored == self.text
        if isinstance(stored, list | tuple) and isinstance(self.value, list):
            return len(stored) == len(self.value) and all(
                given.equals(item) for given, item in zip(self.value, stored, strict=True)
            )
        return kind(stored) == kind(self.value) and bool(stored == self.value)


def kind(value: Any) -> str:
    """Return what sort of value this is, in the words of `_KINDS`; `null` for None."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list | tuple) else "word"


@dataclass
class Term:
    """One term."""

    key: str  # A field of a run or a key of its configuration.
    sign: str
    given: Given  # What it is compared with.
    text: str  # The term as it was written.
    seen: set[str] = field(default_factory=set)  # Kinds of the values that were found under the key.
    words: set[str] = field(default_factory=set)  # The words among these.
    seeds: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check what needs no run: whether the value can be compared in this way."""
        if self.key == "seed" and self.sign not in _ORDER:
            self.seeds = frozenset(parse_seeds(self.given.text))
        elif self.key == "started":
            _moment(self.given.text, self.text)
        elif self.key == "status" and self.given.text not in STATUSES:
            hint = did_you_mean(self.given.text, STATUSES)
            raise ConfigError(f"-f: {self.text}: no such status{hint}; there are {listing(STATUSES)}")
        elif self.sign in _ORDER and kind(self.given.value) != "number":
            raise ConfigError(f"-f: {self.text}: {self.sign} compares numbers, and dates of started")

    def holds(self, ensemble: StoredEnsemble, run: StoredRun) -> bool:
        """Return whether it holds for a run; of a run without the key nothing does."""
        stored = _lookup(ensemble, run, self.key)
        if stored is _ABSENT:
            return False
        if isinstance(stored, dict):
            # A part is named.
            stored = stored.get("name")
        self.seen.add(kind(stored))
        if isinstance(stored, str):
            self.words.add(stored)
        if self.sign in _ORDER and self.key != "started":
            return kind(stored) == "number" and _ORDER[self.sign](stored, self.given.value)
        return self._equals(stored) if self.sign in _ORDER else self._equals(stored) == (self.sign != "!=")

    def _equals(self, stored: Any) -> bool:
        """Return whether a value is the one that is given, in the way of its key."""
        if self.key in _IDS:
            return str(stored).startswith(self.given.text)
        if self.key == "parent":
            (name, at, step), (parent, _, left) = (
                str(one).partition("@") for one in (self.given.text, stored)
            )
            return parent.startswith(name) and (not at or step in (left, left.partition("-")[0]))
        if self.key == "seed":
            return stored in self.seeds
        if self.key in ("name", "tag"):
            return self.given.text in stored
        if self.key == "started":
            own, given = datetime.fromisoformat(stored), _moment(self.given.text, self.text)
            if not isinstance(given, datetime):
                return _ORDER.get(self.sign, operator.eq)(own.date(), given)
            zone = given if given.tzinfo else given.replace(tzinfo=own.tzinfo)
            return _ORDER.get(self.sign, operator.eq)(own, zone)
        return self.given.equals(stored)

    def meant(self) -> str:
        """Return ` (did you mean KEY=VALUE?)` where its word is none that was found under the key, and one is near."""
        if self.sign != "=" or self.key == "started" or self.given.text in self.words:
            return ""
        near = nearest(self.given.text, self.words)
        return f" (did you mean {self.key}={near}?)" if near else ""

    def misfit(self) -> str | None:
        """Return what is wrong with its value, where no value that was found under the key can be compared with it."""
        own = kind(self.given.value)
        found = sorted(self.seen - {"null"})
        if not found or own in (*found, "null") or self.key in FIELDS:
            return None
        if "word" in found and self.sign not in _ORDER:
            return None
        expected = " or ".join(_KINDS[item] for item in found)
        return f"-f: {self.text}: {self.key} is {expected}"


class Filter:
    """Terms that all must hold, separated by spaces; a value with spaces is quoted."""

    def __init__(self, text: str) -> None:
        terms = []
        for word in _split(text, None):
            match = _TERM.match(word)
            if not match or not match[3]:
                what = "compares with nothing; KEY='' compares with empty text"
                what = what if match else "is no term; expected KEY=VALUE, with = != < > <= or >="
                raise ConfigError(f"-f '{text}': {word} {what}")
            terms.append(Term(match[1], match[2].replace("==", "="), Given.read(match[3]), word))
        if not terms:
            raise ConfigError(f"-f '{text}': names no term; expected KEY=VALUE")
        # First what is known without reading the ensemble's configuration.
        self.terms = sorted(terms, key=lambda term: term.key not in FIELDS)

    @property
    def means_forks(self) -> bool:
        """Whether a term is about what only forks have."""
        return any(term.key in ("parent", "edit") or term.key.startswith("edit.") for term in self.terms)

    def choose(
        self, selection: Sequence[tuple[E, list[StoredRun]]], everything: Sequence[E]
    ) -> list[tuple[E, list[StoredRun]]]:
        """Return the runs of a selection for which all terms hold; a key that nothing of `everything` has is a mistake.

        Raises:
            ConfigError: No stored ensemble has a key, or a value is of a kind that is never found under its key.
            StoreError: The configuration of an ensemble, which a term asks for, is damaged.
        """
        chosen = [
            (item, [run for run in runs if all(term.holds(item, run) for term in self.terms)])
            for item, runs in selection
        ]
        chosen = [(item, runs) for item, runs in chosen if runs]
        if not chosen or any(term.misfit() for term in self.terms):
            self._check(everything)
        return chosen

    def _check(self, everything: Sequence[StoredEnsemble]) -> None:
        """Say what is wrong with a term, if something is, by all that is stored, whichever terms were asked first."""
        stored = [(item, run) for item in everything for run in item.runs]
        for term in self.terms:
            key = term.key
            if key not in FIELDS and all(_lookup(*one, key) is _ABSENT for one in stored):
                keys = {*FIELDS, *_keys(everything)}
                if key in keys:
                    within = sorted(name for name in keys if name.startswith(f"{key}."))
                    raise ConfigError(f"-f: {key} is a section, not a value; there are {listing(within)}")
                hint = did_you_mean(key, keys)
                raise ConfigError(
                    f"-f: {key} is neither a field of a run nor a configuration key of any{hint}"
                )
            for one in stored:
                term.holds(*one)
            if misfit := term.misfit():
                raise ConfigError(misfit)


def ordered(selection: Sequence[tuple[E, list[StoredRun]]], key: str) -> list[tuple[E, list[StoredRun]]]:
    """Return runs by what a term of a filter can name: numbers before words, and runs that have none of it last.

    Args:
        selection: The runs.
        key: The key; with `-` before it the largest comes first.

    Raises:
        ConfigError: No run has it, or it is a section.
        StoreError: The configuration of an ensemble, which the key asks for, is damaged.
    """
    name, falls = key.removeprefix("-"), key.startswith("-")
    known: list[tuple[tuple[bool, Any], tuple[E, list[StoredRun]]]] = []
    rest: list[tuple[E, list[StoredRun]]] = []
    singles = [(item, [run]) for item, runs in selection for run in runs]
    for pair, value in zip(singles, values(selection, name, f"--sort {key}"), strict=True):
        if value is None:
            rest.append(pair)
        else:
            number = isinstance(value, int | float)
            known.append(((not number, value if number else str(value)), pair))
    known.sort(key=lambda item: item[0], reverse=falls)
    return [*(pair for _, pair in known), *rest]


def values(selection: Sequence[tuple[E, list[StoredRun]]], key: str, asked: str) -> list[Any]:
    """Return what runs have of a key that a term of a filter can name; None where one has none, or what is no number.

    Args:
        selection: The runs.
        key: The key.
        asked: The words that asked for it.

    Raises:
        ConfigError: No run has it, or it is a section.
        StoreError: The configuration of an ensemble, which the key asks for, is damaged.
    """
    found = [_lookup(item, run, key) for item, runs in selection for run in runs]
    # What is not a number is neither above nor below one.
    found = [None if value is _ABSENT or value != value else value for value in found]
    if all(value is None for value in found):
        known = {*FIELDS, *_keys([item for item, _ in selection])}
        hint = "" if key in known else did_you_mean(key, known)
        raise ConfigError(f"{asked}: no run that is listed has {key}{hint}")
    return found


def _lookup(ensemble: StoredEnsemble, run: StoredRun, key: str) -> Any:
    """Return what a run has under a key; `_ABSENT` where it has none."""
    summary = run.summary or {}
    if key not in FIELDS:
        value = _inside(summary, key)
        return _inside(ensemble.config, key) if value is _ABSENT else value
    if key in ("id", "run"):
        value = run.id
    elif key in ("ensemble", "task"):
        value = ensemble.id if key == "ensemble" else ensemble.task
    elif key == "name":
        value = ensemble.names or None
    elif key == "tag":
        value = of_run(ensemble.tags, run.label)
    elif key in ("parent", "edit"):
        # A fork may have no edit.
        return ensemble.config.get(key) if ensemble.is_fork else _ABSENT
    else:
        value = summary.get(f"{key}_step") if key in ("memorised", "generalised") else getattr(run, key)
    # A crossed run has no seed, one that never began no start, one that never generalised no such step.
    return _ABSENT if value is None else value


def _inside(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return _ABSENT
        tree = tree[part]
    # Keys are not values, except those of a part, which has a name.
    return _ABSENT if isinstance(tree, dict) and "name" not in tree else tree


def _keys(everything: Sequence[StoredEnsemble], most: int = 100) -> Iterator[str]:
    """Yield keys that stored runs have, of so many ensembles."""

    def dotted(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, value in tree.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from dotted(value, f"{prefix}{name}.")

    for item in everything[:most]:
        yield from dotted(item.config)
        for run in item.runs[:1]:
            yield from dotted(run.summary or {})


def _split(text: str, at: str | None) -> list[str]:
    """Split at a letter, or at spaces, outside quotes and brackets."""
    pieces, piece, depth, quote = [], "", 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and (not piece or piece[-1] in "=<>[, "):
            quote = letter
        else:
            depth += (letter == "[") - (letter == "]")
        if not quote and depth == 0 and (letter == at or (at is None and letter.isspace())):
            pieces.append(piece)
            piece = ""
        else:
            piece += letter
    if quote or depth:
        raise ConfigError(f"-f: {text}: a {'quote' if quote else 'bracket'} has no other end")
    return [item for item in [*pieces, piece] if item.strip()]


def _moment(text: str, term: str) -> date | datetime:
    """Return a day, or a day and time."""
    for read in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            return read(text)
    raise ConfigError(f"-f: {term}: expected a date, 2026-05-31 or 2026-05-31T14:00")
