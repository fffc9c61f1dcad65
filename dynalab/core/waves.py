"""What an analysis that trains asks for: forks of runs, wave by wave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fork:
    """Runs that are trained again with keys changed, or their weights edited."""

    name: str  # By which their groups come back; it also stands in the names of the forks' folders.
    runs: tuple[str, ...]  # Their ids.
    # Each goes on from the last checkpoint that it kept up to this step (or run -> step), from the start without one;
    # with an edit from this step itself.
    step: int | Mapping[str, int]
    # Key -> value in the fork: `train.loss_dtype`, which must be at its default in the runs; `edit`, `edit.keep`.
    changes: Mapping[str, Any]
    steps: int | None = None  # Length; None: as long as the runs.
