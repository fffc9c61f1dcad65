"""The code that trained: uncommitted changes of the repositories it came from, and the packages that were installed.

The repositories are those of dynalab, of plug-ins and of the working directory.

Git does not follow links, so that what it tells is in the repository, and is kept from running a program of it, but for
filters as those of large files. Untracked files are named, not kept.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dynalab.core.atomic import write_bytes
from dynalab.core.errors import StoreError
from dynalab.store.paths import EnsemblePaths

MOST_BYTES, MOST_NAMES = 1_000_000, 50
# A repository that takes longer is left out.
SECONDS = 5.0
_CUT = b"\n# cut here: the changes are longer than 1,000,000 bytes\n"
# Programs that a repository's own settings would have run.
_PLAIN = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")
_OWN = Path(__file__).resolve().parents[2]


class Changes(NamedTuple):
    """What a repository's files differ in from its last commit, and what it does not know."""

    name: str
    commit: str | None
    patch: bytes
    untracked: tuple[str, ...]


def code_of(ensemble: EnsemblePaths, folders: Sequence[Path]) -> dict[str, Any]:
    """Keep what an attempt's code was beside an ensemble, each state once; return the attempt's record.

    Args:
        ensemble: Its folder.
        folders: Plug-in folders.
    """
    outputs = ensemble.root.parent.parent
    places = dict.fromkeys([_OWN, Path.cwd(), *(folder.absolute() for folder in folders)])
    records = []
    for changes in changes_of(tuple(places), outputs.absolute()):
        record: dict[str, Any] = {"name": changes.name, "commit": changes.commit}
        if changes.patch:
            record |= _kept(ensemble, "patch", changes.patch)
        if changes.untracked:
            record["untracked"] = [*changes.untracked[:MOST_NAMES]]
            record["n_untracked"] = len(changes.untracked)
        records.append(record)
    return _kept(ensemble, "packages", packages()) | ({"code": records} if records else {})


def _kept(ensemble: EnsemblePaths, what: str, data: bytes) -> dict[str, str]:
    """Keep a text under its hash; return its name. That it cannot be kept must keep nothing from being trained."""
    path = ensemble.text(what, hashlib.sha256(data).hexdigest()[:12])
    try:
        if not path.is_file():
            write_bytes(path, data)
    except (StoreError, OSError):
        return {}
    return {what: path.name}


@lru_cache(maxsize=1)
def packages() -> bytes:
    """Return a line for each package that this process can import, `numpy==2.4.0`, in order."""
    folders = [Path(folder) for folder in sys.path if folder]
    found = {path.stem for folder in folders for path in folder.glob("*.dist-info")}
    return "".join(f"{name.replace('-', '==', 1)}\n" for name in sorted(found)).encode("utf-8", "replace")


@lru_cache(maxsize=8)
def changes_of(places: tuple[Path, ...], outputs: Path) -> tuple[Changes, ...]:
    """Return what the repositories that folders are in were changed in.

    A process' code is what it was when it was loaded, so they are looked for once.

    Args:
        places: The folders.
        outputs: An outputs folder, which is data: what is in it counts neither as changed nor as a repository.
    """
    tops = dict.fromkeys(top for place in places if (top := _top(place)) is not None)
    outside = [top for top in tops if not top.resolve().is_relative_to(outputs.resolve())]
    found = {top: _changes(top, outputs.resolve()) for top in outside}
    # The commit of dynalab's own is in the record beside.
    return tuple(item for top, item in found.items() if item.patch or item.untracked or top != _OWN)


def _top(place: Path) -> Path | None:
    """Return the folder of the repository that a folder is in."""
    if not any((folder / ".git").exists() for folder in (place, *place.parents)):
        return None
    said = _git(place, "rev-parse", "--show-toplevel").rstrip(b"\n")
    return Path(os.fsdecode(said)) if said else None


def _changes(top: Path, outputs: Path) -> Changes:
    where = ["--", "."]
    if outputs.is_relative_to(top.resolve()):
        where.append(f":(exclude,literal){outputs.relative_to(top.resolve())}")
    commit = _git(top, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip() or None
    how = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=dirty")
    patch = _git(top, "diff", *how, "HEAD", *where) if commit else b""
    if len(patch) > MOST_BYTES:
        patch = patch[:MOST_BYTES].rpartition(b"\n")[0] + _CUT
    names = _git(top, "ls-files", "--others", "--exclude-standard", "--directory", "-z", *where)
    untracked = tuple(sorted(name.decode("utf-8", "replace") for name in names.split(b"\0") if name))
    return Changes(top.name, commit, patch, untracked)


def _git(place: Path, *words: str) -> bytes:
    """Return what git prints, of a long text a little more than is kept; nothing where it fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(place), "--no-pager", *_PLAIN, *words]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**own, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except OSError:
        return b""
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        found = process.stdout.read(MOST_BYTES + 1)
        process.stdout.close()
        # One that has more to say ends by the pipe that is gone.
        return found if process.wait() == 0 or len(found) > MOST_BYTES else b""
    finally:
        timer.cancel()
