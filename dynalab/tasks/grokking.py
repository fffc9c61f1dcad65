"""Learning the table of a binary operation from a part of it (Power et al. 2022, arXiv 2201.02177).

A run sees a fixed random share of all pairs (x, y); the rest are held out. With weight decay, networks
memorise their share long before they know the rest. The split is drawn per seed from the stream `split`.

Three losses. `cross_entropy` is the mean over examples, taken over all columns of the outputs: a network may
have more columns than classes (the transformer of Nanda et al. 2023 has one for `=`), and the published code
leaves them in. `stablemax` (Prieto et al. 2025, arXiv 2501.04697) is the same with a softmax whose exp(z) grows
as z + 1 alone. `mse` is that of Gromov 2023 (arXiv 2301.02679): the mean over examples AND outputs of (f -
onehot)^2, so its gradient is `classes` times smaller than with a sum over outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import Section, alternatives, key
from dynalab.core.batch import Batch, InputSpec
from dynalab.core.errors import ConfigError
from dynalab.tasks import classification, operations
from dynalab.tasks.base import TaskData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.core.streams import Streams

COLUMNS = classification.columns("the mean over examples and outputs of (f - onehot)^2")
# The table has the square of this many pairs, held once a seed.
LARGEST = 1000

TITLE = "Modular arithmetic ({operation} mod {modulus}), {train_fraction:share} of pairs"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="task"):
    """Configuration of `task=grokking`; a formula is replaced by its name."""

    # Its inputs are symbols, no numbers.
    symbols: ClassVar[bool] = True

    name: str = "grokking"
    operation: str = key(
        "add",
        "operation on pairs, those of Power et al. 2022: by name (add, divide, s5) or formula (x^2+y^2)",
        kind=alternatives(operations.OPERATIONS),
    )
    modulus: int = key(
        59,
        "modulus of the modular operations, prime where they divide; without effect in s5",
        least=2,
        most=LARGEST,
    )
    train_fraction: float = key(0.4, "share of all pairs that a run is trained on", above=0, below=1)
    loss: str = key(
        "cross_entropy",
        f"loss; {classification.STABLEMAX}; mse: squared error on one-hot targets",
        one_of=classification.LOSSES,
    )

    def __post_init__(self) -> None:
        # A formula and its name mean one thing, so they must have one identity.
        object.__setattr__(self, "operation", operations.canonical(self.operation))
        super().__post_init__()
        if not 1 <= self.train_size() < self.pairs():
            raise ConfigError(
                f"task.train_fraction={self.train_fraction} leaves {self.train_size()} of "
                f"{self.pairs()} pairs to train on; training and test need one pair each at least"
            )

    def pairs(self) -> int:
        """Return how many pairs the operation has."""
        return len(operations.table(self.operation, self.modulus).results)

    def train_size(self) -> int:
        """Return the number of training examples of one run, the fraction of all pairs rounded down."""
        # Rounding first keeps 0.29 * 100 from becoming 28.
        return math.floor(round(self.train_fraction * self.pairs(), 6))

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        return {"noise": "task=grokking has no noise", **({"order": ""} if full else {})}


@dataclass(frozen=True)
class Grokking:
    """The task; implements `dynalab.tasks.base.Task`. Its spec: pairs of symbols, as many classes as symbols."""

    config: Config
    spec: InputSpec = field(init=False)

    def __post_init__(self) -> None:
        n = operations.table(self.config.operation, self.config.modulus).n_symbols
        object.__setattr__(self, "spec", InputSpec(kind="pairs", symbols=n, classes=n))

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> TaskData:
        """Split the table for every run; see `dynalab.tasks.base.Task`.

        The training examples of a run are the first `train_size()` of the permutation that its stream `split` draws,
        and keep that order, so a prefix of a split is a random sample of it.
        """
        import numpy as np
        import torch

        from dynalab.tasks.fixed import FixedData

        table = operations.table(self.config.operation, self.config.modulus)
        n = len(table.results)
        orders = np.stack([s.numpy("split").permutation(n) for s in streams])
        inputs = torch.from_numpy(table.pairs[orders]).to(device)
        targets = torch.from_numpy(table.results[orders]).to(device)
        size = self.config.train_size()
        train = Batch(inputs[:, :size].contiguous(), targets[:, :size].contiguous())
        test = Batch(inputs[:, size:].contiguous(), targets[:, size:].contiguous())
        return FixedData(train, test, streams, batch_size=batch_size, eval_size=eval_size)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean loss (S,), in the precision of outputs (S, B, C); C may exceed the classes."""
        if self.config.loss == "mse":
            return classification.mean_squared_error(outputs, batch.targets)
        return classification.OF_LABELS[self.config.loss](outputs, batch.targets)

    def named_loss(self) -> str:
        """Return the name of the loss, of the squared error its convention's."""
        return "mean_square" if self.config.loss == "mse" else self.config.loss

    def loss_and_gradient(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return `loss` of cross-entropy and its gradient by the outputs (S, B, C); None of another."""
        if self.config.loss != "cross_entropy":
            return None
        return classification.cross_entropy_and_gradient(outputs, batch.targets)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `accuracy`, the share of examples whose largest output is the target's; (S,), float64."""
        return {"accuracy": classification.accuracy(outputs, batch.targets)}

    def correct(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return which examples are right, shape (S, B), bool."""
        return classification.correct(outputs, batch.targets)


def build(config: Config) -> Grokking:
    """Build the task that `config` describes."""
    return Grokking(config)
