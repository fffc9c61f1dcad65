"""What ensembles are called beside each other: by the keys in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynalab.core.errors import StoreError
from dynalab.store.paths import EnsemblePaths
from dynalab.store.read import read_yaml


def names(ensembles: Sequence[EnsemblePaths]) -> dict[Path, str]:
    """Name ensembles by what tells them apart, `lr 0.01`; one alone by its task."""
    from dynalab.config.settings import labels
    from dynalab.config.typed import flat

    trees = [_config(paths) for paths in ensembles]
    if len(ensembles) == 1:
        parent = trees[0].get("parent")
        task = ensembles[0].task
        return {ensembles[0].root: f"{task}, fork of {parent}" if parent else task}
    made = labels(list(map(flat, trees)), [paths.digest for paths in ensembles])
    return {
        paths.root: f"{paths.task} {label}" if label == paths.digest else label
        for paths, label in zip(ensembles, made, strict=True)
    }


def _config(paths: EnsemblePaths) -> Mapping[str, Any]:
    """Return the configuration of an ensemble; nothing where it cannot be read."""
    try:
        tree = read_yaml(paths.config)
    except StoreError:
        return {}
    return tree if isinstance(tree, Mapping) else {}
