"""What ensembles are called beside each other: by the words in which their commands differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dynalab.core.errors import StoreError
from dynalab.store.paths import EnsemblePaths
from dynalab.store.read import read_yaml


def names(ensembles: Sequence[EnsemblePaths]) -> dict[Path, str]:
    """Name ensembles by the words of the command in which they differ, `lr=0.01`; one alone by its task."""
    words = {paths.root: _words(paths) for paths in ensembles}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    own = {root: [word for word in some if word not in shared] for root, some in words.items()}
    if len(own) == 1:
        parent = next((word.partition("=")[2] for word in next(iter(own.values())) if _is_parent(word)), "")
        return {
            paths.root: f"{paths.task}, fork of {parent}" if parent else paths.task for paths in ensembles
        }
    keys = {word.partition("=")[0] for some in own.values() for word in some}
    ends = Counter(key.rpartition(".")[2] for key in keys)
    found = {}
    for paths in ensembles:
        short = []
        for word in own[paths.root]:
            key, _, value = word.partition("=")
            end = key.rpartition(".")[2]
            short.append(value if key == "task" else f"{end if ends[end] == 1 else key}={value}")
        found[paths.root] = " ".join(short) or paths.task
    several = Counter(found.values())
    return {
        paths.root: found[paths.root] + (f" {paths.digest}" if several[found[paths.root]] > 1 else "")
        for paths in ensembles
    }


def _is_parent(word: str) -> bool:
    return word.startswith("parent=")


def _words(paths: EnsemblePaths) -> list[str]:
    """Return the words that chose an ensemble; none where they cannot be read."""
    try:
        words = read_yaml(paths.overrides)
    except StoreError:
        return []
    return [word.lstrip("+") for word in words if isinstance(word, str)] if isinstance(words, list) else []
