"""A worker that died: what killed it, in a line for the user, in the shard's files, and what may be tried again."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dynalab.core.atomic import write_text
from dynalab.core.errors import DynalabError
from dynalab.core.machine import control_groups
from dynalab.store import runfile
from dynalab.store.carve import split
from dynalab.store.lock import Lock
from dynalab.store.paths import ShardPaths

_LINES = 3
# Files of the kernel that count processes killed for want of memory: of the machine, and of our control groups
# (version 2, version 1), whose place /proc/self/cgroup names.
_VMSTAT = Path("/proc/vmstat")
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


class MemoryKills:
    """Deaths that the kernel's count of processes killed for want of memory, as far as it can be read, explains.

    The count may be kept by the machine, by a control group, or by both; only a rise has meaning.
    """

    def __init__(self) -> None:
        self._before = {path: _count(path) for path in _counters()}
        self._explained = 0

    def explain(self) -> bool:
        """Return whether a kill was counted that explains no other death yet; it then explains this one."""
        rise = max(_count(path) - before for path, before in self._before.items())
        found = rise > self._explained
        self._explained += found
        return found


def _counters() -> list[Path]:
    own = [chain[0] for chain in control_groups("memory", _GROUPS, _MOUNT)]
    names = ("memory.events", "memory.oom_control")
    return [_VMSTAT, *(group / name for group in own for name in names if (group / name).is_file())]


def _count(path: Path) -> int:
    try:
        match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


def cause(code: int, kills: MemoryKills, *, ours: bool = False) -> tuple[str, bool]:
    """Return (how a worker died, whether memory is the likely reason); `ours`: we sent the signal ourselves."""
    if code >= 0:
        return f"ended by itself, exit code {code}", False
    name = signal.Signals(-code).name
    if name != "SIGKILL" or ours:
        return f"killed by {name}", False
    if kills.explain():
        return "killed by SIGKILL; the kernel counted a process that it killed for want of memory", True
    return "killed by SIGKILL, not by dynalab; probably out of memory", True


def _last_words(lines: Sequence[str]) -> list[str]:
    """Return the few lines of a log that tell most: the top of a crash's stack, else the last ones."""
    said = [line for line in lines if line.strip()]
    for place, line in enumerate(said):
        if line.startswith("Fatal Python error"):
            frames = [item for item in said[place + 1 :] if item.startswith("  File ")]
            return [line, *frames[: _LINES - 1]]
    return said[-_LINES:]


def with_words(line: str, lines: Sequence[str]) -> str:
    """Return a line with the last words of a log below it."""
    return "\n".join([line, *(f"    {word.strip()}" for word in _last_words(lines))])


def record_death(paths: ShardPaths, how: str, said: Sequence[str]) -> str:
    """Write down that a worker died with a shard in its hands, and return the lines for the user.

    Nothing is written where another process has taken the shard over by then.
    """
    # The log is for the user's help; that it cannot be written must not keep the others from being trained.
    with contextlib.suppress(OSError, DynalabError), Lock(paths.lock):
        write_text(paths.error, "\n".join([f"the worker died: {how}", *said]) + "\n")
        shard = runfile.read(paths)
        shard.settle("crashed")
        # It may have died before it began an attempt of its own.
        if shard.attempts and "ended" not in shard.attempts[-1]:
            shard.attempts[-1] |= {"ended": datetime.now(UTC).isoformat(timespec="seconds"), "error": how}
        runfile.write(paths, shard)
    return with_words(f"the worker died ({how}); log in {paths.log}, last words in {paths.error}", said)


def narrower(paths: ShardPaths) -> list[ShardPaths]:
    """Split a shard whose training took too much memory into two of half the width; none where it cannot be done."""
    try:
        if len(runfile.read(paths).runs) < 2:
            return []
        return split(paths)
    except DynalabError:
        return []
