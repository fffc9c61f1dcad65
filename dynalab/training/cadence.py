"""Cadences: which steps get a row. Every grid is a function of the step alone, never of the total."""

from __future__ import annotations

import bisect
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.config import registry

if TYPE_CHECKING:
    from dynalab.config.ensemble import EnsembleConfig

PER_DECADE = 10


@dataclass(frozen=True)
class Cadence:
    """A grid of steps.

    Attributes:
        name: Name of its series file: `every-10`, `log`, `at-1a2b3c4d`.
        every: Distance of a regular grid, which contains step 0; None otherwise.
        steps: Steps of an explicit grid.
        log: A grid of about `PER_DECADE` steps a decade, and step 0.
    """

    name: str
    every: int | None = None
    steps: frozenset[int] = frozenset()
    log: bool = False

    def __contains__(self, step: int) -> bool:
        if self.every is not None:
            return step % self.every == 0
        return is_log_step(step) if self.log else step in self.steps

    def after(self, step: int, end: int) -> int:
        """Return the first step of the grid after a step, `end` where none comes before that."""
        if self.every is not None:
            return min(step - step % self.every + self.every, end)
        later = _log_steps(end) if self.log else sorted(self.steps)
        place = bisect.bisect_right(later, step)
        return min(later[place], end) if place < len(later) else end

    def count(self, first: int, last: int) -> int:
        """Return how many of the steps `first` to `last` are on the grid."""
        if self.every is not None:
            return max(last // self.every - (first - 1) // self.every, 0)
        return sum(first <= step <= last for step in (_log_steps(last) if self.log else self.steps))


def cadence(every: int | None = None, at: str | Sequence[int] | None = None) -> Cadence:
    """Return the cadence of `every=` steps and `at=` (`log`, `never`, a list of steps), which wins."""
    if at == "log":
        return Cadence("log", log=True)
    if at == "never":
        return Cadence("never")
    if at is not None:
        steps = sorted({int(step) for step in at})
        digest = hashlib.sha256(repr(steps).encode()).hexdigest()[:8]
        return Cadence(f"at-{digest}", steps=frozenset(steps))
    assert every is not None
    return Cadence(f"every-{every}", every=every)


@functools.lru_cache
def _log_steps(last: int) -> Sequence[int]:
    """Return the steps of the log-spaced grid up to a step, ascending; the last may be beyond it."""
    most = math.ceil(PER_DECADE * math.log10(max(last, 1)))
    return sorted({0, *(round(10 ** (exponent / PER_DECADE)) for exponent in range(most + 1))})


def is_log_step(step: int) -> bool:
    """Return whether a step is on the log-spaced grid: 0, 1, 2, 3, ... then `PER_DECADE` a decade, rounded."""
    if step <= 1:
        return step >= 0
    nearest = round(PER_DECADE * math.log10(step))
    # Rounding may put a step beside its exponent; the neighbours are looked at too.
    return any(
        round(10 ** (exponent / PER_DECADE)) == step for exponent in (nearest - 1, nearest, nearest + 1)
    )


def sparse_probes(config: EnsembleConfig, begin: int, end: int, folders: Sequence[Any] = ()) -> Iterator[str]:
    """Yield a line for each probe whose grid is coarser than the evaluation's and has no row of some steps.

    Args:
        config: What is trained.
        begin: The first step that counts; row 0, before anything is learnt, never does.
        end: The last one.
        folders: A user's plug-in folders.
    """
    for name, every in probe_cadences(config, folders).items():
        first = max(begin, 1)
        if every > config.eval.every and end // every * every < first:
            yield (
                f"probe {name}: it has a row every {every:,} steps, and none from step {first:,} to {end:,}; "
                f"probe.{name}.every= sets them closer"
            )


def scarce_probes(config: EnsembleConfig, end: int, folders: Sequence[Any] = ()) -> Iterator[str]:
    """Yield a line for each probe whose rows up to a step are too few for the analysis that is made from them."""
    regular = probe_cadences(config, folders)
    for name, section in config.probe.items():
        every, module = regular.get(name), registry.find("probe", name, folders).module
        too_few = getattr(module, "too_few", None)
        if too_few and (why := too_few(cadence(every, section.at), config, end)):
            apart = "rows at few steps" if every is None else f"a row every {every:,} steps"
            yield f"probe {name}: it has {apart}; up to step {end:,} {why}"


def probe_cadences(config: EnsembleConfig, folders: Sequence[Any] = ()) -> dict[str, int]:
    """Return the distance of the rows of every probe that is on a regular grid.

    That is what the configuration says, else what the probe's module makes of its cost, else `eval.every`.
    """
    found = {}
    for name, section in config.probe.items():
        if section.at is not None:
            continue
        chosen = getattr(registry.find("probe", name, folders).module, "default_every", None)
        default = chosen(section, config) if chosen else config.eval.every
        found[name] = int(section.every or default)
    return found
