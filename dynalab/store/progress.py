"""How far a shard is while it is trained: progress.json, which whoever trains it replaces about once a second.

It counts only beside the lock of the claim that wrote it, and while that claim's process lives (`dynalab.store.lock`):
what a killed process left says nothing. It is neither synced nor vouched for: a display loses nothing by it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dynalab.core.errors import StoreError
from dynalab.store.paths import ShardPaths
from dynalab.store.read import check, mapping, number, read_json, text, whole

# What is shown of the latest row: medians over the runs.
METRICS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
# A file of dynalab's is a twentieth of this.
_MOST_BYTES = 10_000


@dataclass(frozen=True)
class Progress:
    """How far a shard is."""

    step: int  # Updates made.
    rate: float  # Steps a second of this process since it went on; 0 where that is not known.
    latest: Mapping[str, float] = field(default_factory=dict)  # Of `METRICS`, medians over the runs.
    steps: int = 0  # Updates asked for.
    runs: int = 0
    token: str = ""  # Of the claim of the shard's lock.
    time: float = 0.0  # When, seconds since 1970 by the clock of who trains.


def write(paths: ShardPaths, progress: Progress) -> None:
    """Replace progress.json; where that cannot be done, training goes on without."""
    # One writer, so one name: a kill at the wrong moment leaves one file, which the next replaces.
    aside = paths.progress.with_name(f".{paths.progress.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with contextlib.suppress(OSError, ValueError):
        text = json.dumps({"schema_version": 1, **asdict(progress)}, allow_nan=False)
        with os.fdopen(os.open(aside, flags, 0o644), "w") as file:
            file.write(text)
        os.replace(aside, paths.progress)


def remove(paths: ShardPaths) -> None:
    """Remove it: its shard is trained no longer."""
    with contextlib.suppress(OSError):
        paths.progress.unlink(missing_ok=True)


def _rate(value: Any) -> bool:
    return number(value) and 0 <= value < 1e12


def _metric(value: Any) -> bool:
    return number(value) and abs(value) < 1e300


_FIELDS = {
    **dict.fromkeys(("schema_version", "step", "steps", "runs"), whole),
    "rate": _rate,
    "latest": mapping(_metric, METRICS.__contains__),
    "token": text,
    "time": number,
}


def read(paths: ShardPaths, token: str) -> Progress | None:
    """Read what a claim wrote; None where there is nothing of it, or what is there is no progress."""
    try:
        if paths.progress.stat().st_size > _MOST_BYTES:
            return None
        document = read_json(paths.progress)
        check(document, _FIELDS)
        found = Progress(**{key: document[key] for key in _FIELDS if key != "schema_version"})
    except (OSError, StoreError, ValueError, TypeError, LookupError):
        return None
    return found if found.token == token else None
