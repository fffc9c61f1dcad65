"""The keys that tasks of images share, and their checks; no torch, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.places import user_path
from dynalab.config.schema import require
from dynalab.models.nets.checks import require_one_of
from dynalab.tasks.classification import LOSSES
from dynalab.tasks.images.sets import data_root, read_table, require_present

if TYPE_CHECKING:
    from dynalab.tasks.images.sets import DataSet

NORMALISE = ("none", "channel", "pixel")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What every task of images has.

    Attributes:
        loss: `cross_entropy`, or `mse`: half the squared error on one-hot targets, summed over outputs, mean over
            examples (the convention of Cohen et al. 2021, arXiv 2103.00065).
        label_noise: Share of a run's training labels that are replaced by another class, each other class being as
            likely; drawn once a run from its stream `noise`.
        normalise: `none` (values in [0, 1]), `channel` (the data set's published mean and standard deviation of every
            channel) or `pixel` (mean and standard deviation of every pixel over all training images).
    """

    loss: str = "cross_entropy"
    label_noise: float = 0.0
    normalise: str = "none"

    def __post_init__(self) -> None:
        require_one_of("task.loss", self.loss, LOSSES)
        require_one_of("task.normalise", self.normalise, NORMALISE)
        require(0 <= self.label_noise <= 1, "task.label_noise", self.label_noise, "a share from 0 to 1")

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        quiet = {} if self.label_noise else {"noise": "task.label_noise=0"}
        return {**quiet, **({"order": ""} if full else {})}


@dataclass(frozen=True, kw_only=True)
class FileConfig(ImageConfig):
    """What tasks have whose images lie in files of the user's.

    Attributes:
        n_train: Number of training images, drawn for every run from its stream `split`; None is all of them.
        root: The folder of data sets, kept as an absolute path; None is DYNALAB_DATA, else ./data.
        checksums: A JSON file with the checksums of files of one's own in the data set's format
            (`dynalab.tasks.images.sets`), kept as an absolute path; None is the published table.
    """

    # Where files lie decides no result; what they are is said by the table, which enters by `fingerprint`.
    by_content: ClassVar[tuple[str, ...]] = ("root", "checksums")

    n_train: int | None = None
    root: str | None = None
    checksums: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Workers may run in another folder, and the ensemble may be continued from another.
        for name in ("root", "checksums"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, str(user_path(given).absolute()))
        if self.n_train is not None:
            largest = self.data_set().train
            legal = f"an integer from 1 to {largest}, or null for all"
            require(1 <= self.n_train <= largest, "task.n_train", self.n_train, legal)

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
