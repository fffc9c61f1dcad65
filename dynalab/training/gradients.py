"""The gradient of an update: batches, accumulation, sharpness-aware ascent, clipping, what lies along the weights."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.batch import Batch
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import PluginError, place_of
from dynalab.core.state import Upcoming
from dynalab.networks.evaluation import shares_pass
from dynalab.networks.stack import Stack, Vjp
from dynalab.optim.ascent import along_runs, ascended, joint_norm, radius
from dynalab.optim.orthogonal import orthogonal
from dynalab.tasks.base import TaskData, counted
from dynalab.tasks.loss import Loss
from dynalab.training.graphs import Capture, Graphed
from dynalab.training.masks import Masks

# Losses (S,) and gradients (S, ...) of an update.
Lowered = tuple[Tensor, Sequence[Tensor | None]]
_NOISE = "noise/"


@dataclass(frozen=True)
class Pass:
    """A batch that went through the networks: outputs (S, B, ...) and losses (S,).

    Attributes:
        gradient: Of the losses by the outputs, (S, B, ...); None where they do not depend on them.
        vjp: What takes it to the weights, once.
        versions: Of the parameters: whoever writes to them afterwards needs another pass.
    """

    batch: Batch
    outputs: Tensor
    losses: Tensor
    gradient: Tensor | None
    vjp: Vjp
    versions: list[int]


# What `Gradients.of` returns: the last batch, the losses (S,), the gradients.
Made = tuple[Batch, Tensor, Sequence[Tensor | None]]


class Gradients:
    """Makes the gradients of the updates of a shard.

    Attributes:
        shares_pass: Whether the training examples of an evaluation are the next update's batch and weights, so that
            one pass does for both.
        orthogonal: Whether they are taken across the weights.
        lost: Which runs are beyond saving, shape (S,), bool: their losses move nothing; None where there is none.
    """

    def __init__(
        self,
        stack: Stack,
        loss: Loss,
        data: TaskData,
        optimizer: torch.optim.Optimizer,
        config: EnsembleConfig,
        masks: Masks,
    ) -> None:
        self._stack, self._loss, self._data, self._optimizer = stack, loss, data, optimizer
        self._count, self._clip = config.train.accumulate, config.train.clip
        self.orthogonal = bool(getattr(config.optimizer, "orthogonal", False))
        self._masks = masks
        self._params = list(stack.params.values())
        self._kept: Pass | None = None
        self._graph: Graphed[Lowered] | None = None
        self._made: tuple[list[int], Made] | None = None
        self.lost: Tensor | None = None
        self._depends = False
        self.shares_pass = shares_pass(stack, data, optimizer, self._count)

    def check_batches(self, data: TaskData, count: int, model: str, size: int | str) -> None:
        """Refuse a batch of one, before anything is trained, where the network has no batch statistics of it.

        Training comes to `count` batches of `data`; `model` and `train.batch_size`, `size`, are for the message.

        Raises:
            ConfigError: Among them is a batch that the network cannot take.
        """
        last = getattr(data, "batches_per_epoch", 1) - 1
        for number in {0, last} if self._stack.buffers else ():
            if number >= count or (batch := data.train_batch(number)).size > 1:
                continue
            buffers = {name: buffer.clone() for name, buffer in self._stack.buffers.items()}
            try:
                with torch.no_grad():
                    noise = self._stack.noise_of(number, batch.inputs)
                    self._stack.forward(batch.inputs, training=True, noise=noise, buffers=buffers)
            except (ValueError, ConfigError) as error:
                raise ConfigError(
                    f"train.batch_size={size}: batch {number} has one example, which "
                    f"model={model} cannot take: {str(error).splitlines()[0]}"
                ) from error

    def of(self, step: int, weights: Mapping[str, Tensor] | None = None) -> Made:
        """Return the last batch, the mean losses (S,) and the mean gradients over the batches of an update.

        Batches weigh as much as their losses are means over, so that parts of unequal size are one large batch.

        Args:
            step: The update is `step` -> `step + 1`.
            weights: Where to take them, in place of the weights that are trained; running statistics then stay.

        Returns:
            The gradients in the order of `Stack.trained`; None, as torch has it, of what the losses do not depend on.
        """
        if weights is None and self._made is not None:
            (versions, made), self._made = self._made, None
            if versions == self._versions(made[2]):
                return made
        leaves, buffers = self._stack.params, None
        if weights is not None:
            leaves = {**leaves, **{n: weights[n].detach().requires_grad_() for n in self._stack.trained}}
            buffers = {name: buffer.clone() for name, buffer in self._stack.buffers.items()}
        if weights is None and self._graph is not None and self.lost is None:
            return self._replayed(step, self._graph)
        numbers = range(step * self._count, (step + 1) * self._count)
        batches = [self._data.train_batch(number) for number in numbers]
        counts = [counted(self._loss.task, batch) for batch in batches]
        whole = sum(counts)
        total: list[Tensor | None] = [None] * len(self._stack.trained)
        losses: list[Tensor] = []
        for number, batch, count in zip(numbers, batches, counts, strict=True):
            done = None
            if weights is None:
                done, self._kept = self._kept, None
            if done is None or done.versions != self._versions():
                done = self._pass(number, batch, leaves, buffers)
            own, gradient = done.losses, done.gradient
            if self._count > 1:
                weight = whole / count
                share = weight.to(own.dtype) if isinstance(weight, Tensor) else torch.full_like(own, weight)
                own = own / share
                gradient = None if gradient is None else gradient / along_runs(share, gradient)
            losses.append(own)
            if gradient is not None:
                if self.lost is not None:
                    lost = self.lost.view(-1, *[1] * (gradient.dim() - 1))
                    gradient = gradient.masked_fill(lost, 0.0)
                total = [_sum(one, other) for one, other in zip(total, done.vjp(gradient), strict=True)]
        self._require_some(total, gradient is not None)
        return batches[-1], functools.reduce(torch.add, losses), self._masks.gradients(total)

    def _require_some(self, gradients: Sequence[Tensor | None], by_outputs: bool = True) -> None:
        """Refuse what cannot be trained; a batch may be without a gradient once another had one.

        `by_outputs` says whether the loss depends on the outputs.
        """
        self._depends = self._depends or any(gradient is not None for gradient in gradients)
        if self._depends:
            return
        whose = self._stack.source if by_outputs else self._loss.task.loss
        chain = (
            "outputs do not depend on the parameters" if by_outputs else "it does not depend on the outputs"
        )
        cut = "as behind detach(), no_grad, item() or argmax"
        line = f"the loss does not depend on any parameter: {chain}, {cut}"
        place = place_of(whose)
        raise PluginError(f"{place}{line}") if place else ConfigError(line)

    def as_applied(
        self, step: int, gradients: Sequence[Tensor | None]
    ) -> tuple[Sequence[Tensor | None], Tensor | None]:
        """Return gradients as the optimizer is given them, and the factor (S,) of clipping, None without it."""
        rho = radius(self._optimizer)
        if rho:
            gradients = self.of(step, ascended(self._stack.trained, gradients, rho))[2]
        found = [gradient for gradient in gradients if gradient is not None]
        scale = None
        if self._clip is not None and found:
            scale = clip_scale(found, self._clip)
            gradients = scaled(gradients, scale)
        if self.orthogonal:
            # What is held of a tensor is none of the weights that its gradient could move along.
            weights = self._masks.gradients([param.detach() for param in self._stack.trained.values()])
            pairs = zip(gradients, weights, strict=True)
            gradients = [g if g is None or w is None else orthogonal(g, w) for g, w in pairs]
        return gradients, scale

    def upcoming(self, step: int, factor: float) -> Upcoming:
        """Return what the update `step` -> `step + 1` at `factor` of the rate will be given, without making it.

        Its gradients are the next that `of` returns, where no running statistics would have to move now.
        """
        weights = {name: param.detach() for name, param in self._stack.trained.items()}
        if self._stack.buffers or self._graph is not None:
            # The update's own pass moves them; what is replayed is overwritten.
            _, losses, raw = self.of(step, weights)
        else:
            _, losses, raw = made = self.of(step)
            # Some probe may write into them.
            self._made = self._versions(raw), made
        applied, scale = self.as_applied(step, raw)
        found = [gradient for gradient in raw if gradient is not None]
        norm = joint_norm(found) if found else torch.zeros_like(losses, dtype=torch.float64)
        return Upcoming(
            {name: g for name, g in zip(weights, applied, strict=True) if g is not None},
            weights,
            norm,
            torch.ones_like(norm) if scale is None else scale,
            factor,
        )

    def ahead(self, step: int) -> Pass:
        """Make the pass of the update `step` -> `step + 1` now; `of` takes it up, unless weights change before."""
        self._kept = self._pass(step, self._data.train_batch(step))
        return self._kept

    def replay(self, capture: Capture[Lowered] | None = None) -> None:
        """Have gradients replayed as CUDA graphs from now on, where an update is one batch and no run has diverged.

        `capture` is for tests. Evaluation then makes a pass of its own.
        """
        if self._count == 1:
            self._graph, self.shares_pass = Graphed(self._lowered, capture), False

    @property
    def uncaptured(self) -> str | None:
        """Why gradients cannot be replayed as CUDA graphs; None where they can, or it was not asked."""
        return None if self._graph is None else self._graph.refused

    def _replayed(self, step: int, graph: Graphed[Lowered]) -> Made:
        """As `of`, of an update that is one batch."""
        batch = self._data.train_batch(step)
        noise = self._stack.noise_of(step, batch.inputs)
        drawn = {f"{_NOISE}{name}": tensor for name, tensor in noise.items()}
        losses, gradients = graph({"inputs": batch.inputs, "targets": batch.targets, **drawn})
        self._require_some(gradients)
        # The losses of several updates are looked at together; gradients are used up before the next ones.
        return batch, losses.clone(), self._masks.gradients(gradients)

    def _lowered(self, tensors: Mapping[str, Tensor]) -> Lowered:
        """Return the losses (S,) and gradients of a batch with some noise, by name."""
        noise = {key.removeprefix(_NOISE): x for key, x in tensors.items() if key.startswith(_NOISE)}
        done = self._pass(0, Batch(tensors["inputs"], tensors["targets"]), noise=noise)
        if done.gradient is None:
            return done.losses, [None] * len(self._stack.trained)
        return done.losses, done.vjp(done.gradient)

    def forget(self) -> None:
        """Forget what was made ahead."""
        self._kept = self._made = None

    def _pass(
        self,
        number: int,
        batch: Batch,
        weights: Mapping[str, Tensor] | None = None,
        buffers: Mapping[str, Tensor] | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> Pass:
        """Take a training batch through the networks, by default with the stack's own weights."""
        noise = self._stack.noise_of(number, batch.inputs) if noise is None else noise
        outputs, vjp = self._stack.vjp(batch.inputs, weights or self._stack.params, noise, buffers)
        losses, gradient = self._loss.differentiated(outputs, batch)
        return Pass(batch, outputs.to(self._loss.dtype), losses, gradient, vjp, self._versions())

    def _versions(self, gradients: Iterable[Tensor | None] = ()) -> list[int]:
        """Return how often each parameter was written to, and each of some gradients."""
        return [x._version for x in (*self._params, *gradients) if x is not None]


def clip_scale(gradients: Iterable[Tensor], norm: float) -> Tensor:
    """Return what scales each run's gradient to at most a norm (Pascanu et al. 2013), (S,), float64."""
    return (norm / (joint_norm(gradients) + 1e-6)).clamp(max=1.0)


def scaled(gradients: Sequence[Tensor | None], scale: Tensor) -> tuple[Tensor | None, ...]:
    """Multiply gradients (S, ...) by a factor a run, (S,); there may be none of a parameter."""
    return tuple(None if g is None else g * along_runs(scale, g) for g in gradients)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Add two gradients of which either may be missing."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
