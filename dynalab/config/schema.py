"""Typed schemas of the configuration keys that belong to no task, model, optimizer or probe.

Every field's default is neutral: it leaves out the field's effect, and a field at its default does not enter the
identity hash (so a new field never orphans stored ensembles). The YAML files under conf/ list every key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dynalab.core.convergence import direction_of
from dynalab.core.errors import ConfigError

STREAMS = ("init", "split", "order", "noise")


def require(condition: bool, key: str, given: object, legal: str) -> None:
    """Raise a `ConfigError` that names the key, what was given and what is legal, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={given}: expected {legal}")


def _require_least(least: int, key: str, given: float | None, noun: str = "an integer") -> None:
    require(given is None or given >= least, key, given, f"{noun} of at least {least}")


def check_cadence(key: str, every: int | None, at: Any) -> None:
    """Check a pair of cadence keys `<key>.every` and `<key>.at`."""
    _require_least(1, f"{key}.every", every)
    if isinstance(at, list | tuple):
        steps = all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in at)
        require(steps, f"{key}.at", list(at), "a list of steps, or log")
    else:
        require(at in (None, "log", "never"), f"{key}.at", at, "log, never or a list of steps")
    require(every is None or at is None, f"{key}.at", at, f"only one of {key}.every and {key}.at")


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long and on what: `train.*`."""

    steps: int | None = None
    epochs: float | None = None
    batch_size: Any = "full"
    loss_dtype: str = "float32"
    clip: float | None = None
    accumulate: int = 1
    sphere: bool = False
    halve_at: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        _require_least(0, "train.steps", self.steps)
        _require_least(0, "train.epochs", self.epochs, "a number")
        size = self.batch_size
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
        require(size == "full" or whole, "train.batch_size", size, "full or an integer of at least 1")
        legal = ("float32", "float64")
        require(self.loss_dtype in legal, "train.loss_dtype", self.loss_dtype, "float32 or float64")
        _require_least(1, "train.accumulate", self.accumulate)
        require(self.clip is None or self.clip > 0, "train.clip", self.clip, "a positive norm, or null")
        late = self.halve_at is None or self.halve_at >= 0
        require(late, "train.halve_at", self.halve_at, "a step of at least 0, or null")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Evaluation of whole splits (or a fixed prefix of them): `eval.*`."""

    every: int = 10
    size: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        _require_least(1, "eval.every", self.every)
        legal = "an integer of at least 1, or null"
        require(self.size is None or self.size >= 1, "eval.size", self.size, legal)


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """When weights are kept for later analysis: `snapshots.*`."""

    at: Any = "log"
    every: int | None = None

    def __post_init__(self) -> None:
        """Check ranges; `every` replaces the default grid."""
        at = None if self.every is not None and self.at == "log" else self.at
        check_cadence("snapshots", self.every, at)


@dataclass(frozen=True, kw_only=True)
class SeedStreams:
    """Streams held at a seed of their own: `seed_streams.*`; a list of values only under `design=crossed`."""

    init: Any = None
    split: Any = None
    order: Any = None
    noise: Any = None


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How the work is laid out: `compute.*`. Changes no result (with `exact`)."""

    workers: int | None = None
    threads: int | None = None
    width: int | None = None
    exact: bool = True

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("workers", "threads", "width"):
            _require_least(1, f"compute.{name}", getattr(self, name))
        legal = (
            "1 with compute.exact=true (a seed's bits depend on the thread count); add compute.exact=false"
        )
        require(not self.exact or (self.threads or 1) == 1, "compute.threads", self.threads, legal)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When training state is saved, and how much of it is kept: `checkpoint.*`."""

    every: int | None = None
    keep: Any = 2

    def __post_init__(self) -> None:
        """Check ranges."""
        _require_least(1, "checkpoint.every", self.every)
        keep = self.keep
        number = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 2
        listed = isinstance(keep, list | tuple) and all(isinstance(step, int) and step >= 0 for step in keep)
        # One alone could be the one that was being written when the machine stopped.
        legal = "2 or more, all, or a list of steps"
        require(keep == "all" or number or listed, "checkpoint.keep", keep, legal)


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """When a run counts as converged, unless an analysis is told otherwise: `convergence.*` of a task's YAML."""

    metric: str | None = None
    threshold: float | None = None
    direction: str | None = None
    persistence: int = 1

    def __post_init__(self) -> None:
        """Check ranges."""
        known = self.metric is None or self.direction is not None or direction_of(self.metric) is not None
        legal = known and self.direction in (None, "up", "down")
        require(legal, "convergence.direction", self.direction, "up or down")
        _require_least(1, "convergence.persistence", self.persistence)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Accuracies that count as memorised and as generalised: `levels.*` of a task's YAML."""

    train_accuracy: float = 0.99
    test_accuracy: float = 0.99
