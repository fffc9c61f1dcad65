"""Cutting some runs out of what a shard holds: their rows, and their part of stacked tensors.

A run's bits do not depend on its neighbours, so nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynalab.core.errors import StoreError
from dynalab.store import series
from dynalab.store.checkpoint import CheckpointState
from dynalab.store.paths import ShardPaths
from dynalab.store.series import Mark, SeriesWriter


def marks_of(part: ShardPaths, state: CheckpointState) -> dict[str, Mark]:
    """Return what a checkpoint may vouch for of the series that were cut: the rows that it did of the whole ones."""
    return {cadence: _mark(part, cadence, mark.rows, state.step) for cadence, mark in state.marks.items()}


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
    """Write what is some runs' own of a series into the folder of a part.

    Args:
        part: The part.
        cadence: Name of the series.
        records: Its rows.
        members: Places of the runs, ascending.
    """
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
    """Cut some runs out of stacked tensors: what has a leading axis of S is cut, a scalar (a step count) is shared.

    Args:
        data: The tensors, as safetensors.
        members: Places of the runs, ascending.
        width: Runs in the stack, S.
        source: Where the tensors are from, for a message.

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
