"""The training of one shard: S runs in lockstep, rows on their cadences, no host synchronisation in a step.

Row t is the state after t updates. What belongs to the update t-1 -> t (its loss, gradient, size) stands in row t.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import place_of
from dynalab.core.streams import Streams
from dynalab.networks.build import build_networks, side_by_side, task_and_network
from dynalab.networks.evaluation import Evaluation
from dynalab.networks.stack import Stack, refuse_own_attributes, widen
from dynalab.probes.base import Setting
from dynalab.store.names import AVERAGE, MODES
from dynalab.tasks.base import Fewer, First, TaskData
from dynalab.tasks.checks import check_data
from dynalab.tasks.loss import Loss
from dynalab.training.averaging import STATE, Averaging
from dynalab.training.embedding import embedding_of
from dynalab.training.host import Host, Promised
from dynalab.training.losses import Losses
from dynalab.training.measuring import Measuring, measurements, needs_of
from dynalab.training.objective import objective
from dynalab.training.spikes import BLOCK, Spikes
from dynalab.training.updates import Updates


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
        graph: Whether a card replays the gradient of an update as a CUDA graph.
        compile: Whether updates are made in compiled code, where it knows them; None: where there is a compiler.

    Attributes:
        task: What is learnt.
        data: Its examples.
        stack: The networks.
        updates: What brings them on.
        measuring: What looks at them.
        averaging: What averages their weights; None where the configuration has no average.
        embedding: What replaces weights by their modes; None where nothing does.
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
        graph: bool = False,
        compile: bool | None = False,
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
        items = measurements(config, networks[0], folders, every)
        if not hasattr(self.task, "correct") and (
            following := [item.name for item in items if "correct" in item.probe.needs]
        ):
            raise ConfigError(
                f"probes: the probe {following[0]} needs a task whose examples are each right or wrong, and those of "
                f"task={config.task.name} are not; leave it out with probes=[weights,gradients]"
            )
        self.stack = stack = Stack(networks, streams, device)
        stack.made = next(filter(place_of, (make, self.task)), None)
        self.params = list(stack.params.values())
        if not stack.trained:
            raise ConfigError(
                f"model={config.model.name}: its network has no parameter to train (requires_grad=False on all)"
            )
        self.initial: dict[str, Tensor] | None = None
        if "initial" in needs_of(items) or config.edit is not None:
            self.initial = {name: param.detach().clone() for name, param in stack.params.items()}
        size = config.train.batch_size
        make_data = functools.partial(
            self.task.data, streams, batch_size=None if size == "full" else int(size), device=device
        )
        whole: TaskData = make_data(eval_size=config.eval.size)
        check_data(self.task, whole, len(streams), as_said=place_of(make) is None)
        most = config.most_evaluated
        self.data = Fewer(whole, most) if most else whole
        if examples is not None:
            self.data = First(self.data, examples)
        loss = Loss.of(self.task, config.train)
        spikes = Spikes(stack.width, device) if any(item.on_spike for item in items) else None
        self._losses = Losses(stack.width, device, spikes)
        self.updates = Updates(config, stack, loss, self.data, self._losses, total, folders)
        if graph and device.type == "cuda":
            self.updates.gradients.replay()
        self.updates.gradients.check_batches(whole, total * config.train.accumulate, config.model.name, size)
        setting = Setting(
            stack.forward,
            stack.params,
            self.task,
            self.data,
            loss,
            functools.partial(objective, stack, loss, make_data),
            config.optimizer,
            config.train,
            size == "full",
            lambda: stack.evaluated_buffers,
        )
        for item in items:
            if begin := getattr(item.probe, "begin", None):
                begin(setting)
        evaluation = Evaluation(stack, loss, self.data)
        host = Host() if device.type == "cuda" else None
        self.averaging: Averaging | None = None
        if config.average is not None:
            about = (config.average, stack, self.updates.optimizer, self.data, evaluation, folders)
            self.averaging = Averaging(*about)
        if compile is not False:
            self.updates.compile(compile, config, evaluation, self.averaging)
        self.embedding = embedding_of(config.train, stack.trained, self.updates.optimizer)
        looked_at = (self.updates, self._losses, evaluation, config.eval.every, self.initial)
        self.measuring = Measuring(items, *looked_at, host, self.averaging, self.embedding)

    @property
    def step(self) -> int:
        """Updates done."""
        return self.updates.step

    @property
    def is_compilable(self) -> bool:
        """Whether compiled code can make the updates."""
        return self.updates.unknown(self.config, self.averaging) is None

    def update(self) -> None:
        """Make the update `step` -> `step + 1`."""
        self.updates.make(self.measuring.needs_at(self.step + 1))
        if self.embedding is not None:
            self.embedding.take(self.step, self.updates.gradients.lost)
        if self.averaging is not None:
            self.averaging.take(self.step, self.updates.gradients.lost)

    def advance(self, end: int) -> None:
        """Make an update; where they are compiled all of them to `end`, or to a step before at which rows are due."""
        if not self.updates.is_compiled:
            self.update()
            return
        step = self.step
        end = min(end, step - step % BLOCK + BLOCK)
        if self.embedding is not None:
            end = min(end, self.embedding.next_due(step))
        end = self.measuring.next_look(step, end)
        embed = self.embedding.take if self.embedding is not None else None
        self.updates.make_block(end - step, self.measuring.needs_at(end), embed)

    def rows(self) -> dict[str, dict[str, Tensor]]:
        """Return the rows of the current step: cadence -> metric -> (S,)."""
        rows = self.measuring.rows()
        return {
            cadence: {name: x.result() if isinstance(x, Promised) else x for name, x in row.items()}
            for cadence, row in rows.items()
        }

    def forced_rows(self) -> dict[int, dict[str, Tensor]]:
        """Return the rows that spikes force now: place of the run, ascending -> metric -> (); called after `rows`."""
        return self.measuring.forced_rows(self._real)

    def settle(self) -> Tensor:
        """Return the first update of each run whose loss was NaN or infinite, -1 where there is none, shape (S,)."""
        self._losses.fold(self.step)
        return self._losses.diverged_step

    def lost(self, n_runs: int) -> list[int]:
        """Return the places of those of the first `n_runs` runs that have diverged by now."""
        return [place for place, step in enumerate(self.settle()[:n_runs].tolist()) if step >= 0]

    def non_finite(self) -> Tensor:
        """Return which runs have NaN or infinite weights, shape (S,), bool."""
        bad = [~param.detach().unsqueeze(-1).flatten(1).isfinite().all(1) for param in self.params]
        return torch.stack(bad).any(0)

    def snapshot(self, n_runs: int) -> dict[str, Tensor]:
        """Return the evaluated weights and their buffers of the first `n_runs` runs, and what is averaged of them."""
        averaged = self.averaging.stored(self.step) if self.averaging is not None else {}
        kept = {**self.stack.state(self.updates.evaluated()), **averaged}
        return {name: tensor[:n_runs] for name, tensor in kept.items()}

    def tensors(self, n_runs: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (weights, everything else) of the first `n_runs` runs, as a checkpoint stores them."""
        lost = self.lost(n_runs)

        def of_living(tensor: Tensor) -> Tensor:
            """Leave out what diverged runs hold: until they are let go it is not finite."""
            own = tensor.detach()[:n_runs]
            return own.index_fill(0, torch.tensor(lost, device=own.device), 0) if lost else own

        weights = {name: of_living(tensor) for name, tensor in self.stack.state().items()}
        other = {f"loop/{key}": value[:n_runs] for key, value in self._losses.tensors().items()}
        for key, value in self.updates.tensors().items():
            other[f"optimizer/{key}"] = of_living(value) if value.dim() else value
        other |= {f"mask/{name}": mask[:n_runs] for name, mask in self.updates.masks.of.items()}
        if self.averaging is not None:
            for key, value in self.averaging.tensors(self.step).items():
                other[key] = of_living(value) if value.dim() else value
        if self.embedding is not None:
            for key, value in self.embedding.tensors().items():
                other[f"{MODES}{key}"] = of_living(value) if value.dim() else value
        for item in self.measuring.items:
            for key, value in getattr(item.probe, "tensors", dict)().items():
                other[f"probe/{item.name}/{key}"] = value[:n_runs]
        return weights, other

    def load(self, step: int, weights: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
        """Go back to a checkpoint."""
        width = self.stack.width

        def own(prefix: str) -> dict[str, Tensor]:
            """Return what stands under a prefix; a scalar is a step count, which torch keeps on the host."""
            kept = {key.removeprefix(prefix): value for key, value in other.items() if key.startswith(prefix)}
            return {
                key: widen(value, width).to(self.device) if value.dim() else value.clone()
                for key, value in kept.items()
            }

        self._losses.load(own("loop/"))
        self.updates.load(step, weights, own("optimizer/"), own("mask/"))
        if self.averaging is not None:
            self.averaging.load(step, own(AVERAGE), own(STATE))
        if self.embedding is not None:
            self.embedding.load(own(MODES))
        for item in self.measuring.items:
            if kept := own(f"probe/{item.name}/"):
                item.probe.load(kept)  # type: ignore[attr-defined]
