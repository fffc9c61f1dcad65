"""output = W act(left[a] + right[b]) for S runs, one after another and in place: the pass that fits a CPU's cache.

Written by hand, since what autograd does for itself walks through memory three times as often: it keeps both factors
of a square, and a temporary for every term. One run's hidden layer is taken at a time, in blocks of rows; the backward
pass computes it anew, which costs less than fetching it. Both sums, of an example's two rows and of a row's examples,
are those of `embedding_bag`, one pass each. Measured at B 1392, d 128, 59 rows and outputs, one thread, ms a run: .32
forward and .59 backward, of which .69 are products; by `index_select` and `index_add_` .43 and .66.

A run's bits depend on its own sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.weak import WeakTensorKeyDictionary

from dynalab.models.nets.gather import stacked_rows

# Entries of a block of the hidden layer: a megabyte, so that two of them stay in a core's cache.
BLOCK = 1 << 18
# Numbers of float32 in the widest vector of a processor.
VECTOR = 16


def two_tables(left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str) -> Tensor:
    """Return the outputs (S, B, C) of S runs: tables (S, n, d), the weight (S, C, d) and pairs of symbols (S, B, 2)."""
    if left.device.type == "cpu":
        return _TwoTables.apply(left, right, output, pairs, activation)
    return _batched(left, right, output, pairs, activation)


def _batched(left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str) -> Tensor:
    """Return the same by batched products, which a GPU wants and which can be differentiated again."""
    hidden = stacked_rows(left, pairs[..., 0]) + stacked_rows(right, pairs[..., 1])
    hidden = hidden * hidden if activation == "square" else torch.relu(hidden)
    return torch.bmm(hidden, output.transpose(1, 2))


# Takes a gradient by the outputs to those by the tables and the weight.
Vjp = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def two_tables_vjp(
    left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str
) -> tuple[Tensor, Vjp]:
    """Return what `two_tables` does, and what takes a gradient by it to those by the tables and the weight, once."""
    of = left, right, output, pairs, activation
    if left.device.type != "cpu":
        return _batched_vjp(*of)
    return outputs_of(*of), lambda gradient: gradients_of(*of, gradient)


def _batched_vjp(
    left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str
) -> tuple[Tensor, Vjp]:
    """Return the outputs by batched products, and what takes a gradient by them to those by tables and weight.

    For a card: both rows of an example are added as they are read, and a row's examples are added by a product with
    one-hot vectors, where a scattered sum, as autograd has it, would have every example wait for its row. Measured on
    an H200, 1,000 runs of B 1392, d 128, 59 rows and outputs: 2.5 ms of an update's 9.3 were scattered sums, 2.2 the
    rows' reading and adding.
    """
    (runs, n, width), count = left.shape, pairs.shape[1]
    places = pairs + torch.arange(0, 2 * n, n, device=pairs.device)
    flat = places + torch.arange(0, 2 * n * runs, 2 * n, device=pairs.device)[:, None, None]
    tables = torch.cat([left, right], dim=1).flatten(0, 1)
    begins = torch.arange(0, flat.numel(), 2, device=pairs.device)
    hidden = torch.embedding_bag(tables, flat.flatten(), begins)[0].view(runs, count, width)
    square = activation == "square"
    active = hidden * hidden if square else hidden.relu_()

    def vjp(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        back = torch.bmm(gradient, output)
        back = back.mul_(hidden) if square else torch.ops.aten.threshold_backward.default(back, active, 0)
        rows = back.new_zeros(runs, 2 * n, count).scatter_(1, places.transpose(1, 2), 1.0)
        sums = torch.bmm(rows, back).mul_(2.0 if square else 1.0)
        return sums[:, :n], sums[:, n:], torch.bmm(gradient.transpose(1, 2), active)

    return torch.bmm(active, output.transpose(1, 2)), vjp


class _TwoTables(torch.autograd.Function):
    """The pass of S runs, run by run."""

    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str
    ) -> Tensor:
        ctx.save_for_backward(left, right, output, pairs)
        ctx.activation = activation
        return outputs_of(left, right, output, pairs, activation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        left, right, output, pairs = ctx.saved_tensors
        (gradient,) = gradients
        if torch.is_grad_enabled():
            # The gradient is itself to be differentiated: autograd's own formulas.
            outputs = _batched(left, right, output, pairs, ctx.activation)
            found = torch.autograd.grad(outputs, [left, right, output], gradient, create_graph=True)
            return (*found, None, None)
        return *gradients_of(left, right, output, pairs, ctx.activation, gradient), None, None


def outputs_of(left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str) -> Tensor:
    """Return the outputs, run by run; arguments as of `two_tables`."""
    places, classes = places_of(pairs, *left.shape[1:]), output.shape[1]
    outputs = left.new_empty(*pairs.shape[:2], classes)
    # With 59 outputs a product takes .33 ms, with 64 .24, and the 59 have the same bits; of few, or of doubles, not.
    missing = -classes % VECTOR if classes > VECTOR and output.dtype == torch.float32 else 0
    weights = pad(output, (0, 0, 0, missing)) if missing else output
    runs = zip(torch.cat([left, right], dim=1), weights, outputs, places.rows, strict=True)
    for table, weight, result, blocks in runs:
        for (first, last), rows in zip(places.blocks, blocks, strict=True):
            hidden = _activate_(places.sums(table, rows), activation)
            if missing:
                result[first:last] = torch.mm(hidden, weight.t())[:, :classes]
            else:
                torch.mm(hidden, weight.t(), out=result[first:last])
    return outputs


def gradients_of(
    left: Tensor, right: Tensor, output: Tensor, pairs: Tensor, activation: str, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take a gradient by the outputs to those by the tables and the weight; other arguments as of `two_tables`."""
    places, (n, width) = places_of(pairs, *left.shape[1:]), left.shape[1:]
    to_left, to_right, to_output = torch.empty_like(left), torch.empty_like(right), torch.zeros_like(output)
    memory = left.new_empty(pairs.shape[1], width)
    # Half of the square's derivative 2 h: the tables are smaller than the hidden layer to double.
    factor = 2.0 if activation == "square" else 1.0
    runs = zip(
        *(torch.cat([left, right], dim=1), output, gradient, places.rows, places.examples),
        *(to_left, to_right, to_output),
        strict=True,
    )
    for table, weight, incoming, blocks, (examples, starts), left_sum, right_sum, output_sum in runs:
        for (first, last), rows in zip(places.blocks, blocks, strict=True):
            error = incoming[first:last]
            hidden = places.sums(table, rows)
            back = torch.mm(error, weight, out=memory[first:last])
            if activation == "square":
                back.mul_(hidden)
            else:
                torch.ops.aten.threshold_backward.grad_input(back, hidden, 0, grad_input=back)
            output_sum.addmm_(error.t(), _activate_(hidden, activation))
        sums = torch.embedding_bag(memory, examples, starts)[0]
        torch.mul(sums[:n], factor, out=left_sum)
        torch.mul(sums[n:], factor, out=right_sum)
    return to_left, to_right, to_output


class Places:
    """Where the symbols of pairs (S, B, 2) stand in two tables of n rows that lie one behind the other.

    Attributes:
        blocks: First and last example of every block of at most `size`.
        rows: Of every run and block, the rows of its examples, two each.
    """

    def __init__(self, pairs: Tensor, n: int, size: int) -> None:
        self._n, count = n, pairs.shape[1]
        self.blocks = [(first, min(first + size, count)) for first in range(0, count, size)]
        self._places = (pairs + torch.tensor([0, n])).flatten(1).int()
        self.rows = [[places[2 * i : 2 * j] for i, j in self.blocks] for places in self._places]
        self._starts = torch.arange(0, 2 * size, 2, dtype=torch.int32)[:count]

    def sums(self, table: Tensor, rows: Tensor) -> Tensor:
        """Return the sums of every example's two rows of both tables (2 n, d), (examples, d)."""
        return torch.embedding_bag(table, rows, self._starts[: len(rows) // 2])[0]

    @cached_property
    def examples(self) -> list[tuple[Tensor, Tensor]]:
        """Of every run, the examples that have each row, ascending, row after row; and where those of a row begin."""
        rows, order = self._places.sort(dim=1, stable=True)
        each = torch.arange(2 * self._n, dtype=torch.int32).repeat(len(rows), 1)
        starts = torch.searchsorted(rows, each, out_int32=True)
        return [*zip(order.int() >> 1, starts, strict=True)]


# Those of tensors in use, and what they were made from: a full batch is the same tensor at every update.
_KNOWN = WeakTensorKeyDictionary()


def places_of(pairs: Tensor, n: int, width: int) -> Places:
    """Return the places of pairs (S, B, 2) in two tables (n, d); they are made once of a tensor."""
    made_from = pairs._version, n, max(BLOCK // width, 1)
    known, places = _KNOWN.get(pairs, (None, None))
    if places is None or known != made_from:
        places = Places(pairs, n, made_from[2])
        _KNOWN[pairs] = made_from, places
    return places


def _activate_(hidden: Tensor, activation: str) -> Tensor:
    return hidden.mul_(hidden) if activation == "square" else hidden.relu_()
