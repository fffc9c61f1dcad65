"""Tasks whose images lie in files: from a configuration to a task."""

from __future__ import annotations

from collections.abc import Sequence

from dynalab.core.streams import Streams
from dynalab.tasks.images import draws
from dynalab.tasks.images.config import FileConfig
from dynalab.tasks.images.readers import read
from dynalab.tasks.images.task import Drawn, ImageTask


def build_from_files(config: FileConfig, border: str | None = None) -> ImageTask:
    """Build a task on the images of a user's files; they are read when the data are drawn.

    Args:
        config: The task's configuration.
        border: Of random crops and flips; None for no augmentation.
    """
    data = config.data_set()

    def draw(streams: Sequence[Streams]) -> Drawn:
        config.check_data()
        train, test = read(data, config.data_root())
        return Drawn(
            train,
            test,
            draws.subsets(streams, data.train, config.n_train),
            draws.subsets(streams, data.test, None),
        )

    return ImageTask(
        config=config,
        shape=data.shape,
        classes=data.classes,
        largest=255.0,
        draw=draw,
        mean=data.mean,
        std=data.std,
        border=border,
    )
