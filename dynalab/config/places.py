"""Places on the user's machine, which may have no home folder: a container, a service, a user without an account."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path

from dynalab.core.errors import ConfigError, StoreError


def user_path(text: str | Path) -> Path:
    """Return a path that a user gave, with ~ resolved.

    Raises:
        ConfigError: It begins with ~ and there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: there is no home folder for ~; name the folder in full") from error


def real_path(path: Path) -> Path:
    """Return an absolute path without links; of a circle of links, which `Path.resolve` dies of, as far as it goes."""
    return Path(os.path.realpath(path))


def outputs_root(folder: str | Path | None = None) -> Path:
    """Return the outputs folder: the one that was named, else `DYNALAB_OUTPUTS`, else ./outputs.

    Raises:
        ConfigError: It is a file, below one, or below a home folder that there is not.
    """
    root = real_path(user_path(folder or os.environ.get("DYNALAB_OUTPUTS") or "outputs"))
    there = next(path for path in (root, *root.parents) if os.path.lexists(path))
    if not there.is_dir():
        below = "" if there == root else f", which is below {there}"
        raise ConfigError(f"outputs={root}{below}: a file, not a folder")
    return root


def typed(*words: str, outputs: Path) -> str:
    """Return a command of dynalab's as one types it, with `--outputs` where another folder would be taken without."""
    try:
        usual = outputs_root()
    except ConfigError:
        usual = None
    other = [] if outputs == usual else ["--outputs", str(outputs)]
    return shlex.join(["dynalab", *words, *other])


def cache_folder() -> Path:
    """Return where dynalab keeps what may be deleted at any time.

    `$XDG_CACHE_HOME/dynalab`, by default below ~/.cache; where there is no home, or nothing can be written there, a
    folder of this user's among the temporary ones.

    Raises:
        StoreError: Nothing can be written anywhere.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
        standing = next(folder for folder in (home, *home.parents) if folder.exists())
        if standing.is_dir() and os.access(standing, os.W_OK):
            return home / "dynalab"
    except (RuntimeError, OSError):
        pass
    try:
        folder = Path(tempfile.gettempdir()) / f"dynalab-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise StoreError(f"{folder} is not this user's; name a folder for caches in XDG_CACHE_HOME")
    except OSError as error:
        raise StoreError("no folder for caches can be written; name one in XDG_CACHE_HOME") from error
    return folder
