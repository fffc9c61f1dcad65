"""`task=blank`: a sine, learnt from some of its points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.tasks.base import Batch, InputSpec

# Every command reads this file, so torch is imported where it is used, not up here.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.core.streams import Streams


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="task"):
    """The keys `task.*`; blank.yaml lists them, too. What is not at its default here enters the id."""

    name: str = "blank"
    frequency: float = key(1.0, "periods of the sine between -1 and 1", above=0)
    samples: int = key(32, "examples of each split", least=1)


class Data:
    """The examples of S runs, side by side on axis 0. Nothing may reduce over that axis: runs do not touch."""

    def __init__(
        self, config: Config, streams: Sequence[Streams], size: int | None, device: torch.device
    ) -> None:
        """Draw each run's points from its own stream `split`, by the number of the draw."""
        import torch

        self.streams, self.size = streams, size
        self.splits: dict[str, Batch] = {}
        for number, split in enumerate(("train", "test")):
            drawn = [torch.rand(config.samples, 1, generator=own.torch("split", number)) for own in streams]
            inputs = 2 * torch.stack(drawn).to(device) - 1  # (S, B, 1)
            self.splits[split] = Batch(inputs, torch.sin(torch.pi * config.frequency * inputs))

    def train_batch(self, step: int) -> Batch:
        """Return the batch of an update; a function of the step alone, so that a resumed run goes on as it would."""
        import torch

        whole = self.splits["train"]
        if self.size is None:  # train.batch_size=full
            return whole
        drawn = [
            torch.randint(whole.size, (self.size, 1), generator=own.torch("order", step))
            for own in self.streams
        ]
        chosen = torch.stack(drawn).to(whole.inputs.device)
        return Batch(whole.inputs.gather(1, chosen), whole.targets.gather(1, chosen))

    def eval_batches(self, split: str) -> list[Batch]:
        """Return the examples of `train` or `test`, in one batch or several."""
        return [self.splits[split]]


@dataclass(frozen=True)
class Task:
    """What is learnt. With a method `model()`, which returns one run's network, it may bring its own: `model=task`."""

    config: Config
    # What models are told: rows of numbers, one in, one out. `pairs` and `image` are other kinds.
    spec = InputSpec(kind="vector", symbols=1, classes=1)

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> Data:
        """Draw the data of S runs; `eval_size` would be how many examples of a split are evaluated."""
        return Data(self.config, streams, batch_size, device)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean loss: (S, B, 1) -> (S,)."""
        return (outputs - batch.targets).square().mean(dim=(1, 2))

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return further means, each (S,): they are recorded as train_error and test_error."""
        return {"error": (outputs - batch.targets).abs().mean(dim=(1, 2))}


def build(config: Config) -> Task:
    """Return the task."""
    return Task(config)
