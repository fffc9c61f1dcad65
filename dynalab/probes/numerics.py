"""`probes=[numerics]`: what float32 does to a cross-entropy whose margins have outgrown it.

Beyond a margin of 23 ln 2 = 15.9 an example's float32 loss and the gradient of its own class are exactly 0, the
gradients of the classes no longer sum to 0 (`gradient_imbalance`), and the mean row of the last layer W_G and the mean
feature mu_G drive each other (Prieto et al. 2025, arXiv 2501.04697; Liu et al. 2026, arXiv 2605.06152): the engine of
slingshots (Thilak et al. 2022, arXiv 2206.04817). Everything is over the training examples that are evaluated, in
evaluation mode; the margin of an example is z_y - max(z_k, k != y), of its logits as the loss has them (divided by
`train.temperature`), taken to float64.

The features are not asked of the network: where the last layer is linear, the gradient of the mean of the first
output by that layer's weight is mu_G. Whether it is linear is tried on the first batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynalab.config.keys import key
from dynalab.core.batch import Batch
from dynalab.core.columns import Column, Columns
from dynalab.core.errors import ConfigError
from dynalab.models.describe import describe
from dynalab.probes.base import Cadence, Setting
from dynalab.tasks import classification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.state import ProbeState

# How far outputs may be from linear in the last layer's weight before it counts as not linear, relative to their size.
LINEAR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "numerics"
    size: int | None = key(
        None, "training examples that are looked at, the first so many; null: all that are evaluated", least=1
    )


COLUMNS: Columns = {
    "zero_loss_fraction": Column(
        "share of the examples whose loss, in the precision of `train.loss_dtype`, is exactly 0", "1"
    ),
    "min_margin": Column("smallest margin of an example", "1 (a logit)"),
    "median_margin": Column("median margin, the lower of two middle values", "1 (a logit)"),
    "class_feature_cosine": Column(
        "cosine of W_G, the mean over classes of the last layer's rows, and mu_G, the mean over examples of what it "
        "reads; NaN where one of them is 0",
        "1",
    ),
    "class_mean_norm": Column("norm of W_G", "weight"),
    "feature_mean_norm": Column("norm of mu_G", "1 (a feature)"),
    "gradient_imbalance": Column(
        "|sum_k g_k| / sum_k |g_k|, g_k the gradient of the loss by logit k as the network is given it, mean over "
        "examples: 0 but for rounding; NaN where all are 0; not of `stablemax`, whose gradients need not cancel",
        "1",
    ),
}


@dataclass
class Numerics:
    """The probe; implements `dynalab.probes.base.Probe`."""

    last_layer: str
    size: int | None = None
    needs: frozenset[str] = frozenset()
    _setting: Setting | None = field(default=None, repr=False)
    _stable: bool = False

    def begin(self, setting: Setting) -> None:
        """Take what is measured on; refuse a task without such a loss, and a last layer that is not linear."""
        self._stable = loss_of(getattr(setting.task, "config", None)) == "stablemax"
        self._setting = setting
        if not self._is_linear():
            raise ConfigError(
                f"probes: the probe numerics needs a network whose outputs are a linear layer of their own, and "
                f"{self.last_layer} is none; leave it out with probes=[weights,gradients]"
            )

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64."""
        import torch

        setting = self._setting
        assert setting is not None
        zeros, margins, features, gradients = [], [], [], []
        for batch in self._batches():
            outputs, feature = self._forward(state.params, batch)
            logits = setting.loss.logits(outputs)
            flat = classification.stable(logits) if self._stable else logits
            zeros.append(classification.surprisals(flat, batch.targets) == 0)
            margins.append(margins_of(logits, batch.targets))
            features.append(feature[:, 0].to(torch.float64) * batch.size)
            if not self._stable:
                gradients.append(self._by_logit(outputs, batch) * batch.size)
        margin = torch.cat(margins, 1).sort(1).values
        total = functools.reduce(torch.add, features)
        classes = state.params[self.last_layer].to(torch.float64).mean(1)
        squares = [_dot(vector, vector) for vector in (classes, total)]
        cosine = _dot(classes, total) / (squares[0] * squares[1]).sqrt()
        # A run that diverged has margins that are not ordered.
        lost = margin.isnan().any(1)
        return {
            "zero_loss_fraction": torch.cat(zeros, 1).to(torch.float64).mean(1).masked_fill(lost, torch.nan),
            "min_margin": margin[:, 0].masked_fill(lost, torch.nan),
            "median_margin": margin[:, (margin.shape[1] - 1) // 2].masked_fill(lost, torch.nan),
            "class_feature_cosine": cosine.masked_fill(~cosine.isfinite(), torch.nan),
            "class_mean_norm": squares[0].sqrt().masked_fill(lost, torch.nan),
            "feature_mean_norm": (squares[1].sqrt() / margin.shape[1]).masked_fill(lost, torch.nan),
            **(
                {"gradient_imbalance": imbalance(functools.reduce(torch.add, gradients))} if gradients else {}
            ),
        }

    def _by_logit(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of each run's mean loss by logit, summed over examples, (S, C) in float64."""
        import torch

        assert self._setting is not None
        with torch.enable_grad():
            leaf = outputs.requires_grad_()
            (gradient,) = torch.autograd.grad(self._setting.loss(leaf, batch).sum(), [leaf])
        return gradient.to(torch.float64).sum(1)

    def _batches(self) -> Iterator[Batch]:
        assert self._setting is not None
        left = self.size
        for batch in self._setting.data.eval_batches("train"):
            if left is None or batch.size <= left:
                yield batch
            elif left > 0:
                yield Batch(batch.inputs[:, :left], batch.targets[:, :left])
            left = None if left is None else left - batch.size

    def _is_linear(self) -> bool:
        """Whether the first row of the last layer's weight moves the first output linearly, and no other at all."""
        import torch

        assert self._setting is not None
        params = {name: param.detach() for name, param in self._setting.params.items()}
        weight, batch = params[self.last_layer], next(self._batches())
        found = []
        with torch.no_grad():
            for factor in (0.0, 1.0, 2.0):
                scaled = weight.clone()
                scaled[:, 0] *= factor
                outputs = self._setting.forward(batch.inputs, {**params, self.last_layer: scaled})
                if outputs.dim() != 3 or weight.dim() != 3 or weight.shape[1] != outputs.shape[2]:
                    return False
                found.append(outputs.to(torch.float64))
        none, once, twice = found
        size = LINEAR * (once.abs().amax() + twice.abs().amax())
        moved = (twice - once).abs()
        bent = (twice - 2 * once + none)[:, :, 0].abs().amax()
        return bool(moved[:, :, 0].amax() > 0 and moved[:, :, 1:].amax() <= size and bent <= size)

    def _forward(self, params: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return outputs (S, B, C), detached, and the gradient of the mean first output by the last layer's weight."""
        import torch

        assert self._setting is not None
        weight = params[self.last_layer].detach().clone().requires_grad_()
        with torch.enable_grad():
            # Only what comes after the last layer's weight is differentiated.
            own = {name: param.detach() for name, param in params.items()} | {self.last_layer: weight}
            outputs = self._setting.forward(batch.inputs, own)
            (feature,) = torch.autograd.grad(outputs[:, :, 0].mean(1).sum(), [weight])
        return outputs.detach(), feature


def loss_of(task: Any) -> str:
    """Return the loss of a task, given its configuration; refuse what is no classification."""
    loss = getattr(task, "loss", None)
    if loss not in classification.OF_LABELS:
        raise ConfigError(
            f"probes: the probe numerics needs a classification with task.loss=cross_entropy or stablemax, and "
            f"this task's loss is {loss or 'its own'}; leave it out with probes=[weights,gradients]"
        )
    return str(loss)


def check_ensemble(ensemble: EnsembleConfig) -> None:
    """Refuse a task that is no classification."""
    loss_of(ensemble.task)


def build(config: Config, network: nn.Module) -> Numerics:
    """Build the probe for a network, which has to have a layer that could be the last."""
    last = describe(network).last_layer
    if last is None:
        raise ConfigError(
            "probes: the probe numerics needs a network with a linear last layer, and this one has none"
        )
    return Numerics(last, config.size)


def margins_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return z_y - max_{k != y} z_k of every example, (S, B) in float64, from logits (S, B, C) and labels (S, B)."""
    import torch

    logits = outputs.to(torch.float64)
    own = logits.gather(2, targets[..., None])
    others = logits.scatter(2, targets[..., None], -torch.inf)
    return own[..., 0] - others.amax(2)


def imbalance(gradients: Tensor) -> Tensor:
    """Return |sum_k g_k| / sum_k |g_k| of gradients by logit (S, C), shape (S,); NaN where all are 0."""
    return gradients.sum(1).abs() / gradients.abs().sum(1)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of rows (S, H), shape (S,)."""
    return (left * right).sum(1)
