"""Fitting a function: Chebyshev polynomials (`target: chebyshev`) or a network (`target: teacher`).

`chebyshev`, the smallest fixture of the edge of stability (Cohen et al. 2021, arXiv 2103.00065; their code's
`make_chebyshev_dataset` and architecture `regression`): y = T_degree(x) at `samples` points spaced evenly over
[-1, 1], ends included, the same for every run. Their held-out data are the training data; here they are the points
halfway between neighbours (or `test_samples` evenly spaced points). The network of the paper's code is tanh, 1-100-1,
without a bias on the head, weights N(0, 2 g^2 / (n + m)) with g = 1.9 for the first layer and 1 for the head, biases
0: the task's default.

`teacher` (Liu et al. 2023, arXiv 2210.01117; their code's `regression_grokking`): inputs N(0, 1), labels those of a
tanh network of the shape `teacher`, drawn as torch draws linear layers. Examples and teacher are a run's own, from
its stream `split`.

Losses, with sums over outputs and means over examples: `half_square` 0.5 sum (f - y)^2, the convention of the
edge-of-stability papers, whose thresholds hold for it alone; `mse` the mean of (f - y)^2 over examples and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.core.batch import Batch, InputSpec
from dynalab.core.columns import Column, Columns
from dynalab.tasks.base import TaskData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.core.streams import Streams

TARGETS = ("chebyshev", "teacher")
LOSSES = ("half_square", "mse")
COLUMNS: Columns = {
    "loss": Column(
        "mean over examples of half the sum over outputs of (f - y)^2 (`half_square`), or mean over examples and "
        "outputs of (f - y)^2 (`mse`)",
        "1 (a label's unit, squared)",
    )
}

TITLE = "Regression on {target}, {samples} examples"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="task"):
    """Configuration of `task=regression`."""

    name: str = "regression"
    target: str = key(
        "chebyshev", "what is fitted: a polynomial, or a network of the same kind", one_of=TARGETS
    )
    degree: int = key(4, "degree of the polynomial", least=0)
    samples: int = key(20, "number of training examples", least=2)
    test_samples: int | None = key(
        None,
        "number of held-out examples; null: the points halfway between neighbours, or for a teacher as many as samples",
        least=1,
    )
    teacher: list[int] = key([5, 100, 100, 5], "widths of the teacher, inputs first, outputs last", least=1)
    loss: str = key(
        "half_square",
        "loss; half_square: 0.5 times the sum over outputs, the edge-of-stability convention",
        one_of=LOSSES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(len(self.teacher) >= 2, "teacher", "a list of two or more widths, inputs first")

    def train_size(self) -> int:
        """Return the number of training examples of one run."""
        return self.samples

    def in_words(self) -> dict[str, object]:
        """Return what the nulls of a configuration mean, by key."""
        between = self.target == "chebyshev"
        return {"task.test_samples": self.samples - 1 if between else self.samples}

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        found = {"noise": "task=regression has no noise", **({"order": ""} if full else {})}
        if self.target == "chebyshev":
            found["split"] = "with task.target=chebyshev the examples are the same for every run"
        return found


@dataclass(frozen=True)
class Regression:
    """The task; implements `dynalab.tasks.base.Task`. Its spec: rows of numbers, and how many outputs."""

    config: Config
    spec: InputSpec = field(init=False)

    def __post_init__(self) -> None:
        widths = [1, 1] if self.config.target == "chebyshev" else self.config.teacher
        object.__setattr__(self, "spec", InputSpec(kind="vector", symbols=widths[0], classes=widths[-1]))

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> TaskData:
        """Make the examples of every run, targets (S, N, C); see `dynalab.tasks.base.Task`."""
        import torch

        from dynalab.tasks.fixed import FixedData

        config = self.config
        if config.target == "chebyshev":
            grids = chebyshev_grids(config.samples, config.test_samples)
            runs = [[(x, chebyshev(config.degree, x)) for x in grids]] * len(streams)
        else:
            sizes = (config.samples, config.test_samples or config.samples)
            runs = [teacher_examples(config.teacher, sizes, stream) for stream in streams]
        train, test = (
            Batch(*(torch.stack(tensors).to(device) for tensors in zip(*part, strict=True)))
            for part in zip(*runs, strict=True)
        )
        return FixedData(train, test, streams, batch_size=batch_size, eval_size=eval_size)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean loss, shape (S,), from outputs and targets of shape (S, B, C)."""
        squares = (outputs - batch.targets).square()
        return squares.mean((1, 2)) if self.config.loss == "mse" else 0.5 * squares.sum(2).mean(1)

    def named_loss(self) -> str:
        """Return the name of the loss, of the squared error its convention's."""
        return "mean_square" if self.config.loss == "mse" else self.config.loss

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return nothing beside the loss: no output of a regression is right or wrong."""
        return {}


def chebyshev_grids(samples: int, test_samples: int | None) -> tuple[Tensor, Tensor]:
    """Return the training and the held-out points, shapes (N, 1) and (M, 1), float32."""
    import torch

    points = torch.linspace(-1.0, 1.0, samples)
    held_out = (
        (points[1:] + points[:-1]) / 2 if test_samples is None else torch.linspace(-1.0, 1.0, test_samples)
    )
    return points[:, None], held_out[:, None]


def chebyshev(degree: int, x: Tensor) -> Tensor:
    """Return T_degree(x) in the shape and type of x, by the recursion T_(d+1) = 2 x T_d - T_(d-1) in float64."""
    import torch

    wide = x.to(torch.float64)
    before, now = torch.ones_like(wide), wide
    for _ in range(degree):
        before, now = now, 2 * wide * now - before
    return before.to(x.dtype)


def teacher_examples(
    widths: Sequence[int], sizes: Sequence[int], stream: Streams
) -> list[tuple[Tensor, Tensor]]:
    """Draw one run's teacher of some widths, and inputs (N, n) and targets (N, m) of each size, on the CPU.

    The teacher comes from the stream `split`, 0, set i from `split`, i + 1.
    """
    import torch

    from dynalab.models.nets.mlp import MLP

    with stream.seeded("split", 0):
        teacher = MLP(widths[0], widths[-1], widths[1:-1], activation="tanh")
    sets = []
    for i, size in enumerate(sizes):
        x = torch.randn(size, widths[0], generator=stream.torch("split", i + 1))
        with torch.no_grad():
            sets.append((x, teacher(x)))
    return sets


def build(config: Config) -> Regression:
    """Build the task that `config` describes."""
    return Regression(config)
