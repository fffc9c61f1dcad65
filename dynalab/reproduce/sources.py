"""What a claim reads: the commands, and what is known of their runs before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynalab.reproduce.commands import Read, Step
from dynalab.reproduce.rows import keys_of, same
from dynalab.reproduce.shapes import ANYTHING, Shape, columns_of, of_value
from dynalab.reproduce.sheet import Claim
from dynalab.reproduce.words import TRAIN


def read_by(claim: Claim, steps: Sequence[Step]) -> list[Step]:
    """Return the steps whose results a claim reads."""
    key = "command" if claim.rows.analysis == TRAIN else "analysis"
    named = claim.names(key)
    return [step for step in _of_kind(claim, steps) if not named or step.name in named]


def needed(claim: Claim, steps: Sequence[Step]) -> list[Step]:
    """Return the steps that a claim reads, and what they build on."""
    return list(dict.fromkeys(item for step in read_by(claim, steps) for item in step.and_above()))


def _of_kind(claim: Claim, steps: Sequence[Step]) -> list[Step]:
    """Return the steps that make results of a claim's kind."""
    if claim.rows.analysis == TRAIN:
        return [step for step in steps if step.words.verb != "analyze"]
    return [step for step in steps if step.words.kind == claim.rows.analysis]


@dataclass(frozen=True)
class Source:
    """The runs of an ensemble that a claim may read, as far as they are known before they are trained.

    Attributes:
        keys: Key -> the values that rows about them may have; None: they are not known before.
        open: Sections whose keys are not known: those that a fork chooses anew.
        config: What may stand in its configuration.
        columns: The columns that may be recorded.
    """

    keys: Mapping[str, tuple[Any, ...] | None]
    open: frozenset[str]
    config: Shape
    columns: Shape

    def has(self, key: str) -> bool:
        """Return whether its rows may have a key."""
        return key in self.keys or key.partition(".")[0] in self.open

    def values(self, key: str) -> tuple[Any, ...] | None:
        """Return the values of a key; None where they are not known, none where it does not have it."""
        return self.keys.get(key, None if self.has(key) else ())

    def may_be(self, key: str, wanted: Any) -> bool:
        """Return whether a key may have a value in a row."""
        values = self.values(key)
        return values is None or any(same(value, wanted) for value in values)


def sources(claim: Claim, steps: Sequence[Step], read: Read) -> list[Source]:
    """Return all that a claim could read, without regard to what its `where` leaves."""
    found: list[Source] = []
    for step in _of_kind(claim, steps):
        if step.words.verb != "analyze":
            found += _trained(step, read)
            continue
        for source in (source for above in step.above for source in _trained(above, read)):
            keys = {**source.keys, "analysis": (step.name,)}
            found.append(Source(keys, source.open, source.config, source.columns))
    return found


def _trained(step: Step, read: Read) -> Iterator[Source]:
    if step.words.verb == "fork":
        yield from (_forked(parent, step, read) for parent in _trained(step.above[0], read))
        return
    for request in read.trainings[step].requests:
        tree = request.config.as_dict()
        known = {key: (value,) for key, value in keys_of(tree).items()}
        own = {"command": (step.name,), "seed": tuple(run.seed for run in request.runs)}
        config = request.config
        columns = columns_of(str(config.task.name), tuple(config.probes), config.average is not None)
        yield Source({**known, "ensemble": None, "run": None, **own}, frozenset(), of_value(tree), columns)


def _forked(parent: Source, step: Step, read: Read) -> Source:
    """Return what is known of a fork: its keys are its parent's, but for those that it changes."""
    overrides = read.forks[step]
    chosen = {item.key for item in overrides if "." not in item.key and item.key != "seed"} | {"edit"}
    kept = {key: None if key.partition(".")[0] in chosen else values for key, values in parent.keys.items()}
    given = {item.key: item.values for item in overrides if item.key not in chosen}
    probes = {str(name) for item in overrides if item.key == "probes" for name in _flat(item.values)}
    averaged = any(item.key == "average" for item in overrides)
    columns = parent.columns
    if probes or averaged:
        columns = columns.joined(columns_of(_task(parent), tuple(sorted(probes)), averaged))
    return Source(
        {**kept, "parent": None, **given, "command": (step.name,)}, parent.open | chosen, ANYTHING, columns
    )


def _task(source: Source) -> str:
    (name,) = source.keys["task"] or ("",)
    return str(name)


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list | tuple) else [value]
