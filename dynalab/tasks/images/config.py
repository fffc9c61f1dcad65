"""The keys that tasks of images share, and their checks; no torch, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import Section, key
from dynalab.config.places import user_path
from dynalab.tasks.classification import LOSSES, STABLEMAX, columns
from dynalab.tasks.images.sets import data_root, read_table, require_present

if TYPE_CHECKING:
    from dynalab.tasks.images.sets import DataSet

COLUMNS = columns("half the sum over outputs of (f - onehot)^2, its mean over examples")
NORMALISE = ("none", "channel", "pixel")


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Section, of="task"):
    """What every task of images has.

    `mse` is the convention of Cohen et al. 2021 (arXiv 2103.00065), mean over examples. Labels that are replaced are
    drawn once a run from its stream `noise`, each other class being as likely.
    """

    loss: str = key(
        "cross_entropy",
        f"loss; {STABLEMAX}; mse: half the squared error on one-hot targets, summed over outputs",
        one_of=LOSSES,
    )
    label_noise: float = key(
        0.0, "share of a run's training labels that are replaced by another class", least=0, most=1
    )
    normalise: str = key(
        "none",
        "how pixels are scaled; none: 0 to 1, channel: by the published mean and deviation of every channel, pixel: by "
        "those of every pixel over all training images",
        one_of=NORMALISE,
    )

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        quiet = {} if self.label_noise else {"noise": "task.label_noise=0"}
        return {**quiet, **({"order": ""} if full else {})}


@dataclass(frozen=True, kw_only=True)
class FileConfig(ImageConfig):
    """What tasks have whose images lie in files of the user's; paths are kept as absolute ones."""

    # Where files lie decides no result; what they are is said by the table, which enters by `fingerprint`.
    by_content: ClassVar[tuple[str, ...]] = ("root", "checksums")

    n_train: int | None = key(
        None, "number of training images, drawn for every run from its stream split; null: all", least=1
    )
    root: str | None = key(
        None, "folder of data sets; null: DYNALAB_DATA, else ./data", kind="a folder or null"
    )
    checksums: str | None = key(
        None,
        "JSON file with the checksums of files of your own in the same format; null: the published ones",
        kind="a file or null",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Workers may run in another folder, and the ensemble may be continued from another.
        for name in ("root", "checksums"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, str(user_path(given).absolute()))
        if self.n_train is not None:
            largest = self.data_set().train
            self._require(
                self.n_train <= largest, "n_train", f"an integer from 1 to {largest}, or null for all"
            )

    def published(self) -> DataSet:
        """Return the data set that the task is about."""
        raise NotImplementedError

    def data_set(self) -> DataSet:
        """Return the data set, with the user's own table where one is given."""
        if self.checksums is None:
            return self.published()
        return self.published().with_table(read_table(self.checksums))

    def in_words(self) -> dict[str, object]:
        """Return what the nulls of a configuration mean, by key."""
        return {
            "task.n_train": self.train_size(),
            "task.root": "DYNALAB_DATA, else ./data",
            "task.checksums": "the published ones",
        }

    def data_root(self) -> Path:
        """Return the folder of data sets."""
        return data_root(self.root)

    def image_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image."""
        return self.data_set().shape

    def train_size(self) -> int:
        """Return the number of training examples of one run."""
        return self.data_set().train if self.n_train is None else self.n_train

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        whole = {"split": "with task.n_train=null every run has all images"} if self.n_train is None else {}
        return {**super().idle_streams(full), **whole}

    def fingerprint(self) -> dict[str, str]:
        """Return what stands for the user's own files in the identity: a hash of their table."""
        return {} if self.checksums is None else {"checksums": read_table(self.checksums).digest()}

    def check_data(self) -> None:
        """Refuse to begin where files are missing; says where it looked, and both ways to get them."""
        require_present(self.data_set(), self.data_root(), f"task={getattr(self, 'name', '')}")
