"""`task=cifar`: CIFAR-10 or CIFAR-100, 50,000 images of 3 x 32 x 32 and 10,000 held out, from the user's copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import key
from dynalab.tasks.images.config import COLUMNS as COLUMNS
from dynalab.tasks.images.config import FileConfig
from dynalab.tasks.images.sets import SETS, DataSet

if TYPE_CHECKING:
    from dynalab.tasks.images.task import ImageTask

AUGMENT = ("none", "crop_flip")
BORDERS = ("zeros", "reflect")

TITLE = "CIFAR-{classes}"


@dataclass(frozen=True, kw_only=True)
class Config(FileConfig):
    """Configuration of `task=cifar`; crops and flips are drawn for every step from the run's stream `order`."""

    name: str = "cifar"
    classes: int = key(10, "CIFAR-10 or CIFAR-100", one_of=(10, 100))
    augment: str = key(
        "none",
        "of training images; crop_flip: a random crop after padding by 4, and a random flip",
        one_of=AUGMENT,
    )
    border: str = key(
        "zeros",
        "what a crop finds outside the image; zeros: black, reflect: its mirror image",
        one_of=BORDERS,
    )

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
