"""Learning a sparse parity: y = x_1 x_2 ... x_k for x in {-1, +1}^n (Barak et al. 2022, arXiv 2207.08799).

For a long time nothing shows in loss or accuracy while the weights of the relevant coordinates, the first k, move
away from the others (the probe `parity`); then accuracy jumps.

Examples are fresh in every batch (`samples: null`, the paper's online setting) or a fixed sample of a run, drawn from
its stream `split` and walked through in epochs, where weight decay can delay generalisation (the paper's appendix
C.5). Held-out examples are drawn apart, uniformly, so with a small n some may be in the sample as well. With label
noise the labels that are trained on are turned over independently with that probability, from the stream `noise`;
held-out labels never are. On fresh examples, `train_loss` and `train_accuracy` are over further examples of the
distribution that is trained on (noise included), as many as are held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.core.batch import Batch, InputSpec
from dynalab.core.columns import Column, Columns
from dynalab.core.errors import ConfigError
from dynalab.tasks.base import TaskData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.core.streams import Streams

LOSSES = ("hinge", "square", "logistic")
COLUMNS: Columns = {
    "loss": Column(
        "mean over examples of max(0, 1 - y f) (`hinge`), (f - y)^2 (`square`) or ln(1 + exp(-y f)) (`logistic`), f "
        "the output, y the label",
        "1; nats an example (`logistic`)",
    ),
    "accuracy": Column("share of the examples whose output has the label's sign (0 has neither)", "1"),
}

TITLE = "Parity of {k} of {n} bits"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="task"):
    """Configuration of `task=parity`."""

    name: str = "parity"
    n: int = key(30, "length of an example", least=1)
    k: int = key(3, "number of relevant coordinates, the first k of the n", least=1)
    samples: int | None = key(
        None, "size of a run's fixed sample; null: fresh examples in every batch", least=1
    )
    label_noise: float = key(
        0.0, "probability that a label that is trained on is turned over", least=0, below=0.5
    )
    loss: str = key("hinge", "loss; logistic is slower: try a rate of 0.3", one_of=LOSSES)
    held_out: int = key(1024, "number of held-out examples, where eval.size does not say", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.k <= self.n, "k", f"an integer from 1 to task.n={self.n}")

    def train_size(self) -> int | None:
        """Return the size of the fixed sample, or None where examples never repeat."""
        return self.samples

    def in_words(self) -> dict[str, object]:
        """Return what the nulls of a configuration mean, by key."""
        sample = "" if self.samples is None else f", and all {self.samples} of the sample"
        return {
            "task.samples": "fresh examples in every batch",
            "eval.size": f"{self.held_out} held out{sample}" if sample else self.held_out,
        }

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return the streams that nothing is drawn from, and why."""
        quiet = {} if self.label_noise else {"noise": "task.label_noise=0"}
        return {**quiet, **({"order": ""} if full else {})}


@dataclass(frozen=True)
class Parity:
    """The task; implements `dynalab.tasks.base.Task`. Its spec: rows of n numbers, one output."""

    config: Config
    spec: InputSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", InputSpec(kind="vector", symbols=self.config.n, classes=1))

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> TaskData:
        """Draw the data of every run; see `dynalab.tasks.base.Task`.

        `eval_size` examples are held out (`held_out` for None); of a fixed sample, the first `eval_size` are
        evaluated (all for None). More of either begin with the same examples.
        """
        from dynalab.tasks.fixed import FixedData
        from dynalab.tasks.parity_data import FreshData, draw_bits, examples

        config = self.config
        if config.samples is None and batch_size is None:
            raise ConfigError(
                "train.batch_size=full: with task.samples=null every batch is fresh and there is no full set; "
                "legal: an integer, or a size for task.samples"
            )
        held_out = eval_size or config.held_out
        size = config.samples or held_out
        flips = None
        if config.label_noise:
            flips = [stream.numpy("noise").random(size) < config.label_noise for stream in streams]
        bits = [draw_bits(stream.numpy("split", 0), size, config.n) for stream in streams]
        train = examples(bits, config.k, device, flips)
        bits = [draw_bits(stream.numpy("split", 1), held_out, config.n) for stream in streams]
        test = examples(bits, config.k, device)
        if batch_size is None or config.samples is not None:
            return FixedData(train, test, streams, batch_size=batch_size, eval_size=eval_size)
        return FreshData(streams, train, test, config, batch_size, device)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return each run's mean loss (S,), in the precision of outputs (S, B, 1), for labels -1 and 1."""
        import torch
        from torch.nn.functional import logsigmoid

        output = outputs[..., 0]
        if self.config.loss == "square":
            return (output - batch.targets).square().mean(1)
        margin = output * batch.targets
        if self.config.loss == "hinge":
            return torch.relu(1.0 - margin).mean(1)
        # Not softplus: its last few entries have other bits than the same numbers further in front.
        return -logsigmoid(margin).mean(1)

    def named_loss(self) -> str:
        """Return the name of the loss."""
        return self.config.loss

    def loss_and_gradient(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return `loss`, and its gradient by the outputs (S, B, 1)."""
        import torch
        from torch.nn.functional import logsigmoid

        output, targets = outputs.squeeze(2), batch.targets
        count = targets.shape[1]
        if self.config.loss == "square":
            error = output - targets
            return error.square().mean(1), (error * (2 / count)).unsqueeze(2)
        margin = output * targets
        if self.config.loss == "hinge":
            slack = margin.neg_().add_(1.0)
            gradient = torch.ops.aten.threshold_backward.default(targets * (-1 / count), slack, 0)
            return slack.relu_().sum(1).div_(count), gradient.unsqueeze(2)
        surprisal = -logsigmoid(margin)
        # -sigmoid(-margin), of numbers that cannot overflow.
        gradient = torch.expm1(-surprisal).mul_(targets).div_(count)
        return surprisal.mean(1), gradient.unsqueeze(2)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return `accuracy`, the share of outputs with the label's sign (0 has neither); (S,), float64."""
        import torch

        return {"accuracy": self.correct(outputs, batch).to(torch.float64).mean(1)}

    def correct(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return which outputs have the label's sign, shape (S, B), bool."""
        return outputs[..., 0] * batch.targets > 0


def build(config: Config) -> Parity:
    """Build the task that `config` describes."""
    return Parity(config)
