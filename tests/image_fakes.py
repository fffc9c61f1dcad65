"""Small data sets in the formats that CIFAR and MNIST have on disk, each with a table of its checksums."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np

from dynalab.tasks.images.sets import SETS, md5


def _table(root: Path, name: str, folder: Path, train: int, test: int) -> Path:
    files = {path.name: md5(path) for path in sorted(folder.iterdir())}
    path = root / f"{name}.json"
    path.write_text(json.dumps({"train": train, "test": test, "files": files}))
    return path


def images_of(name: str, train: int, test: int, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return split -> (pixels (n, C * H * W) uint8, labels (n,)): noise around a pattern of each class."""
    data = SETS[name]
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 200, size=(data.classes, int(np.prod(data.shape))))
    found = {}
    for split, n in (("train", train), ("test", test)):
        labels = rng.integers(0, data.classes, size=n)
        pixels = patterns[labels] + rng.integers(0, 56, size=(n, patterns.shape[1]))
        found[split] = (pixels.astype(np.uint8), labels)
    return found


def write_cifar(root: Path, classes: int = 10, train: int = 60, test: int = 20) -> Path:
    """Write a CIFAR below `root` and return the path of its table."""
    name = f"cifar{classes}"
    folder = root / SETS[name].folder
    folder.mkdir(parents=True)
    found = images_of(name, train, test)
    names = [f"class {i}" for i in range(classes)]
    if classes == 10:
        key, meta = "labels", ("batches.meta", {"label_names": names})
        halves = [slice(0, train // 2), slice(train // 2, train)]
        parts = {f"data_batch_{i}": [x[half] for x in found["train"]] for i, half in enumerate(halves, 1)}
        parts["test_batch"] = list(found["test"])
    else:
        key, meta = "fine_labels", ("meta", {"fine_label_names": names})
        parts = {split: list(found[split]) for split in ("train", "test")}
    for file, (pixels, labels) in parts.items():
        entry = {"data": pixels, key: labels.tolist(), "batch_label": file}
        (folder / file).write_bytes(pickle.dumps(entry, protocol=2))
    (folder / meta[0]).write_bytes(pickle.dumps(meta[1], protocol=2))
    return _table(root, name, folder, train, test)


def write_mnist(root: Path, train: int = 60, test: int = 20) -> Path:
    """Write an MNIST below `root` and return the path of its table."""
    folder = root / SETS["mnist"].folder
    folder.mkdir(parents=True)
    for split, (pixels, labels) in images_of("mnist", train, test).items():
        stem = "train" if split == "train" else "t10k"
        head = np.array([0x803, len(pixels), 28, 28], dtype=">i4").tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([0x801, len(labels)], dtype=">i4").tobytes()
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    return _table(root, "mnist", folder, train, test)
