"""Append-only series: one structured `.npy` file a cadence, whole after a kill at any moment.

A file is a NumPy header of fixed length, then records [step, wall, metric (S,), ...]; where each row is of a single
run, [step, wall, run, metric, ...], `run` being its place in the shard. A block has a file of its own, of records
[step, wall, block (S, ...)]. Rows are written and flushed first, the
header's row count after; readers take the smaller of header and size. So `numpy.load` opens a series while it grows,
and a kill costs at most the rows that the header does not count yet.
"""

from __future__ import annotations

import ast
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from dynalab.core.atomic import storing, sync, write_bytes
from dynalab.core.blocks import Block
from dynalab.core.errors import StoreError
from dynalab.store.read import opened, read_bytes, whole

_MAGIC = b"\x93NUMPY\x01\x00"
_COUNT_DIGITS = 20
_LONGEST_HEADER = len(_MAGIC) + 2 + 2**16


def row_type(metrics: Sequence[str] | Mapping[str, Block], n_runs: int | None) -> np.dtype:
    """Return the record type of a series of `n_runs` runs, of metrics or of blocks.

    None: of a series of metrics whose rows are of a single run each.
    """
    fields: list[tuple] = [("step", "<i8"), ("wall", "<f8")]
    if isinstance(metrics, Mapping):
        blocks = metrics.items()
        return np.dtype(fields + [(name, block.stored, (n_runs, *block.shape)) for name, block in blocks])
    if n_runs is None:
        return np.dtype([*fields, ("run", "<i8"), *((name, "<f8") for name in metrics)])
    return np.dtype(fields + [(name, "<f8", (n_runs,)) for name in metrics])


def is_single(dtype: np.dtype) -> bool:
    """Return whether each row of a series is of a single run, the one in its column `run`."""
    return (dtype.names or ())[2:3] == ("run",) and dtype["run"].shape == ()


def metrics_of(dtype: np.dtype) -> tuple[str, ...]:
    """Return the metrics of a series, in the order of their columns."""
    return (dtype.names or ())[3 if is_single(dtype) else 2 :]


def blocks_of(dtype: np.dtype) -> dict[str, Block]:
    """Return the blocks of a series of some."""
    return {name: Block.of(dtype[name].base, dtype[name].shape[1:]) for name in metrics_of(dtype)}


def own_rows(records: np.ndarray, index: int) -> np.ndarray:
    """Return the rows of one run, the one at a place in the shard, each of a single run."""
    metrics = metrics_of(records.dtype)
    rows = np.empty(len(records), row_type(metrics, None))
    rows["step"], rows["wall"], rows["run"] = records["step"], records["wall"], index
    for name in metrics:
        rows[name] = records[name][:, index]
    return rows


def _header(dtype: np.dtype, rows: int) -> bytes:
    # The count is padded, so that the header never changes its length.
    text = f"{{'descr': {dtype.descr!a}, 'fortran_order': False, 'shape': ({rows},), }}"
    space = text.ljust(len(text) - len(str(rows)) + _COUNT_DIGITS)
    length = -(-(len(_MAGIC) + 2 + len(space) + 1) // 64) * 64
    body = space.ljust(length - len(_MAGIC) - 3) + "\n"
    if len(body) >= 2**16:
        raise StoreError("a series of this many metrics has no room in its header")
    return _MAGIC + len(body).to_bytes(2, "little") + body.encode("latin1")


def _write_header(file: FileIO, dtype: np.dtype, rows: int) -> None:
    header = _header(dtype, rows)
    file.seek(0)
    if file.write(header) != len(header):
        raise OSError(28, "No space left on device")


def _parse_header(path: Path, data: bytes) -> tuple[np.dtype, int, int]:
    """Return (record type, rows counted, header length)."""
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("no NumPy header")
        size = int.from_bytes(data[8:10], "little")
        described = ast.literal_eval(data[10 : 10 + size].decode("latin1"))
        descr = [
            tuple(tuple(part) if isinstance(part, list) else part for part in item)
            for item in described["descr"]
        ]
        dtype = np.dtype(descr)
        if dtype.names is None or dtype.names[:2] != ("step", "wall"):
            raise ValueError("no step column")
        columns = [dtype[name] for name in dtype.names]
        if any(column.base.kind not in "iuf" or column.base.itemsize > 8 for column in columns):
            raise ValueError("a column that holds no numbers")
        if columns[0].base.kind != "i" or any(column.shape for column in columns[:2]):
            raise ValueError("steps that are no integers")
        (rows,) = described["shape"]
        if not whole(rows):
            raise ValueError(f"{rows!r} rows")
        return dtype, rows, 10 + size
    except (ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError) as error:
        raise StoreError(f"{path} is damaged: {str(error) or repr(error)}") from error


def read_last(path: Path) -> np.ndarray:
    """Return the last row of a series, shape (1,), or none, (0,), without reading the others.

    Raises:
        StoreError: It is missing or damaged.
    """
    with opened(path) as file:
        dtype, counted, start = _parse_header(path, file.read(_LONGEST_HEADER))
        rows = min(counted, (file.seek(0, os.SEEK_END) - start) // dtype.itemsize)
        if rows < 1:
            return np.empty(0, dtype)
        file.seek(start + (rows - 1) * dtype.itemsize)
        return np.frombuffer(file.read(dtype.itemsize), dtype)


def read(path: Path) -> np.ndarray:
    """Return the rows of a series, shape (T,), a structured array; a `StoreError` where it is missing or damaged."""
    data = read_bytes(path)
    dtype, counted, start = _parse_header(path, data)
    rows = min(counted, (len(data) - start) // dtype.itemsize)
    records = np.frombuffer(data, dtype, count=rows, offset=start)
    gaps = np.diff(records["step"])
    ascends = gaps > 0
    if is_single(dtype):
        ascends |= (gaps == 0) & (np.diff(records["run"]) > 0)
    if rows and (not ascends.all() or records["step"][0] < 0):
        raise StoreError(f"{path} is damaged: its steps do not ascend")
    return records


def count(path: Path) -> int:
    """Return how many rows of a series there are, without reading them; 0 where it cannot be read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            dtype, counted, start = _parse_header(path, file.read(_LONGEST_HEADER))
    except (OSError, StoreError):
        return 0
    return max(min(counted, (size - start) // dtype.itemsize), 0)


def last_row(path: Path) -> tuple[int, float] | None:
    """Return step and wall clock of a series' last row, without reading the others; None where there is none."""
    try:
        rows = read_last(path)
    except StoreError:
        return None
    return (int(rows["step"][0]), float(rows["wall"][0])) if len(rows) else None


def checksum(path: Path, rows: int) -> int | None:
    """Return the CRC-32 of the first `rows` rows, or None where they are not there."""
    try:
        return checksum_of(read(path), rows)
    except StoreError:
        return None


def checksum_of(records: np.ndarray, rows: int) -> int | None:
    """Return the CRC-32 of the first `rows` of some rows, or None where they are not there."""
    return zlib.crc32(records[:rows].view(np.uint8).data) if len(records) >= rows else None


def replace(path: Path, records: np.ndarray) -> Mark:
    """Write a whole series in the place of the one that is there, if any, in one rename.

    Args:
        path: The file.
        records: Its rows, of a `row_type`.

    Raises:
        StoreError: The file cannot be written; the one before stands.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, _header(records.dtype, len(records)) + records.tobytes())
    return Mark(len(records), zlib.crc32(records.tobytes()))


def truncate(path: Path, rows: int) -> None:
    """Cut off the rows of a series behind the first `rows`, which are there; an `OSError` where it cannot be done."""
    with path.open("r+b", buffering=0) as file:
        dtype, _, start = _parse_header(path, file.read(_LONGEST_HEADER))
        _write_header(file, dtype, rows)
        file.truncate(start + rows * dtype.itemsize)


@dataclass(frozen=True)
class Mark:
    """How many rows of a series a checkpoint vouches for, and their CRC-32."""

    rows: int
    crc: int


class SeriesWriter:
    """Appends rows to one series.

    Args:
        path: The file.
        metrics: Names of its columns; of blocks, name -> block.
        n_runs: Length S of every column; None where each row is of a single run.
        keep: Rows to keep of an existing file (what the checkpoint vouches for); None starts anew.

    Attributes:
        left_out: Metrics that are not written: an existing file keeps the columns that it began with. Those that it has
            beside `metrics` are NaN from here on.
    """

    def __init__(
        self,
        path: Path,
        metrics: Sequence[str] | Mapping[str, Block],
        n_runs: int | None,
        keep: Mark | None = None,
    ) -> None:
        self.path = path
        self.left_out: tuple[str, ...] = ()
        self.dtype = row_type(metrics, n_runs)
        self._offset = len(_header(self.dtype, 0))
        self.rows, self.crc = (keep.rows, keep.crc) if keep else (0, 0)
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if keep is None:
                write_bytes(path, _header(self.dtype, 0))
            else:
                self._go_on(read(path).dtype)
                truncate(path, keep.rows)
            self._file = path.open("r+b", buffering=0)

    def _go_on(self, stored: np.dtype) -> None:
        """Take the columns of a series that is there."""
        names, known = metrics_of(self.dtype), metrics_of(stored)
        shared = [name for name in names if name in known and stored[name] == self.dtype[name]]
        other = {stored[name] for name in known} != {self.dtype[name] for name in names}
        if not shared or other or is_single(stored) != is_single(self.dtype):
            raise StoreError(f"{self.path} has other columns than this configuration records now")
        self.left_out = tuple(name for name in names if name not in known)
        self.dtype, self._offset = stored, len(_header(stored, 0))

    def append(self, steps: np.ndarray, wall: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows.

        Args:
            steps: Shape (n,).
            wall: Seconds since the epoch, shape (n,).
            columns: Metric -> shape (n, S), of a block (n, S, ...); (n,), `run` among them, where each row is of a
                single run.

        Raises:
            StoreError: The disk is full; the rows before stand.
        """
        block = np.zeros(len(steps), self.dtype)
        block["step"], block["wall"] = steps, wall
        for name in self.dtype.names[2:]:  # type: ignore[index]
            block[name] = columns.get(name, np.nan)
        data = block.tobytes()
        with storing(self.path):
            self._file.seek(self._offset + self.rows * self.dtype.itemsize)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
            self.rows += len(block)
            self.crc = zlib.crc32(data, self.crc)
            _write_header(self._file, self.dtype, self.rows)

    def sync(self) -> Mark:
        """Make the rows survive a power loss, and return what a checkpoint may vouch for."""
        with storing(self.path):
            sync(self._file.fileno())
        return Mark(self.rows, self.crc)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
