"""The one way a file is replaced: written whole beside it, synced, renamed over it, the folder synced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynalab.errors import ConfigError, StoreError


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing `path` into one readable line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Make a folder if need be, and check that files can be made in it.

    Raises:
        ConfigError: They cannot.
        StoreError: The disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writable.", dir=folder)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"cannot write {folder}: {error.strerror}") from error
        raise ConfigError(f"outputs={folder}: not writable ({error.strerror or error})") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Remove a folder with all that it holds, or a link without what it points to; what resists stays."""
    if path.is_symlink():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically.

    Raises:
        StoreError: The disk is full or the folder not writable; what stood there before still stands.
    """
    with storing(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by a JSON document atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
