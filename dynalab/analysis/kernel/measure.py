"""The tangent kernel of one run over the weights that were kept, and its nulls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.base import Run
from dynalab.core.errors import ConfigError
from dynalab.core.progress import counted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Weights = Mapping[str, Tensor]

# Rows of a system of equations at most, with every pair of outputs: 128 MB, and seconds a step.
MOST_ROWS = 4000


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        probes: Training examples, and as many held-out ones.
        outputs: Outputs at most, evenly among the network's.
        ridge: Of the regression, as a share of the mean eigenvalue.
        full: Whether the regression is with every pair of outputs.
    """

    probes: int
    outputs: int
    ridge: float
    full: bool


@dataclass(frozen=True)
class Labels:
    """Labels of the probes, and how a prediction of them is judged.

    Attributes:
        train: Of training probes, shape (n, C), as numbers: a 1 for the class.
        held_out: Likewise.
        of_classes: Whether they are of classes, so that a prediction is right or wrong.
    """

    train: np.ndarray
    held_out: np.ndarray
    of_classes: bool

    @classmethod
    def of(cls, train: np.ndarray, held_out: np.ndarray, classes: int) -> Labels | None:
        """Return those of targets; None of targets that are several symbols."""
        if np.issubdtype(train.dtype, np.integer):
            if train.ndim != 1:
                return None
            one_hot = np.eye(max(classes, int(train.max()) + 1, int(held_out.max()) + 1))
            return cls(one_hot[train], one_hot[held_out], True)
        one, other = (targets.reshape(len(targets), -1).astype(float) for targets in (train, held_out))
        return cls(one, other, bool(one.shape[1] == 1 and np.isin(one, (-1.0, 1.0)).all()))

    def accuracy(self, predicted: np.ndarray) -> float:
        """Return on which share of the held-out probes predictions (m, C) are right; NaN of what are no classes."""
        if not self.of_classes or predicted.shape[1] < self.held_out.shape[1]:
            return math.nan
        if predicted.shape[1] == 1:
            return float((predicted * self.held_out > 0).mean())
        return float((predicted.argmax(1) == self.held_out.argmax(1)).mean())

    @property
    def chance(self) -> float:
        """Share of the held-out probes in their most frequent class."""
        if not self.of_classes:
            return math.nan
        if self.held_out.shape[1] == 1:
            share = float((self.held_out > 0).mean())
            return max(share, 1 - share)
        return float(self.held_out.mean(0).max())


@dataclass(frozen=True)
class Row:
    """What is measured of one step; nulls are of weights, or updates, whose entries change places."""

    step: int
    kernel: np.ndarray  # of the training probes, (n, n)
    distance_null: float
    angle: float  # to the row before, in degrees; NaN in the first
    angle_null: float
    alignment: float
    alignment_permuted: float
    alignment_null: float
    network: float  # accuracies on held-out probes
    after: float
    after_null: float


@dataclass(frozen=True)
class Measured:
    """The rows of a run."""

    run: Run
    rows: Sequence[Row]
    labels: Labels | None
    outputs: tuple[int, int]

    @property
    def steps(self) -> np.ndarray:
        """Shape (T,)."""
        return np.array([row.step for row in self.rows])

    @property
    def cosines(self) -> np.ndarray:
        """Between the kernels of all pairs of rows, shape (T, T)."""
        return cosines(np.stack([row.kernel.ravel() for row in self.rows]))

    def column(self, name: str) -> np.ndarray:
        """Return a number of every row, shape (T,)."""
        return np.array([getattr(row, name) for row in self.rows], float)


def cosines(rows: np.ndarray) -> np.ndarray:
    """Return the cosines between rows (T, p), shape (T, T); NaN of a row that is 0."""
    gram = rows @ rows.T
    norms = np.sqrt(np.diag(gram))
    with np.errstate(all="ignore"):
        found = gram / norms[:, None] / norms
    return np.asarray(np.clip(found, -1.0, 1.0))


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return the angle between two kernels in degrees, also where it is too small for a cosine to tell."""
    a, b = (kernel.ravel().astype(float) for kernel in (one, other))
    with np.errstate(all="ignore"):
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))))


def aligned(kernel: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the alignment of a kernel (n, n) with labels (n, C), centred, and its mean over permuted labels.

    The cosine of K and Y Y^T after both are centred (Cortes et al. 2012); the mean over all permutations is exact.
    """
    n = len(kernel)
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    rows = labels - labels.mean(0)
    size = float(np.linalg.norm(centred) * np.linalg.norm(rows.T @ rows))
    if not size or not math.isfinite(size):
        return math.nan, math.nan
    value = float(np.einsum("ic,ij,jc->", rows, centred, rows)) / size
    return value, float(np.trace(centred)) * float((rows**2).sum()) / (n - 1) / size


def regression(kernel: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
    """Return predictions (m, C) of ridge regression with a kernel over training probes, then held-out ones.

    Args:
        kernel: Shape (n + m, n + m), the same for all outputs, or (n + m, C, n + m, C).
        labels: Of the training probes, (n, C).
        ridge: As a share of the mean eigenvalue on these.
    """
    n, classes = labels.shape
    middle = labels.mean(0)
    each = 1 if kernel.ndim == 2 else classes
    square = kernel.reshape(len(kernel) * each, -1)
    known = square[: n * each, : n * each]
    wanted = (labels - middle).reshape(n * each, -1)
    damped = known + ridge * np.trace(known) / len(known) * np.eye(len(known))
    try:
        weights = np.linalg.solve(damped, wanted)
    except np.linalg.LinAlgError:
        return np.broadcast_to(middle, (len(kernel) - n, classes))
    return np.asarray((square[n * each :, : n * each] @ weights).reshape(-1, classes) + middle)


def measured(run: Run, steps: Sequence[int], settings: Settings, which: str = "") -> Measured:
    """Measure a run at some of the steps that its weights were kept at; `which` it is is told with how far that is.

    Raises:
        ConfigError: The regression has too many rows.
        NothingMatched: Its network is not known.
        StoreError: Its weights are damaged.
    """
    import torch

    from dynalab.networks.settings import as_trained

    (train, targets), (held_out, wanted) = (
        run.examples(split, settings.probes) for split in ("train", "test")
    )
    n = len(train)
    inputs = torch.from_numpy(np.concatenate([train, held_out]))
    labels = Labels.of(targets, wanted, run.spec.classes)
    network = run.network(steps[0])
    with torch.no_grad():
        every = int(network(inputs[:2]).reshape(2, -1).shape[1])
    chosen = np.unique(np.linspace(0, every - 1, min(settings.outputs, every)).round().astype(int)).tolist()
    full = settings.full and labels is not None and labels.of_classes
    if full and labels is not None and (len(chosen) < every or every != labels.train.shape[1]):
        raise ConfigError(
            f"full=true: {run.id} has {every:,} outputs for {labels.train.shape[1]:,} labels, of which {len(chosen):,} "
            "are looked at (most_outputs=): it takes all of them, one for each label"
        )
    if full and n * every > MOST_ROWS:
        raise ConfigError(
            f"full=true: {every:,} outputs of probes={n:,} are {n * every:,} rows, at most {MOST_ROWS:,}: fewer "
            "probes="
        )
    with as_trained(1):
        kernels = _Kernels(network, inputs, chosen, n, full)
        rows = list(_rows(run, counted(steps, "rows", which), kernels, labels, settings.ridge))
    return Measured(run, rows, labels, (len(chosen), every))


class _Kernels:
    """Kernels of one network with any weights."""

    def __init__(self, network: nn.Module, inputs: Tensor, outputs: list[int], n: int, full: bool) -> None:
        from dynalab.networks.tangent import contracted

        self.inputs, self.n, self._outputs, self._full = inputs, n, outputs, full
        self._contract = contracted(network, inputs, outputs)

    def whole(self, network: nn.Module, params: Weights | None = None) -> np.ndarray:
        """Return the kernel over all probes, (N, N), or (N, C, N, C) in full."""
        from dynalab.networks.tangent import tangent_kernel

        found = tangent_kernel(
            network, self.inputs, self._outputs, params=params, contract=self._contract, full=self._full
        )
        return found.double().numpy()

    def of_training(self, network: nn.Module, params: Weights) -> np.ndarray:
        """Return the kernel over training probes, (n, n)."""
        from dynalab.networks.tangent import tangent_kernel

        some = self.inputs[: self.n]
        found = tangent_kernel(network, some, self._outputs, params=params, contract=self._contract)
        return found.double().numpy()

    def traced(self, whole: np.ndarray) -> np.ndarray:
        """Return the kernel over training probes of a whole one, summed over outputs."""
        summed = np.einsum("ikjk->ij", whole) if whole.ndim == 4 else whole
        return np.asarray(summed[: self.n, : self.n])


def _rows(
    run: Run, steps: Iterable[int], kernels: _Kernels, labels: Labels | None, ridge: float
) -> Iterator[Row]:
    """Yield the rows, up to where the kernel is no longer finite."""
    import torch

    before: tuple[nn.Module, Weights, np.ndarray] | None = None
    first: np.ndarray | None = None
    for step in steps:
        network = run.network(step)
        weights = {name: x.detach() for name, x in network.named_parameters() if x.requires_grad}
        if not all(bool(x.isfinite().all()) for x in weights.values()):
            return
        whole = kernels.whole(network)
        kernel = kernels.traced(whole)
        if not np.isfinite(whole).all():
            return
        placed = kernels.whole(network, _shuffled(weights))
        null = kernels.traced(placed)
        first = kernel if first is None else first
        turned = turned_null = math.nan
        if before is not None:
            old, old_weights, old_kernel = before
            update = _shuffled({name: weights[name] - old_weights[name] for name in weights})
            moved = kernels.of_training(old, {name: old_weights[name] + update[name] for name in weights})
            turned, turned_null = angle(old_kernel, kernel), angle(old_kernel, moved)
        after = after_null = own = math.nan
        alignment = alignment_null = (math.nan, math.nan)
        if labels is not None:
            alignment, alignment_null = aligned(kernel, labels.train), aligned(null, labels.train)
            if labels.of_classes:
                after, after_null = (
                    labels.accuracy(regression(x, labels.train, ridge)) for x in (whole, placed)
                )
                with torch.no_grad():
                    outputs = network(kernels.inputs[kernels.n :])
                own = labels.accuracy(outputs.reshape(len(outputs), -1).numpy())
        yield Row(
            step,
            kernel,
            1 - float(cosines(np.stack([first.ravel(), null.ravel()]))[0, 1]),
            turned,
            turned_null,
            *alignment,
            alignment_null[0],
            own,
            after,
            after_null,
        )
        before = network, weights, kernel


def _shuffled(weights: Weights) -> dict[str, torch.Tensor]:
    """Return weights whose entries have changed places within each tensor, the same ones at every step."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        name: x.flatten()[torch.randperm(x.numel(), generator=generator)].view_as(x)
        for name, x in sorted(weights.items())
    }
