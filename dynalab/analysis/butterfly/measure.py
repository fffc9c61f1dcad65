"""How far the ends of forks and of their runs are apart: weights, functions, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.butterfly.findings import Apart

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ends:
    """The ends of S pairs of runs.

    Attributes:
        apart: One a pair.
        paths: What is measured on the line from each first end to the second, name -> (S, n).
    """

    apart: Sequence[Apart]
    paths: Mapping[str, np.ndarray]


def ends_of(one: Group, other: Group, step: int, shares: Sequence[float], most: int, what: str = "") -> Ends:
    """Compare the networks of two groups, run by run in their order, at a step.

    Args:
        one: The runs, on whose examples all is measured.
        other: As many others, of the same architecture.
        step: Where weights of all were kept.
        shares: Points of the line.
        most: Examples of each split.
        what: What the others are, which is told with every point of the line.

    Raises:
        NothingMatched: Of a run no weights of that step were kept.
    """
    import torch

    from dynalab.networks import paths

    stack, second = one.stack(step), other.stack(step)
    start, end = paths.state_of(stack), paths.state_of(second)
    training, held_out = (paths.held(stack.examples(split, most)) for split in ("train", "test"))
    found = paths.along(stack, paths.line(start, end), shares, training, training, what)
    losses = paths.barriers(found["loss"], shares)
    errors = paths.barriers(1 - found["accuracy"], shares) if "accuracy" in found else None
    with torch.no_grad():
        outputs = [stack.logits(own.params, held_out, own.buffers) for own in (stack, second)]
    weights = [torch.cat([x.flatten(1) for x in own.params.values()], 1) for own in (stack, second)]
    distance, of_functions = _relative(*weights), _relative(*(x.flatten(1) for x in outputs))
    churn = _churn(*outputs) if errors is not None else None
    apart = [
        Apart(
            _known(distance[i]),
            _known(of_functions[i]),
            None if churn is None else _known(churn[i]),
            _known(losses[i]),
            None if errors is None else _known(errors[i]),
        )
        for i in range(len(one.runs))
    ]
    return Ends(apart, found)


def _relative(one: Tensor, other: Tensor) -> np.ndarray:
    """Return norms of differences of rows (S, p) over those of the first, shape (S,)."""
    gap, norm = (x.double().norm(dim=1) for x in (one - other, one))
    return np.asarray((gap / norm).cpu().numpy())


def _churn(one: Tensor, other: Tensor) -> np.ndarray:
    """Return on which share of examples outputs (S, B, ..., C) are of different classes, shape (S,)."""
    sides = [x[..., 0] > 0 if x.shape[-1] == 1 else x.argmax(-1) for x in (one, other)]
    return np.asarray((sides[0] != sides[1]).flatten(1).double().mean(1).cpu().numpy())


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
