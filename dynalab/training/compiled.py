"""Updates and evaluations in compiled code, a block of steps of one run after another: `compute.compile=true`.

See compiled.cpp. It knows chains of linear layers (`dynalab.models.base.Chain`), some losses, and torch's SGD, Adam
and AdamW; where a configuration asks for anything else, updates are made as without.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping, Sequence
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.batch import Batch, Bits
from dynalab.core.plugins import by_hand
from dynalab.core.streams import NAMES, Streams
from dynalab.models.base import Chain
from dynalab.networks.stack import Stack
from dynalab.optim.ascent import radius
from dynalab.optim.lines import Lines
from dynalab.optim.updates import lines_of
from dynalab.tasks.loss import Loss
from dynalab.tasks.parity_data import PADDING, random_bytes
from dynalab.training.averaging import Averaging, Taking

ACTIVATIONS = ("relu", "tanh", "square", "cube")
LOSSES = ("hinge", "square", "logistic", "cross_entropy")
OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
MOST_LAYERS, MOMENTS = 16, 3


class _Param(Structure):
    _fields_ = [
        ("weights", c_void_p),
        ("moments", c_void_p * MOMENTS),
        ("gradients", c_void_p),
        ("previous", c_void_p),
        ("averages", POINTER(c_void_p)),
        ("decay", c_double),
        ("rows", c_int64),
        ("cols", c_int64),
        ("first", c_int64),
    ]


class _Batch(Structure):
    _fields_ = [
        ("inputs", c_void_p),
        ("targets", c_void_p),
        ("right", c_void_p),
        *((name, c_int64) for name in ("size", "input_run", "input_row", "target_run", "target_row")),
        ("bit", c_int64),
        ("relevant", c_int64),
        ("rate", c_double),
    ]


_BATCH = np.dtype(_Batch)


_TAKE = np.dtype([("share", np.float64), ("slot", np.int64)])


class _Work(Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in ("runs", "steps", "layers", "first", "activation", "loss", "optimizer")
        ),
        *((name, c_int64) for name in ("count", "nesterov", "amsgrad", "age")),
        *((name, c_double) for name in ("momentum", "dampening", "beta1", "beta2", "eps", "temperature")),
        ("lost", c_void_p),
        ("weights", c_int64 * MOST_LAYERS),
        ("biases", c_int64 * MOST_LAYERS),
        ("params", POINTER(_Param)),
        ("batches", c_void_p),
        ("losses", c_void_p),
        ("shares", c_void_p),
        ("slots", c_int64),
        ("takes", c_void_p),
    ]


def unknown(
    config: EnsembleConfig,
    stack: Stack,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    averaging: Averaging | None = None,
) -> str | None:
    """Return in words what of a configuration's updates compiled code does not know; None where it can make them."""
    chain, lowered = _chain(stack), _lowered(loss)
    train, groups = config.train, optimizer.param_groups
    model, task = f"model={config.model.name}", f"task={config.task.name}"
    if stack.device.type != "cpu":
        return "it is for a CPU"
    if chain is None or chain.activation not in ACTIVATIONS or len(chain.layers) > MOST_LAYERS:
        return f"it does not know this {model}"
    names = {*(chain.tables or ()), *(name for layer in chain.layers for name in layer if name is not None)}
    if {*stack.trained} != names or any(x.dtype != torch.float32 for x in stack.trained.values()):
        return f"it does not know this {model}"
    if lowered not in LOSSES:
        return f"it does not know the loss of {task}"
    if type(optimizer) not in OPTIMIZERS or not all(group["fused"] for group in groups):
        return f"it does not know optimizer={config.optimizer.name}"
    if len({(group["lr"], *group.get("betas", ())) for group in groups}) > 1:
        return f"optimizer={config.optimizer.name} has several rates"
    asked = {
        f"train.accumulate={train.accumulate}": train.accumulate > 1,
        f"train.clip={train.clip}": train.clip is not None,
        f"train.loss_dtype={train.loss_dtype}": loss.dtype != torch.float32,
        "train.sphere=true": train.sphere,
        f"train.norm_clamp={train.norm_clamp}": train.norm_clamp is not None,
        f"train.modes={train.modes}": train.modes is not None,
        f"average={getattr(config.average, 'name', None)}": averaging is not None and not averaging.is_known,
        "optimizer.orthogonal=true": bool(getattr(config.optimizer, "orthogonal", False)),
        f"optimizer={config.optimizer.name}": radius(optimizer) > 0,
    }
    found = [word for word, said in asked.items() if said]
    return f"it does not know {found[0]}" if found else None


def _chain(stack: Stack) -> Chain | None:
    found: Chain | None = (by_hand(stack.network, "chain", "stacked_forward") or (lambda: None))()
    return found


def _lowered(loss: Loss) -> str | None:
    found: str | None = (by_hand(loss.task, "named_loss", "loss") or (lambda: None))()
    return found


class Compiled:
    """Makes updates of S runs.

    Args:
        made: What compiled.cpp was compiled to.
        stack: The networks, of which nothing is `unknown`, as of the rest.
        loss: What is made smaller.
        optimizer: What moves the weights; its state is kept up to date.
    """

    def __init__(self, made: Path, stack: Stack, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
        self._library: Any = ctypes.CDLL(str(made))
        chain, lowered, trained = _chain(stack), _lowered(loss), stack.trained
        assert chain is not None
        assert lowered is not None
        self._trained, self._optimizer = trained, optimizer
        self._rate: float = optimizer.param_groups[0]["lr"]
        places = {name: place for place, name in enumerate(trained)}
        self._params = (_Param * len(trained))()
        group = optimizer.param_groups[0]
        beta1, beta2 = group.get("betas", (0.0, 0.0))
        self._work = _Work(
            runs=len(next(iter(trained.values()))),
            layers=len(chain.layers),
            first=chain.tables is not None,
            activation=ACTIVATIONS.index(chain.activation),
            loss=LOSSES.index(lowered),
            optimizer=OPTIMIZERS.index(type(optimizer)),
            count=len(trained),
            nesterov=group.get("nesterov", False),
            momentum=group.get("momentum", 0.0),
            dampening=group.get("dampening", 0.0),
            beta1=beta1,
            beta2=beta2,
            eps=group.get("eps", 0.0),
            temperature=loss.temperature,
            params=self._params,
        )
        for i, (weight, bias) in enumerate(chain.layers):
            self._work.weights[i] = places[weight]
            self._work.biases[i] = -1 if bias is None else places[bias]

    def make(
        self,
        batches: Sequence[Batch | Bits],
        factors: Sequence[float],
        lost: Tensor | None,
        wanted: Collection[str],
        takings: Sequence[Taking] = (),
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Make an update with each batch, at its factor of the rate; runs that are `lost`, (S,), stay as they are.

        `takings` say what takes in the weights in their course.

        Returns:
            The losses (steps, S), and, where they are `wanted`, the `gradients` of the last update and the weights
            `previous` to it.
        """
        work, losses = self._work, torch.empty(len(factors), self._work.runs)
        kept = {
            what: {
                name: torch.empty_like(param, requires_grad=False) for name, param in self._trained.items()
            }
            for what in ("gradients", "previous")
            if what in wanted
        }
        held: list[Lines] = []
        for (name, param), own in zip(self._trained.items(), self._params, strict=True):
            group = next(g for g in self._optimizer.param_groups if any(param is p for p in g["params"]))
            lines = lines_of(self._optimizer, group, param)
            held.append(lines)
            own.weights, own.first, own.decay = lines.param.data_ptr(), lines.first, group["weight_decay"]
            for i, moment in enumerate(lines.moments):
                own.moments[i] = moment.data_ptr()
            own.rows, own.cols = _shape(param)
            own.gradients, own.previous = (
                kept[what][name].data_ptr() if what in kept else None for what in ("gradients", "previous")
            )
        steps = [self._optimizer.state[param].get("step") for param in self._trained.values()]
        work.age = 0 if steps[0] is None else int(steps[0].item())
        work.steps, work.losses = len(factors), losses.data_ptr()
        mask = None if lost is None else lost.to(torch.uint8)
        work.lost = None if mask is None else mask.data_ptr()
        alive: list[Tensor] = []
        described = np.concatenate([self._described(batch, alive) for batch in batches])
        described["rate"] = np.array(factors) * self._rate
        work.batches = described.ctypes.data
        takes = self._take(takings)
        work.takes = takes.ctypes.data if len(takings) else None
        _require(self._library.update(ctypes.byref(work)))
        for lines, step in zip(held, steps, strict=True):
            lines.first = False
            if step is not None:
                step += len(factors)
        torch.autograd.graph.increment_version([lines.param for lines in held])
        return losses, kept

    def _take(self, takings: Sequence[Taking]) -> np.ndarray:
        """Say what may take in the weights, and return what does so after each update, (steps,)."""
        slots = {id(held): held for _, held, _ in takings}
        self._work.slots = len(slots)
        for place, own in enumerate(self._params):
            own.averages = (c_void_p * len(slots))(*(held[place].data_ptr() for held in slots.values()))
        takes = np.full(self._work.steps, np.array((0.0, -1), _TAKE))
        places = {key: place for place, key in enumerate(slots)}
        for after, held, share in takings:
            takes[after] = share, places[id(held)]
        return takes

    def evaluate(
        self, batches: Sequence[Batch], weights: Mapping[str, Tensor], correct: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the losses (batches, S) of batches with weights (S, ...), and the shares that are right, float64.

        To `correct`, where it is given, is added of every batch which of its examples are right, (S, B).
        """
        alive: list[Tensor] = []
        described = np.concatenate([self._described(batch, alive) for batch in batches])
        losses = torch.empty(len(batches), self._work.runs)
        shares = torch.empty_like(losses, dtype=torch.float64)
        if correct is not None:
            right = [torch.empty(batch.targets.shape, dtype=torch.bool) for batch in batches]
            described["right"] = [which.data_ptr() for which in right]
            correct += right
        params = (_Param * len(self._params))()
        for own, (name, trained) in zip(params, self._trained.items(), strict=True):
            tensor = weights[name].contiguous()
            alive.append(tensor)
            own.weights, own.rows, own.cols = tensor.data_ptr(), *_shape(trained)
        work = _Work.from_buffer_copy(self._work)
        work.steps, work.params, work.batches = len(batches), params, described.ctypes.data
        work.losses, work.shares, work.takes = losses.data_ptr(), shares.data_ptr(), None
        _require(self._library.evaluate(ctypes.byref(work)))
        return losses, shares

    def random_bytes(self, streams: Sequence[Streams], name: str, key: int, size: int) -> np.ndarray:
        """As `dynalab.tasks.parity_data.random_bytes`, to the bit."""
        seeds = [getattr(stream, name) for stream in streams]
        if max(seeds) >> 128:
            return random_bytes(streams, name, key, size)
        words = np.frombuffer(b"".join(seed.to_bytes(16, "little") for seed in seeds), "<u4").astype(
            np.uint32
        )
        keys, out = np.array([NAMES[name], key], np.uint32), np.zeros((len(seeds), size + PADDING), np.uint8)
        self._library.draw(
            c_int64(len(seeds)),
            c_void_p(words.ctypes.data),
            c_void_p(keys.ctypes.data),
            c_int64(len(keys)),
            c_int64(size),
            c_void_p(out.ctypes.data),
            c_int64(out.shape[1]),
        )
        return out

    def _described(self, batch: Batch | Bits, alive: list[Tensor]) -> np.ndarray:
        """Return what the code is told of batches, (count,), whose tensors are kept `alive`."""
        bits = batch if isinstance(batch, Bits) else batch.bits
        described = np.zeros(1 if bits is None else bits.count, _BATCH)
        if bits is not None:
            described["inputs"], described["input_run"] = bits.packed.data_ptr(), bits.packed.stride(0)
            described["size"], described["relevant"] = bits.size, bits.k
            described["bit"] = bits.first + np.arange(bits.count) * bits.size * bits.n
            if bits.flips is not None:
                described["target_run"], described["target_row"] = bits.flips.stride()
                starts = np.arange(bits.count, dtype=np.uint64) * np.uint64(bits.size * bits.flips.stride(1))
                described["targets"] = np.uint64(bits.flips.data_ptr()) + starts
            return described
        assert isinstance(batch, Batch)
        inputs, targets = batch.inputs.flatten(2), batch.targets
        if inputs.stride(2) != 1:
            inputs = inputs.contiguous()
        alive += (inputs, targets)
        strides = (*inputs.stride()[:2], *targets.stride())
        described[0] = (inputs.data_ptr(), targets.data_ptr(), 0, targets.shape[1], *strides, 0, 0, 0.0)
        return described


def _shape(param: Tensor) -> tuple[int, int]:
    """Return the rows and columns of one run's matrix, or of its vector."""
    rows = param.shape[1] if param.dim() > 2 else 1
    return rows, param[0].numel() // rows


def _require(refused: int) -> None:
    """Raise what the code's answer stands for, unless that is 0."""
    if refused:
        raise MemoryError if refused == 1 else IndexError("a label or symbol is out of range")
