"""Directions that slices go along: random ones, eigenvectors, the plane of the trajectory, the way to other runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.base import Group, Run
from dynalab.analysis.landscape.slices import Axis, along, dot
from dynalab.core.progress import counted

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.networks.stacked import Stacked

    State = Mapping[str, Tensor]

# Rows of a trajectory that its plane is of, at most.
ROWS = 100
# How far a picture goes beyond what is in it, as a share of that.
MARGIN = 0.2
# From where to where a line goes between two runs, which are at 0 and 1.
BETWEEN = (-0.5, 1.5)
TINY = 1e-10


@dataclass(frozen=True)
class Shares:
    """Shares of a path's variance along its first one and two principal directions, beside a random walk's.

    Attributes:
        centred: Of the rows less their mean, the first and the first two, shape (2,).
        uncentred: Of the rows less the last one.
        centred_null: The same of a random walk with steps of the same lengths.
        uncentred_null: Likewise.
    """

    centred: np.ndarray
    uncentred: np.ndarray
    centred_null: np.ndarray
    uncentred_null: np.ndarray


def random_axis(stack: Stacked, runs: Sequence[Run], draw: int, vectors: str, span: float) -> Axis:
    """Return a normal direction of every run's own, scaled filter by filter to the norms of its weights.

    As Li et al. 2018 (arXiv 1712.09913): every filter of a convolution, every unit's weights in a linear layer and
    every row of an embedding, whatever lies along the first axis of a parameter of two axes or more, is as long as that
    of the weights. Parameters of one axis (biases; scales and shifts of norms) have no filters.

    Args:
        stack: The networks.
        runs: The runs.
        draw: Number of the direction; a run's own does not depend on the others.
        vectors: What parameters of one axis do: `hold` still, move along the `weights` themselves, as is the other
            choice of the published code, or `random`ly, scaled as a whole.
        span: How far slices go to either side.
    """
    import torch

    seeds = [np.random.SeedSequence([draw, zlib.crc32(run.label.encode())]) for run in runs]
    generators = [np.random.default_rng(seed) for seed in seeds]
    direction = {}
    for name in stack.trained:
        own = stack.params[name]
        drawn = np.stack([generator.standard_normal(own.shape[1:]) for generator in generators])
        noise = torch.as_tensor(drawn, dtype=own.dtype, device=own.device)
        if own.ndim > 2:
            direction[name] = _scaled(noise, own, 2)
        elif vectors != "hold":
            direction[name] = own.clone() if vectors == "weights" else _scaled(noise, own, 1)
    return Axis(direction, *_spans(len(runs), -span, span))


def _scaled(noise: Tensor, like: Tensor, axes: int) -> Tensor:
    """Return noise (S, ...) whose parts, beyond so many axes, are as long as those of other tensors."""
    wanted, own = (x.double().unsqueeze(-1).flatten(axes).norm(dim=-1) for x in (like, noise))
    scale = (wanted / (own + TINY)).to(noise.dtype)
    return noise * scale.reshape(*scale.shape, *[1] * (noise.ndim - scale.ndim))


def eigen_axes(vectors: Sequence[State], norms: np.ndarray, span: float) -> list[Axis]:
    """Return axes along eigenvectors of length 1, in units of the norms (S,) of the weights."""
    scaled = [{name: along(norms, x) * x for name, x in vector.items()} for vector in vectors]
    return [Axis(vector, *_spans(len(norms), -span, span)) for vector in scaled]


def run_axes(states: State, count: int) -> list[Axis]:
    """Return axes from every run to the next one and, at right angles, on to the one after it.

    The next run is at 1 of the first axis; the one after it at 1 of the second.
    """
    ways = [{name: x.roll(-by, 0) - x for name, x in states.items()} for by in (1, 2)]
    runs = next(iter(states.values())).shape[0]
    first = Axis(ways[0], *_spans(runs, *BETWEEN))
    if count == 1:
        return [first]
    shares = part_along(ways[1], ways[0])
    across = {name: x - along(shares, x) * ways[0][name] for name, x in ways[1].items()}
    return [first, Axis(across, *_spans(runs, *BETWEEN))]


def part_along(one: State, other: State) -> np.ndarray:
    """Return how much of a direction there is in another, run by run, shape (S,)."""
    squares = dot(other, other)
    return np.divide(dot(one, other), squares, out=np.zeros_like(squares), where=squares > 0)


def path_axes(
    group: Group, step: int, stack: Stacked, norms: np.ndarray
) -> tuple[list[Axis], list[Shares], list[tuple[np.ndarray, np.ndarray]]]:
    """Return the principal plane of every run's trajectory up to a step, through its weights of that step.

    Returns:
        Two axes, in units of the norms (S,) of the weights, that are as long as the trajectory takes; its shares of
        variance; and of every run the steps of its rows and where they lie in the plane, (m,) and (m, 2).
    """
    import torch

    from dynalab.analysis.directions.read import Shapes, paths_of

    directions: list[dict[str, list[Tensor]]] = [{}, {}]
    spans, found, rows = [], [], []
    for run, norm in zip(counted(group.runs, "runs", "trajectories"), norms, strict=True):
        cut = run.until(step)
        paths = paths_of(cut, Shapes.of(cut), ROWS)
        steps = paths.steps[paths.chosen]
        from_last = _from_last(paths.whole.gram)
        values, vectors = _principal(_centred(from_last))
        null = _from_last(paths.whole.walk().gram)
        found.append(
            Shares(*(_first_two(part) for gram in (from_last, null) for part in (_centred(gram), gram)))
        )
        weights = vectors - vectors.mean(0)
        # Which way an axis runs is nobody's; that the row furthest along it is above 0 makes runs alike.
        along_axes = from_last @ weights
        furthest = along_axes[np.abs(along_axes).argmax(0), [0, 1]]
        weights = np.where(furthest < 0, -weights, weights)
        lengths = np.sqrt(np.maximum(values, 0))
        scale = np.divide(1.0, lengths, out=np.zeros(2), where=lengths > 0)
        sums = [dict.fromkeys(stack.trained, 0.0) for _ in range(2)]
        last = {name: torch.from_numpy(np.array(x)).double() for name, x in cut.weights.at(int(steps[-1])).items()
                if name in stack.trained}  # fmt: skip
        for place, at in enumerate(steps[:-1]):
            kept = cut.weights.at(int(at))
            for name in stack.trained:
                away = torch.from_numpy(np.array(kept[name])).double() - last[name]
                for axis in range(2):
                    sums[axis][name] = sums[axis][name] + weights[place, axis] * scale[axis] * norm * away
        for axis in range(2):
            for name in stack.trained:
                own = torch.as_tensor(sums[axis][name]).to(stack.params[name]).expand(last[name].shape)
                directions[axis].setdefault(name, []).append(own)
        at_rows = from_last @ weights * scale / (norm if norm > 0 else 1.0)
        spans.append([_with_margin(at_rows[:, axis]) for axis in range(2)])
        rows.append((steps, at_rows))
    ends = np.array(spans)
    axes = [
        Axis({name: torch.stack(parts) for name, parts in own.items()}, ends[:, axis, 0], ends[:, axis, 1])
        for axis, own in enumerate(directions)
    ]
    return axes, found, rows


def _from_last(gram: np.ndarray) -> np.ndarray:
    """Return inner products of rows less the last one, from those less the first one, (m, m)."""
    return gram - gram[:, -1:] - gram[-1:] + gram[-1, -1]


def _centred(gram: np.ndarray) -> np.ndarray:
    return gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()


def _principal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two largest eigenvalues (2,) and their eigenvectors (m, 2), each with its largest entry above 0."""
    values, vectors = np.linalg.eigh(gram)
    vectors = vectors[:, [-1, -2]]
    largest = vectors[np.abs(vectors).argmax(0), [0, 1]]
    return values[[-1, -2]], vectors * np.sign(largest)


def _first_two(gram: np.ndarray) -> np.ndarray:
    values, total = np.linalg.eigvalsh(gram), np.trace(gram)
    return np.cumsum(values[[-1, -2]]) / total if total > 0 else np.full(2, np.nan)


def _with_margin(at: np.ndarray) -> tuple[float, float]:
    low, high = min(float(at.min()), 0.0), max(float(at.max()), 0.0)
    room = MARGIN * (high - low) or 1e-3
    return low - room, high + room


def _spans(runs: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full(runs, low), np.full(runs, high)


def extremes(
    losses: Callable[[State], Tensor], params: State, vectors: int = 2
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Tensor]]]:
    """Return the largest and the least eigenvalue of every run's Hessian, (S,) each, and first eigenvectors.

    Both are from one Krylov space; NaN where something is not finite.

    Args:
        losses: Of S runs, (S,), as of their trained weights; what else they depend on is held.
        params: These, name -> (S, ...).
        vectors: How many eigenvectors, those of the largest eigenvalues, name -> (S, ...), of length 1.
    """
    import torch

    from dynalab.curvature.hessian import Hessian
    from dynalab.curvature.lanczos import Lanczos

    hessian = Hessian(losses, params)
    layout, some = hessian.layout, next(iter(params.values()))
    lanczos = Lanczos(hessian.product, layout.random(0, some).expand(some.shape[0], -1).clone())
    for _ in counted(range(min(PRODUCTS, layout.size)), "products", "curvature"):
        lanczos.grow()
    values, parts = lanczos.decomposed()
    broken = lanczos.broken.cpu()
    top, low = (torch.where(broken, torch.nan, values[:, place]).numpy() for place in (-1, 0))
    rows = [
        torch.einsum("sm,smw->sw", parts[:, :, -1 - place].to(lanczos.basis), lanczos.basis)
        for place in range(min(vectors, values.shape[1]))
    ]
    return top, low, [layout.tensors(row) for row in rows]


# Of Lanczos' method. Extreme eigenvalues that stand apart have then converged to three digits.
PRODUCTS = 40
