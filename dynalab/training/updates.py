"""What an update is made from: the gradient, the rate, the optimizer's step, and what holds weights during it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.batch import Batch, Bits
from dynalab.core.plugins import blame, require
from dynalab.core.state import Upcoming
from dynalab.networks.compiled import measures
from dynalab.networks.compiler import made
from dynalab.networks.evaluation import Evaluation
from dynalab.networks.stack import Stack
from dynalab.optim.base import evaluated, load_state, state_of
from dynalab.optim.rates import factor_of, halved
from dynalab.optim.updates import fuse, make_step
from dynalab.optim.wrapped import Lookahead
from dynalab.tasks.base import BitData, TaskData, bits_of
from dynalab.tasks.loss import Loss
from dynalab.training.averaging import Averaging
from dynalab.training.compiled import Coming, Compiled, unknown
from dynalab.training.gradients import Gradients
from dynalab.training.host import Late, Promised
from dynalab.training.losses import Losses
from dynalab.training.masks import Masks
from dynalab.training.sphere import sphere_of
from dynalab.training.spikes import BLOCK

# Weights of a run above which torch's products are as fast as compiled code's, or faster. Digits on one thread, SGD and
# Adam, batches of 8 to 512: .4 to 1 of its time up to .7 million weights, .9 to 1.15 at 1 to 1.5, above 1.3 to 1.6.
MOST_WEIGHTS = 1_000_000


@dataclass(frozen=True)
class Update:
    """What the row after an update wants to know of it; None where none of its probes does."""

    previous: Mapping[str, Tensor] | None = None
    gradients: Mapping[str, Tensor] | None = None
    batch: Batch | None = None


class Updates:
    """Updates S runs in lockstep, without a look at what comes of it.

    Args:
        config: The ensemble's configuration.
        stack: The runs' networks.
        loss: What they lower.
        data: The examples.
        losses: What takes the losses of the updates.
        total: Length of training, for schedules that depend on it.
        folders: A user's plug-in folders.

    Attributes:
        step: Updates done.
        last: What is kept of the last one.
        optimizer: What moves the weights.
        gradients: What it is given.
        masks: Which weights are held.
        code: The name of the compiled code that makes them and evaluates runs; None where none does.
        without: In a sentence why they are made by torch, where there is no compiled code on this machine; else None.
        uncompiled: Why they are not compiled, though they were to be; None where they are, or were not to be.
        are_over: Whether every run has diverged, as of the last time that was looked at, which is on a grid of the
            step; on a card the time before.
    """

    def __init__(
        self,
        config: EnsembleConfig,
        stack: Stack,
        loss: Loss,
        data: TaskData,
        losses: Losses,
        total: int,
        folders: Sequence[Any],
    ) -> None:
        self.stack, self.step, self.last = stack, 0, Update()
        self._data, self._loss = data, loss
        self._losses, self._seen, self.are_over = losses, Late(), False
        trained = stack.trained
        params = list(trained.values())
        self._build_optimizer = registry.find("optimizer", config.optimizer.name, folders).module.build
        self.optimizer: torch.optim.Optimizer = self._build_optimizer(config.optimizer, params)
        _check_optimizer(self._build_optimizer, self.optimizer, params)
        self._follow_buffers()
        # What a plug-in holds inside is its own.
        fuse(self.optimizer.inner if type(self.optimizer) is Lookahead else self.optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        schedule = registry.find("schedule", config.schedule.name, folders)
        self._factor = halved(factor_of(schedule.module.build, config.schedule, total), config.train.halve_at)
        self._after_step: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self._sphere = sphere_of(config.train, stack.network, trained, evaluated(self.optimizer, trained))
        if self._sphere is not None:
            self._after_step = self._sphere.holding
        self.masks = Masks(trained, self.optimizer)
        self._compiled: Compiled | None = None
        self._bits: BitData | None = None
        # Of a full batch the examples that are evaluated, where an update tells of them.
        self._pieces: Sequence[Batch] = ()
        self._coming: Coming | None = None
        self._averaging: Averaging | None = None
        self.code: str | None = None
        self.uncompiled: str | None = None
        self.without: str | None = None
        self._parts = config.train.accumulate
        self.gradients = Gradients(stack, loss, data, self.optimizer, config, self.masks)

    def compile(
        self, asked: bool | None, config: EnsembleConfig, evaluation: Evaluation, averaging: Averaging | None
    ) -> None:
        """Have updates made and runs evaluated in compiled code from now on, where it knows them.

        Else `uncompiled` says why not.

        Args:
            asked: As `compute.compile`.
            config: The ensemble's configuration.
            evaluation: What evaluates the runs.
            averaging: What averages their weights.

        Raises:
            ConfigError: It is asked for, and there is no compiler, or it fails.
        """
        self.uncompiled = self.unknown(config, averaging)
        large = sum(param[0].numel() for param in self.stack.trained.values()) > MOST_WEIGHTS
        if self.uncompiled is not None or (asked is None and large):
            return
        lines: list[str] = []
        code = made(asked, lines.append)
        if code is None:
            self.without = lines[-1] if lines else None
            return
        self.code = code.stem
        keys = config.train, self._sphere, self.gradients.orthogonal
        found = Compiled(code, self.stack, self._loss, self.optimizer, *keys)
        self._compiled, self._averaging = found, averaging
        self._bits = bits_of(self._data)
        if self._bits is not None:
            self._bits.random_bytes = found.random_bytes
        # The pass of an update is no longer one that others can look at.
        shares, self.gradients.shares_pass = self.gradients.shares_pass, False
        if measures(self._loss):
            evaluation.compiled = found.means
            pieces = self._data.eval_batches("train")
            if shares and self._bits is None and found.covers(self._data.train_batch(0), pieces):
                self._pieces = pieces

    def unknown(self, config: EnsembleConfig, averaging: Averaging | None) -> str | None:
        """Return in words what compiled code does not know; None where it can make the updates."""
        return unknown(config, self.stack, self._loss, self.optimizer, averaging)

    @property
    def is_compiled(self) -> bool:
        """Whether the next updates are made in compiled code."""
        return self._compiled is not None

    def coming(self, evaluate: Callable[[], dict[str, Tensor]], names: Sequence[str]) -> dict[str, Promised]:
        """Have the next update find loss and accuracy of the training examples; nothing where it does not.

        Args:
            evaluate: Finds them by itself, `names` -> (S,): for who asks before.
            names: Their names.
        """
        if not self._pieces:
            return {}
        self._coming = coming = Coming(self._pieces, evaluate, names)
        blank = torch.full((self.stack.width,), torch.nan, dtype=torch.float64)
        return {name: Promised(name, (coming.result,), blank, coming.is_open) for name in names}

    def make_block(
        self,
        count: int,
        wanted: Collection[str],
        embed: Callable[[int, Tensor | None], None] | None = None,
    ) -> None:
        """Make some updates in compiled code, and keep of the last one what is wanted of the fields of `Update`.

        Weights are averaged there, too. After the last one `embed`, where it is given, may replace them, as it is told
        the step and which runs have diverged.
        """
        assert self._compiled is not None
        steps = range(self.step, self.step + count)
        numbers = range(self.step * self._parts, (self.step + count) * self._parts)
        batches: Sequence[Batch | Bits]
        if self._bits is not None:
            batches = self._bits.train_bits(numbers[0], len(numbers))
        else:
            batches = [self._data.train_batch(number) for number in numbers]
        factors = [self._factor(step) for step in steps]
        # What replaces weights does so before they are averaged.
        ahead = count if embed is None else count - 1
        takings = self._averaging.ahead(self.step, ahead) if self._averaging is not None else ()
        coming, self._coming = self._coming, None
        if coming is not None and not coming.is_open():
            coming = None
        losses, kept = self._compiled.make(
            batches, factors, self.gradients.lost, wanted, self.masks.of, takings, coming
        )
        self.last = Update(
            {**self.evaluated(), **kept["previous"]} if "previous" in kept else None,
            kept.get("gradients"),
            self._data.train_batch(numbers[-1]) if "batch" in wanted else None,
        )
        self._losses.add(losses, self.step)
        self.step += count
        if self.step % BLOCK == 0:
            self.let_go()
        lost = self.gradients.lost
        if embed is not None:
            embed(self.step, lost)
        if self._averaging is not None:
            take = self._averaging.let_go if embed is None else self._averaging.take
            take(self.step, lost)

    def make(self, wanted: Collection[str]) -> None:
        """Make the update `step` -> `step + 1`, and keep of it what is wanted of the fields of `Update`."""
        batch, losses, gradients = self.gradients.of(self.step)
        self._losses.add(losses, self.step)
        trained = self.stack.trained
        self.last = Update(
            {name: param.clone() for name, param in self.evaluated().items()}
            if "previous" in wanted
            else None,
            {n: g for n, g in zip(trained, gradients, strict=True) if g is not None}
            if "gradients" in wanted
            else None,
            batch if "batch" in wanted else None,
        )
        applied, _ = self.gradients.as_applied(self.step, gradients)
        for param, gradient in zip(trained.values(), applied, strict=True):
            param.grad = gradient
        factor = self._factor(self.step)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        with self.masks.holding(), self._after_step():
            try:
                make_step(self.optimizer)
            except Exception as error:
                blame(error, self._build_optimizer)
                raise
        for param in trained.values():
            param.grad = None
        self.step += 1
        if self.step % BLOCK == 0:
            self.let_go()

    def let_go(self) -> None:
        """Empty the runs that have diverged: what is not finite would go on costing, and nothing of it is kept."""
        self._losses.fold(self.step)
        lost = self._losses.diverged_step >= 0
        seen = self._seen.look(lost)
        self.are_over = seen is not None and bool(seen.all())
        self.gradients.lost = lost if seen is not None and bool(seen.any()) else None
        if self.gradients.lost is None:
            return
        held = [*self.stack.trained.values(), *self.stack.buffers.values()]
        held += [x for tensor in held for x in state_of(self.optimizer, tensor).values() if x.dim()]
        with torch.no_grad():
            for tensor in held:
                if tensor.is_floating_point() or tensor.is_complex():
                    tensor[lost] = 0.0

    def upcoming(self) -> Upcoming:
        """Return what the next update will be given, without making it."""
        return self.gradients.upcoming(self.step, self._factor(self.step))

    def evaluated(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and probed, detached."""
        return {name: p.detach() for name, p in evaluated(self.optimizer, self.stack.params).items()}

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Return what the optimizer remembers, parameter -> name -> tensor."""
        return {name: state_of(self.optimizer, param) for name, param in self.stack.params.items()}

    def _follow_buffers(self) -> None:
        """Have an optimizer with slow weights keep running statistics that go with them."""
        if hasattr(self.optimizer, "follow"):
            self.optimizer.follow(self.stack.buffers.values())
        self.stack.evaluated_buffers = evaluated(self.optimizer, self.stack.buffers)

    def begin_optimizer(self) -> None:
        """Have an optimizer without a state begin with the weights and buffers as they are now."""
        self._follow_buffers()
        for param, slow in getattr(self.optimizer, "slow", {}).items():
            slow.copy_(param.detach())

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state, name/key -> (S, ...), or a step count."""
        held = (*self.stack.params.items(), *self.stack.buffers.items())
        states = ((name, state_of(self.optimizer, tensor)) for name, tensor in held)
        return {f"{name}/{key}": value for name, state in states for key, value in state.items()}

    def load(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
    ) -> None:
        """Go back to a step: its weights, what `tensors` returned, and its masks; the losses are back already."""
        self.step, self._coming = step, None
        self.gradients.forget()
        self.stack.load(weights)
        self._follow_buffers()
        self.masks.of = dict(masks)
        self.let_go()
        for name, tensor in (*self.stack.params.items(), *self.stack.buffers.items()):
            prefix = f"{name}/"
            state = {key[len(prefix) :]: value for key, value in moments.items() if key.startswith(prefix)}
            if state:
                with torch.no_grad():
                    load_state(self.optimizer, tensor, state)


def _check_optimizer(build: Callable[..., Any], optimizer: Any, params: Sequence[Tensor]) -> None:
    """Check that `build` gave an optimizer of all parameters; a `PluginError` where a plug-in's did not."""
    require(isinstance(optimizer, torch.optim.Optimizer), build, optimizer, "a torch.optim.Optimizer")
    moved = {id(param) for group in optimizer.param_groups for param in group["params"]}
    require(
        moved == {*map(id, params)}, build, optimizer, "an optimizer of all the parameters that it was given"
    )
    rated = all("lr" in group for group in optimizer.param_groups)
    require(rated, build, optimizer, 'an optimizer whose groups have a rate, "lr", which the schedule sets')
