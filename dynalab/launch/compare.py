"""What of a request is stored already: each run is done, busy, or goes on with its whole shard."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from dynalab.core.errors import ConfigError, Locked
from dynalab.store import lock, runfile, series
from dynalab.store.lock import Lock
from dynalab.store.paths import ShardPaths

if TYPE_CHECKING:
    from dynalab.launch.layout import Layout


class StoredShard:
    """A stored shard, and what is looked at once for all of its runs; `goes_on`: it is among the work."""

    def __init__(self, paths: ShardPaths, shard: runfile.Shard) -> None:
        self.paths, self.shard = paths, shard
        self.ended = shard.status in runfile.FINAL
        self.goes_on = False

    @cached_property
    def owner(self) -> lock.Owner | None:
        """Who is training it, or None."""
        return lock.holder(self.paths.lock)

    @cached_property
    def damage(self) -> str | None:
        """What is wrong with the series of a shard that claims to be done, or None."""
        for cadence, (rows, crc) in self.shard.marks.items() if self.ended else ():
            if series.checksum(self.paths.series(cadence), rows) != crc:
                return f"{self.paths.series(cadence)} is damaged"
        return None


def leave_alone(
    layout: Layout,
    lost: Sequence[tuple[ShardPaths, str]],
    there: Collection[tuple[str, int]],
    attempts: Mapping[str, int],
    force: bool,
) -> dict[str, int]:
    """Say which shards are damaged, and return label -> attempt of the runs that they hold."""
    labels = [spec.label for spec in layout.request.runs]
    hidden: dict[str, int] = {}
    for paths, why in lost:
        found = runfile.Lost.of(paths.root.name, labels, there)
        for label in found.labels:
            hidden[label] = max(hidden.get(label, 0), found.attempt)
        made = dict.fromkeys(labels, found.attempt + 1) if force else {}
        if found.replaced({**attempts, **made}):
            continue
        layout.damaged.append(paths)
        rest = "its seeds are left alone (remove the folder to train them again)"
        if not found.known:
            told = " and ".join(found.labels) or "none"
            rest = f"of its seeds {told} can be told and left alone (remove the folder to train all of them again)"
        layout.warnings.append(f"{why}; {rest}")
    return hidden


def sort_run(
    layout: Layout,
    found: StoredShard,
    run: runfile.Run,
    write: bool,
    here: Mapping[str, str | None],
    steal: bool,
) -> None:
    """Put one stored run where it belongs: done, busy, or to be trained with its whole shard."""
    steps, paths, shard = layout.request.steps, found.paths, found.shard
    if found.owner is not None and not steal:
        layout.busy[run.label] = found.owner.said
        layout.locks.add(paths.lock)
        return
    # Cut off at the very length that is asked for, it has no more to train, but its end is to be written down.
    enough = run.status == "diverged" or (shard.steps >= steps if found.ended else shard.steps > steps)
    if enough and found.damage is None:
        layout.done.append(run.label)
        if not found.ended and run.status != "diverged":
            layout.cut_off[run.label] = (shard.steps, shard.requested_steps)
        return
    if not found.goes_on:
        check_bits(paths, shard, here)
        try:
            if write:
                _ask_for(paths, steps, steal)
        except Locked:
            # It was free a moment ago.
            layout.busy[run.label] = "another command"
            return
        found.goes_on = True
        if found.damage is not None:
            layout.warnings.append(f"{found.damage}; it is trained again from its newest whole checkpoint")
        layout.work.append(paths)
    # What was cut out of a fork's parent, or laid out and never begun, does not go on yet.
    (layout.resumed if shard.attempts else layout.laid).append(run.label)
    layout.stored_steps[run.label] = run.steps


def _ask_for(paths: ShardPaths, steps: int, steal: bool) -> None:
    """Write down the length that is asked for, and take away the lock of a dead owner.

    Raises:
        Locked: Another process began to train the shard meanwhile.
    """
    paths.refuse_links()
    with Lock(paths.lock, steal=steal, beats=False):
        shard = runfile.read(paths)
        # What is asked now counts, not what was once asked and cut off. What ended and is damaged is mended to its end.
        wanted = max(steps, shard.steps)
        if shard.requested_steps != wanted or shard.status in runfile.FINAL:
            shard.requested_steps = wanted
            shard.settle("partial")
            runfile.write(paths, shard)


def check_bits(paths: ShardPaths, shard: runfile.Shard, here: Mapping[str, str | None]) -> None:
    """Refuse to go on where bits would change midway; what an older dynalab did not write down is not known."""
    if not shard.attempts or shard.steps == 0:
        return
    before = shard.attempts[-1]
    other = [name for name, value in here.items() if before.get(name, value) != value]
    if other:
        there, now = (", ".join(_said(name, values[name]) for name in other) for values in (before, here))
        raise ConfigError(
            f"{paths.root.parent.name}/{paths.root.name} was begun under {there}, this is {now}; "
            "its bits would change midway (--anyway goes on and records it)"
        )
    if here and not str(shard.plan.get("device")).startswith("cuda"):
        from dynalab.training import builds

        # Before it is asked for more steps: what is done stays so.
        builds.require(f"{paths.root.parent.name}/{paths.root.name}", shard.plan, builds.here(shard.plan))


def _said(name: str, value: str | None) -> str:
    """Return a version, or a variable of the environment, as one writes it."""
    if name.islower():
        return f"{name} {value}"
    return f"{name} unset" if value is None else f"{name}={value}"
