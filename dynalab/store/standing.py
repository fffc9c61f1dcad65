"""How shards stand at this moment, as everyone sees it: the terminal that trains, another one, a notebook, a script.

Everything is read from the disk: run.json, the lock, and while the lock's owner lives its progress.json.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from dynalab.core.errors import StoreError
from dynalab.store import commands, lock, progress, runfile
from dynalab.store.names import ENSEMBLE, SHARD, TASK, inside
from dynalab.store.owner import Owner
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.progress import METRICS, Progress

BAD = ("diverged", "failed", "crashed")
# Share of the steps asked for by which runs may lie behind others and still be as far.
ALIKE = 0.05


@dataclass(frozen=True)
class Standing:
    """How one shard stands.

    Attributes:
        paths: Its folder.
        shard: Its run.json.
        owner: Who trains it, or None.
        progress: How far that process says it is, or None.
        waits: Whether it is to be trained by a command that lives.
    """

    paths: ShardPaths
    shard: runfile.Shard
    owner: Owner | None = None
    progress: Progress | None = None
    waits: bool = False

    @property
    def active(self) -> bool:
        """Whether it is trained, or will be by a command that lives."""
        return self.owner is not None or self.waits

    @property
    def step(self) -> int:
        """Updates made; of a shard that ended all that were asked for, since none are left."""
        steps = self.shard.requested_steps
        if self.shard.status in runfile.FINAL:
            return steps
        return min(self.progress.step if self.progress else self.shard.steps, steps)

    @property
    def rate(self) -> float:
        """Steps a second; 0 where that is not known, or nothing trains it."""
        return self.progress.rate if self.progress else 0.0

    @property
    def states(self) -> list[str]:
        """The state of each run: its status, or `waiting`; `running` are those of a living process alone."""
        rest = "running" if self.owner else "waiting" if self.waits else self.shard.status
        rest = "crashed" if rest == "running" and self.owner is None else rest
        return [run.status if run.status in runfile.FINAL else rest for run in self.shard.runs]

    @property
    def latest(self) -> dict[str, float]:
        """Medians over the runs of `METRICS`, of the latest row; of a shard that is not trained, of the last."""
        if self.progress:
            return dict(self.progress.latest)
        rows = [(run.summary or {}).get("final") or {} for run in self.shard.runs]
        values = {name: [row[name] for row in rows if row.get(name) is not None] for name in METRICS}
        return {name: median(some) for name, some in values.items() if some}


@dataclass
class Lookout:
    """Looks at the shards of an outputs folder again and again; a run.json that has not changed is not read again."""

    outputs: OutputPaths
    _known: dict[ShardPaths, tuple[tuple[int, ...], runfile.Shard | None]] = field(default_factory=dict)

    def look(self, shards: Iterable[ShardPaths]) -> tuple[list[Standing], int]:
        """Return how shards stand, and how many at a time the commands that live train; damaged ones are left out."""
        trainings = commands.living(self.outputs)
        began = {paths: item.began for item in trainings for paths in item.shards}
        found = []
        for paths in dict.fromkeys(commands.with_parts(list(shards))):
            if (shard := self._read(paths)) is None:
                continue
            ended = shard.status in runfile.FINAL
            owner = None if ended else lock.holder(paths.lock)
            waits = paths in began and not (ended or owner or _tried(shard, began[paths]))
            said = progress.read(paths, owner.token) if owner and owner.token else None
            found.append(Standing(paths, shard, owner, said, waits))
        return found, sum(item.workers for item in trainings)

    def trained(self) -> list[ShardPaths]:
        """Return the shards that are trained at this moment, and those that wait to be."""
        found = [paths for item in commands.living(self.outputs) for paths in item.shards]
        held = [paths for paths in _locked(self.outputs) if lock.holder(paths.lock) is not None]
        return [item.paths for item in self.look([*found, *held])[0] if item.active or item.paths in found]

    def _read(self, paths: ShardPaths) -> runfile.Shard | None:
        try:
            info = os.stat(paths.run)
            seen = info.st_mtime_ns, info.st_ino, info.st_size
            if paths not in self._known or self._known[paths][0] != seen:
                self._known[paths] = seen, runfile.read(paths)
        except OSError:
            return None
        except StoreError:
            self._known[paths] = seen, None
        return self._known[paths][1]


def _tried(shard: runfile.Shard, began: str) -> bool:
    """Return whether a command that began then has had a shard in its hands: what became of it is its last word.

    The parts of one that was split have its attempts, and wait.
    """
    attempt = shard.attempts[-1] if shard.attempts else {}
    return (attempt.get("started") or "") >= began and "split_from" not in shard.plan


def _locked(outputs: OutputPaths) -> list[ShardPaths]:
    """Return the shards that have a lock, of a living process or a dead one; fast where there are thousands."""
    return [
        ShardPaths(shard)
        for task in inside(outputs.root, TASK)
        for ensemble in inside(task, ENSEMBLE)
        for shard in inside(ensemble, SHARD)
        if ShardPaths(shard).lock.is_file()
    ]


@dataclass(frozen=True)
class Summary:
    """Shards taken together.

    Attributes:
        states: State -> number of runs.
        done: Updates made, over all runs; of `steps` that were asked for.
        rate: Updates a second, over all runs.
        left: Seconds until all are trained; None where that is not known, or nothing is left that is trained.
        latest: Medians of `METRICS`, over runs that are trained now and about as far (else over all that ended).
        shown: How many runs these are of; `shown_step` is how far the farthest is.
        length: Updates that were asked for of each run; None where they are not as many.
        step: Updates made, the mean over runs, diverged ones left out unless all are.
        diverged: The steps at which runs diverged, ascending.
    """

    states: Counter[str]
    done: int
    steps: int
    rate: float
    left: float | None
    latest: dict[str, float]
    length: int | None
    step: int
    diverged: tuple[int, ...] = ()
    shown: int = 0
    shown_step: int = 0

    @property
    def runs(self) -> int:
        """Number of runs."""
        return self.states.total()

    @property
    def fraction(self) -> float:
        """Share of the work that is done."""
        return self.done / self.steps if self.steps else 1.0


def summarise(standings: Sequence[Standing], workers: int = 0) -> Summary:
    """Take shards together; `workers` is how many are trained at a time, where that is more than are now."""
    latest, shown = {}, _alike(standings)
    for name in METRICS:
        values = [item.latest[name] for item in shown if name in item.latest]
        if values:
            latest[name] = median(values)
    lengths = {item.shard.requested_steps for item in standings}
    lost = [run.steps for item in standings for run in item.shard.runs if run.status == "diverged"]
    steps = [item.step for item in standings for run in item.shard.runs if run.status != "diverged"] or lost
    return Summary(
        Counter(state for item in standings for state in item.states),
        sum(item.step * len(item.shard.runs) for item in standings),
        sum(item.shard.requested_steps * len(item.shard.runs) for item in standings),
        sum(item.rate * len(item.shard.runs) for item in standings),
        _seconds_left(standings, workers),
        latest,
        lengths.pop() if len(lengths) == 1 else None,
        sum(steps) // max(len(steps), 1),
        tuple(sorted(lost)),
        sum(len(item.shard.runs) for item in shown),
        max((item.step for item in shown), default=0),
    )


def _alike(standings: Sequence[Standing]) -> list[Standing]:
    """Return the shards whose metrics say something together: those in work, within `ALIKE` of the farthest.

    A median over runs that have ended and others that have just begun is where no run is, and it jumps as runs join.
    """
    known = [item for item in standings if item.latest]
    known = [item for item in known if item.owner] or known
    front = max((item.step for item in known), default=0)
    return [item for item in known if item.step >= front - ALIKE * item.shard.requested_steps]


def _seconds_left(standings: Sequence[Standing], workers: int) -> float | None:
    """Return when the last worker ends: each shard takes as long as its rate says, or that of others like it.

    All are shared out evenly, but one shard is trained by one worker.
    """
    rates: dict[str, list[float]] = {}
    for item in standings:
        if item.rate > 0:
            rates.setdefault(item.paths.ensemble.digest, []).append(item.rate)
    every = [rate for some in rates.values() for rate in some]
    needs = [
        (item.shard.requested_steps - item.step)
        / (item.rate or median(rates.get(item.paths.ensemble.digest) or every))
        for item in standings
        if item.active and every
    ]
    if not needs:
        return None
    running = sum(item.owner is not None for item in standings)
    return max(sum(needs) / max(running, min(workers, len(needs)), 1), *needs)
