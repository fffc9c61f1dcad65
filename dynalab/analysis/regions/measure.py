"""Local complexity of one run over its rows: from its weights, or from the rows of the probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis import sources
from dynalab.analysis.base import Group, Run
from dynalab.analysis.directions.path import choose
from dynalab.analysis.regions.phases import FEWEST
from dynalab.core.errors import NothingMatched
from dynalab.core.words import count
from dynalab.probes import regions as probe
from dynalab.probes.regions import SETS, Neighbourhoods

# Of the probe's columns the one that every row has.
EVERY_ROW = "local_complexity_train"


@dataclass(frozen=True)
class Rows:
    """What was counted of a run.

    Attributes:
        steps: Of its rows, shape (T,).
        layers: Mean counts, shape (T, sets, layers).
        density: Density of regions at each radius, of all layers, shape (T, sets, radii).
        radii: The radii, where they are known.
        points: Points of each set, where that is known.
    """

    steps: np.ndarray
    layers: np.ndarray
    density: np.ndarray
    radii: tuple[float, ...]
    points: int | None


def source_of(group: Group, asked: str) -> str:
    """Return `weights` or `probe`, what is read of all runs of a group, by the key `source`."""
    return sources.source_of(group, asked, _kept, lambda run: len(rows_of(run)), FEWEST)


def _kept(run: Run) -> int:
    return len(run.weights.grid) if run.learner is not None else 0


def rows_of(run: Run) -> np.ndarray:
    """Return the steps of the probe's rows, shape (T,)."""
    column = run.first(EVERY_ROW)
    return np.empty(0, np.int64) if column is None else column.steps


def too_few(run: Run, source: str) -> str:
    """Return why a run has fewer rows than phases take; empty where it has enough."""
    rows = len(run.weights.grid) if source == "weights" else len(rows_of(run))
    if rows >= FEWEST:
        return ""
    had = "weights were kept at" if source == "weights" else "the probe has rows at"
    return f"{had} {count(rows, 'step')}, and phases take {FEWEST}"


def refuse_symbols(run: Run) -> None:
    """Refuse a run whose inputs are symbols: more rows of it would not help.

    Raises:
        NothingMatched: They are.
    """
    if run.learner is not None and run.spec.kind in ("pairs", "tokens"):
        raise NothingMatched(
            f"{run.id}: its inputs are symbols, and local complexity is of networks on numbers, as those of "
            "task=digits, mnist, cifar, parity and regression"
        )


def of_weights(run: Run, around: Neighbourhoods, points: int, most: int) -> Rows:
    """Count around points of a run with the weights that were kept, of `most` steps at most.

    Raises:
        NothingMatched: Its network has no nonlinear units.
    """
    import torch

    from dynalab.models.units import Units
    from dynalab.networks.settings import as_trained

    train, test = (torch.from_numpy(run.examples(split, points)[0]) for split in ("train", "test"))
    around_points = probe.points_of(train, test)
    steps = [run.weights.grid[place] for place in choose(len(run.weights.grid), most)]
    network = run.network(steps[0])
    units: Units | None = None
    rows: list[np.ndarray] = []
    with as_trained(1):
        for step in steps:
            state = {name: torch.from_numpy(np.array(value)) for name, value in run.weights.at(step).items()}
            if units is None:
                units = Units(network, state, around_points[0, 0])
            if not units.sizes:
                raise NothingMatched(
                    f"{run.id}: its network has no nonlinear units (ReLU, tanh, ...) that bound regions"
                )
            (counts,) = around.counts(units, [state], around_points.flatten(0, 1)[None])
            rows.append(counts.unflatten(0, around_points.shape[:2]).mean(1).numpy())
            if not np.isfinite(rows[-1]).all():
                # Nothing that is counted of later weights would be of a network that still learns.
                rows.pop()
                break
    means = np.array(rows).reshape(len(rows), len(SETS), len(units.sizes) if units else 0, len(around.radii))
    density = means.sum(2) / np.array(around.scale(around_points[0, 0].numel()))
    radii = tuple(around.radii)
    return Rows(np.array(steps[: len(rows)]), means[..., 0], density, radii, around_points.shape[1])


def of_probe(run: Run) -> Rows:
    """Return what the probe recorded, of the rows whose numbers around training points are finite."""
    steps = rows_of(run)
    steps = steps[steps < run.diverged_step] if run.diverged_step is not None else steps
    names = set(run.series)

    def values(form: str) -> np.ndarray:
        """Return a column around each set of points, shape (T, sets); NaN where there is none."""
        found = [run.first(form.format(name)) for name in SETS]
        return np.stack([np.full(len(steps), np.nan) if one is None else one.at(steps) for one in found], 1)

    def numbered(form: str, first: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        while any(f"{form.format(name)}_{first + len(found)}" in names for name in SETS):
            found.append(values(f"{form}_{first + len(found)}"))
        return found

    total = values("local_complexity_{}")
    layers = np.stack(numbered("local_complexity_{}", 0) or [total], 2)
    if (np.isfinite(total) & ~np.isfinite(layers).all(2)).any():
        # Runs of elsewhere need not have every layer in every row.
        layers = total[..., None]
    density = np.stack([values("region_density_{}"), *numbered("region_density_{}", 1)], 2)
    section = (run.config.get("probe") or {}).get("regions") or {}
    radii: Sequence[float] = section.get("radii") or (probe.RADII if section else ())
    whole = np.isfinite(layers[:, 0]).all(1)
    return Rows(steps[whole], layers[whole], density[whole], tuple(map(float, radii)), section.get("points"))
