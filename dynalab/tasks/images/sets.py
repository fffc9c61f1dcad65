"""Which image data sets there are, which files they consist of, and where they lie; no torch.

The checksums are those that torchvision 0.29 carries (CIFAR) and those of the unpacked files of MNIST. A user's own
files in the same format come with a table of their own: a JSON file

    {"train": 500, "test": 100, "files": {"data_batch_1": "<md5>", ..., "test_batch": "<md5>", "batches.meta": "<md5>"}}

in which files whose names begin with `test` or `t10k` are held out. A table stands for its files, so its hash is what a
run's identity holds of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dynalab.config.places import user_path
from dynalab.core.errors import ConfigError

VARIABLE = "DYNALAB_DATA"


@dataclass(frozen=True)
class DataSet:
    """A data set on disk.

    Attributes:
        name: As `dynalab data` names it.
        title: As its authors name it.
        folder: Where its files lie, below the root.
        files: File name -> MD5.
        train: Number of training images.
        test: Number of held-out images.
        shape: (channels, height, width).
        classes: Number of classes.
        mean: Mean of every channel over the training images, of values in [0, 1].
        std: Standard deviation of every channel, likewise.
    """

    name: str
    title: str
    folder: str
    files: Mapping[str, str]
    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def with_table(self, table: Table) -> DataSet:
        """Return the set whose files are those of another table."""
        return replace(self, files=table.files, train=table.train, test=table.test)

    def missing(self, root: Path) -> list[str]:
        """Return the names of its files that are not below `root`."""
        return [name for name in self.files if not (root / self.folder / name).is_file()]


@dataclass(frozen=True)
class Table:
    """The table of a user's own files in the format of a known data set: numbers of images, file name -> MD5."""

    train: int
    test: int
    files: Mapping[str, str]

    def digest(self) -> str:
        """Return what stands for the files in a run's identity: 16 hex digits of the sha256 of the table."""
        said = json.dumps([self.train, self.test, dict(self.files)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


SETS = {
    "mnist": DataSet(
        name="mnist",
        title="MNIST",
        folder="MNIST/raw",
        files={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        train=60000,
        test=10000,
        shape=(1, 28, 28),
        classes=10,
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "cifar10": DataSet(
        name="cifar10",
        title="CIFAR-10",
        folder="cifar-10-batches-py",
        files={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        train=50000,
        test=10000,
        shape=(3, 32, 32),
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": DataSet(
        name="cifar100",
        title="CIFAR-100",
        folder="cifar-100-python",
        files={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        train=50000,
        test=10000,
        shape=(3, 32, 32),
        classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
}


def data_root(root: str | None = None) -> Path:
    """Return the folder of data sets: `root`, else DYNALAB_DATA, else ./data."""
    return user_path(root or os.environ.get(VARIABLE) or "data").absolute()


def require_present(data: DataSet, root: Path, key: str) -> None:
    """Refuse a data set whose files are not all below `root`; `key` is the setting that asked for it, `task=cifar`.

    Raises:
        ConfigError: Says where it looked, and both ways to get the files.
    """
    lacking = data.missing(root)
    if not lacking:
        return
    what = "is not there" if len(lacking) == len(data.files) else f"lacks {', '.join(lacking)}"
    raise ConfigError(
        f"{key}: {data.title} {what}; looked in {root / data.folder} "
        f"(task.root or --root, else {VARIABLE}, else ./data)\n"
        f"get it with `dynalab data fetch {data.name}`, or put its files there: {', '.join(data.files)}"
    )


def md5(path: Path) -> str:
    """Return the MD5 of a file, in hex; one that cannot be read raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error


def damaged(data: DataSet, root: Path) -> list[str]:
    """Return the names of the files that are there and are not what the table says."""
    found = {name: root / data.folder / name for name in data.files}
    return [name for name, path in found.items() if path.is_file() and md5(path) != data.files[name]]


# What tells the files of a set from those of others, training and held-out images first.
_PATTERNS = {
    "mnist": ("train-*-ubyte", "t10k-*-ubyte"),
    "cifar10": ("data_batch*", "test_batch*", "batches.meta"),
    "cifar100": ("train", "test", "meta"),
}


def own_files(folder: Path) -> tuple[DataSet, Path]:
    """Return the data set of a user's own files in the format of a known one, and the folder that holds them.

    That is the folder given or, of data sets, one in it.

    Raises:
        ConfigError: There is no such set in it, or there are several.
    """
    found = []
    for name, patterns in _PATTERNS.items():
        for place in dict.fromkeys([folder, folder / SETS[name].folder]):
            listed = [[path for path in sorted(place.glob(p)) if path.is_file()] for p in patterns]
            if listed[0] and listed[1]:
                files = {path.name: md5(path) for paths in listed for path in paths}
                found.append((replace(SETS[name], files=files), place))
    if len(found) != 1:
        what = "several data sets are" if found else "no training and held-out images are"
        names = ", ".join(f"{SETS[name].title}: {' and '.join(p[:2])}" for name, p in _PATTERNS.items())
        raise ConfigError(f"{folder}: {what} in this folder ({names})")
    return found[0]


def read_table(path: str) -> Table:
    """Read a user's table of checksums.

    Raises:
        ConfigError: It cannot be read, or is not such a table.
    """
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        table = Table(said["train"], said["test"], dict(said["files"]))
        for count in (table.train, table.test):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"{count!r} is no number of examples")
        for name, digest in table.files.items():
            # Names below the set's folder, and nowhere else.
            if name != Path(name).name or not re.fullmatch(r"[0-9a-f]{32}", str(digest)):
                raise ValueError(f"{name}: {digest} is not the MD5 of a file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"task.checksums={path}: expected JSON with the keys train, test and files: two numbers of examples, and "
            f"file name -> MD5 ({type(error).__name__}: {error})\n"
            "`dynalab data checksum DIR --to FILE` writes it for files of your own"
        ) from error
    return table
