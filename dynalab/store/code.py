"""What attempts say of the code that trained: repositories, commits, and the changes kept beside the ensemble."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalab.core.words import count
from dynalab.store.paths import EnsemblePaths

PATCH = re.compile(r"code-[0-9a-f]{12}\.diff")
TEXT = re.compile(rf"{PATCH.pattern}|packages-[0-9a-f]{{12}}\.txt")


@dataclass(frozen=True)
class Code:
    """A repository that code came from.

    Attributes:
        name: Its folder's.
        commit: Hash of the last commit, empty where there was none.
        patch: The file with what differed from it, None where nothing did or the file is not there.
        n_untracked: Number of files and folders that it did not know.
    """

    name: str
    commit: str
    patch: Path | None
    n_untracked: int

    @property
    def line(self) -> str:
        """How a user reads it."""
        at = f" at commit {self.commit[:12]}" if self.commit else ", without a commit"
        changes = f", with the changes in {self.patch.name}" if self.patch else ""
        untracked = f", {count(self.n_untracked, 'untracked file')}" if self.n_untracked else ""
        return f"{self.name}{at}{changes}{untracked}"


def codes(paths: EnsemblePaths, attempts: Iterable[Mapping[str, Any]]) -> list[Code]:
    """Return the repositories of some attempts, each state once; what is no record of dynalab's is left out."""
    found: dict[Code, None] = {}
    for attempt in attempts:
        records = attempt.get("code")
        for record in records if isinstance(records, list) else ():
            if isinstance(record, Mapping) and isinstance(record.get("name"), str):
                found[_code(paths, record)] = None
    return list(found)


def _code(paths: EnsemblePaths, record: Mapping[str, Any]) -> Code:
    name, commit, n_untracked = record.get("patch"), record.get("commit"), record.get("n_untracked")
    path = paths.root / name if isinstance(name, str) and PATCH.fullmatch(name) else None
    return Code(
        record["name"],
        commit if isinstance(commit, str) else "",
        path if path and path.is_file() and not path.is_symlink() else None,
        n_untracked if isinstance(n_untracked, int) else 0,
    )
