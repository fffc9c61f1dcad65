"""Reading image data sets into memory, once a process: files that are what their table says, and bundled digits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynalab.core.errors import ConfigError
from dynalab.tasks.images.formats import read_split
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
    """Return the training and held-out images of a data set below the folder `root`, on the CPU.

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
    # Before anything in them is looked at.
    if bad := damaged(data, root):
        raise ConfigError(
            f"{data.title} in {root / data.folder}: {', '.join(bad)} is not what its checksum says\n"
            f"delete it and get it again with `dynalab data fetch {data.name}`, or from where it came"
        )
    pools = []
    for held_out, wanted in ((False, data.train), (True, data.test)):
        pixels, labels = read_split(data, root / data.folder, held_out)
        least, most = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
        if len(pixels) != wanted or least < 0 or most >= data.classes:
            raise ConfigError(
                f"{data.title} in {root / data.folder} holds {len(pixels)} images with labels up to {most}; "
                f"its table says {wanted} of {data.classes} classes"
            )
        pools.append(Pool(torch.from_numpy(pixels.copy()), torch.from_numpy(labels)))
    return pools[0], pools[1]
