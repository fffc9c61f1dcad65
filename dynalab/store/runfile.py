"""run.json: what a shard is, how far it is, who trained it, and what became of each of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dynalab.errors import StoreError
from dynalab.store import lock
from dynalab.store.atomic import read_json, write_json
from dynalab.store.paths import ShardPaths

SCHEMA_VERSION = 1
FINAL = ("done", "diverged")
STATUSES = ("planned", "running", "done", "partial", "diverged", "failed", "crashed")


class Member(Protocol):
    """A run that is, or will be, in a shard."""

    @property
    def label(self) -> str:
        """Last part of its id."""
        ...

    @property
    def seed(self) -> int | None:
        """Its seed, or None."""
        ...


@dataclass
class Run:
    """One run of a shard.

    Attributes:
        label: Last part of its id.
        seed: Its seed, or None.
        streams: Stream -> seed of the stream.
        status: One of `STATUSES`.
        steps: Updates stored.
        summary: Landmarks: `memorised_step generalised_step diverged_step final`; None before the shard ended.
    """

    label: str
    seed: int | None
    streams: dict[str, int]
    status: str = "planned"
    steps: int = 0
    summary: dict[str, Any] | None = None


@dataclass
class Shard:
    """A shard's run.json.

    Attributes:
        runs: Its runs, in stacking order.
        requested_steps: The length asked for.
        attempt: 1, or more after `--force`.
        status: Status of the shard as a whole.
        steps: Updates stored.
        plan: Device, threads, and what the planner's trial said of bits (`Plan.bits`; absent: an older dynalab).
        attempts: One record for each process that worked on it: when, where, with which versions.
        marks: Cadence -> [rows, crc] of its series at the end of the last attempt that saved.
        started: When training first started, ISO 8601, UTC.
        folders: Folders that plug-ins were found in.
    """

    runs: list[Run]
    requested_steps: int
    attempt: int = 1
    status: str = "planned"
    steps: int = 0
    plan: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    marks: dict[str, list[int]] = field(default_factory=dict)
    started: str | None = None
    folders: list[str] = field(default_factory=list)

    def settle(self, status: str) -> None:
        """Give the shard and every run that is not diverged a status."""
        self.status = status
        for run in self.runs:
            if run.status != "diverged":
                run.status = status


def folder_name(members: Sequence[Member], attempt: int) -> str:
    """Return the name of a shard's folder, `shard-<first>-<last>-<n>`, and `-a<attempt>` from the second on."""
    first, last = (
        item.label if item.seed is None else f"{item.seed:04d}" for item in (members[0], members[-1])
    )
    return f"shard-{first}-{last}-{len(members)}" + (f"-a{attempt}" if attempt > 1 else "")


def write(paths: ShardPaths, shard: Shard) -> None:
    """Replace run.json.

    Raises:
        StoreError: The disk is full; the old file stands.
    """
    write_json(paths.run, {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(shard)})


def read(paths: ShardPaths) -> Shard:
    """Read run.json; a `running` shard whose writer is gone reads as `crashed`.

    Raises:
        StoreError: It is missing or damaged.
    """
    document = read_json(paths.run)
    try:
        shard = _from_json(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{paths.run} is damaged: {error!r}") from error
    if shard.status == "running" and lock.holder(paths.lock) is None:
        shard.settle("crashed")
    return shard


def _from_json(document: Mapping[str, Any]) -> Shard:
    if document["schema_version"] > SCHEMA_VERSION:
        raise StoreError(f"written by a newer dynalab (schema {document['schema_version']})")
    known = {item.name for item in dataclasses.fields(Shard)}
    values = {key: value for key, value in document.items() if key in known}
    values["runs"] = [Run(**run) for run in document["runs"]]
    return Shard(**values)
