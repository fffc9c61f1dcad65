"""What a check is, and what several of them need."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "outputs" / "cuda"
OUTSIDE = "outside dynalab"


@dataclass
class Bench:
    """What a check is made with.

    Attributes:
        dry: On the CPU, with tiny sizes.
        folder: Of this process alone, for what it stores.
    """

    dry: bool
    folder: Path

    @property
    def device(self) -> str:
        """Where the work goes."""
        return "cpu" if self.dry else "cuda"


@dataclass
class Outcome:
    """What a check came to.

    Attributes:
        must: What it has to be, in words.
        measured: What it was.
        ok: Whether it is as it has to be.
        more: Further numbers, for the file of results.
    """

    must: str
    measured: str
    ok: bool = True
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What `--only` says.
        make: Makes it.
        limit: Seconds that it may take.
        alone: Whether it is timed, and so has the machine to itself.
    """

    name: str
    make: Callable[[Bench], Outcome]
    limit: float = 60.0
    alone: bool = False


def configuration(words: Sequence[str]) -> Any:
    """Return the configuration of an ensemble."""
    from dynalab.config.command import read_command

    return read_command(list(words)).requests[0].config


def loop_of(words: Sequence[str], width: int, device: str, steps: int = 1000, graph: bool = False) -> Any:
    """Return a training of the seeds 0 to `width` - 1."""
    import torch

    from dynalab.core.streams import Streams
    from dynalab.training.loop import Loop

    return Loop(
        configuration(words),
        [Streams.from_seed(seed) for seed in range(width)],
        steps,
        torch.device(device),
        graph=graph,
    )


def place(frames: Sequence[traceback.FrameSummary]) -> str:
    """Return the line of dynalab that is innermost among frames."""
    own = [frame for frame in frames if "/dynalab/" in frame.filename.replace(os.sep, "/")]
    if not own:
        return OUTSIDE
    return f"{own[-1].filename.rpartition('/dynalab/')[2]}:{own[-1].lineno}"
