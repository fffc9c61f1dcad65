"""The state that something is measured at: the sources, the commit, the machine."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of sources; what is compiled is among them.
_SUFFIXES = (".py", ".yaml", ".cpp", ".h")


def hashed(sources: Iterable[str]) -> str:
    """Hash what lies in folders and files, given relative to the project."""
    digest = hashlib.sha256()
    for source in sources:
        place = ROOT / source
        files = (
            [place] if place.is_file() else [path for path in place.rglob("*") if path.suffix in _SUFFIXES]
        )
        for path in sorted(files):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the commit."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def machine() -> str:
    """Name the machine in a few words."""
    from dynalab.core.machine import cores
    from dynalab.training.provenance import cpu_type

    return f"{cpu_type()}, {cores()} cores"
