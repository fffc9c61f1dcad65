"""Cutting some runs out of what a shard holds: their rows, and their part of stacked tensors.

A run's bits do not depend on its neighbours, so nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dynalab.core.errors import StoreError
from dynalab.store import checkpoint, series
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.paths import CheckpointPaths, ShardPaths
from dynalab.store.series import Mark, SeriesWriter


def cut_checkpoint(
    source: CheckpointPaths, state: CheckpointState, part: ShardPaths, members: Sequence[int], width: int
) -> CheckpointState:
    """Write some runs' part of a checkpoint of S = `width` runs, and return its state.

    Of the series, which were cut before, it vouches for the rows that it did of the whole ones.
    """
    model, optim = (runs_of(file.read_bytes(), members, width, file) for file in (source.model, source.optim))
    state = replace(
        state, marks={name: _mark(part, name, mark.rows, state.step) for name, mark in state.marks.items()}
    )
    checkpoint.save_bytes(part, state, model, optim)
    return state


def _mark(part: ShardPaths, cadence: str, rows: int, step: int) -> Mark:
    records = series.read(part.series(cadence))
    if series.is_single(records.dtype):
        # Those of the other runs are gone.
        rows = int(np.searchsorted(records["step"], step, side="right"))
    crc = series.checksum_of(records, rows)
    if crc is None:
        raise StoreError(f"{part.series(cadence)} has less than {rows} rows")
    return Mark(rows, crc)


def write_series(part: ShardPaths, cadence: str, records: np.ndarray, members: Sequence[int]) -> None:
    """Write what is some runs' own of the rows of a series into the folder of a part; `members` ascend."""
    metrics, places = series.metrics_of(records.dtype), np.array(members)
    single = series.is_single(records.dtype)
    if single:
        records = records[np.isin(records["run"], places)]
        chosen = {"run": np.searchsorted(places, records["run"]), **{name: records[name] for name in metrics}}
    else:
        chosen = {name: records[name][:, places] for name in metrics}
    writer = SeriesWriter(part.series(cadence), metrics, None if single else len(members))
    try:
        writer.append(records["step"], records["wall"], chosen)
        writer.sync()
    finally:
        writer.close()


def runs_of(data: bytes, members: Sequence[int], width: int, source: object) -> bytes:
    """Cut some runs out of stacked tensors: what has a leading axis of S = `width` is cut, a scalar is shared.

    Raises:
        StoreError: The data are damaged, or a tensor has no axis of the runs.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    try:
        tensors: Mapping[str, np.ndarray] = load(data)
    except SafetensorError as error:
        raise StoreError(f"{source} is damaged: {error}") from error
    cut = {}
    for name, tensor in tensors.items():
        if tensor.ndim and len(tensor) != width:
            raise StoreError(f"{source}: {name} has no axis of the shard's {width} runs and cannot be split")
        cut[name] = tensor[list(members)].copy() if tensor.ndim else tensor
    return save(cut)
