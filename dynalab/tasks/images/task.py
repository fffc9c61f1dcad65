"""The task that digits, MNIST and CIFAR are settings of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dynalab.core.batch import Batch, InputSpec
from dynalab.core.streams import Streams
from dynalab.tasks import classification
from dynalab.tasks.base import TaskData
from dynalab.tasks.images import augment, draws
from dynalab.tasks.images.config import FileConfig, ImageConfig
from dynalab.tasks.images.data import ImageData, Part
from dynalab.tasks.images.readers import Pool, read

# Examples of one run that are evaluated at once, so that what a convolution writes stays within some ten megabytes.
CHUNK_SMALL, CHUNK_LARGE = 1024, 256


@dataclass(frozen=True)
class Drawn:
    """Which images every run of a shard has.

    Attributes:
        train_pool: Images that training examples come from.
        test_pool: Images that held-out examples come from.
        train: Their places, shape (S, n).
        test: Shape (S, m).
    """

    train_pool: Pool
    test_pool: Pool
    train: Tensor
    test: Tensor


@dataclass(frozen=True)
class ImageTask:
    """Classification of images; implements `dynalab.tasks.base.Task`.

    Attributes:
        config: What was asked for.
        shape: (channels, height, width).
        classes: Number of classes.
        largest: The pixels' largest value.
        draw: Draws every run's images.
        mean: Mean of every channel, of values in [0, 1].
        std: Standard deviation of every channel, likewise.
        input_noise: Standard deviation of what is added to training images.
        border: `zeros` or `reflect` for random crops and flips in training; None for none.
    """

    config: ImageConfig
    shape: tuple[int, int, int]
    classes: int
    largest: float
    draw: Callable[[Sequence[Streams]], Drawn]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_noise: float = 0.0
    border: str | None = None
    spec: InputSpec = field(init=False)

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        size = channels * height * width
        spec = InputSpec(kind="image", symbols=size, classes=self.classes, shape=self.shape)
        object.__setattr__(self, "spec", spec)

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> TaskData:
        """Draw the data of every run of a shard; see `dynalab.tasks.base.Task`."""
        drawn = self.draw(streams)
        labels = taken(drawn.train_pool.labels, drawn.train)
        labels = draws.noisy_labels(labels, self.config.label_noise, self.classes, streams)
        noise = draws.input_noise(self.input_noise, drawn.train.shape[1], self.spec.symbols, streams)
        noise = None if noise is None else noise.to(device)
        pixels = drawn.train_pool.pixels.to(device)
        train = Part(pixels, moved(drawn.train, device), moved(labels, device), noise)
        if drawn.test_pool is not drawn.train_pool:
            pixels = drawn.test_pool.pixels.to(device)
        labels = taken(drawn.test_pool.labels, drawn.test)
        test = Part(pixels, moved(drawn.test, device), moved(labels, device))
        return ImageData(
            train,
            test,
            self.scale(drawn.train_pool, device),
            streams,
            batch_size=batch_size,
            eval_size=eval_size,
            chunk=CHUNK_SMALL if self.spec.symbols <= 1024 else CHUNK_LARGE,
            augment=partial(self._augment, streams) if self.border else None,
        )

    def scale(self, pool: Pool, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (a, b), each of shape (D,), with which a * pixels + b is an image as the networks see it."""
        plane = self.shape[1] * self.shape[2]
        if self.config.normalise == "pixel":
            # In slices: a whole set in float64 would be eight times its size.
            sums = torch.zeros(2, self.spec.symbols, dtype=torch.float64)
            for rows in pool.pixels.split(4096):
                values = rows.to(torch.float64)
                sums += torch.stack([values.sum(0), values.square().sum(0)])
            mean = sums[0] / len(pool.pixels)
            std = (sums[1] / len(pool.pixels) - mean.square()).clamp(min=0).sqrt()
            # A pixel that is the same in every image stays 0.
            factor = torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), torch.ones_like(std))
            return factor.float().to(device), (-mean * factor).float().to(device)
        channels = torch.tensor([self.mean, self.std], dtype=torch.float64)
        if self.config.normalise == "none":
            channels = torch.tensor([[0.0] * self.shape[0], [1.0] * self.shape[0]], dtype=torch.float64)
        means, stds = channels.repeat_interleave(plane, dim=1)
        return (1 / (self.largest * stds)).float().to(device), (-means / stds).float().to(device)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean loss, shape (S,), from outputs (S, B, C)."""
        if self.config.loss == "mse":
            return classification.half_squared_error(outputs, batch.targets)
        return classification.OF_LABELS[self.config.loss](outputs, batch.targets)

    def named_loss(self) -> str:
        """Return the name of the loss, of the squared error its convention's."""
        return "half_square" if self.config.loss == "mse" else self.config.loss

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `accuracy`, shape (S,), float64."""
        return {"accuracy": classification.accuracy(outputs, batch.targets)}

    def correct(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return which examples are right, shape (S, B), bool."""
        return classification.correct(outputs, batch.targets)

    def _augment(self, streams: Sequence[Streams], pixels: Tensor, step: int) -> Tensor:
        assert self.border is not None
        numbers = augment.draw(streams, step, pixels.shape[1]).to(pixels.device)
        return augment.crop_flip(pixels, self.shape, numbers, self.border)


def taken(labels: Tensor, index: Tensor) -> Tensor:
    """Return the labels (S, n) at places (S, n); without a copy a run where the runs have the same places."""
    if index.stride(0) == 0:
        return labels[index[0]].expand(index.shape)
    return labels[index]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor (S, ...) to a device; rows that are one and the same stay so."""
    if tensor.stride(0) == 0:
        return tensor[0].to(device).expand(tensor.shape)
    return tensor.to(device)


def from_files(config: FileConfig, border: str | None = None) -> ImageTask:
    """Build a task on the images of a user's files; they are read when the data are drawn."""
    data = config.data_set()

    def draw(streams: Sequence[Streams]) -> Drawn:
        config.check_data()
        train, test = read(data, config.data_root())
        index = draws.subsets(streams, data.train, config.n_train)
        return Drawn(train, test, index, draws.subsets(streams, data.test, None))

    return ImageTask(config, data.shape, data.classes, 255.0, draw, data.mean, data.std, border=border)
