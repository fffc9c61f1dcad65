"""Updates in compiled code, a block of steps of one run after another.

Of the networks and losses that `dynalab.networks.compiled` knows, by SGD, Adam, AdamW and RMSprop, also in Lookahead;
where a configuration asks for anything else, updates are made as without.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Mapping, Sequence
from ctypes import c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynalab.config.ensemble import EnsembleConfig
from dynalab.config.schema import Train
from dynalab.core.batch import Batch, Bits
from dynalab.core.streams import NAMES, Streams
from dynalab.networks.compiled import LOSSES, MOMENTS, Param, Passes, Work, means_of, require, shape
from dynalab.networks.compiled import unknown as unknown_passes
from dynalab.networks.stack import Stack
from dynalab.optim.ascent import radius
from dynalab.optim.lines import Lines
from dynalab.optim.updates import lines_of
from dynalab.optim.wrapped import Lookahead
from dynalab.tasks.loss import Loss
from dynalab.tasks.parity_data import PADDING, random_bytes
from dynalab.training.averaging import Averaging, Taking
from dynalab.training.sphere import Sphere

OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)

# What a group of parameters may have to itself.
_OWN = ("params", "weight_decay")
_TAKE = np.dtype([("share", np.float64), ("slot", np.int64)])


def unknown(
    config: EnsembleConfig,
    stack: Stack,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    averaging: Averaging | None = None,
) -> str | None:
    """Return in words what of a configuration's updates compiled code does not know; None where it can make them."""
    train, groups, moves = config.train, optimizer.param_groups, _inner(optimizer)
    if (what := unknown_passes(config, stack, loss)) is not None:
        return what
    if type(moves) not in OPTIMIZERS or not all(
        group.get("fused", not group["maximize"]) for group in groups
    ):
        return f"it does not know optimizer={config.optimizer.name}"
    if len({str({key: x for key, x in group.items() if key not in _OWN}) for group in groups}) > 1:
        return f"optimizer={config.optimizer.name} has groups that differ in more than weight decay"
    asked = {
        "train.sphere=true": train.sphere,
        f"average={getattr(config.average, 'name', None)}": averaging is not None and not averaging.is_known,
    }
    found = [word for word, said in asked.items() if said]
    return f"it does not know {found[0]}" if found else None


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return what moves the weights at every update."""
    return optimizer.inner if type(optimizer) is Lookahead else optimizer


class Coming:
    """What an evaluation says of examples, which are the next update's: found in its pass, or before if asked for.

    Args:
        pieces: The examples, in the batches in which they are evaluated.
        evaluate: Evaluates them with the weights of now, `loss` and `accuracy` (S,), under whatever names.
        names: The names of these two.
    """

    def __init__(
        self, pieces: Sequence[Batch], evaluate: Callable[[], dict[str, Tensor]], names: Sequence[str]
    ) -> None:
        self._pieces, self._evaluate, self._names = pieces, evaluate, names
        self._told: np.ndarray | None = None
        self._found: dict[str, Tensor] | None = None

    def is_open(self) -> bool:
        """Return whether nobody has asked yet, and no update has told."""
        return self._found is None and self._told is None

    def result(self) -> dict[str, Tensor]:
        """Return the two, (S,) each, float64."""
        if self._found is None:
            if self._told is None:
                self._found = self._evaluate()
            else:
                means = means_of([batch.size for batch in self._pieces], self._told)
                self._found = dict(zip(self._names, means.values(), strict=True))
        return self._found

    def tell(self, work: Work, alive: list[Any]) -> None:
        """Have updates say it, in which weights change."""
        sizes = np.array([batch.size for batch in self._pieces])
        self._told = np.full((2, len(sizes), work.runs), np.nan)
        work.pieces, work.sizes = len(sizes), sizes.ctypes.data
        work.told, work.shares = (x.ctypes.data for x in self._told)
        alive.append(sizes)


class Compiled(Passes):
    """Makes updates of S runs.

    Args:
        made: What compiled.cpp was compiled to.
        stack: The networks, of which nothing is `unknown`, as of the rest.
        loss: What is made smaller.
        optimizer: What moves the weights; its state is kept up to date.
        train: The keys of training.
        sphere: What holds all weights at a norm; None where nothing does.
        across: Whether gradients are taken across the weights (`optimizer.orthogonal`).
    """

    def __init__(
        self,
        made: Path,
        stack: Stack,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        train: Train,
        sphere: Sphere | None = None,
        across: bool = False,
    ) -> None:
        super().__init__(made, stack, loss)
        self._optimizer, self._params = _inner(optimizer), (Param * len(self.trained))()
        self._lookahead = optimizer if isinstance(optimizer, Lookahead) else None
        group, work = optimizer.param_groups[0], self.work
        self._rate: float = group["lr"]
        work.params, work.optimizer = self._params, OPTIMIZERS.index(type(self._optimizer))
        work.beta1, work.beta2 = group.get("betas", (0.0, group.get("alpha", 0.0)))
        for key in ("nesterov", "momentum", "dampening", "eps"):
            setattr(work, key, group.get(key, 0))
        work.clip, work.parts, work.rho = train.clip or 0, train.accumulate, radius(optimizer)
        work.orthogonal = across
        if sphere is not None:
            self._radii = sphere.radius.contiguous()
            work.radii = self._radii.data_ptr()
        if self._lookahead is not None:
            work.alpha, work.period = self._lookahead.alpha, self._lookahead.k
            work.resets = self._lookahead.inner_state == "reset"

    def make(
        self,
        batches: Sequence[Batch | Bits],
        factors: Sequence[float],
        lost: Tensor | None,
        wanted: Collection[str],
        masks: Mapping[str, Tensor],
        takings: Sequence[Taking] = (),
        coming: Coming | None = None,
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Make an update with each batch, or `train.accumulate` of them, at its factor of the rate.

        Runs that are `lost`, (S,), stay as they are.
        `masks` are 0 where weights are held (`Masks.of`); `takings` say what takes in the weights in their course.
        `coming` is told of the first batch.

        Returns:
            The losses (steps, S), and, where they are `wanted`, the `gradients` of the last update and the weights
            `previous` to it.
        """
        work, losses = self.work, torch.empty(len(factors), self.work.runs, dtype=torch.float64)
        kept = {
            what: {name: torch.empty_like(param, requires_grad=False) for name, param in self.trained.items()}
            for what in ("gradients", "previous")
            if what in wanted
        }
        held: list[Lines] = []
        alive: list[Any] = []
        for (name, param), own in zip(self.trained.items(), self._params, strict=True):
            group = next(g for g in self._optimizer.param_groups if any(param is p for p in g["params"]))
            lines = lines_of(self._optimizer, group, param)
            held.append(lines)
            own.weights, own.first, own.decay = lines.param.data_ptr(), lines.first, group["weight_decay"]
            for i, moment in enumerate(lines.moments):
                own.moments[i] = moment.data_ptr()
            own.rows, own.cols = shape(param)
            if self._lookahead is not None:
                own.slow = self._lookahead.slow[param].data_ptr()
                pulled = self._lookahead.pulled(param, lines.names, len(factors))
                own.pulled = (c_void_p * MOMENTS)(*(before.data_ptr() for before in pulled))
            own.mask = None
            if name in masks:
                alive.append(masks[name].to(torch.float32).expand_as(param).contiguous())
                own.mask = alive[-1].data_ptr()
            own.gradients, own.previous = (
                kept[what][name].data_ptr() if what in kept else None for what in ("gradients", "previous")
            )
        steps = [self._optimizer.state[param].get("step") for param in self.trained.values()]
        work.age = 0 if steps[0] is None else int(steps[0].item())
        work.since = 0 if self._lookahead is None else self._lookahead.count
        work.steps, work.losses = len(factors), losses.data_ptr()
        mask = None if lost is None else lost.to(torch.uint8)
        work.lost = None if mask is None else mask.data_ptr()
        told = self.described(batches, alive)
        told["rate"] = np.repeat(factors, work.parts) * self._rate
        work.batches = told.ctypes.data
        work.pieces = 0
        if coming is not None:
            coming.tell(work, alive)
        takes = self._take(takings)
        work.takes = takes.ctypes.data if len(takings) else None
        require(self.library.update(ctypes.byref(work)))
        for lines, step in zip(held, steps, strict=True):
            lines.first = False
            if step is not None:
                step += len(factors)
        written = [lines.param for lines in held]
        if self._lookahead is not None:
            self._lookahead.count += len(factors)
            since = self._lookahead.count % self._lookahead.k
            if work.resets and since < len(factors):
                self._begin_anew(since)
            written += [self._lookahead.slow[param] for param in self.trained.values()]
        torch.autograd.graph.increment_version(written)
        return losses, kept

    def _begin_anew(self, since: int) -> None:
        """Have an optimizer remember what it does of so many updates, which are those since it was reset."""
        for param in self.trained.values():
            state = self._optimizer.state[param]
            if not since:
                state.clear()
            elif "step" in state:
                state["step"].fill_(since)

    def covers(self, batch: Batch, pieces: Sequence[Batch]) -> bool:
        """Return whether pieces are a batch's examples, in its order and memory, and an update can tell of them."""
        alive: list[Any] = []
        first = 0
        for piece in pieces:
            own, part = self.described([piece, batch.part(first, first + piece.size)], alive)
            if own != part:
                return False
            first += piece.size
        return first == batch.size and self.judges and self.work.loss <= LOSSES.index("stablemax")

    def _take(self, takings: Sequence[Taking]) -> np.ndarray:
        """Say what may take in the weights, and return what does so after each update, (steps,)."""
        slots: dict[int, Sequence[Tensor]] = {}
        live, whole = list[tuple[int, float, int]](), set[int]()
        for after, held, share in reversed(takings):
            # Of what becomes the weights later nothing is left.
            if id(held) not in whole:
                slots[id(held)] = held
                live.append((after, share, id(held)))
                if share >= 1:
                    whole.add(id(held))
        self.work.slots = len(slots)
        for place, own in enumerate(self._params):
            own.averages = (c_void_p * len(slots))(*(held[place].data_ptr() for held in slots.values()))
        takes, places = np.zeros(self.work.steps, _TAKE), {key: place for place, key in enumerate(slots)}
        takes["slot"] = -1
        if live:
            rows, shares, keys = map(list, zip(*live, strict=True))
            takes["share"][rows], takes["slot"][rows] = shares, [places[key] for key in keys]
        return takes

    def random_bytes(self, streams: Sequence[Streams], name: str, key: int, size: int) -> np.ndarray:
        """As `dynalab.tasks.parity_data.random_bytes`, to the bit."""
        seeds = [getattr(stream, name) for stream in streams]
        if max(seeds) >> 128:
            return random_bytes(streams, name, key, size)
        words = np.frombuffer(b"".join(seed.to_bytes(16, "little") for seed in seeds), "<u4").astype(
            np.uint32
        )
        keys, out = np.array([NAMES[name], key], np.uint32), np.zeros((len(seeds), size + PADDING), np.uint8)
        self.library.draw(
            c_int64(len(seeds)),
            c_void_p(words.ctypes.data),
            c_void_p(keys.ctypes.data),
            c_int64(len(keys)),
            c_int64(size),
            c_void_p(out.ctypes.data),
            c_int64(out.shape[1]),
        )
        return out
