"""`task=cifar`: CIFAR-10 or CIFAR-100, 50,000 images of 3 x 32 x 32 and 10,000 held out, from the user's copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.models.nets.checks import require_one_of
from dynalab.tasks.images.config import FileConfig
from dynalab.tasks.images.sets import SETS, DataSet

if TYPE_CHECKING:
    from dynalab.tasks.images.task import ImageTask

AUGMENT = ("none", "crop_flip")
BORDERS = ("zeros", "reflect")


@dataclass(frozen=True, kw_only=True)
class Config(FileConfig):
    """Configuration of `task=cifar`.

    Attributes:
        classes: 10 or 100.
        augment: `none`, or `crop_flip`: in training a random crop after padding by 4 and a random flip, drawn for every
            step from the run's stream `order`.
        border: What the crop finds outside the image: `zeros` (black) or `reflect`.
    """

    name: str = "cifar"
    classes: int = 10
    augment: str = "none"
    border: str = "zeros"

    def __post_init__(self) -> None:
        require(self.classes in (10, 100), "task.classes", self.classes, "10 or 100")
        super().__post_init__()
        require_one_of("task.augment", self.augment, AUGMENT)
        require_one_of("task.border", self.border, BORDERS)

    def published(self) -> DataSet:
        """Return CIFAR-10 or CIFAR-100."""
        return SETS[f"cifar{self.classes}"]

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why; crops and flips come from `order`."""
        return super().idle_streams(full and self.augment == "none")


def build(config: Config) -> ImageTask:
    """Build the task that `config` describes."""
    from dynalab.tasks.images.task import from_files

    return from_files(config, border=config.border if config.augment == "crop_flip" else None)
