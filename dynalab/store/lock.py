"""One writer a folder: a lock file made with O_EXCL, holding host, boot and process, its mtime the heartbeat.

Advisory locks (flock) are not trusted on network file systems; exclusive creation is.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dynalab.errors import Locked
from dynalab.store.atomic import storing

HEARTBEAT_SECONDS = 10.0
MISSED_BEATS = 3


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        host: Name of the machine.
        boot: Id of its current boot.
        pid: Process.
        started: When the process started, in the kernel's ticks; tells a reused pid.
    """

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls(socket.gethostname(), _boot_id(), os.getpid(), _started(os.getpid()))

    def is_dead(self) -> bool:
        """Return True where it is certain that the process is gone: same host, and rebooted or no such process."""
        here = Owner.me()
        if self.host != here.host:
            return False
        return self.boot != here.boot or _started(self.pid) != self.started or not _exists(self.pid)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    try:
        # The command's name stands in brackets and may hold spaces; the 22nd field is counted behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def holder(path: Path) -> Owner | None:
    """Return the living owner of a lock, or None where it is free or its owner is dead or silent."""
    try:
        beat = path.stat().st_mtime
        owner = Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError):
        # Being written, or damaged: alive while it is young.
        fresh = path.exists() and time.time() - path.stat().st_mtime < HEARTBEAT_SECONDS
        return Owner("unknown", "", 0, "") if fresh else None
    if owner.is_dead():
        return None
    silent = time.time() - beat > MISSED_BEATS * HEARTBEAT_SECONDS
    return None if silent else owner


class Lock:
    """Holds a lock file for as long as the `with` block lasts.

    Args:
        path: The file.
        steal: Take it over whoever holds it.
        wait: Seconds to wait for a living owner before giving up.
    """

    def __init__(self, path: Path, *, steal: bool = False, wait: float = 0.0) -> None:
        self.path, self.steal, self.wait = path, steal, wait
        self._stop = threading.Event()

    def __enter__(self) -> Lock:
        deadline = time.monotonic() + self.wait
        while not self._claim():
            seen = self._text()
            owner = holder(self.path)
            if owner is None or self.steal:
                self._take_over(seen)
            elif time.monotonic() > deadline:
                raise Locked(
                    f"{self.path.parent} is being written by process {owner.pid} on {owner.host}; "
                    "wait for it, or take it over with --steal"
                )
            else:
                time.sleep(0.05)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def _claim(self) -> bool:
        with storing(self.path):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(asdict(Owner.me())))
        return True

    def _text(self) -> str | None:
        try:
            return self.path.read_text()
        except OSError:
            return None

    def _take_over(self, seen: str | None) -> None:
        """Move a dead lock aside; put it back if another process was quicker and the file is already its own."""
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if aside.read_text() != seen and not self.steal:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)

    def mine(self) -> bool:
        """Return whether the lock is still held; a process that slept too long may have lost it."""
        return self._text() == json.dumps(asdict(Owner.me()))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if not self.mine():
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        if self.mine():
            self.path.unlink(missing_ok=True)
