"""run.json: what a shard is, how far it is, who trained it, and what became of each of its runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from dynalab.core.atomic import write_json
from dynalab.core.errors import StoreError
from dynalab.store import lock
from dynalab.store.names import is_name
from dynalab.store.paths import ShardPaths
from dynalab.store.read import check, flag, mapping, mark, number, positive, read_json, text, whole

if TYPE_CHECKING:
    from dynalab.config.ensemble import RunSpec

T = TypeVar("T")

SCHEMA_VERSION = 1
FINAL = ("done", "diverged")
# Seeds between the first and the last of a shard, at most.
_WIDEST = 100_000
STATUSES = ("planned", "running", "done", "partial", "diverged", "failed", "crashed")


@dataclass
class Run:
    """One run of a shard."""

    label: str  # Last part of its id.
    seed: int | None  # None in a crossed design, and where an imported run has none.
    streams: dict[str, int]  # Stream -> seed of the stream.
    status: str = "planned"  # planned, running, done, partial, diverged, failed or crashed.
    steps: int = 0  # Updates stored.
    # Landmarks, `memorised_step generalised_step diverged_step final final_steps`; None before the shard ended.
    summary: dict[str, Any] | None = None


@dataclass
class Shard:
    """A shard's run.json."""

    runs: list[Run]  # In stacking order.
    requested_steps: int  # Updates asked for.
    attempt: int = 1  # More after `--force`.
    status: str = "planned"  # Of the shard, one of the same.
    steps: int = 0  # Updates stored.
    # Device, threads, what the planner's trial said of bits (`Plan.bits`; absent: an older dynalab), and `keep`, the
    # most checkpoints that a command has asked for (absent: 2).
    plan: dict[str, Any] = field(default_factory=dict)
    # One record for each process that worked on it: when, where, with which versions.
    attempts: list[dict[str, Any]] = field(default_factory=list)
    # Cadence -> [rows, crc] of its series at the end of the last attempt that saved.
    marks: dict[str, list[int]] = field(default_factory=dict)
    started: str | None = None  # When training first started, ISO 8601, UTC.
    # Folders that plug-ins were found in, for the reader; nothing is taken from there.
    folders: list[str] = field(default_factory=list)
    # Steps whose checkpoints stay, for a command once asked to keep them.
    kept: list[int] = field(default_factory=list)

    def settle(self, status: str) -> None:
        """Give the shard and every run that is not diverged a status."""
        self.status = status
        for run in self.runs:
            if run.status != "diverged":
                run.status = status


def folder_name(members: Sequence[Run] | Sequence[RunSpec], attempt: int) -> str:
    """Return the name of a shard's folder, `shard-<first>-<last>-<n>`, and `-a<attempt>` from the second on."""
    first, last = (
        item.label if item.seed is None else f"{item.seed:04d}" for item in (members[0], members[-1])
    )
    return f"shard-{first}-{last}-{len(members)}" + (f"-a{attempt}" if attempt > 1 else "")


@dataclass(frozen=True)
class Lost:
    """What the name of a shard's folder tells where its run.json is damaged."""

    labels: tuple[str, ...]  # Of its runs: all, or its first and its last.
    known: bool  # Whether these are all.
    attempt: int
    # Where they are not all, every label that its runs can have; empty where that cannot be told.
    span: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, labels: Iterable[str], held: Collection[tuple[str, int]]) -> Lost:
        """Read a folder's name, given the known labels in the order of seeds, and (label, attempt) of readable runs."""
        match = re.fullmatch(r"shard-(.+)-([0-9]+)(?:-a([0-9]+))?", name)
        pieces = match[1].split("-") if match else []
        if match is None or len(pieces) % 2:
            return cls((), False, 1)
        count, attempt, middle = int(match[2]), int(match[3] or 1), len(pieces) // 2
        first, last = "-".join(pieces[:middle]), "-".join(pieces[middle:])
        span: tuple[str, ...] = ()
        if first.isdecimal() and last.isdecimal():
            seeds = range(int(first), int(last) + 1)
            # A stranger's folder may name any numbers.
            if seeds.start + _WIDEST > seeds.stop:
                span = tuple(f"s{seed:04d}" for seed in seeds)
            if len(span) == count:
                return cls(span, True, attempt)
            first, last = f"s{int(first):04d}", f"s{int(last):04d}"
        # Seeds with gaps: those between the ends that no other shard of the same attempt holds, if they are as many.
        free = [label for label in labels if (label, attempt) not in held]
        if first in free and last in free:
            between = free[free.index(first) : free.index(last) + 1]
            if len(between) == count:
                return cls(tuple(between), True, attempt)
        ends = tuple(dict.fromkeys((first, last)))
        return cls(ends, len(ends) == count, attempt, span)

    def replaced(self, newest: Mapping[str, int]) -> bool:
        """Return whether a later attempt stands in for every run, so that nothing is lost; label -> newest attempt."""
        labels = self.labels if self.known else self.span
        return bool(labels) and all(newest.get(label, 0) > self.attempt for label in labels)


def write(paths: ShardPaths, shard: Shard) -> None:
    """Replace run.json, or raise a `StoreError`: the disk is full; the old file stands."""
    # Not `asdict`, which copies every run's numbers: as slow as to write them.
    document = {**vars(shard), "runs": [vars(run) for run in shard.runs]}
    write_json(paths.run, {"schema_version": SCHEMA_VERSION, **document})


def read(paths: ShardPaths) -> Shard:
    """Read run.json, or raise a `StoreError`; a `running` shard whose writer is gone reads as `crashed`."""
    document = read_json(paths.run)
    try:
        shard = _from_json(document)
    except ValueError as error:
        raise StoreError(f"{paths.run} is damaged: {error}") from error
    if shard.status == "running" and lock.holder(paths.lock) is None:
        shard.settle("crashed")
    return shard


_RUN = {
    "label": is_name,
    "seed": (whole,),
    "streams": mapping(whole),
    "status": STATUSES.__contains__,
    "steps": whole,
    "summary": (
        {
            **dict.fromkeys(("memorised_step", "generalised_step", "diverged_step"), (whole,)),
            "final": (mapping((number,)),),
            "final_steps": mapping(whole),
        },
    ),
}
_ATTEMPT = {
    **dict.fromkeys(("step", "first_step"), whole),
    **dict.fromkeys(("seconds", "train_seconds"), number),
    **dict.fromkeys(
        ("started", "ended", "host", "device", "commit", "error", "python", "job", "uncompiled"), (text,)
    ),
    **dict.fromkeys(("dynalab", "torch", "cpu"), (text,)),
    "argv": [text],
}
# What stands for compiled code that a run was begun with and did without from some step on.
TORCH = "torch"
_PLAN = {
    "device": lambda value: re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", str(value)) is not None,
    "threads": positive,
    "keep": positive,
    "exact": flag,
    "compile": (flag,),
    **dict.fromkeys(("compiled", "rows"), is_name),
    "every": mapping(positive, is_name),
    "names": mapping(text),
    "split_from": is_name,
}
_SHARD = {
    "schema_version": whole,
    "runs": [_RUN],
    "requested_steps": whole,
    "attempt": positive,
    "status": STATUSES.__contains__,
    "steps": whole,
    "plan": _PLAN,
    "attempts": [_ATTEMPT],
    "marks": mapping(mark, is_name),
    "started": (text,),
    "folders": [text],
    "kept": [whole],
}


def is_compiled(plan: Mapping[str, Any]) -> bool:
    """Return whether a shard's updates are made, and its runs evaluated, in compiled code."""
    return bool(plan.get("compiled", TORCH) != TORCH)


def _from_json(document: Any) -> Shard:
    """Return what run.json says; unknown fields are ignored, a `ValueError` names a known one that does not fit."""
    check(document, {"schema_version": whole})
    if document.get("schema_version", 0) > SCHEMA_VERSION:
        raise StoreError(f"written by a newer dynalab (schema {document['schema_version']})")
    check(document, _SHARD)
    shard = _known(Shard, {**document, "runs": [_known(Run, run) for run in document.get("runs", ())]})
    labels = [run.label for run in shard.runs]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("it names no runs, or one twice")
    return shard


def _known(cls: type[T], values: dict[str, Any]) -> T:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    for item in fields:
        if item.name not in values and item.default is item.default_factory is dataclasses.MISSING:
            raise ValueError(f"it has no {item.name}")
    return cls(**{item.name: values[item.name] for item in fields if item.name in values})
