"""The training loop of one shard: S runs in lockstep, rows on their cadences, no host synchronisation in a step.

Row t is the state after t updates. What belongs to the update t-1 -> t (its loss, gradient, size) stands in row t.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.batch import Batch
from dynalab.core.errors import ConfigError
from dynalab.core.state import ProbeState, Upcoming
from dynalab.core.streams import Streams
from dynalab.networks.build import build_networks, task_and_network
from dynalab.networks.evaluation import Evaluation, EvaluationProbe
from dynalab.networks.stack import LEAST_WIDTH, Stack, refuse_own_attributes, widen
from dynalab.optim.base import evaluated, load_state, state_of
from dynalab.optim.rates import halved
from dynalab.optim.updates import fuse, make_step
from dynalab.probes.base import Probe, Setting
from dynalab.tasks.base import First, TaskData
from dynalab.training.beside import EVALUATION, Beside, Pending, Row, is_lone
from dynalab.training.cadence import Cadence, cadence, probe_cadences
from dynalab.training.gradients import Gradients
from dynalab.training.losses import Losses
from dynalab.training.objective import objective
from dynalab.training.sphere import Sphere
from dynalab.training.spikes import BLOCK, Spikes


@dataclass(frozen=True)
class Measurement:
    """A probe and the grid that it is measured on."""

    name: str
    probe: Probe
    grid: Cadence


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
        networks = build_networks(make, streams)
        # On a card the promise is closeness, and a companion would cost memory.
        if exact and device.type == "cpu" and not getattr(networks[0], "run_by_run", False):
            companions = [streams[-1]] * max(LEAST_WIDTH - len(streams), 0)
            streams = [*streams, *companions]
            networks += build_networks(make, companions)
        others: list[nn.Module] = []
        if config.seed_streams.init is None and len({stream.init for stream in streams}) == 1:
            # A seed alone is asked the same as beside others.
            others = build_networks(make, [replace(streams[0], init=streams[0].init + 1)])
        refuse_own_attributes([*networks, *others])
        described = networks[0]
        every = {**probe_cadences(config, folders), **(every or {})}
        self.measurements = [
            Measurement(
                name,
                registry.find("probe", name, folders).build(section, described),
                cadence(section.every or every.get(name), section.at),
            )
            for name, section in config.probe.items()
        ]
        self.stack = Stack(networks, streams, device)
        self.params = list(self.stack.params.values())
        if not self.stack.trained:
            raise ConfigError(
                f"model={config.model.name}: its network has no parameter to train (requires_grad=False on all)"
            )
        needed = {need for item in self.measurements for need in item.probe.needs}
        self._initial = (
            {name: param.detach().clone() for name, param in self.stack.params.items()}
            if "initial" in needed
            else None
        )
        size = config.train.batch_size
        make_data = functools.partial(
            self.task.data, streams, batch_size=None if size == "full" else int(size), device=device
        )
        data: TaskData = make_data(eval_size=config.eval.size)
        self.data = data if examples is None else First(data, examples)
        optimizer = registry.find("optimizer", config.optimizer.name, folders)
        self.optimizer: torch.optim.Optimizer = optimizer.build(
            config.optimizer, list(self.stack.trained.values())
        )
        self._follow_buffers()
        if is_lone(len(streams), exact, device):
            fuse(self.optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        schedule = registry.find("schedule", config.schedule.name, folders)
        self._factor = halved(schedule.module.build(config.schedule, total), config.train.halve_at)
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
        self.gradients = Gradients(*parts, self.optimizer, config.train, loss_dtype)
        self._check_batches(data, total)
        self._evaluation = Evaluation(*parts, loss_dtype, config.task.name)
        self._beside = self._make_beside() if Beside.pays(len(streams), exact, device) else None

    def _check_batches(self, data: TaskData, total: int) -> None:
        """Refuse a batch of one, before anything is trained, where the network has no batch statistics of it.

        Raises:
            ConfigError: Training of so many updates comes to a batch that the network cannot take.
        """
        last = getattr(data, "batches_per_epoch", 1) - 1
        numbers = [number for number in {0, last} if number < total * self.config.train.accumulate]
        for number in numbers if self.stack.buffers else ():
            batch = data.train_batch(number)
            if batch.size > 1:
                continue
            buffers = {name: buffer.clone() for name, buffer in self.stack.buffers.items()}
            noise = self.stack.noise_of(number, batch.inputs)
            try:
                with torch.no_grad():
                    self.stack.forward(batch.inputs, training=True, noise=noise, buffers=buffers)
            except (ValueError, ConfigError) as error:
                raise ConfigError(
                    f"train.batch_size={self.config.train.batch_size}: batch {number} has one example, which "
                    f"model={self.config.model.name} cannot take: {str(error).splitlines()[0]}"
                ) from error

    def _make_beside(self) -> Beside:
        """Return what measures a lone run's rows.

        Evaluation stays here where it needs running statistics, which are not handed over, or where training has all
        cores: then two processes in each other's way cost more than they win, but for the probes.
        """
        apart = {item.name: item.probe for item in self.measurements if Beside.fits(item.probe)}
        if not self.stack.buffers and Beside.has_a_core():
            splits = ("test",) if self.gradients.shares_pass else ("train", "test")
            apart[EVALUATION] = EvaluationProbe(self._evaluation, splits)
        return Beside(apart, self.evaluated(), self._initial)

    def update(self) -> None:
        """Make the update `step` -> `step + 1`."""
        batch, losses, gradients = self.gradients.of(self.step)
        self._losses.add(losses, self.step)
        needs = self._needs(self.step + 1)
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
        with self._after_step():
            make_step(self.optimizer)
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

    def evaluated(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and probed, detached."""
        return {name: p.detach() for name, p in evaluated(self.optimizer, self.stack.params).items()}

    def upcoming(self) -> Upcoming:
        """Return what the next update will be given, without making it."""
        return self.gradients.upcoming(self.step, self._factor(self.step))

    def close(self) -> None:
        """End what runs beside the training."""
        if self._beside is not None:
            self._beside.close()

    def _needs(self, step: int) -> set[str]:
        return {need for item in self.measurements if step in item.grid for need in item.probe.needs}

    def rows(self) -> dict[str, dict[str, Tensor]]:
        """Return the rows of the current step: cadence -> metric -> (S,)."""
        return {name: row.whole() for name, row in self.begin_rows().items()}

    def begin_rows(self) -> dict[str, Row]:
        """Return the rows of the current step by cadence; parts of a lone run's may come later."""
        measured = [item for item in self.measurements if self.step in item.grid]
        evaluates = self.step in self.eval_grid
        if not measured and not evaluates:
            return {}
        state = self._probe_state({need for item in measured for need in item.probe.needs})
        begun: dict[str, Pending] = {}
        # The first row is measured here, so that what is wrong with a task or probe is told as what it is.
        if self._beside and self.step:
            asked = [EVALUATION] * evaluates + [item.name for item in measured]
            begun = self._beside.begin(asked, state)
        found: dict[str, Row] = {}
        if evaluates:
            found[self.eval_grid.name] = Row(self._evaluate(begun.get(EVALUATION)))
        for item in measured:
            row = found.setdefault(item.grid.name, Row())
            row.parts.append(begun[item.name] if item.name in begun else item.probe.measure(state))
        return found

    def _evaluate(self, begun: Pending | None) -> list[dict[str, Tensor] | Pending]:
        """Return what is evaluated in a row of the current step, but for what was begun elsewhere."""
        losses = self._losses.row(self.step)
        shares = self.gradients.shares_pass
        train = (
            [self._evaluate_training() if shares else self.evaluate("train")] if shares or not begun else []
        )
        return [*train, begun or self.evaluate("test"), losses]

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

    def _probe_state(self, needs: set[str]) -> ProbeState:
        """Return what the probes of a row look at, with the optional fields that one of them needs."""
        return ProbeState(
            step=self.step,
            params=self.evaluated(),
            initial=self._initial,
            previous=self._previous,
            gradients=self._recorded,
            optimizer_state=self._optimizer_state() if "optimizer_state" in needs else None,
            batch=self._batch,
            upcoming=self.upcoming() if "upcoming" in needs else None,
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
        state = self._probe_state({need for item in measured for need in item.probe.needs})
        found: dict[int, dict[str, Tensor]] = {}
        for item in measured:
            for run in runs:
                row = item.probe.measure_run(state, run)  # type: ignore[attr-defined]
                found.setdefault(run, {}).update({name: value[run] for name, value in row.items()})
        return found

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
