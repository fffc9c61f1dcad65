"""What is measured of the runs, and on which steps; and the rows that it gives."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.blocks import TYPES, Block
from dynalab.core.columns import OF_UPDATES
from dynalab.core.plugins import place_of, require
from dynalab.core.state import ProbeState
from dynalab.core.words import listed
from dynalab.networks.evaluation import Evaluation
from dynalab.probes.base import Probe
from dynalab.store.names import BLOCK, block_of, block_series
from dynalab.tasks.checks import check_names, check_values, unwritten
from dynalab.training.averaging import Averaging
from dynalab.training.cadence import Cadence, cadence, probe_cadences
from dynalab.training.embedding import Embedding
from dynalab.training.host import Host, Promised
from dynalab.training.losses import Losses
from dynalab.training.spikes import BLOCK as OF_SPIKES
from dynalab.training.updates import Updates

# The rows of a step: series -> column -> (S,), or a block (S, ...).
Rows = dict[str, dict[str, Tensor | Promised]]

# Columns of every series.
_OF_SERIES = ("run", "seed", "step", "wall")
# What a probe may say that it needs.
_OPTIONAL = {item.name for item in fields(ProbeState)} - {"step", "params"}


@dataclass(frozen=True)
class Measurement:
    """A probe and the grid that it is measured on."""

    name: str
    probe: Probe
    grid: Cadence
    _names: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def blocks(self) -> Mapping[str, Block]:
        """What the probe declares of those of its values that are blocks."""
        return getattr(self.probe, "blocks", {})

    @cached_property
    def _place(self) -> str | None:
        """The place of what measures it, where that is a plug-in's."""
        return place_of(self.probe.measure)

    @property
    def on_spike(self) -> bool:
        """Whether it is measured between its rows, too, where a run's loss spikes."""
        return bool(getattr(self.probe, "on_spike", False))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its values, once it has been measured."""
        return self._names[0] if self._names else ()

    def measure(
        self, state: ProbeState, rows: Rows, host: Host | None = None, taken: Collection[str] = ()
    ) -> None:
        """Add its values, each of shape (S,), to a row; blocks, (S, ...), have a row each.

        Args:
            state: What is measured.
            rows: The rows of this step, by series, of which some stand already.
            host: Where rows are finished that are not waited for, of a probe that can be; its first one is.
            taken: Columns of others, whether or not they have a row at this step.

        Raises:
            PluginError: A plug-in's are no such values, or have the name of another; or it writes into what it is
                given.
        """
        if host is not None and self._names and hasattr(self.probe, "prepare"):
            prepared = self.probe.prepare(state)
            rows.setdefault(self.grid.name, {}).update(host.finish(self._finish, prepared, self._names[0]))
            return
        measure = self.probe.measure
        if self._place is None:
            row = measure(state)
        else:
            with unwritten(measure, _tensors_of(state), bits=not self._names):
                row = measure(state)
        some = isinstance(row, dict) and (row or self._place is None)
        require(some, measure, row, "a dictionary, name -> one value a run")
        width, blocks = next(iter(state.params.values())).shape[0], self.blocks
        check_values(measure, {name: value for name, value in row.items() if name not in blocks}, width)
        _check_blocks(self.probe, row, blocks, width)
        of = {name: block_series(name) if name in blocks else self.grid.name for name in row}
        if not self._names:
            self._names.append(tuple(row))
            there = {name for series in rows if block_of(series) is None for name in rows[series]}
            check_names(measure, {n: x for n, x in row.items() if n not in blocks}, {*taken, *there})
            check_names(measure, {n: row[n] for n in blocks}, [n for n in blocks if of[n] in rows])
        require(
            tuple(row) == self._names[0], measure, row, f"{listed(self._names[0])}, as in the rows before"
        )
        for name, value in row.items():
            rows.setdefault(of[name], {})[name] = value

    def _finish(self, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the values of some runs, of what the probe has prepared of them."""
        finish = self.probe.finish  # type: ignore[attr-defined]
        row: dict[str, Tensor] = finish(prepared)
        check_values(finish, row, len(next(iter(prepared.values()))))
        require(tuple(row) == self._names[0], finish, row, f"{listed(self._names[0])}, as in the rows before")
        return row

    def measure_run(self, state: ProbeState, run: int) -> dict[str, Tensor]:
        """Measure one run, blocks left out: metric -> ()."""
        row = self.probe.measure_run(state, run)  # type: ignore[attr-defined]
        return {name: value[run] for name, value in row.items() if name not in self.blocks}


def _check_blocks(probe: Probe, row: Mapping[str, Tensor], blocks: Mapping[str, Block], width: int) -> None:
    """Check that blocks are what a probe declares them to be; a `PluginError` where a plug-in's are not."""
    for name, block in blocks.items():
        legal = f"blocks whose types are among {listed(TYPES)}, under names of small letters, digits and _"
        require(BLOCK.fullmatch(name) and block.dtype in TYPES, probe, block, legal)
        value, shape = row.get(name), (width, *block.shape)
        form = (getattr(value, "shape", None), str(getattr(value, "dtype", "")).removeprefix("torch."))
        form = form if isinstance(value, Tensor) else (None, "")
        wanted = f"a tensor of shape {shape} and type {block.dtype}, one block a run, for {name!r}"
        require(form == (shape, block.dtype), probe.measure, value, wanted)


def _tensors_of(state: ProbeState) -> dict[str, Tensor]:
    """Return a state's tensors, by what they are called."""
    found: dict[str, Tensor] = {}
    for field_name in ("params", "initial", "previous", "gradients", "optimizer_state"):
        for name, held in (getattr(state, field_name) or {}).items():
            several = held if isinstance(held, Mapping) else {"": held}
            found |= {f"{field_name}[{name!r}]{f'[{k!r}]' if k else ''}": x for k, x in several.items()}
    if state.batch is not None:
        found |= {"batch.inputs": state.batch.inputs, "batch.targets": state.batch.targets}
    return {f"the state's {name}": tensor for name, tensor in found.items()}


def measurements(
    config: EnsembleConfig, network: nn.Module, folders: Sequence[Path], every: Mapping[str, int] | None
) -> list[Measurement]:
    """Return a configuration's probes for a network; `every` has the distances of rows that were fixed before."""
    every = {**probe_cadences(config, folders), **(every or {})}
    made = []
    for name, section in config.probe.items():
        part = registry.find("probe", name, folders)
        probe = part.build(section, network)
        for needed in ("needs", "measure"):
            require(hasattr(probe, needed), part.module.build, probe, f"a probe, which has `{needed}`")
        unknown = sorted({*probe.needs} - _OPTIONAL)
        require(not unknown, probe, unknown, f"needs among {listed(sorted(_OPTIONAL))}")
        made.append(Measurement(name, probe, cadence(section.every or every.get(name), section.at)))
    return made


def needs_of(items: Iterable[Measurement]) -> set[str]:
    """Return which optional fields of a `ProbeState` some measurements need."""
    return {need for item in items for need in item.probe.needs}


class Measuring:
    """Looks at S runs between their updates.

    Args:
        items: The probes.
        updates: What brings the runs on.
        losses: The losses of the updates.
        evaluation: What evaluates them.
        eval_every: Steps between rows of the evaluation.
        initial: The weights at the initialisation, name -> (S, ...), where a probe asks for them.
        host: Where rows are finished on a card; None on the host itself.
        averaging: What averages the weights, for the average to be evaluated, too; None where nothing does.
        embedding: What replaces weights by their modes, for its columns; None where nothing does.

    Attributes:
        items: The probes.
        eval_grid: The steps of the evaluation.
        host: As given.
    """

    def __init__(
        self,
        items: Sequence[Measurement],
        updates: Updates,
        losses: Losses,
        evaluation: Evaluation,
        eval_every: int,
        initial: Mapping[str, Tensor] | None,
        host: Host | None = None,
        averaging: Averaging | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        self._averaging, self._embedding = averaging, embedding
        self.items, self.eval_grid, self.host = list(items), cadence(eval_every), host
        self._updates, self._losses, self._evaluation, self._initial = updates, losses, evaluation, initial
        # Its columns, which are in no row of a grid that it is not on.
        self._evaluated: set[str] = set()

    def needs_at(self, step: int) -> set[str]:
        """Return which optional fields of a `ProbeState` the rows of a step need."""
        return needs_of(item for item in self.items if step in item.grid)

    def next_look(self, step: int, end: int) -> int:
        """Return the first step after a step that has rows, `end` where none before it has."""
        return min(grid.after(step, end) for grid in (self.eval_grid, *(item.grid for item in self.items)))

    def rows(self) -> Rows:
        """Return the rows of the current step: cadence -> metric -> (S,).

        Some are `Promised`: what a card is at, and what the next update finds on its way.
        """
        step = self._updates.step
        measured = [item for item in self.items if step in item.grid]
        rows: Rows = {}
        if not measured and step not in self.eval_grid:
            return rows
        needs = needs_of(measured)
        correct: list[Tensor] | None = [] if "correct" in needs else None
        if step in self.eval_grid:
            losses = self._losses.row(step)
            own = self._own(correct)
            average = self._averaging.row(step, own) if self._averaging is not None else {}
            embedded = self._embedding.row() if self._embedding is not None else {}
            rows[self.eval_grid.name] = {**own, **average, **losses, **embedded}
            self._evaluated |= rows[self.eval_grid.name].keys()
        if measured:
            state = self.state(needs, correct)
            for item in measured:
                item.measure(state, rows, self.host, self._taken(item))
        return rows

    def _taken(self, item: Measurement) -> Collection[str]:
        """Return the columns of others, by what was measured and what dynalab's own probes declare."""
        if item.columns or place_of(item.probe) is None:
            return ()
        others = [other for other in self.items if other is not item]
        declared = [getattr(sys.modules[type(other.probe).__module__], "COLUMNS", ()) for other in others]
        return {*_OF_SERIES, *self._evaluated, *OF_UPDATES}.union(
            *declared, *(other.columns for other in others)
        )

    def _own(self, correct: list[Tensor] | None) -> dict[str, Tensor | Promised]:
        """Evaluate the runs: training examples in the pass of the next update, where that has them all."""
        updates, train = self._updates, dict[str, Tensor | Promised]()
        if updates.gradients.shares_pass:
            train |= self._shared_pass()
        else:
            train |= updates.coming(lambda: self.evaluate("train"), ("train_loss", "train_accuracy"))
        if not train:
            return {**self._evaluation.both(updates.evaluated(), correct)}
        return {**train, **self._evaluation.of("test", updates.evaluated(), correct)}

    def _shared_pass(self) -> dict[str, Tensor]:
        """Evaluate the training examples in the pass of the next update, which is made now."""
        done = self._updates.gradients.ahead(self._updates.step)
        with torch.no_grad():
            values = self._evaluation.values("train", done.outputs, done.losses, done.batch)
        return {f"train_{name}": value.detach().to(torch.float64) for name, value in values.items()}

    def evaluate(self, split: str) -> dict[str, Tensor]:
        """Return `<split>_loss` and the task's metrics over `train` or `test`, each of shape (S,), float64."""
        return self._evaluation.of(split, self._updates.evaluated())

    def state(self, needs: Collection[str], correct: list[Tensor] | None = None) -> ProbeState:
        """Return what the probes of a row look at, with the optional fields that one of them needs.

        `correct` is what an evaluation of this step has found, in its batches; where none has, one is made.
        """
        updates, last = self._updates, self._updates.last
        if "correct" in needs and not correct:
            correct = []
            self._evaluation.of("test", updates.evaluated(), correct)
        return ProbeState(
            step=updates.step,
            params=updates.evaluated(),
            initial=self._initial,
            previous=last.previous,
            gradients=last.gradients,
            optimizer_state=updates.moments() if "optimizer_state" in needs else None,
            batch=last.batch,
            upcoming=updates.upcoming() if "upcoming" in needs else None,
            correct=torch.cat(correct, 1) if correct else None,
        )

    def forced_rows(self, n_runs: int) -> dict[int, dict[str, Tensor]]:
        """Return the rows that spikes force now: place among the first `n_runs` runs, ascending -> metric -> ().

        Called after `rows`. Spikes are looked for once in a block of steps; where a row of the probe's own stands at
        the step, none is forced.
        """
        step, spikes = self._updates.step, self._losses.spikes
        if spikes is None or not step or step % OF_SPIKES:
            return {}
        self._losses.fold(step)
        forced = [item for item in self.items if item.on_spike]
        apart = max(item.grid.every or OF_SPIKES for item in forced)
        living = (self._losses.diverged_step < 0).tolist()
        runs = [run for run in spikes.at(step, apart) if run < n_runs and living[run]]
        measured = [item for item in forced if step not in item.grid]
        if not runs or not measured:
            return {}
        state = self.state(needs_of(measured))
        return {
            run: {name: value for item in measured for name, value in item.measure_run(state, run).items()}
            for run in runs
        }

    def measure_all(self) -> None:
        """Evaluate, and measure every probe, whatever the step: for what it takes."""
        own = self._evaluation.both(self._updates.evaluated())
        if self._averaging is not None:
            self._averaging.row(self._updates.step, own)
        state = self.state(needs_of(self.items))
        for item in self.items:
            item.probe.measure(state)

    def measure_own(self) -> None:
        """Measure the plug-ins among the probes, to see whether they can be measured."""
        own = [item for item in self.items if place_of(item.probe)]
        if not own:
            return
        self._evaluated |= self._evaluation.both(self._updates.evaluated()).keys()
        state, rows = self.state(needs_of(own)), Rows()
        for item in own:
            item.measure(state, rows, taken=self._taken(item))
