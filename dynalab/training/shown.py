"""A configuration as it is shown: every key at the value that training uses, where null stands for one.

What is stored and hashed keeps its nulls, so that a default that is worked out another time moves no id. A null that is
left here means that there is no such thing: no clipping, no stream that is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig, from_stored
from dynalab.core.errors import DynalabError
from dynalab.training.cadence import probe_cadences


def shown(config: EnsembleConfig, steps: int | None = None, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return a configuration with the values that training uses; `steps` is its length, None where it is not known."""
    tree = config.as_dict()
    tree.pop("named", None)
    train, size_of = tree["train"], getattr(config.task, "train_size", None)
    size = size_of() if size_of else None
    batch = train["batch_size"]
    # A batch of at least the whole set is the set in its own order.
    full = batch == "full" or (size is not None and int(batch) >= size)
    train["batch_size"] = "full" if full else batch
    if steps is not None:
        tree["train"] = {"steps": steps, "epochs": None, **train}
        if size is not None:
            per_epoch = 1 if full else -(-size // int(batch))
            tree["train"]["epochs"] = round(steps * config.train.accumulate / per_epoch, 4)
    every = probe_cadences(config, folders)
    tree["eval"]["train_size"] = config.most_evaluated
    words: dict[str, Any] = {"eval.size": "all", "eval.train_size": "as eval.size", "schedule.total": steps}
    words |= {f"probe.{name}.every": distance for name, distance in every.items()}
    words |= {f"convergence.{name}": "given to the analysis" for name in ("metric", "threshold", "direction")}
    for part in (config.task, config.model):
        if says := getattr(part, "in_words", None):
            words |= says()
    for name, section in config.probe.items():
        if says := getattr(registry.find("probe", name, folders).module, "in_words", None):
            words |= {f"probe.{name}.{key}": value for key, value in says(section, config).items()}
    for key, value in words.items():
        _fill(tree, key.split("."), value)
    if config.snapshots.every is not None:
        tree["snapshots"]["at"] = None
    return tree


def shown_stored(tree: Mapping[str, Any], steps: int | None = None, folders: Sequence[Path] = ()) -> Any:
    """Return a stored configuration likewise, or as it is where it cannot be typed here (a plug-in's, an import's)."""
    if "import" in tree:
        return tree
    try:
        return shown(from_stored(tree, folders), steps, folders)
    except (DynalabError, AttributeError, KeyError, TypeError, ValueError):
        return tree


def _fill(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.get(part) or {}
    if path[-1] in tree and tree[path[-1]] is None:
        tree[path[-1]] = value
