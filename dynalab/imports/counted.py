"""Which tensors of a checkpoint count as weights and biases, and the fourteen statistics of them.

As of a network of dynalab's (`dynalab.models.describe`), and told by names and shapes where there is no network:
weights are floating-point tensors of two or more axes whose name has none of `embed norm ln`, biases those of one axis
whose name ends in `bias`, unless they go with a weight that does not count, as those of norms do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.core.words import count, listed
from dynalab.models.base import Matrix
from dynalab.models.describe import WeightSelection
from dynalab.probes.weights import COLUMNS, middle, of_matrix

if TYPE_CHECKING:
    from torch import Tensor

_LEFT_OUT = re.compile(r"embed|norm|(?:^|[._\d])ln(?:$|[._\d])", re.I)
# Tensor -> its shape.
Shapes = dict[str, tuple[int, ...]]


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the tensors that may count: those of floating-point numbers, at least one."""
    import torch

    return {
        name: tuple(x.shape)
        for name, x in tensors.items()
        if x.is_floating_point() and x.layout is torch.strided and x.device.type == "cpu" and x.numel()
    }


def counted(shapes: Shapes, pattern: re.Pattern[str] | None = None) -> WeightSelection:
    """Return which tensors count by their names.

    Args:
        shapes: Those that may.
        pattern: What the names of weights have, in the place of the usual rule.
    """

    def fits(name: str) -> bool:
        return not _LEFT_OUT.search(name) if pattern is None else bool(pattern.search(name))

    def is_bias(name: str) -> bool:
        weight = f"{name.removesuffix('bias')}weight"
        alone = weight not in shapes and fits(name)
        return name.endswith("bias") and len(shapes[name]) == 1 and (weight in weights or alone)

    weights = [
        name for name, shape in shapes.items() if len(shape) > 1 and not name.endswith("bias") and fits(name)
    ]
    biases = tuple(name for name in shapes if is_bias(name) and (pattern is not None or fits(name)))
    return WeightSelection(tuple(map(Matrix, weights)), biases, None)


def said(selection: WeightSelection, names: Sequence[str], how: str) -> str:
    """Return what counts, in a line."""
    weights = list(dict.fromkeys(matrix.parameter for matrix in selection.matrices))
    others = [name for name in names if name not in {*weights, *selection.biases}]
    kinds = [
        f"{len(some):,} as {what}{f' ({listed(some, 1)})' if some else ''}"
        for some, what in ((weights, "weights"), (selection.biases, "biases"))
    ]
    left = f"; {count(len(others), 'tensor')} left out ({listed(others, 1)})" if others else ""
    return f"{how} {' and '.join(kinds)} count{left}"


@dataclass(frozen=True)
class Measured:
    """What is found of one checkpoint.

    Attributes:
        values: Statistic -> its value; NaN of all where a weight is not finite.
        content: Hash of the tensors that count.
        finite: Whether all of them are.
    """

    values: dict[str, float]
    content: str
    finite: bool


def measure(tensors: Mapping[str, Tensor], selection: WeightSelection, names: Sequence[str]) -> Measured:
    """Measure a checkpoint; of its numbers a matrix at a time is held in float64, and all once as they are compared.

    Args:
        tensors: Of the checkpoint.
        selection: Which of them are measured.
        names: Which of them the checkpoint is known by.
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(names):
        plain = tensors[name].contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)} ".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    weights = list(dict.fromkeys(matrix.parameter for matrix in selection.matrices))
    values: dict[str, Any] = {}
    if weights:
        values |= {
            f"{name}_w": value for name, value in _entries([tensors[name] for name in weights]).items()
        }
    if selection.biases:
        biases = _entries([tensors[name] for name in selection.biases])
        values |= {f"{name}_b": value for name, value in biases.items()}
    finite = bool(np.isfinite([*values.values()]).all())
    if finite and weights:
        values |= _matrices(tensors, selection)
    elif weights:
        values |= dict.fromkeys(_OF_MATRICES, np.nan)
    ordered = {name: float(values[name]) if finite else np.nan for name in COLUMNS if name in values}
    return Measured(ordered, digest.hexdigest(), finite)


_OF_MATRICES = [name for name in COLUMNS if not name.endswith(("_w", "_b"))]


def _entries(parts: Sequence[Tensor]) -> dict[str, Any]:
    """Return mean, lower median and variance of all entries of some tensors; NaN where one is not finite."""
    import torch

    kept = torch.cat([part.flatten() for part in parts])
    numbers = (kept if kept.dtype in (torch.float32, torch.float64) else kept.float()).numpy()
    ends = np.cumsum([part.numel() for part in parts])[:-1]
    with np.errstate(all="ignore"):
        mean = sum(float(part.sum(dtype=np.float64)) for part in np.split(numbers, ends)) / len(numbers)
        if not np.isfinite(mean):
            return dict.fromkeys(("mean", "median", "var"), np.nan)
        squares = sum(float(np.square(part - mean).sum()) for part in _wide(numbers, ends))
    return {"mean": mean, "median": float(middle(numbers)) + 0.0, "var": squares / len(numbers)}


def _wide(numbers: np.ndarray, ends: np.ndarray) -> Any:
    return (part.astype(np.float64) for part in np.split(numbers, ends))


def _matrices(tensors: Mapping[str, Tensor], selection: WeightSelection) -> dict[str, float]:
    """Return the statistics that are means over matrices, one matrix after another."""
    sums = dict.fromkeys(_OF_MATRICES, 0.0)
    total = 0
    for matrix in selection.matrices:
        whole = tensors[matrix.parameter].double().flatten(1)
        for part in whole.unflatten(0, (matrix.parts, -1)):
            total += 1
            for name, value in of_matrix(part[None]).items():
                sums[name] += float(value[0])
    return {name: value / total for name, value in sums.items()}
