"""`task=mnist`: 60,000 handwritten digits of 28 x 28 pixels and 10,000 held out, read from the user's copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.tasks.images.config import COLUMNS as COLUMNS
from dynalab.tasks.images.config import FileConfig
from dynalab.tasks.images.sets import SETS, DataSet

if TYPE_CHECKING:
    from dynalab.tasks.images.task import ImageTask

TITLE = "MNIST"


@dataclass(frozen=True, kw_only=True)
class Config(FileConfig):
    """Configuration of `task=mnist`; the fields are those of `FileConfig`."""

    name: str = "mnist"

    def published(self) -> DataSet:
        """Return MNIST."""
        return SETS["mnist"]


def build(config: Config) -> ImageTask:
    """Build the task that `config` describes."""
    from dynalab.tasks.images.task import from_files

    return from_files(config)
