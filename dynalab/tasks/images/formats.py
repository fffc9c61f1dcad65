"""The files of MNIST and CIFAR, read so that nothing that stands in a file is run; no torch."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dynalab.core.errors import ConfigError
from dynalab.tasks.images.sets import DataSet

# What the pickled arrays of CIFAR's files are made of, in the words of NumPy 1 and 2.
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED |= {(f"{_core}.multiarray", "_reconstruct"), (f"{_core}.multiarray", "scalar")}
    _ALLOWED |= {(f"{_core}.numeric", "_frombuffer")}
_META = ("batches.meta", "meta")
_IMAGES, _LABELS = 0x803, 0x801


class _Arrays(pickle.Unpickler):
    """Unpickles arrays and what holds them, and refuses whatever else a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and images need no such thing")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_split(data: DataSet, folder: Path, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read the training or the held-out images in the order of the set's files, of those that its table names.

    Returns:
        Pixels (N, C * H * W), uint8 with colours outside, and labels (N,), int64.

    Raises:
        ConfigError: A file cannot be read, or is not of the set's format.
    """
    if data.name == "mnist":
        stem = "t10k" if held_out else "train"
        names = [f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"]
        lacking = [name for name in names if name not in data.files]
        parts = [] if lacking else [_mnist(*(folder / name for name in names))]
    else:
        names = [name for name in data.files if name.startswith("test") == held_out and name not in _META]
        parts = [_cifar(folder / name) for name in names]
    if not parts:
        which = "held-out" if held_out else "training"
        raise ConfigError(f"{data.title} in {folder}: its table names no file of {which} images")
    pixels = np.concatenate([images for images, _ in parts])
    return np.ascontiguousarray(pixels), np.concatenate([labels for _, labels in parts])


def _cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # NumPy 2.4 warns of the way in which files that NumPy 1 pickled spell their types.
            warnings.simplefilter("ignore")
            entry = _Arrays(file, encoding="latin1").load()
        # Python 2 wrote names that are texts here; other writers leave them bytes.
        said = {
            key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in entry.items()
        }
        images, labels = np.asarray(said["data"]), said["labels"] if "labels" in said else said["fine_labels"]
        return _checked(images.reshape(len(images), -1), np.asarray(labels), 3072)
    except Exception as error:
        # A damaged pickle ends in whatever its opcodes make of it.
        what = f"no {error} in it" if isinstance(error, KeyError) else f"{error or type(error).__name__}"
        raise ConfigError(f"{path}: cannot be read as a file of CIFAR: {what}") from error


def _mnist(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for path, magic, dimensions in ((images, _IMAGES, 3), (labels, _LABELS, 1)):
        try:
            text = path.read_bytes()
            found, *shape = np.frombuffer(text, ">u4", count=1 + dimensions).tolist()
            pixels = np.frombuffer(text, np.uint8, offset=4 * (1 + dimensions))
            if found != magic:
                raise ValueError(f"it begins with {found:#x}, expected {magic:#x}")
            arrays.append(pixels.reshape(shape))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as a file of MNIST: {error}") from error
    try:
        return _checked(arrays[0].reshape(len(arrays[0]), -1), arrays[1], 784)
    except ValueError as error:
        raise ConfigError(f"{images}: cannot be read as a file of MNIST: {error}") from error


def _checked(images: np.ndarray, labels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    if images.dtype != np.uint8 or images.shape[1:] != (width,):
        raise ValueError(f"its images are {images.shape[1:]} of {images.dtype}, expected {width} bytes each")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(f"it has {len(images)} images and labels {labels.shape} of {labels.dtype}")
    return images, labels.astype(np.int64)
