"""What an outputs folder takes on the disk, by task or ensemble, and by what it is. Links are not followed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynalab.store.paths import EnsemblePaths, OutputPaths

# In the order of a table; `other` are run.json, logs and whatever lies there beside.
KINDS = ("series", "checkpoints", "snapshots", "tables", "other")


@dataclass
class Usage:
    """Bytes of one place, by kind, and the number of its files."""

    name: str
    path: Path
    files: int = 0
    bytes: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All bytes."""
        return self.bytes.total()

    def add(self, other: Usage) -> None:
        """Add those of another place."""
        self.files += other.files
        self.bytes += other.bytes


def of_folder(name: str, folder: Path) -> Usage:
    """Return what a folder takes, an ensemble's or any other."""
    found = Usage(name, folder)
    for parts, size in _files(folder, ()):
        found.files += 1
        found.bytes[_kind(parts)] += size
    return found


def of_outputs(outputs: OutputPaths, ensembles: Sequence[EnsemblePaths] | None) -> list[Usage]:
    """Return what the folders of an outputs folder take, largest first: a task each, and analyses, reports and so on.

    Args:
        outputs: The outputs folder.
        ensembles: Those to tell apart, an entry each, in the place of all.
    """
    if ensembles is not None:
        found = [of_folder(paths.digest, paths.root) for paths in ensembles]
    else:
        by_name: dict[str, Usage] = {}
        for item in _entries(outputs.root):
            place = by_name.setdefault(item.name, Usage(item.name, outputs.root / item.name))
            if not item.is_dir(follow_symlinks=False):
                place.files, place.bytes["other"] = 1, item.stat(follow_symlinks=False).st_size
                continue
            # Of a task each ensemble has its kinds.
            for inner in _entries(place.path):
                if inner.is_dir(follow_symlinks=False):
                    place.add(of_folder(inner.name, place.path / inner.name))
                else:
                    place.files += 1
                    place.bytes["other"] += inner.stat(follow_symlinks=False).st_size
        found = [*by_name.values()]
    return sorted(found, key=lambda item: (-item.total, item.name))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _files(folder: Path | str, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield for each file below a folder the names that lead to it, and its bytes."""
    try:
        entries = os.scandir(folder)
    except OSError:
        return
    with entries:
        for item in entries:
            parts = (*above, item.name)
            if item.is_dir(follow_symlinks=False):
                yield from _files(item.path, parts)
            else:
                try:
                    yield parts, item.stat(follow_symlinks=False).st_size
                except OSError:
                    # It is gone: somebody works here.
                    continue


def _kind(parts: tuple[str, ...]) -> str:
    if len(parts) > 2 and parts[1] in KINDS[:3]:
        return parts[1]
    return "tables" if parts[-1].endswith(".parquet") else "other"
