"""`task=digits`: the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries; needs no network.

The held-out images are a run's own: its stream `split` draws a permutation of all images, the first `n_train` are
trained on and the last `n_test` are held out, so that held-out images stay the same when `n_train` changes. With
`seed_streams.split=0` all runs have one split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.tasks.images.config import ImageConfig

if TYPE_CHECKING:
    from dynalab.core.streams import Streams
    from dynalab.tasks.images.task import Drawn, ImageTask

TOTAL, SHAPE, LARGEST_PIXEL = 1797, (1, 8, 8), 16.0


@dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Configuration of `task=digits`.

    Attributes:
        n_train: Number of training images.
        n_test: Number of held-out images.
        input_noise: Standard deviation of normal noise on the training images (whose values are 0 to 1 before
            `normalise`), drawn once a run from its stream `noise`; held-out images stay clean.
    """

    name: str = "digits"
    n_train: int = 1500
    n_test: int = 297
    input_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_test >= 1, "task.n_test", self.n_test, "an integer of at least 1")
        largest = TOTAL - self.n_test
        legal = f"an integer from 1 to {largest} ({TOTAL} images without task.n_test={self.n_test})"
        require(1 <= self.n_train <= largest, "task.n_train", self.n_train, legal)
        require(self.input_noise >= 0, "task.input_noise", self.input_noise, "a number of at least 0")

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
