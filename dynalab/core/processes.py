"""Processes as the kernel names them: which machine and boot, which space their numbers count in, who still lives."""

from __future__ import annotations

import os
from pathlib import Path


def boot() -> str:
    """Return the id of the kernel's current boot; empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def space() -> str:
    """Return the pid namespace of this process; empty where the kernel does not say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def state_and_start(pid: int | str) -> tuple[str, str] | None:
    """Return (state, start in ticks) of a process; None where `/proc` does not say."""
    try:
        # The command's name stands in brackets and may hold spaces; the fields are counted behind it.
        behind = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return behind[0], behind[19]
    except (OSError, IndexError):
        return None


def exists(pid: int, started: str = "") -> bool:
    """Return whether a process of our space lives that started then; one that is hidden from us does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        # A `/proc` that was mounted in another space shows other processes under these numbers.
        own = os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        own = False
    found = state_and_start(pid) if own else None
    if found is None:
        return True
    # A process that ended and was not waited for is a zombie.
    return found[0] not in "ZX" and started in ("", found[1])
