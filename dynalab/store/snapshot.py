"""Snapshots: plain safetensors files of stacked weights, with a checksum of themselves in their metadata.

The checksum is put into the header that the tensors were serialised with, and is of the bytes without it; so any reader
of safetensors opens the file, and whoever reads it here finds damage of header and tensors alike.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dynalab.core.atomic import write_bytes
from dynalab.core.errors import StoreError
from dynalab.store.read import read_bytes

_HEAD = b'{"__metadata__":{"sha256":"'
_DIGITS = 64
# With spaces, so that the tensors stay aligned.
_TAIL = b'"},' + b" " * (-(len(_HEAD) + _DIGITS + len(b'"},') - 1) % 8)
# A brace of the header is part of the seal.
_ADDED = len(_HEAD) + _DIGITS + len(_TAIL) - 1
_LENGTH = 8
_PIECE = 1 << 20


def sealed(data: bytes) -> bytes:
    """Return serialised tensors, at least one and without metadata, with their checksum."""
    size = int.from_bytes(data[:_LENGTH], "little")
    longer = (size + _ADDED).to_bytes(_LENGTH, "little")
    seal = _HEAD + hashlib.sha256(data).hexdigest().encode() + _TAIL
    return b"".join((longer, seal, memoryview(data)[_LENGTH + 1 :]))


def write(path: Path, data: bytes) -> None:
    """Replace a snapshot atomically by serialised tensors."""
    write_bytes(path, sealed(data))


def read(path: Path) -> bytes:
    """Return a snapshot's bytes, checked, or raise a `StoreError`; one of an older dynalab has no checksum."""
    data = read_bytes(path)
    _check(path, BytesIO(data))
    return data


def check(path: Path) -> None:
    """Raise a `StoreError` where a snapshot is damaged; a megabyte of it is in memory at a time."""
    try:
        with path.open("rb") as file:
            _check(path, file)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _check(path: Path, file: BinaryIO) -> None:
    begin = file.read(_LENGTH + len(_HEAD))
    if begin[_LENGTH:] != _HEAD:
        return
    seal = file.read(_DIGITS + len(_TAIL))
    size = int.from_bytes(begin[:_LENGTH], "little") - _ADDED
    digest = hashlib.sha256((size % 2 ** (8 * _LENGTH)).to_bytes(_LENGTH, "little") + b"{")
    while piece := file.read(_PIECE):
        digest.update(piece)
    if digest.hexdigest().encode() + _TAIL != seal:
        raise StoreError(f"{path} is damaged: its checksum does not fit")
