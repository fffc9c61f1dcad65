"""One writer a folder: a lock file made with O_EXCL that names its owner and counts the owner's heartbeats.

Advisory locks (flock) are not trusted on network file systems; exclusive creation is. Three rules:

- Whether an owner lives is the kernel's to say, where owner and asker share one (`dynalab.store.owner`): a dead one's
  lock is taken over at once, a living one's never, however long it was paused. Elsewhere the heartbeat is watched: a
  lock whose file has not changed for `MISSED_BEATS` intervals of the watcher's own clock is dead. No clock of a file
  server is ever compared with ours. Who only lists does not wait, and takes an owner that it cannot see for alive;
  `train` and `runs rm` watch all such locks at the same time, and say so (`watch`).
- A lock file is removed, by its owner as well, only under a guard, another file made with O_EXCL whose name belongs to
  that one claim, and only if the lock is found unchanged then. So of several that find a lock dead one removes it,
  and none removes its successor's. The guard of one that died on the way is removed in the same manner.
- A writer asks `require` before whatever it writes: one that was frozen beyond the watch of another machine, or whose
  lock was stolen, or whose folder was removed, stops there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dynalab.core.atomic import storing
from dynalab.core.errors import Locked, StoreError
from dynalab.store.owner import Owner

HEARTBEAT_SECONDS = 10.0
MISSED_BEATS = 3
# A lock file is far smaller; what is larger is none.
_MOST_BYTES = 4096
_POLL_SECONDS = 0.02
# The name of a guard, as `_guard` makes it.
_GUARD = re.compile(r"\.[^.]+\.[0-9a-f]{16}")


@dataclass(frozen=True)
class _Sighting:
    """What a lock file looked like."""

    data: bytes
    changed: int  # When, by the file server's clock, which is compared with nothing but itself.
    regular: bool  # Whether it is a file.

    @cached_property
    def owner(self) -> Owner | None:
        """Whom it names; None where it is being written, cannot be read, or is none."""
        return Owner.from_bytes(self.data)

    @property
    def foreign(self) -> bool:
        """Whether no dynalab made it: it is no file, or holds something else than an owner."""
        return not self.regular or (bool(self.data) and self.owner is None)


def _read(path: Path) -> _Sighting:
    # Opening asks the file server anew, where a cache of attributes may be a minute old.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(handle)
        regular = stat.S_ISREG(info.st_mode)
        return _Sighting(os.read(handle, _MOST_BYTES) if regular else b"", info.st_mtime_ns, regular)
    finally:
        os.close(handle)


def _look(path: Path) -> _Sighting | None:
    """Return what a lock file looks like, None where there is none; what cannot be read names nobody."""
    with contextlib.suppress(OSError):
        return _read(path)
    try:
        info = path.lstat()
    except OSError:
        return None
    return _Sighting(b"", info.st_mtime_ns, stat.S_ISREG(info.st_mode))


def _create(path: Path, owner: Owner) -> bool:
    """Make a lock file; False where there is one."""
    with storing(path):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(owner.to_bytes())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return True


def _remove(path: Path, seen: _Sighting) -> bool:
    """Remove a lock file that still is as it was seen, under its guard; False where it was not removed by us."""
    name = seen.owner.token if seen.owner and seen.owner.token else seen.data
    guard = _guard(path, hashlib.sha256(f"{path.name} {name!r}".encode()).hexdigest()[:16])
    if not _create(guard, Owner.me()):
        other = _look(guard)
        if other is not None and _alive(guard, other) is False:
            _remove(guard, other)
        return False
    try:
        if _look(path) != seen:
            return False
        with storing(path):
            path.unlink(missing_ok=True)
        return True
    finally:
        with contextlib.suppress(OSError):
            guard.unlink(missing_ok=True)


def _guard(path: Path, name: str) -> Path:
    """Return the guard of a lock, or of a guard."""
    return path.with_name(f".{path.name.lstrip('.').partition('.')[0]}.{name}")


def sweep_guards(folder: Path) -> None:
    """Remove from a folder the guards of those that died as they removed a lock, which nobody may take again."""
    for path in [] if folder.is_symlink() else folder.glob(".*"):
        seen = _look(path) if _GUARD.fullmatch(path.name) else None
        if seen is not None and seen.owner is not None and _alive(path, seen) is False:
            with contextlib.suppress(OSError, StoreError):
                _remove(path, seen)


class _Watch:
    """How long a lock file has not changed, by our own clock.

    A look adds one interval at most: a process that was itself frozen, perhaps together with the owner, has seen
    nothing meanwhile.
    """

    def __init__(self, seen: _Sighting) -> None:
        self._seen, self._looked, self._silent, self._beats = seen, time.monotonic(), 0.0, False

    def look(self, seen: _Sighting) -> bool | None:
        """Return whether the owner lives; None before a beat was seen, or enough of them missed."""
        now = time.monotonic()
        limit, gap = MISSED_BEATS * HEARTBEAT_SECONDS, now - self._looked
        if seen != self._seen:
            self._seen, self._silent, self._beats = seen, 0.0, gap < limit
        else:
            self._silent += min(gap, HEARTBEAT_SECONDS)
        self._looked = now
        return False if self._silent >= limit else True if self._beats else None


_watches: dict[Path, _Watch] = {}


def _alive(path: Path, seen: _Sighting) -> bool | None:
    """Return whether the owner of a lock that looks like this lives; None where it cannot be told yet."""
    if seen.foreign:
        return False
    known = seen.owner.lives() if seen.owner else None
    return _watches.setdefault(path.absolute(), _Watch(seen)).look(seen) if known is None else known


def holder(path: Path) -> Owner | None:
    """Return the owner of a lock, or None where it is free or its owner is known to be dead.

    An owner that cannot be seen from here, and that of a lock which is being written, count as alive until they were
    watched.
    """
    seen = _look(path)
    if seen is None or _alive(path, seen) is False:
        return None
    return seen.owner or _NOBODY


_NOBODY = Owner("an unknown host", "", 0, "")


def watch(paths: Iterable[Path], tell: Callable[[str], None]) -> bool:
    """Watch the heartbeats of all those locks at once whose owners cannot be seen, until it is known which live.

    Takes a beat where they live and `MISSED_BEATS` intervals where they do not; no time where all can be seen. `tell`
    takes a line that says what is waited for, when it takes longer than a moment.

    Returns:
        Whether there was any to watch.
    """
    began, told, unseen, rest = time.monotonic(), False, False, list(paths)
    while rest := [path for path in rest if (seen := _look(path)) and _alive(path, seen) is None]:
        if not told and time.monotonic() - began > HEARTBEAT_SECONDS / 20:
            others = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
            tell(
                f"watching the heartbeat of {(holder(rest[0]) or _NOBODY).said}{others} for up to "
                f"{MISSED_BEATS * HEARTBEAT_SECONDS:.0f} s: from here it cannot be seen otherwise whether "
                f"{'they live' if others else 'it lives'}"
            )
            told = True
        time.sleep(HEARTBEAT_SECONDS / 50)
        unseen = True
    return unseen


class Lock:
    """Holds a lock file for as long as the `with` block lasts.

    Args:
        path: The file.
        steal: Take it over from whoever holds it now and does not let go within `wait`.
        wait: Seconds to wait for a living owner; one that cannot be seen is watched until it is known whether it lives.
        beats: False for a moment's work, far shorter than an interval: no thread is started.
    """

    def __init__(self, path: Path, *, steal: bool = False, wait: float = 0.0, beats: bool = True) -> None:
        self.path, self.steal, self.wait = path, steal, wait
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True) if beats else None

    def __enter__(self) -> Lock:
        deadline, first = time.monotonic() + self.wait, None
        self._owner = Owner.me()
        while not _create(self.path, self._owner):
            seen = _look(self.path)
            if seen is not None:
                first = first or seen.owner
                late, alive = time.monotonic() >= deadline, _alive(self.path, seen)
                if alive is False or (self.steal and late and seen.owner == first):
                    _remove(self.path, seen)
                elif alive and late:
                    raise Locked(
                        f"{self.path.parent} is being written by {(seen.owner or _NOBODY).said}; "
                        "wait for it, or take it over with train --steal"
                    )
            time.sleep(_POLL_SECONDS)
        # Guards of claims before ours have nothing to guard any more.
        for leftover in self.path.parent.glob(_guard(self.path, "?" * 16).name):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
        if self._heart is not None:
            self._heart.start()
        return self

    @property
    def token(self) -> str:
        """What tells this claim from every other."""
        return self._owner.token

    def mine(self) -> bool:
        """Return whether the lock is still held, by this very claim; a `StoreError` where it cannot be read."""
        try:
            return _read(self.path).owner == self._owner
        except OSError as error:
            if not os.path.lexists(self.path) or self.path.is_symlink():
                return False
            raise StoreError(f"cannot read {self.path}: {error.strerror or error}") from error

    def require(self) -> None:
        """Ask before something is written whether it may be.

        Raises:
            Locked: The lock was taken over, or the folder removed; what lies there is another's.
        """
        if not self.mine():
            owner = holder(self.path)
            what = f"was taken over by {owner.said}" if owner else "was removed or taken over"
            raise Locked(f"{self.path.parent} {what}; this process stops without writing")

    def _beat(self) -> None:
        count = 0
        # Several beats an interval: who watches sees soon that the owner lives.
        while not self._stop.wait(HEARTBEAT_SECONDS / 4):
            count += 1
            try:
                # Read and written through one handle: what is changed is never another's file of the same name.
                handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(handle, "r+b", buffering=0) as file:
                    if Owner.from_bytes(file.read(_MOST_BYTES) or b"") != self._owner:
                        return
                    file.seek(0)
                    file.write(self._owner.to_bytes(count))
            except FileNotFoundError:
                return
            except OSError:
                continue

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        if self._heart is not None:
            self._heart.join()
        # Under its guard as well: one that takes it over at this moment may have made a lock of its own.
        deadline = time.monotonic() + 1.0
        while (seen := _look(self.path)) and seen.owner == self._owner and time.monotonic() < deadline:
            try:
                if _remove(self.path, seen):
                    break
                time.sleep(_POLL_SECONDS)
            except StoreError:
                # A full disk has no room for a guard.
                with contextlib.suppress(OSError, StoreError):
                    if self.mine():
                        self.path.unlink(missing_ok=True)
                break
