"""What an analysis that trains asks for: forks of runs, wave by wave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fork:
    """Runs that are trained again with one key changed.

    Attributes:
        name: By which their groups come back; it also stands in the names of the forks' folders.
        runs: Ids of the runs.
        step: Each goes on from the last checkpoint that it kept up to this step (or run -> step); from the start where
            it kept none.
        key: The key, `train.loss_dtype`, which must be at its default in the runs.
        value: Its value in the fork.
        steps: Length; None: as long as the runs.
    """

    name: str
    runs: tuple[str, ...]
    step: int | Mapping[str, int]
    key: str
    value: Any
    steps: int | None = None
