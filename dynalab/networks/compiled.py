"""Passes through the networks of S runs in compiled code, a run after another: losses, and which examples are right.

See compiled.cpp and its headers. It knows chains of linear layers (`dynalab.models.base.Chain`) and some losses; a
run's numbers are its own whatever is beside it. Updates are made of such passes in `dynalab.training.compiled`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.batch import Batch, Bits
from dynalab.core.plugins import by_hand, place_of
from dynalab.models.base import Chain
from dynalab.networks.compiler import made
from dynalab.networks.stack import Stack
from dynalab.tasks.loss import Loss

ACTIVATIONS = ("relu", "tanh", "square", "cube", "gelu", "sin")
HEADS = ("linear", "product", "activated")
OF_LABELS = (
    "cross_entropy",
    "stablemax",
    "half_square",
    "mean_square",
)  # the squares of numbers as well, where targets have an axis more
LOSSES = ("hinge", "square", "logistic", *OF_LABELS)
MOST_LAYERS, MOMENTS = 16, 3
# Inputs that go through the code at once, where they are made as they are asked for.
MOST_BYTES = 1 << 26


class Param(Structure):
    """Weights of S runs and what goes with them."""

    _fields_ = [
        ("weights", c_void_p),
        ("moments", c_void_p * MOMENTS),
        ("gradients", c_void_p),
        ("previous", c_void_p),
        ("slow", c_void_p),
        ("pulled", c_void_p * MOMENTS),
        ("mask", c_void_p),
        ("averages", POINTER(c_void_p)),
        ("decay", c_double),
        ("rows", c_int64),
        ("cols", c_int64),
        ("first", c_int64),
    ]


class _Described(Structure):
    _fields_ = [
        ("inputs", c_void_p),
        ("targets", c_void_p),
        ("right", c_void_p),
        *((name, c_int64) for name in ("size", "input_run", "input_row", "target_run", "target_row")),
        ("bit", c_int64),
        ("relevant", c_int64),
        ("columns", c_int64),
        ("rate", c_double),
    ]


_BATCH = np.dtype(_Described)


class Work(Structure):
    """What is to be done."""

    _fields_ = [
        *(
            (name, c_int64)
            for name in ("runs", "steps", "layers", "first", "activation", "loss", "optimizer")
        ),
        *((name, c_int64) for name in ("count", "nesterov", "age")),
        *((name, c_double) for name in ("momentum", "dampening", "beta1", "beta2", "eps", "temperature")),
        ("rho", c_double),
        ("clip", c_double),
        ("orthogonal", c_int64),
        ("wide", c_int64),
        ("alpha", c_double),
        ("period", c_int64),
        ("since", c_int64),
        ("resets", c_int64),
        ("parts", c_int64),
        ("lost", c_void_p),
        ("radii", c_void_p),
        ("weights", c_int64 * MOST_LAYERS),
        ("biases", c_int64 * MOST_LAYERS),
        ("tables", c_int64 * 2),
        ("shift", c_int64),
        ("head", c_int64),
        ("params", POINTER(Param)),
        ("batches", c_void_p),
        ("losses", c_void_p),
        ("shares", c_void_p),
        ("pieces", c_int64),
        ("sizes", c_void_p),
        ("told", c_void_p),
        ("slots", c_int64),
        ("takes", c_void_p),
    ]


def unknown(config: EnsembleConfig, stack: Stack, loss: Loss) -> str | None:
    """Return in words what of networks and their loss compiled code does not know; None where it can make passes."""
    if stack.device.type != "cpu":
        return "it is for a CPU"
    chain, trained = _chain(stack), stack.trained
    if (
        chain is None
        or chain.activation not in ACTIVATIONS
        or chain.head not in HEADS
        or len(chain.layers) > MOST_LAYERS
        or {*trained} != {*_parameters(chain)}
        or any(param.dtype != torch.float32 for param in trained.values())
    ):
        return f"it does not know this model={config.model.name}"
    if _lowered(loss) not in LOSSES:
        return f"it does not know the loss of task={config.task.name}"
    return None


def measures(loss: Loss) -> bool:
    """Return whether it finds what the loss's task measures beside: accuracy, by the largest or the sign of outputs.

    Nothing where no output is right or wrong. A task of one's own may have other metrics in the same class.
    """
    if place_of(loss.task) is not None:
        return False
    plain = ("metrics", *("correct",) * hasattr(loss.task, "correct"))
    return all(by_hand(loss.task, "named_loss", name) for name in plain)


def passes(config: EnsembleConfig, stack: Stack, loss: Loss) -> Passes | None:
    """Return what evaluates networks as their training did in compiled code; None where it does not know how."""
    if unknown(config, stack, loss) is not None or not measures(loss):
        return None
    code = made(None)
    return None if code is None else Passes(code, stack, loss)


def _parameters(chain: Chain) -> Iterator[str]:
    """Return the names of all that a chain is made of."""
    first = (*chain.tables, chain.tables_bias)
    return (name for names in (first, *chain.layers) for name in names if name is not None)


def _chain(stack: Stack) -> Chain | None:
    found: Chain | None = (by_hand(stack.network, "chain", "stacked_forward") or (lambda: None))()
    return found


def _lowered(loss: Loss) -> str | None:
    found: str | None = (by_hand(loss.task, "named_loss", "loss") or (lambda: None))()
    return found


class Passes:
    """Takes the examples of S runs through their networks.

    Args:
        code: What compiled.cpp was compiled to.
        stack: The networks, of which nothing is `unknown`, as of the loss.
        loss: What is told of outputs.

    Attributes:
        library: The code.
        trained: The weights of the networks, name -> (S, ...).
        work: What the code is told.
        judges: Whether an output is right or wrong.
    """

    def __init__(self, code: Path, stack: Stack, loss: Loss) -> None:
        self.library: Any = ctypes.CDLL(str(code))
        chain, lowered, trained = _chain(stack), _lowered(loss), stack.trained
        assert chain is not None
        assert lowered is not None
        self.trained, self.judges = trained, hasattr(loss.task, "correct")
        # What examples are, whatever a task of one's own makes of them: symbols or numbers, so many; labels or numbers.
        self._columns = 2 if chain.tables else trained[chain.layers[0][0]].shape[2]
        self._inputs = torch.int64 if chain.tables else torch.float32
        self._targets = torch.int64 if lowered in OF_LABELS else torch.float32
        places = {name: place for place, name in enumerate(trained)}
        self.work = Work(
            runs=stack.width,
            layers=len(chain.layers),
            first=bool(chain.tables),
            activation=ACTIVATIONS.index(chain.activation),
            head=HEADS.index(chain.head),
            loss=LOSSES.index(lowered),
            count=len(trained),
            temperature=loss.temperature,
            wide=loss.dtype == torch.float64,
        )
        for i, (weight, bias) in enumerate(chain.layers):
            self.work.weights[i] = places[weight]
            self.work.biases[i] = -1 if bias is None else places[bias]
        if chain.tables:
            # Of one weight both halves.
            self.work.tables[:] = places[chain.tables[0]], places[chain.tables[-1]]
        self.work.shift = -1 if chain.tables_bias is None else places[chain.tables_bias]

    def means(
        self,
        splits: Sequence[Iterable[Batch]],
        weights: Mapping[str, Tensor],
        correct: list[Tensor] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Return `loss` and `accuracy`, (S,), float64, over the batches of each split with weights (S, ...), float32.

        There is no accuracy where no output is right or wrong.
        To `correct`, where it is given, is added of every batch of the last split which of its examples are right,
        (S, B).
        """
        sizes: list[list[int]] = [[] for _ in splits]
        found: list[np.ndarray] = []
        for some in _pieces(splits):
            found.append(self._evaluate(some, weights, correct, len(splits) - 1))
            for split, batch in some:
                sizes[split].append(batch.size)
        if not found:
            return [{} for _ in splits]
        ends = np.cumsum([*map(len, sizes)])
        parts = np.split(np.concatenate(found, 1) if len(found) > 1 else found[0], ends[:-1], 1)
        means = [*map(means_of, sizes, parts)]
        return means if self.judges else [{n: x for n, x in own.items() if n == "loss"} for own in means]

    def _evaluate(
        self,
        batches: Sequence[tuple[int, Batch]],
        weights: Mapping[str, Tensor],
        correct: list[Tensor] | None,
        last: int,
    ) -> np.ndarray:
        """Return losses and accuracies, (2, batches, S), of batches of some splits; `correct` is of the `last` one."""
        alive: list[Tensor] = []
        told = self.described([batch for _, batch in batches], alive)
        found = np.empty((2, len(batches), self.work.runs))
        if correct is not None:
            for place, (split, batch) in enumerate(batches):
                if split == last:
                    correct.append(torch.empty(batch.targets.shape, dtype=torch.bool))
                    told["right"][place] = correct[-1].data_ptr()
        params = (Param * len(self.trained))()
        for own, (name, trained) in zip(params, self.trained.items(), strict=True):
            tensor = weights[name].contiguous()
            alive.append(tensor)
            own.weights, own.rows, own.cols = tensor.data_ptr(), *shape(trained)
        work = Work.from_buffer_copy(self.work)
        work.steps, work.params, work.batches = len(batches), params, told.ctypes.data
        work.losses, work.shares, work.takes = found[0].ctypes.data, found[1].ctypes.data, None
        require(self.library.evaluate(ctypes.byref(work)))
        return found

    def described(self, batches: Sequence[Batch | Bits], alive: list[Any]) -> np.ndarray:
        """Return what the code is told of batches, (count,), whose tensors are kept `alive`."""
        told = [self._described(batch, alive) for batch in batches]
        # As bytes: for records NumPy would look the types of all fields up anew.
        return (
            np.concatenate([some.view(np.uint8) for some in told]).view(_BATCH) if len(told) > 1 else told[0]
        )

    def _described(self, batch: Batch | Bits, alive: list[Any]) -> np.ndarray:
        bits = batch if isinstance(batch, Bits) else batch.bits
        told = np.zeros(1 if bits is None else bits.count, _BATCH)
        if bits is not None:
            told["inputs"], told["input_run"] = bits.packed.data_ptr(), bits.packed.stride(0)
            told["size"], told["relevant"] = bits.size, bits.k
            told["bit"] = bits.first + np.arange(bits.count) * bits.size * bits.n
            if bits.flips is not None:
                told["target_run"], told["target_row"] = bits.flips.stride()
                starts = np.arange(bits.count, dtype=np.uint64) * np.uint64(bits.size * bits.flips.stride(1))
                told["targets"] = np.uint64(bits.flips.data_ptr()) + starts
            return told
        assert isinstance(batch, Batch)
        inputs = batch.inputs.flatten(2).to(self._inputs)
        targets = batch.targets.to(self._targets if batch.targets.dim() == 2 else torch.float32)
        if inputs.shape[2] != self._columns:
            raise ValueError(f"examples have {inputs.shape[2]} inputs, the networks {self._columns}")
        inputs, targets = (
            x.contiguous() if x.dim() > 2 and x.stride(2) != 1 else x for x in (inputs, targets)
        )
        alive += (inputs, targets)
        strides = (*inputs.stride()[:2], *targets.stride()[:2])
        columns = targets.shape[2] if targets.dim() > 2 else 0
        told[0] = (inputs.data_ptr(), targets.data_ptr(), 0, targets.shape[1], *strides, 0, 0, columns, 0.0)
        return told


def means_of(sizes: Sequence[int], found: np.ndarray) -> dict[str, Tensor]:
    """Return the means over batches of some sizes of what the code says of each, (2, batches, S), float64.

    They are `loss` and `accuracy`, (S,), the same to the bit as by `dynalab.networks.evaluation.averaged`.
    """
    if not sizes:
        return {}
    weighted = found * np.array(sizes)[:, None]
    loss, accuracy = functools.reduce(np.add, weighted.swapaxes(0, 1)) / sum(sizes)
    return {"loss": torch.from_numpy(loss), "accuracy": torch.from_numpy(accuracy)}


def _pieces(splits: Sequence[Iterable[Batch]]) -> Iterator[list[tuple[int, Batch]]]:
    """Deal batches, which may be made as they are asked for, into pieces that go through the code at once.

    Each goes with the place of its split.
    """
    held, taken = list[tuple[int, Batch]](), 0
    for split, batch in ((split, batch) for split, batches in enumerate(splits) for batch in batches):
        held.append((split, batch))
        taken += batch.inputs.untyped_storage().nbytes()
        if taken > MOST_BYTES:
            yield held
            held, taken = [], 0
    if held:
        yield held


def shape(param: Tensor) -> tuple[int, int]:
    """Return the rows and columns of one run's matrix, or of its vector."""
    rows = param.shape[1] if param.dim() > 2 else 1
    return rows, param.numel() // (param.shape[0] * rows)


def require(refused: int) -> None:
    """Raise what the code's answer stands for, unless that is 0."""
    if refused:
        raise MemoryError if refused == 1 else IndexError("a label or symbol is out of range")
