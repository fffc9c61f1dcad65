"""The landscape of the loss around the weights of a step: lines and planes through them, of every run.

Planes go along random directions, normalised filter by filter to the norms of the weights so that networks of other
scales can be compared (Li et al. 2018, arXiv 1712.09913), along the eigenvectors of the two largest eigenvalues of the
Hessian, along the principal plane of the trajectory, which is drawn on it, or from every run to the next ones. What is
said of them is what can be compared: how far the loss stays low, how much of the plane is low, and on how much of it it
is convex.

A random plane does not show negative curvature, which few of very many directions have, so the largest and the least
eigenvalue of the Hessian stand beside it. And the principal plane of a path always has much of it: of a random walk in
many dimensions two directions have .76 of the variance, .90 where the walk is not centred; so what a walk with steps of
the same lengths has stands beside the shares.

The loss is that of evaluation, on some examples of each run's own. Running statistics of norms are estimated anew at
every point, and the Hessian is that of the loss with the statistics of its examples. A line that ends before the loss
has risen gives a width that is at least so much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynalab.analysis.base import Group, Keys, Needs, key
from dynalab.analysis.landscape.findings import Findings, RunFindings, Summary, Trajectory, widths_of
from dynalab.analysis.landscape.measure import Slices, slices_of
from dynalab.analysis.landscape.runs import joined, runs_of, tables_of
from dynalab.analysis.landscape.summary import show
from dynalab.analysis.learnt import unlearnt
from dynalab.core.means import Mean, mean_over_pairs

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 5
TITLE = "Loss landscape"
FIGURES = ("landscape", "landscape-lines")
NEEDS = Needs(optional=("train_loss", "test_loss"), record="snapshots.at=log", weights=True, network=True)
PLANES = ("random", "eigen", "path", "runs")


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    at: int | None = key(
        None, "step of the weights, which were kept then; null: the last that all runs have", least=0
    )
    plane: str = key(
        "random",
        "directions: random ones by filter, eigenvectors of the Hessian, the path of training, or other runs",
        one_of=PLANES,
    )
    dimensions: int = key(2, "2: lines and planes; 1: lines alone", one_of=(1, 2))
    points: int = key(
        25, "points along a side of a plane; a line has about twice as many", least=3, most=1001
    )
    span: float = key(
        1.0, "how far random slices and those along eigenvectors go to either side, in norms of the weights",
        above=0,
    )  # fmt: skip
    split: str = key("train", "examples that the loss is of", one_of=("train", "test"))
    examples: int = key(1000, "how many of each run at most", least=1)
    level: float | None = key(
        None, "loss up to which a point is low; null: a tenth of the way up to that of the run's first row"
    )
    biases: str = key(
        "hold",
        "what parameters of one axis do in random slices: hold still, move along the weights, or at random",
        one_of=("hold", "weights", "random"),
    )
    statistics: str = key(
        "refresh",
        "running statistics of norms at every point: refresh, or hold those of the weights as published code did",
        one_of=("refresh", "hold"),
    )
    curvature: bool = key(True, "whether the largest and the least eigenvalue of the Hessian are measured")
    draw: int = key(0, "number of the random directions", least=0)


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Measure the loss around the weights of every run.

    Raises:
        NothingMatched: The runs have no weights of the step, or of no step together; or too few for a path; or there
            are too few runs for slices between them.
    """
    parts = [slices_of(group, config) for group in groups]
    runs = tuple(run for part in parts for run in runs_of(part, config.plane == "runs"))
    lines, planes, points = map(joined, zip(*map(tables_of, parts), strict=True))
    flat = unlearnt([run for group in groups for run in group.runs], parts[0].place.step)
    warnings = []
    if flat and config.level is None:
        warnings.append(f"{flat}: there a point is low up to twice the loss of the weights")
    return Findings(
        runs, _summary(runs, parts, config), tuple(warnings), lines=lines, planes=planes, points=points
    )


def _barrier(runs: Sequence[RunFindings], parts: Sequence[Slices]) -> Mean:
    """Return the mean barrier from every run of an ensemble to the next one; of two, there and back is one pair."""
    rings = [[run.id for run in part.place.group.runs] for part in parts]
    following = {run: other for ring in rings for run, other in zip(ring, ring[1:] + ring[:1], strict=True)}
    pairs: dict[tuple[str, str], float] = {}
    for run in runs:
        one, other = sorted((run.run, following[run.run]))
        for line in run.lines:
            if line.barrier is not None:
                pairs.setdefault((one, other), line.barrier)
    return Mean(*mean_over_pairs((*pair, barrier) for pair, barrier in pairs.items()))


def _summary(runs: Sequence[RunFindings], parts: Sequence[Slices], config: Config) -> Summary:
    from dynalab.networks.statistics import statistics_of

    slices, place = parts[0], parts[0].place
    planes = [run.plane for run in runs if run.plane is not None]
    paths = [run.trajectory for run in runs if run.trajectory is not None]
    both = [(run.lambda_min, run.lambda_max) for run in runs]
    normed = bool(statistics_of(place.stack.buffers))

    def shares(pick: Callable[[Trajectory], Sequence[float | None]]) -> Mean:
        return Mean.of([pick(path)[1] for path in paths])

    return Summary(
        step=place.step,
        split=config.split,
        examples=sum(batch.size for batch in place.examples.batches),
        plane=config.plane,
        statistics="none" if not normed else "held" if place.training is None else "refreshed",
        runs=sum(run.verdict == "measured" for run in runs),
        widths=tuple(widths_of(axis + 1, runs) for axis in range(len(slices.axes))),
        below=Mean.of([plane.below for plane in planes]),
        convex=Mean.of([plane.convex for plane in planes]),
        lambda_max=Mean.of([run.lambda_max for run in runs]),
        lambda_min=Mean.of([run.lambda_min for run in runs]),
        ratio=Mean.of([abs(low) / top if low is not None and top else None for low, top in both]),
        barrier=_barrier(runs, parts),
        centred=shares(lambda path: path.centred),
        centred_null=shares(lambda path: path.centred_null),
        uncentred=shares(lambda path: path.uncentred),
        uncentred_null=shares(lambda path: path.uncentred_null),
    )
