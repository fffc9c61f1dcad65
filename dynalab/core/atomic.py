"""The one way files and folders appear: written whole under a hidden name beside the place, synced, renamed into it.

The hidden name is the writer's own, so that any number of processes may write the same thing at once; what they make
has the permissions that the user's umask leaves, and what an error interrupts leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynalab.core import processes
from dynalab.core.errors import StoreError

# Seven digits: all that a process can be called.
_WRITER = re.compile(r"\.([0-9a-f]{8})-([0-9a-f]{1,7})\.[0-9a-f]{12}\.tmp$")

# What network and FUSE file systems answer that sync files or folders by other means, or not at all.
_CANNOT_SYNC = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS),
    *(errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTTY),
}

# AT_FDCWD of fcntl.h, and RENAME_EXCHANGE of linux/fs.h.
_HERE, _EXCHANGE = -100, 2


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing `path` into one readable line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(folder: Path, *, make: bool = True) -> None:
    """Make a folder if need be, and check that files can be made in it; without `make` as far as no trial tells.

    Raises:
        StoreError: They cannot, or the disk is full.
    """
    if not make:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            what = "it" if there == folder else there
            raise StoreError(f"cannot write {folder}: {what} is no folder that can be written to")
        return
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writable.", dir=folder)
        os.close(handle)
        os.unlink(name)


def sync(handle: int) -> None:
    """Make what was written to an open file or folder survive a power loss, where its file system can do that."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_path(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power loss, where the file system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        return
    try:
        sync(handle)
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Remove a folder with all that it holds, or a link without what it points to; what resists stays."""
    if path.is_symlink():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _here() -> str:
    """Return what tells this machine's boot and its space of process numbers from others, in eight letters."""
    place = (
        f"{processes.boot()} {processes.space()}"
        if processes.boot() and processes.space()
        else os.urandom(9).hex()
    )
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _beside(path: Path) -> Path:
    """Return a hidden name in the same folder that no other call, process or machine uses; it says who writes."""
    return path.with_name(f".{path.name[:40]}.{_here()}-{os.getpid():x}.{os.urandom(6).hex()}.tmp")


def is_orphan(path: Path) -> bool:
    """Return whether something was being written under a hidden name by a process of this machine that is dead."""
    found = _WRITER.search(path.name)
    return found is not None and found[1] == _here() and not processes.exists(int(found[2], 16))


def sweep_orphans(folder: Path) -> None:
    """Remove from a folder what killed processes of this machine left half-written; no lock is needed."""
    for item in folder.glob(".*.tmp") if not folder.is_symlink() else ():
        if is_orphan(item):
            with contextlib.suppress(OSError):
                discard(item) if item.is_dir() else item.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name to write a file to, which takes the place of `path` when the block ends.

    The name ends in `.tmp`: a library that tells the format by the suffix must be told it.

    Raises:
        StoreError: The disk is full or the folder not writable; what stood there before still stands.
    """
    temporary = _beside(path)
    with storing(path):
        try:
            yield temporary
            sync_path(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_path(path.parent)


@contextlib.contextmanager
def making(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the name `folder` when the block ends.

    Its parents are made. Without `replace` a folder that stands there is left: another process was quicker, and its
    folder appeared whole as well.

    Raises:
        StoreError: The disk is full or the place not writable; what stood there before still stands.
    """
    temporary = _beside(folder)
    with storing(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            sync_path(temporary)
            _move(temporary, folder, replace)
            sync_path(folder.parent)
        finally:
            discard(temporary)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change their names in one step, so that no kill finds neither; False where that cannot be done.

    The call is Linux' own (renameat2(2)), and not of every file system.
    """
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _move(made: Path, folder: Path, replace: bool) -> None:
    """Rename a folder into its place; where that fails, what stood there is put back."""
    if replace and folder.is_dir() and not folder.is_symlink() and _exchange(made, folder):
        return
    aside = _beside(folder)
    try:
        while True:
            try:
                os.rename(made, folder)
                return
            except OSError as error:
                # A folder in the way, which another process may be moving away; some file systems name it otherwise.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not folder.is_dir():
                    raise
            if not replace:
                return
            discard(aside)
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, aside)
    except BaseException:
        with contextlib.suppress(OSError):
            os.rename(aside, folder)
        raise
    finally:
        discard(aside)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of names of a pattern left; the caller holds the lock that they all held."""
    for item in folder.glob(f".{name}.tmp"):
        if item.is_dir():
            discard(item)
        else:
            item.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically, or raise a `StoreError`: what stood there before still stands."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` atomically; what UTF-8 cannot hold is spelled out."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by a JSON document atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
