"""Checkpoints: stacked weights and optimizer tensors of a shard, with the row counts of its series.

A checkpoint is written into a temporary folder, its marker `state.json` last, and renamed into place. It carries
checksums of its tensors and of the series rows it vouches for, so that damage is found, not trained on. Rows that
replace those that an earlier one vouches for lie in its folder at first: at no moment is neither whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.core.atomic import discard, making, storing, sync_path, write_bytes, write_json
from dynalab.core.devices import to_host
from dynalab.core.errors import StoreError
from dynalab.store import series
from dynalab.store.names import is_name
from dynalab.store.paths import CheckpointPaths, ShardPaths
from dynalab.store.read import check, mapping, mark, read_bytes, read_json, whole
from dynalab.store.series import Mark

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
# Under which `extra` says how many forks led to the configuration that trained up to here.
SEGMENT = "segment"


@dataclass(frozen=True)
class CheckpointState:
    """What a checkpoint says beside its tensors."""

    step: int  # Updates done.
    marks: Mapping[str, Mark]  # Cadence -> rows of its series.
    extra: Mapping[str, Any] = field(default_factory=dict)  # Small plain values of the training loop.

    @property
    def series(self) -> dict[str, list[int]]:
        """The marks as JSON has them."""
        return {cadence: [mark.rows, mark.crc] for cadence, mark in self.marks.items()}


def save(
    shard: ShardPaths,
    state: CheckpointState,
    model: Mapping[str, Tensor],
    optim: Mapping[str, Tensor],
    require: Callable[[], None] = lambda: None,
    rows: Mapping[str, Path] | None = None,
) -> CheckpointPaths:
    """Write a checkpoint.

    Args:
        shard: The shard's folder.
        state: Step, marks and small values.
        model: Name -> weights, shape (S, ...).
        optim: `<parameter>/<tensor>` -> optimizer tensors, shape (S, ...), or a scalar that all runs share.
        require: Called before anything is written, and again before it counts; raises where it may not.
        rows: Cadence -> file, moved away, of the series that takes the place of the shard's; `put_rows` puts it there.

    Raises:
        StoreError: The disk is full; earlier checkpoints stand.
    """
    from safetensors.torch import save as serialise

    def data(tensors: Mapping[str, Tensor]) -> bytes:
        return serialise({name: tensor.contiguous() for name, tensor in to_host(tensors).items()})

    return save_bytes(shard, state, data(model), data(optim), require, rows)


def save_bytes(
    shard: ShardPaths,
    state: CheckpointState,
    model: bytes,
    optim: bytes,
    require: Callable[[], None] = lambda: None,
    rows: Mapping[str, Path] | None = None,
) -> CheckpointPaths:
    """Write a checkpoint as `save` does, of tensors that are serialised already."""
    require()
    final = shard.checkpoint(state.step)
    with making(final.root, replace=True) as folder:
        temporary = CheckpointPaths(folder)
        sums = {}
        for path, data in ((temporary.model, model), (temporary.optim, optim)):
            sums[path.name] = hashlib.sha256(data).hexdigest()
            write_bytes(path, data)
        for cadence, path in (rows or {}).items():
            os.replace(path, temporary.series(cadence))
        document = {
            "schema_version": SCHEMA_VERSION,
            "step": state.step,
            "sha256": sums,
            "series": state.series,
            "extra": dict(state.extra),
        }
        write_json(temporary.state, {**document, "check": _check(document)})
        require()
    return final


def _check(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


_STATE = {"step": whole, "series": mapping(mark, is_name), "extra": mapping(lambda value: True), "sha256": {}}


def read_state(paths: CheckpointPaths) -> CheckpointState:
    """Read and check a checkpoint's marker and the checksums of its tensors.

    Raises:
        StoreError: Anything of it is damaged.
    """
    document = read_json(paths.state)
    try:
        check(document, _STATE)
        rest = {key: value for key, value in document.items() if key != "check"}
        if document["check"] != _check(rest):
            raise ValueError("its checksum does not fit")
        if document["step"] != paths.step:
            raise ValueError(f"it is of step {document['step']}")
        state = CheckpointState(
            step=document["step"],
            marks={cadence: Mark(rows, crc) for cadence, (rows, crc) in document["series"].items()},
            extra=document["extra"],
        )
        sums = document["sha256"]
    except (KeyError, ValueError) as error:
        raise StoreError(f"{paths.state} is damaged: {error}") from error
    for path in (paths.model, paths.optim):
        if hashlib.sha256(read_bytes(path)).hexdigest() != sums.get(path.name):
            raise StoreError(f"{path} is damaged: its checksum does not fit")
    return state


def load_tensors(paths: CheckpointPaths) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (weights, optimizer tensors) of a checkpoint that `read_state` found whole."""
    from safetensors.torch import load

    return load(paths.model.read_bytes()), load(paths.optim.read_bytes())


def newest_whole(
    shard: ShardPaths, at_most: int | None = None
) -> tuple[CheckpointPaths | None, CheckpointState | None, list[str]]:
    """Return the newest checkpoint, up to a step, that is whole and whose series rows are, its state, and warnings.

    There is a warning for each newer one.
    """
    warnings: list[str] = []
    for paths in reversed(shard.checkpoints()):
        if at_most is not None and paths.step > at_most:
            continue
        try:
            state = read_state(paths)
            for cadence, mark in state.marks.items():
                if series.checksum(rows_of(shard, paths, cadence), mark.rows) != mark.crc:
                    raise StoreError(f"{shard.series(cadence)} is damaged before step {state.step}")
            return paths, state, warnings
        except StoreError as error:
            warnings.append(str(error))
    return None, None, warnings


def rows_of(shard: ShardPaths, paths: CheckpointPaths, cadence: str) -> Path:
    """Return the file of the series that a checkpoint vouches for."""
    own = paths.series(cadence)
    return own if own.is_file() else shard.series(cadence)


def put_rows(shard: ShardPaths, paths: CheckpointPaths, cadences: Iterable[str]) -> None:
    """Put the series that lie in a checkpoint's folder in the place of the shard's; the caller holds its lock.

    Raises:
        StoreError: They cannot be moved; the same call goes on.
    """
    for cadence in cadences:
        if (own := paths.series(cadence)).is_file():
            with storing(shard.series(cadence)):
                shard.series_folder.mkdir(exist_ok=True)
                os.replace(own, shard.series(cadence))
                sync_path(shard.series_folder)


def prune(shard: ShardPaths, keep: int | str | Sequence[int], kept: Sequence[int] = ()) -> None:
    """Remove checkpoints beyond those to keep; the newest two always stay.

    Args:
        shard: The shard's folder.
        keep: How many, `all`, or the steps to keep besides the newest two.
        kept: Steps to keep besides, whatever `keep` says.
    """
    if keep == "all":
        return
    count, steps = (keep, {*kept}) if isinstance(keep, int) else (2, {*kept, *map(int, keep)})
    stored = shard.checkpoints()
    for paths in stored[: max(len(stored) - count, 0)]:
        if paths.step not in steps:
            # The marker first: a half-removed checkpoint is then no checkpoint.
            paths.state.unlink(missing_ok=True)
            discard(paths.root)
