"""The way of a fork: what trained a run, configuration after configuration, and how one is entered from the one before.

A fork's shard is trained by its parent's configuration up to the step at which it leaves it (from wherever a
checkpoint of the parent stands, so that what was kept decides no bits), and by its own from there on. Its checkpoints
say in which segment they were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalab.config.ensemble import EnsembleConfig, from_stored
from dynalab.config.schema import STREAMS
from dynalab.core.forks import parent_and_step
from dynalab.core.streams import Streams
from dynalab.store.runfile import Run


@dataclass(frozen=True)
class Segment:
    """Steps that one configuration trains.

    Attributes:
        config: The configuration.
        begin: Step at which it takes over; 0 of a run's own beginning.
        end: Step at which it ends.
        streams: Each run's.
    """

    config: EnsembleConfig
    begin: int
    end: int
    streams: tuple[Streams, ...]

    @property
    def total(self) -> int:
        """Length that a schedule is told."""
        return int(self.config.train.steps or self.end) if self.config.depends_on_total else self.end


def segments(
    config: EnsembleConfig, runs: Sequence[Run], steps: int, folders: Sequence[Path] = ()
) -> list[Segment]:
    """Return what trains some runs, from the first step on.

    Args:
        config: The configuration of their ensemble.
        runs: The runs.
        steps: Length that is asked for.
        folders: A user's plug-in folders.

    Raises:
        ConfigError: A plug-in of a parent is gone or has changed.
    """
    streams, end = [dict(run.streams) for run in runs], steps
    chain: list[Segment] = []
    while True:
        begin = parent_and_step(config.parent)[1] if config.parent else 0
        if begin <= end:
            chain.append(Segment(config, begin, end, tuple(Streams(**item) for item in streams)))
        # Of a fork of before, whose parent's checkpoint was laid at its first step, nothing else is known.
        if config.origin is None:
            return chain[::-1]
        parent = from_stored(config.origin, folders)
        streams = [_streams_before(own, run, config, parent) for own, run in zip(streams, runs, strict=True)]
        # A fork of a fork from before the latter's own first step leaves what that one is a fork of.
        config, end = parent, min(begin, end)


def _streams_before(
    streams: Mapping[str, int], run: Run, config: EnsembleConfig, parent: EnsembleConfig
) -> dict[str, int]:
    """Return a run's streams before a fork that may have set some."""
    before = dict(streams)
    for name in STREAMS:
        held = getattr(parent.seed_streams, name)
        if held != getattr(config.seed_streams, name):
            before[name] = int(held if held is not None else run.seed or 0)
    return before
