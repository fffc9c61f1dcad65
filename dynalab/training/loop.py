"""The training loop of one shard: S runs in lockstep, rows on their cadences, no host synchronisation in a step.

Row t is the state after t updates. What belongs to the update t-1 -> t (its loss, gradient, size) stands in row t.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.batch import Batch
from dynalab.core.columns import OF_UPDATES
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import blame, place_of, require
from dynalab.core.state import ProbeState, Upcoming
from dynalab.core.streams import Streams
from dynalab.networks.build import build_networks, side_by_side, task_and_network
from dynalab.networks.evaluation import Evaluation
from dynalab.networks.stack import Stack, refuse_own_attributes, widen
from dynalab.optim.base import evaluated, load_state, state_of
from dynalab.optim.rates import factor_of, halved
from dynalab.optim.updates import fuse, make_step
from dynalab.probes.base import Setting
from dynalab.tasks.base import First, TaskData
from dynalab.tasks.checks import check_data
from dynalab.training.cadence import cadence
from dynalab.training.gradients import Gradients
from dynalab.training.losses import Losses
from dynalab.training.masks import Masks
from dynalab.training.measuring import measurements, needs_of, rows_of_runs
from dynalab.training.objective import objective
from dynalab.training.sphere import Sphere
from dynalab.training.spikes import BLOCK, Spikes


class Loop:
    """Trains the runs of one shard.

    Args:
        config: The ensemble's configuration.
        streams: The runs' random streams; on a CPU a lone one gets a companion, so that S is at least `LEAST_WIDTH`.
        total: Length of training, for schedules that depend on it.
        device: Where to train.
        folders: A user's plug-in folders.
        exact: Whether a seed's bits are to be its own; else a lone run needs no companion.
        every: Probe -> distance of its rows, where its configuration leaves it open and it was fixed before.
        examples: Look only at the first so many of each batch, to see whether a training can begin; None is all.

    Attributes:
        step: Updates done.
        gradients: What its updates are made from.
        masks: Which weights are held.
        initial: The weights at the initialisation, name -> (S, ...), where something asks for them.
    """

    def __init__(
        self,
        config: EnsembleConfig,
        streams: Sequence[Streams],
        total: int,
        device: torch.device,
        folders: Sequence[Any] = (),
        exact: bool = True,
        every: Mapping[str, int] | None = None,
        examples: int | None = None,
    ) -> None:
        self.config, self.device = config, device
        self._real = len(streams)
        self.task, make = task_and_network(config, folders)
        # On a card the promise is closeness, and a companion would cost memory.
        networks, streams = side_by_side(make, streams, exact and device.type == "cpu")
        others: list[nn.Module] = []
        if config.seed_streams.init is None and len({stream.init for stream in streams}) == 1:
            # A seed alone is asked the same as beside others.
            others = build_networks(make, [replace(streams[0], init=streams[0].init + 1)])
        refuse_own_attributes([*networks, *others])
        self.measurements = measurements(config, networks[0], folders, every)
        if not hasattr(self.task, "correct") and (
            following := [item.name for item in self.measurements if "correct" in item.probe.needs]
        ):
            raise ConfigError(
                f"probes: the probe {following[0]} needs a task whose examples are each right or wrong, and those of "
                f"task={config.task.name} are not; leave it out with probes=[weights,gradients]"
            )
        self.stack = Stack(networks, streams, device)
        self.stack.made = next(filter(place_of, (make, self.task)), None)
        self.params = list(self.stack.params.values())
        if not self.stack.trained:
            raise ConfigError(
                f"model={config.model.name}: its network has no parameter to train (requires_grad=False on all)"
            )
        self.initial: dict[str, Tensor] | None = None
        if "initial" in needs_of(self.measurements) or config.edit is not None:
            self.initial = {name: param.detach().clone() for name, param in self.stack.params.items()}
        size = config.train.batch_size
        make_data = functools.partial(
            self.task.data, streams, batch_size=None if size == "full" else int(size), device=device
        )
        whole: TaskData = make_data(eval_size=config.eval.size)
        check_data(self.task, whole, len(streams))
        self.data = whole if examples is None else First(whole, examples)
        self._build_optimizer = registry.find("optimizer", config.optimizer.name, folders).module.build
        params = list(self.stack.trained.values())
        self.optimizer: torch.optim.Optimizer = self._build_optimizer(config.optimizer, params)
        _check_optimizer(self._build_optimizer, self.optimizer, params)
        self._follow_buffers()
        if len(streams) == 1 and not exact and device.type == "cpu":
            # Its tensors are shared with no other run.
            fuse(self.optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        schedule = registry.find("schedule", config.schedule.name, folders)
        self._factor = halved(factor_of(schedule.module.build, config.schedule, total), config.train.halve_at)
        loss_dtype = getattr(torch, config.train.loss_dtype)
        setting = Setting(
            self.stack.forward,
            self.stack.params,
            self.task,
            self.data,
            loss_dtype,
            functools.partial(objective, self.stack, self.task, make_data, loss_dtype),
            config.optimizer,
            size == "full",
        )
        for item in self.measurements:
            if begin := getattr(item.probe, "begin", None):
                begin(setting)
        trained = self.stack.trained
        self._after_step: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        if config.train.sphere:
            sphere = Sphere(self.stack.network, trained, evaluated(self.optimizer, trained))
            self._after_step = sphere.holding
        self.eval_grid = cadence(config.eval.every)
        self.step = 0
        width = len(streams)
        # Probes that are measured between their rows where a run's loss spikes.
        self._forced = [item for item in self.measurements if getattr(item.probe, "on_spike", False)]
        self._spikes = Spikes(width, device) if self._forced else None
        self._losses = Losses(width, device, self._spikes)
        self._previous: dict[str, Tensor] | None = None
        self._recorded: dict[str, Tensor] | None = None
        self._batch: Batch | None = None
        parts = self.stack, self.task, self.data
        self.masks = Masks(trained, self.optimizer)
        self.gradients = Gradients(*parts, self.optimizer, config.train, loss_dtype, self.masks)
        self.gradients.check_batches(whole, total * config.train.accumulate, config.model.name, size)
        self._evaluation = Evaluation(*parts, loss_dtype)

    def update(self) -> None:
        """Make the update `step` -> `step + 1`."""
        batch, losses, gradients = self.gradients.of(self.step)
        self._losses.add(losses, self.step)
        needs = needs_of(item for item in self.measurements if self.step + 1 in item.grid)
        trained = self.stack.trained
        self._previous = (
            {name: param.clone() for name, param in self.evaluated().items()} if "previous" in needs else None
        )
        self._recorded = None
        if "gradients" in needs:
            self._recorded = {n: g for n, g in zip(trained, gradients, strict=True) if g is not None}
        self._batch = batch if "batch" in needs else None
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
            self._let_go()

    def _let_go(self) -> None:
        """Empty the runs that have diverged: what is not finite would go on costing, and nothing of it is kept."""
        self._losses.fold(self.step)
        lost = self.diverged_step >= 0
        self.gradients.lost = lost if bool(lost.any()) else None
        if self.gradients.lost is None:
            return
        held = [*self.stack.trained.values(), *self.stack.buffers.values()]
        held += [x for tensor in held for x in state_of(self.optimizer, tensor).values() if x.dim()]
        with torch.no_grad():
            for tensor in held:
                if tensor.is_floating_point() or tensor.is_complex():
                    tensor[lost] = 0.0

    @property
    def is_over(self) -> bool:
        """Whether every run has diverged, as of the last time that was looked at, which is on a grid of the step."""
        return self.gradients.lost is not None and bool(self.gradients.lost.all())

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

    def evaluated(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and probed, detached."""
        return {name: p.detach() for name, p in evaluated(self.optimizer, self.stack.params).items()}

    def upcoming(self) -> Upcoming:
        """Return what the next update will be given, without making it."""
        return self.gradients.upcoming(self.step, self._factor(self.step))

    def rows(self) -> dict[str, dict[str, Tensor]]:
        """Return the rows of the current step: cadence -> metric -> (S,)."""
        measured = [item for item in self.measurements if self.step in item.grid]
        found: dict[str, dict[str, Tensor]] = {}
        needs = needs_of(measured)
        correct: list[Tensor] | None = [] if "correct" in needs else None
        if self.step in self.eval_grid:
            losses = self._losses.row(self.step)
            train = self._evaluate_training() if self.gradients.shares_pass else self.evaluate("train")
            test = self._evaluation.of("test", self.evaluated(), correct)
            found[self.eval_grid.name] = {**train, **test, **losses}
        if measured:
            state = self._probe_state(needs, correct)
            for item in measured:
                item.measure(state, found)
        return found

    def measure_own(self) -> None:
        """Measure the plug-ins among the probes, to see whether they can be measured."""
        own = [item for item in self.measurements if place_of(item.probe)]
        if not own:
            return
        row = {**self.evaluate("train"), **self.evaluate("test")}
        # What other probes would measure is known by name; nobody looks at the values.
        others = (sys.modules[type(item.probe).__module__] for item in self.measurements if item not in own)
        declared = [OF_UPDATES, *(getattr(module, "COLUMNS", {}) for module in others)]
        row |= dict.fromkeys((name for names in declared for name in names), next(iter(row.values())))
        state = self._probe_state(needs_of(own))
        found: dict[str, dict[str, Tensor]] = {}
        for item in own:
            # As if all were on one grid.
            found[item.grid.name] = dict(row)
            item.measure(state, found)
            row |= found[item.grid.name]

    def _evaluate_training(self) -> dict[str, Tensor]:
        """Evaluate the training examples in the pass of the next update, which is made now."""
        done = self.gradients.ahead(self.step)
        with torch.no_grad():
            values = self._evaluation.values(done.outputs, done.losses, done.batch)
        return {f"train_{name}": value.detach().to(torch.float64) for name, value in values.items()}

    def evaluate(self, split: str, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return `<split>_loss` and the task's metrics over a split, each of shape (S,), float64.

        Args:
            split: `train` or `test`.
            weights: Name -> (S, ...); those that are evaluated by default.
        """
        return self._evaluation.of(split, self.evaluated() if weights is None else weights)

    def _probe_state(self, needs: set[str], correct: list[Tensor] | None = None) -> ProbeState:
        """Return what the probes of a row look at, with the optional fields that one of them needs.

        `correct` is what an evaluation of this step has found, in its batches; where none has, one is made.
        """
        if "correct" in needs and not correct:
            correct = []
            self._evaluation.of("test", self.evaluated(), correct)
        return ProbeState(
            step=self.step,
            params=self.evaluated(),
            initial=self.initial,
            previous=self._previous,
            gradients=self._recorded,
            optimizer_state=self._optimizer_state() if "optimizer_state" in needs else None,
            batch=self._batch,
            upcoming=self.upcoming() if "upcoming" in needs else None,
            correct=torch.cat(correct, 1) if correct else None,
        )

    def forced_rows(self) -> dict[int, dict[str, Tensor]]:
        """Return the rows that spikes force now: place of the run, ascending -> metric -> ().

        Called after `rows`. Spikes are looked for once in a block of steps; where a row of the probe's own stands at
        the step, none is forced.
        """
        if self._spikes is None or not self.step or self.step % BLOCK:
            return {}
        self._losses.fold(self.step)
        apart = max(item.grid.every or BLOCK for item in self._forced)
        living = (self.diverged_step < 0).tolist()
        runs = [run for run in self._spikes.at(self.step, apart) if run < self._real and living[run]]
        measured = [item for item in self._forced if self.step not in item.grid]
        if not runs or not measured:
            return {}
        return rows_of_runs(measured, self._probe_state(needs_of(measured)), runs)

    def _optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        return {name: state_of(self.optimizer, param) for name, param in self.stack.params.items()}

    @property
    def diverged_step(self) -> Tensor:
        """First update whose loss was NaN or infinite, -1 where there is none, shape (S,)."""
        return self._losses.diverged_step

    def settle(self) -> Tensor:
        """Bring `diverged_step` up to date and return it."""
        self._losses.fold(self.step)
        return self.diverged_step

    def non_finite(self) -> Tensor:
        """Return which runs have NaN or infinite weights, shape (S,), bool."""
        bad = [~param.detach().unsqueeze(-1).flatten(1).isfinite().all(1) for param in self.params]
        return torch.stack(bad).any(0)

    def tensors(self, n_runs: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (weights, everything else) of the first `n_runs` runs, as a checkpoint stores them."""
        lost = self.lost(n_runs)

        def of_living(tensor: Tensor) -> Tensor:
            """Leave out what diverged runs hold: until they are let go it is not finite."""
            own = tensor.detach()[:n_runs]
            return own.index_fill(0, torch.tensor(lost, device=own.device), 0) if lost else own

        weights = {name: of_living(tensor) for name, tensor in self.stack.state().items()}
        other = {f"loop/{key}": value[:n_runs] for key, value in self._losses.tensors().items()}
        for name, tensor in (*self.stack.params.items(), *self.stack.buffers.items()):
            for key, value in state_of(self.optimizer, tensor).items():
                other[f"optimizer/{name}/{key}"] = of_living(value) if value.dim() else value
        other |= {f"mask/{name}": mask[:n_runs] for name, mask in self.masks.of.items()}
        for item in self.measurements:
            for key, value in getattr(item.probe, "tensors", dict)().items():
                other[f"probe/{item.name}/{key}"] = value[:n_runs]
        return weights, other

    def snapshot(self, n_runs: int) -> dict[str, Tensor]:
        """Return the evaluated weights and their buffers of the first `n_runs` runs."""
        return {name: tensor[:n_runs] for name, tensor in self.stack.state(self.evaluated()).items()}

    def lost(self, n_runs: int) -> list[int]:
        """Return the places of those of the first `n_runs` runs that have diverged by now."""
        return [place for place, step in enumerate(self.settle()[:n_runs].tolist()) if step >= 0]

    def load(self, step: int, weights: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint."""
        self.step = step
        self.gradients.forget()
        self.stack.load(weights)
        self._follow_buffers()
        width = self.stack.width

        def own(prefix: str) -> dict[str, Tensor]:
            kept = {key.removeprefix(prefix): value for key, value in other.items() if key.startswith(prefix)}
            return {key: widen(value, width).to(self.device) for key, value in kept.items()}

        self._losses.load(own("loop/"))
        self.masks.of = own("mask/")
        self._let_go()
        for item in self.measurements:
            if kept := own(f"probe/{item.name}/"):
                item.probe.load(kept)  # type: ignore[attr-defined]
        for name, param in (*self.stack.params.items(), *self.stack.buffers.items()):
            prefix = f"optimizer/{name}/"
            state = {key[len(prefix) :]: value for key, value in other.items() if key.startswith(prefix)}
            if state:
                # A scalar is the step count, which torch keeps on the host.
                wide = {
                    key: widen(value, width).to(self.device) if value.dim() else value.clone()
                    for key, value in state.items()
                }
                with torch.no_grad():
                    load_state(self.optimizer, param, wide)


def _check_optimizer(build: Callable[..., Any], optimizer: Any, params: Sequence[Tensor]) -> None:
    """Check that `build` gave an optimizer of all parameters; a `PluginError` where a plug-in's did not."""
    require(isinstance(optimizer, torch.optim.Optimizer), build, optimizer, "a torch.optim.Optimizer")
    moved = {id(param) for group in optimizer.param_groups for param in group["params"]}
    require(
        moved == {*map(id, params)}, build, optimizer, "an optimizer of all the parameters that it was given"
    )
    rated = all("lr" in group for group in optimizer.param_groups)
    require(rated, build, optimizer, 'an optimizer whose groups have a rate, "lr", which the schedule sets')
