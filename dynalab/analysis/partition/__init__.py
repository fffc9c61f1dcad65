"""The exact partition of a slice of the inputs over training: the polygons on which the network is affine.

A network of affine maps, ReLU and its family, and maxima cuts its inputs into regions, on each of which it is affine
(SplineCAM: Humayun et al. 2023, arXiv 2302.12828). The slice is a square through three of a run's training examples,
of different classes where there are as many, the same at every step: about their centroid, along two of their
differences made orthonormal. Of the weights that were kept at some steps it counts the regions, near the decision
boundary and away from it (Humayun et al. 2024, arXiv 2402.15555, see them move there late in training), and keeps the
polygons of the first run for pictures: coloured by the norm of the affine map, by class, and by the distance from the
decision boundary.

All is exact but for rounding, in float64, and holds within the slice: the norm is that of the slopes along it, the
distance that to the part of the boundary in it. A network with another activation, attention or a layer norm has no
such partition. Batch normalisation is that of evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key, runs_of
from dynalab.analysis.partition.findings import Findings, Over, Row, RunFindings, StepSummary, Summary
from dynalab.analysis.partition.summary import show
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.progress import counted
from dynalab.core.words import count, listed, which_runs
from dynalab.partition import Partition, Plane, TooMany

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 3
TITLE = "Partition of a slice"
FIGURES = ("partition", "partition-*")
NEEDS = Needs(record="snapshots.at=log", statuses=("done", "diverged"), weights=True, network=True)
# Examples among which three are looked for that span a plane.
CANDIDATES = 12


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    at: list[int] | None = key(
        None, "steps of the pictures, at which weights were kept; null: as many as pictures says", least=0
    )
    pictures: int = key(6, "how many of the steps at which weights were kept, evenly among them", least=1)
    examples: list[int] | None = key(
        None,
        "places of three training examples that the slice goes through; null: of different classes",
        least=0,
    )
    pad: float = key(
        1.5,
        "half of a side, in units of the largest distance of an example from the centroid",
        least=1e-6,
        most=1e6,
    )
    near: float = key(
        0.05, "share of a side up to which a region is near the decision boundary", above=0, below=1
    )
    most: int = key(20_000, "regions of a picture at most; a step with more has none", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at == []:
            raise ConfigError("at=[]: name steps at which weights were kept, or null for some of them")


@dataclass(frozen=True)
class _Slice:
    """A run's slice: the places of its examples, and the plane through them."""

    examples: tuple[int, ...]
    points: np.ndarray
    plane: Plane


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Count the regions of a slice of every run, and keep the polygons of the first.

    Raises:
        NothingMatched: The networks are not piecewise linear on rows of numbers, or weights of a step were not kept.
        ConfigError: There are no such examples, or they are on a line.
    """
    tables: list[tuple[Any, Any, Any]] = []
    runs: list[RunFindings] = []
    left: dict[str, list[tuple[str, int]]] = {}
    for run in counted(sorted(runs_of(groups), key=lambda run: run.id), "runs"):
        findings, own = _of_run(run, config, keep=not tables, left=left)
        runs.append(findings)
        tables += own
    place = {run.id: place for place, run in enumerate(runs_of(groups))}
    runs.sort(key=lambda run: place[run.run])
    steps = sorted({row.step for run in runs for row in run.rows})
    summary = Summary(config.near, tuple(_over(step, runs) for step in steps))
    regions, polygons, boundary = (
        (_joined(parts) for parts in zip(*tables, strict=True)) if tables else [None] * 3
    )
    return Findings(
        tuple(runs),
        summary,
        _left_out(left, len(runs)),
        regions=regions,
        polygons=polygons,
        boundary=boundary,
    )


def _left_out(left: Mapping[str, Sequence[tuple[str, int]]], runs: int) -> tuple[str, ...]:
    """Return a line for every reason: of which of so many runs, at which steps."""
    return tuple(
        f"{which_runs(list(dict.fromkeys(run for run, _ in places)), runs)}: {reason} at "
        f"{'steps' if len(steps) > 1 else 'step'} {listed([f'{step:,}' for step in steps], 3)}: left out"
        for reason, places in left.items()
        if (steps := sorted({step for _, step in places}))
    )


def _over(step: int, runs: Sequence[RunFindings]) -> StepSummary:
    rows = [row for run in runs for row in run.rows if row.step == step]
    return StepSummary(
        step,
        Over.of([row.regions for row in rows]),
        Over.of([row.near_density for row in rows]),
        Over.of([row.norm for row in rows]),
    )


def _of_run(
    run: Run, config: Config, keep: bool, left: dict[str, list[tuple[str, int]]]
) -> tuple[RunFindings, list[tuple[Any, Any, Any]]]:
    """Return what is found of a run, and the tables of its pictures where they are kept; note what is left out."""
    cut = _slice(run, config)
    about = (cut.examples, tuple((float(x), float(y)) for x, y in cut.points), cut.plane.half)
    rows, tables = [], []
    for step in _steps(run, config):
        weights = run.weights.at(step)
        if not all(np.isfinite(value).all() for value in weights.values()):
            left.setdefault("weights that are not finite", []).append((run.id, step))
            continue
        try:
            found = Partition.of(run.network(step), cut.plane, config.most)
        except TooMany:
            why = f"more than {config.most:,} regions (most=; a smaller pad= has fewer)"
            left.setdefault(why, []).append((run.id, step))
            continue
        except ConfigError as error:
            raise NothingMatched(f"{run.id}: {error}") from error
        rows.append(_row(step, found, config.near))
        if keep:
            tables.append(_tables(run.id, step, found))
    reason = count(len(rows), "step") if rows else "no step has a partition"
    return RunFindings(
        run.id, "measured" if rows else "insufficient_data", reason, *about, tuple(rows)
    ), tables


def _steps(run: Run, config: Config) -> list[int]:
    """Return the steps that are looked at."""
    if config.at is None:
        kept = run.weights.grid
        return [
            kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, config.pictures).round().astype(int))
        ]
    for step in config.at:
        if step not in run.weights.steps:
            raise run.weights.missing(step)
    return sorted(set(config.at))


def _slice(run: Run, config: Config) -> _Slice:
    """Return the slice of a run through three of its training examples."""
    if run.spec.kind not in ("vector", "image"):
        raise NothingMatched(
            f"{run.id}: its inputs are no rows of numbers ({run.spec.kind}), so that there is no plane through them"
        )
    inputs, targets = run.examples("train")
    rows = inputs.reshape(len(inputs), -1).astype(float)
    for chosen in _choices(rows, targets, config.examples, run.id):
        try:
            plane = Plane.through(rows[list(chosen)], config.pad)
        except ConfigError as error:
            if config.examples is not None:
                raise ConfigError(f"examples={list(chosen)}: {run.id}: {error}") from None
            continue
        return _Slice(chosen, plane.place(rows[list(chosen)]), plane)
    raise NothingMatched(f"{run.id}: no three of its training examples span a plane")


def _choices(
    rows: np.ndarray, targets: np.ndarray, asked: Sequence[int] | None, run: str
) -> Iterator[tuple[int, ...]]:
    """Yield three places of examples, those that are asked for, or with as many classes as there are first."""
    if asked is not None:
        if len(set(asked)) != 3 or max(asked) >= len(rows):
            raise ConfigError(
                f"examples={list(asked)}: a slice goes through three examples, from 0 to {len(rows) - 1:,} in {run}"
            )
        yield tuple(asked)
        return
    _, first = np.unique(targets.reshape(len(targets), -1), axis=0, return_index=True)
    order = [*sorted(first.tolist()), *np.setdiff1d(np.arange(len(rows)), first).tolist()]
    yield from combinations(order[:CANDIDATES], 3)


def _row(step: int, found: Partition, near: float) -> Row:
    close = found.distances <= near * 2 * found.plane.half
    total = found.areas.sum()
    area, away = found.areas[close].sum() / total, found.areas[~close].sum() / total
    n = int(close.sum())
    # Slivers alone may have no area that float64 resolves.
    density = float(n / area / ((len(found) - n) / away)) if area > 0 and away > 0 else None
    return Row(step, len(found), n, float(area), density, float(found.norms @ found.areas / total))


def _tables(run: str, step: int, found: Partition) -> tuple[Any, Any, Any]:
    """Return the tables of a picture: regions cut by class, their corners, and the decision boundary."""
    import pandas as pd

    pieces = found.classes
    faces = pieces.faces
    corners, begins = faces.loops
    _, slopes = found.slopes(faces.centres)
    regions = {
        "region": np.arange(len(faces)),
        "class": pieces.of.astype(np.int32),
        "norm": np.linalg.norm(slopes, axis=(1, 2)),
        "distance": pieces.distances(faces.centres),
        "area": faces.areas,
    }
    of = np.repeat(np.arange(len(faces)), np.diff(begins))
    x, y = faces.mesh.xy[corners].T.astype(np.float32)
    ends = dict(zip(("x", "y", "to_x", "to_y"), pieces.boundary.reshape(-1, 4).T, strict=True))
    made = (regions, {"region": of, "x": x, "y": y}, ends)
    regions_table, corners_table, boundary_table = (
        pd.DataFrame({"run": run, "step": step, **own}) for own in made
    )
    return regions_table, corners_table, boundary_table


def _joined(tables: Sequence[Any]) -> Any:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
