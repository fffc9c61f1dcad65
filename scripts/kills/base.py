"""What is trained while it is killed, and what a way to start and kill it has to offer."""

from __future__ import annotations

import glob
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dynalab.store.paths import OutputPaths

_TINY = ("task=grokking", "task.modulus=7", "model.width=8", "eval.every=5", "snapshots.at=[0,40,120]")
# A checkpoint every fourth step: a good part of the time is spent in writing them.
_OFTEN = ("checkpoint.every=4", "train.steps=240")


@dataclass(frozen=True)
class Sweep:
    """One command that is killed and repeated.

    Attributes:
        words: The command; `PARENT` in it is the one ensemble that was there before.
        before: Commands that nobody kills, which it goes on from.
    """

    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()

    def command(self, outputs: Path) -> tuple[str, ...]:
        """Return the command for an outputs folder."""
        if PARENT not in self.words:
            return self.words
        (parent,) = (
            paths.digest for paths in OutputPaths(outputs).ensembles() if "-at100-" not in paths.root.name
        )
        return tuple(parent if word == PARENT else word for word in self.words)


PARENT = "PARENT"
_GRID = ("train", *_TINY, *_OFTEN, "optimizer.lr=0.01,0.001", "seed=0..3")
SWEEPS = {
    "new": Sweep(_GRID),
    # An optimizer with slow weights, an average, noise, batches, and probes on grids of their own.
    "rich": Sweep(
        (
            *("train", *_TINY, *_OFTEN, "optimizer=lookahead", "average=ema", "train.batch_size=16"),
            *("probes=[weights,gradients,curvature]", "probe.curvature.every=40", "seed=0..3"),
        )
    ),
    # More steps and more seeds of what is stored.
    "longer": Sweep(_GRID, before=(("train", *_TINY, "train.steps=80", "optimizer.lr=0.01", "seed=0..2"),)),
    "forks": Sweep(
        ("fork", PARENT, "100", "edit=perturb", "edit.seed=0,1", "train.steps=240", "checkpoint.every=4"),
        before=(("train", *_TINY, "train.steps=120", "checkpoint.every=50", "seed=0..2"),),
    ),
}


class Running(Protocol):
    """A command that was started."""

    def strike(self, victim: str, rng: random.Random) -> bool:
        """Kill a part of it; False where there was nothing left to kill."""

    def over(self) -> bool:
        """Return whether the command, and all that it started, has ended."""

    def wait(self) -> int:
        """Wait for the command's own end (not for what it leaves behind), and return its exit code."""

    def settle(self) -> None:
        """Wait until all that the command started has ended."""


class Backend(Protocol):
    """A way to start a sweep and to kill it.

    Attributes:
        name: The launcher.
        victims: What can be killed.
    """

    name: str
    victims: tuple[str, ...]

    def start(self, words: tuple[str, ...], outputs: Path, rng: random.Random) -> Running:
        """Start a command; words of the plan (widths, workers) are the backend's to choose."""


def plan(rng: random.Random, widths: Sequence[int]) -> tuple[str, str]:
    """Return words of a plan drawn at random: a shard goes on under another plan, perhaps split."""
    return f"compute.width={rng.choice(widths)}", f"compute.workers={rng.choice([1, 2])}"


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds, at random, after something is first seen in the outputs folder."""

    seen: Callable[[Path], Iterator[str]] | None
    most: float


def _patterns(*patterns: str) -> Callable[[Path], Iterator[str]]:
    # Of the module `glob`: to `Path.glob` a folder that goes while it is looked at is an error.
    return lambda outputs: (
        path for pattern in patterns for path in glob.iglob(pattern, root_dir=outputs, include_hidden=True)
    )


# A hidden file lives for a millisecond or less: what is seen is mostly the next one to come.
MOMENTS = {
    "start": Moment(None, 1.2),
    "set-up": Moment(_patterns(".training/*.lock", "*/*/config.yaml", "*/*/.*", "*/*/shard-*/lock"), 0.4),
    "training": Moment(_patterns("*/*/shard-*/progress.json"), 1.0),
    "checkpoint": Moment(_patterns("*/*/shard-*/checkpoints/.step-*"), 0.003),
    "settling": Moment(_patterns("*/*/shard-*/checkpoints/step-00000240"), 0.15),
    "tables": Moment(_patterns("*/*/.metrics*", "*/*/metrics*.parquet"), 0.05),
}
