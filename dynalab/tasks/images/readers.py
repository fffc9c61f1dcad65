"""Reading image data sets into memory, once a process: torchvision's readers, and scikit-learn's bundled digits.

torchvision checks the MD5 of every file of CIFAR before it unpickles one; the table that it checks against is the data
set's (`sets.DataSet.files`), so that files of the user's own are read by the same code.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynalab.errors import ConfigError
from dynalab.tasks.images.sets import DataSet, damaged, require_present


@dataclass(frozen=True)
class Pool:
    """Images that runs draw their examples from; one copy serves all runs.

    Attributes:
        pixels: Shape (N, C * H * W), uint8 of 0 to 255.
        labels: Shape (N,), int64.
    """

    pixels: Tensor
    labels: Tensor


# What was read last; a worker trains shards of one task after another.
_KEPT: dict[tuple[Any, ...], tuple[Pool, Pool]] = {}


def read(data: DataSet, root: Path) -> tuple[Pool, Pool]:
    """Read a data set from its files.

    Args:
        data: The data set, with the checksums that its files must have.
        root: The folder of data sets.

    Returns:
        Training and held-out images, on the CPU.

    Raises:
        ConfigError: Files are missing, damaged, or hold other images than the table says.
    """
    require_present(data, root, f"data set {data.name}")
    key = (data.name, root, data.train, data.test, tuple(data.files.items()))
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = _read(data, root)
    return _KEPT[key]


@lru_cache(maxsize=1)
def read_digits() -> Pool:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, their values of 0 to 16 as they are (uint8)."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    pixels = torch.from_numpy(bundle.data.astype(np.uint8))
    return Pool(pixels, torch.from_numpy(bundle.target.astype(np.int64)))


def _read(data: DataSet, root: Path) -> tuple[Pool, Pool]:
    """Read both splits."""
    if data.name == "mnist":
        # torchvision checks MNIST's archives when it downloads them, but not what it reads.
        _refuse_damaged(data, root)
    try:
        with warnings.catch_warnings():
            # NumPy 2.4 warns of the way in which CIFAR's files, pickled by NumPy 1, spell their types.
            warnings.simplefilter("ignore")
            parts = [_reader(data)(root, train=train) for train in (True, False)]
    except RuntimeError as error:
        _refuse_damaged(data, root)
        raise ConfigError(f"{data.title} in {root / data.folder} cannot be read: {error}") from error
    pools = []
    for part, wanted in zip(parts, (data.train, data.test), strict=True):
        images = np.asarray(part.data)
        if images.ndim == 4:  # rows of pixels with their colours last
            images = images.transpose(0, 3, 1, 2)
        labels = np.asarray(part.targets, dtype=np.int64)
        if (
            len(images) != wanted
            or len(labels) != wanted
            or not 0 <= labels.min() <= labels.max() < data.classes
        ):
            raise ConfigError(
                f"{data.title} in {root / data.folder} holds {len(images)} images with labels up to {labels.max()}; "
                f"its table says {wanted} of {data.classes} classes"
            )
        flat = np.ascontiguousarray(images.reshape(wanted, -1))
        pools.append(Pool(torch.from_numpy(flat), torch.from_numpy(labels)))
    return pools[0], pools[1]


def _reader(data: DataSet) -> type[Any]:
    """Return torchvision's reader, checking against the data set's own table."""
    from torchvision import datasets

    if data.name == "mnist":
        # Without the converted copies that old versions left behind, which nothing checks.
        return type("MNIST", (datasets.MNIST,), {"_check_legacy_exist": lambda self: False})
    base = datasets.CIFAR10 if data.name == "cifar10" else datasets.CIFAR100
    meta = base.meta["filename"]
    held_out = [[name, md5] for name, md5 in data.files.items() if name.startswith("test")]
    trained = [
        [name, md5] for name, md5 in data.files.items() if name != meta and [name, md5] not in held_out
    ]
    table = {"train_list": trained, "test_list": held_out, "meta": {**base.meta, "md5": data.files.get(meta)}}
    return type(base.__name__, (base,), table)


def _refuse_damaged(data: DataSet, root: Path) -> None:
    bad = damaged(data, root)
    if bad:
        raise ConfigError(
            f"{data.title} in {root / data.folder}: {', '.join(bad)} is not what its checksum says\n"
            f"delete it and get it again with `dynalab data fetch {data.name}`, or from where it came"
        )
