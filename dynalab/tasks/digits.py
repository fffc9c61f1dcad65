"""`task=digits`: the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries; needs no network.

The held-out images are a run's own: its stream `split` draws a permutation of all images, the first `n_train` are
trained on and the last `n_test` are held out, so that held-out images stay the same when `n_train` changes. With
`seed_streams.split=0` all runs have one split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import key
from dynalab.tasks.images.config import COLUMNS as COLUMNS
from dynalab.tasks.images.config import ImageConfig

if TYPE_CHECKING:
    from dynalab.core.streams import Streams
    from dynalab.tasks.images.task import Drawn, ImageTask

TOTAL, SHAPE, LARGEST_PIXEL = 1797, (1, 8, 8), 16.0

TITLE = "Images of digits"


@dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Configuration of `task=digits`; noise on images is drawn once a run from its stream `noise`."""

    name: str = "digits"
    n_train: int = key(
        1500,
        f"number of training images, the first of the permutation of all {TOTAL:,} that a run's stream split draws",
        least=1,
    )
    n_test: int = key(297, "number of held-out images, the last of that permutation", least=1)
    input_noise: float = key(
        0.0,
        "standard deviation of normal noise on the training images, whose values are 0 to 1 before normalise",
        least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = TOTAL - self.n_test
        legal = f"an integer from 1 to {largest} ({TOTAL} images without task.n_test={self.n_test})"
        self._require(self.n_train <= largest, "n_train", legal)

    def image_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image."""
        return SHAPE

    def train_size(self) -> int:
        """Return the number of training examples of one run."""
        return self.n_train

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        found = super().idle_streams(full)
        if self.input_noise:
            found.pop("noise", None)
        return found


def build(config: Config) -> ImageTask:
    """Build the task that `config` describes."""
    from dynalab.tasks.images import draws
    from dynalab.tasks.images.readers import read_digits
    from dynalab.tasks.images.task import Drawn, ImageTask

    def draw(streams: Sequence[Streams]) -> Drawn:
        pool = read_digits()
        order = draws.subsets(streams, TOTAL, TOTAL)
        # Copies, so that the rest of the permutations is not kept.
        train, test = order[:, : config.n_train].clone(), order[:, TOTAL - config.n_test :].clone()
        return Drawn(pool, pool, train, test)

    # Mean and standard deviation of all pixels of all images.
    mean, std = (0.3053,), (0.3760,)
    return ImageTask(config, SHAPE, 10, LARGEST_PIXEL, draw, mean, std, input_noise=config.input_noise)
