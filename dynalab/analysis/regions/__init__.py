"""Linear regions over training: local complexity around training, held-out and random points, and its phases.

The local complexity of a point is the number of units whose preactivation changes sign in a small neighbourhood of it
(Humayun et al. 2023, arXiv 2310.12977); `dynalab.probes.regions` says how it is counted, and what the density of
regions is, which depends neither on the radius nor on the number of directions. Over training it is known to fall, to
rise until the training set is interpolated, and to fall again, as regions leave the data for the decision boundary:
then a network generalises late, and becomes robust (Humayun et al. 2024, arXiv 2402.15555).

A phase is a fall or rise by a share `change` of the higher of its ends that is also larger than the range which the
noise seen between windows of rows would have (of one row below 40, of five at 100): of curves that are noise around a
constant, 5% or fewer have one that is not there, at 8 to 300 rows and where the noise of neighbouring rows correlates
by 0 to .7. Where no row counts eight units around all points of a set together, or where noise would hide such a
change, as it often does with fewer than 60 rows, the verdict is `cannot_tell`; at 100 rows noise of 5% of the first
value hides few phases. Each onset and end has the steps between which the curve cannot be told from its extreme, the
noise of neighbouring rows taken for a first-order autoregression whose correlation two lags of second differences
tell. Of simulated curves that are flat and then rise these held the step from which on they do in 95% or more, at 21
to 201 rows and correlations of 0 to .95; with what is left of 72 smoothed curves of real runs as noise, in 97%. Over
runs stand shares and median steps with 95% intervals, runs that have not come so far counting as later, and by how
many steps a phase sets in after the run memorises and generalises (the levels of the task).

That a phase comes after memorising says nothing of why. A control is the same training on random labels, where nothing
can be generalised: `task.label_noise=0.9` makes those of ten classes uniform (an image task), and what happens there
as well is none of generalisation's doing. After `dynalab train ... task.label_noise=0,0.9` and this analysis the page
of `dynalab report` holds the two against each other.

Rows are the weights that were kept (`snapshots.every`, `snapshots.at`), from which it is counted anew, or those of the
probe `regions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key
from dynalab.analysis.compare.samples import LEVELS, landmark
from dynalab.analysis.regions.contrasts import Contrast, contrast, show_contrasts
from dynalab.analysis.regions.findings import (
    Around,
    Findings,
    RunFindings,
    Summary,
    Time,
    summarised,
)
from dynalab.analysis.regions.measure import Rows, of_probe, of_weights, refuse_symbols, source_of, too_few
from dynalab.analysis.regions.phases import COUNTED, FEWEST, phases_of
from dynalab.analysis.regions.summary import show
from dynalab.analysis.sources import record_of
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.progress import counted
from dynalab.core.words import count
from dynalab.probes import regions as probe
from dynalab.probes.regions import METHODS, SETS, Neighbourhoods

__all__ = [
    "NEEDS", "TITLE", "VERSION", "Config", "Contrast", "Findings", "analyse", "contrast", "show", "show_contrasts",
]  # fmt: skip

VERSION = 7
TITLE = "Linear regions"
FIGURES = ("regions",)
RECORD = record_of("regions")


def NEEDS(config: Config | None = None) -> Needs:
    """Return what it reads: weights that were kept, the probe's columns, or either."""
    source = "auto" if config is None else config.source
    return Needs(
        columns=("local_complexity_train",) if source == "probe" else (),
        optional=(*probe.COLUMNS, *LEVELS.values()),
        record=RECORD[source],
        statuses=("done", "diverged"),
        weights=source == "weights",
        network=source == "weights",
    )


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis; what is counted in is the probe's to say where its rows are read."""

    source: str = key(
        "auto",
        f"rows: weights that were kept, those of the probe, or (auto) these where no run kept {FEWEST}",
        one_of=tuple(RECORD),
    )
    points: int = key(400, "points of each set", least=1)
    directions: int = key(
        probe.DIRECTIONS, "orthonormal directions, P; at most as many as an input has numbers", least=1
    )
    radii: list[float] = key(
        list(probe.RADII), "radii; local complexity and phases are of the first, densities of all", above=0
    )
    method: str = key("linearised", "linearised: to first order; vertices: as published", one_of=METHODS)
    layers: list[int] | None = key(None, "layers of units that are counted, from 0; null: all", least=0)
    change: float = key(
        0.2, "share of the higher end by which a phase falls or rises at least", above=0, most=1
    )
    rows: int = key(100, "rows at most, evenly among the weights that were kept", least=FEWEST)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not probe.positive(self.radii):
            raise ConfigError(f"radii={self.radii}: must be {probe.RADII_LEGAL}")
        if self.layers == []:
            raise ConfigError("layers=[]: name layers of units from 0, or null for all")


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Count regions over every run's rows, and find the phases.

    Raises:
        NothingMatched: No run has enough rows, inputs are symbols, or the network has no nonlinear units.
        ConfigError: There is no such layer.
    """
    for run in (run for group in groups for run in group.runs):
        refuse_symbols(run)
    if all(too_few(run, source_of(group, config.source)) for group in groups for run in group.runs):
        raise _nothing(groups[0], config)
    judged = [item for group in groups for item in _of_group(group, config)]
    runs = tuple(run for run, _ in judged)
    known = [rows for _, rows in judged if rows is not None]
    counted = [run for run in runs if run.train]
    last = [float(run.last_step or 0) for run in counted]
    sets = (summarised(name, counted) for name in SETS)
    summary = Summary(
        len(counted),
        tuple(item for item in sets if item is not None),
        Time.of([run.memorised_step for run in counted], last),
        Time.of([run.generalised_step for run in counted], last),
    )
    one = next(iter(known), None)
    return Findings(
        runs,
        summary,
        one.radii if one else (),
        one.layers.shape[2] if one else None,
        one.points if one else None,
        counted_layers=None if config.layers is None else tuple(sorted({*config.layers})),
        curves=_curves(judged),
        by_layer=_by_layer(judged),
    )


def _nothing(group: Group, config: Config) -> NothingMatched:
    why = too_few(group.runs[0], source_of(group, config.source))
    how = f"dynalab train ... {RECORD[config.source]}"
    if group.imported:
        how = "the runs were trained elsewhere, and have metrics alone"
    return NothingMatched(f"{group.runs[0].id}: {why}: {how}")


def _of_group(group: Group, config: Config) -> Iterator[tuple[RunFindings, Rows | None]]:
    source = source_of(group, config.source)
    around = Neighbourhoods(config.directions, tuple(config.radii), config.method)
    landmarks = [landmark(group, metric) for metric in LEVELS.values()]
    for run, *steps in zip(counted(group.runs, "runs", group.id), *landmarks, strict=True):
        why, rows = too_few(run, source), None
        if not why:
            weights = source == "weights"
            rows = of_weights(run, around, config.points, config.rows) if weights else of_probe(run)
            rows = _of_layers(run, rows, config)
            if len(rows.steps) < FEWEST:
                why = f"{count(len(rows.steps), 'row')} of finite numbers, and phases take {FEWEST}"
                rows = None
        yield _judge(run, source, rows, why, steps, config.change), rows


def _of_layers(run: Run, rows: Rows, config: Config) -> Rows:
    """Return the rows with the layers that are asked for."""
    n = rows.layers.shape[2]
    if config.layers is None:
        return rows
    if bad := [layer for layer in config.layers if layer >= n]:
        legal = f"the layers of units 0 to {n - 1}" if n > 1 else "one layer of units, 0"
        raise ConfigError(f"layers={bad[0]}: {run.id} has {legal}")
    layers = rows.layers[:, :, config.layers]
    # Of some layers the density is known at the radius of their counts alone.
    own, total = layers.sum(2), rows.layers.sum(2)
    share = np.divide(own, total, out=np.zeros(own.shape), where=total > 0)
    return Rows(rows.steps, layers, rows.density[..., :1] * share[..., None], rows.radii[:1], rows.points)


def _judge(
    run: Run, source: str, rows: Rows | None, why: str, landmarks: Sequence[int | None], change: float
) -> RunFindings:
    memorised, generalised = landmarks
    if rows is None:
        return RunFindings(
            run.id, "insufficient_data", why, source, memorised_step=memorised, generalised_step=generalised
        )
    of = [_around(rows, place, change) for place in range(len(SETS))]
    train = next((around for around in of if around is not None), None)
    assert train is not None
    return RunFindings(
        run.id,
        train.verdict,
        train.reason,
        source,
        len(rows.steps),
        int(rows.steps[0]),
        int(rows.steps[-1]),
        memorised,
        generalised,
        *of,
    )


def _around(rows: Rows, place: int, change: float) -> Around | None:
    """Return what is found around a set of points; None where nothing was counted there."""
    values, density = rows.layers[:, place].sum(1), rows.density[:, place, 0]
    if not np.isfinite(values).all():
        return None
    curve = phases_of(rows.steps, values, change, rows.points)
    phases = list(curve.phases)
    first = phases.pop(0) if phases and phases[0].after < phases[0].before else None
    ascent = phases.pop(0) if phases else None
    second = phases.pop(0) if phases else None
    verdict = {
        (False, False, False): "flat",
        (True, False, False): "descent",
        (False, True, False): "ascent",
        (True, True, False): "descent_and_ascent",
        (False, True, True): "ascent_and_descent",
        (True, True, True): "double_descent",
    }[first is not None, ascent is not None, second is not None]
    reason = f"{count(len(rows.steps), 'row')}, steps {rows.steps[0]:,} to {rows.steps[-1]:,}"
    if values.min() == values.max():
        verdict = "cannot_tell" if curve.few else "flat"
        reason += "; the same in every row"
    elif curve.few:
        verdict = "cannot_tell"
        reason += f"; no row counts {COUNTED} units around all points together"
    elif verdict == "flat" and curve.least > change:
        verdict = "cannot_tell"
        reason += f"; noise from row to row hides changes of less than {curve.least:.0%}"
    elif verdict == "flat":
        reason += f"; no change by {change:.0%}"
    return Around(
        verdict,
        reason,
        float(values[0]),
        float(values.min()),
        float(values.max()),
        float(values[-1]),
        float(density[0]) if np.isfinite(density[0]) else None,
        float(density[-1]) if np.isfinite(density[-1]) else None,
        first,
        ascent,
        second,
        tuple(phases),
        curve.noise,
    )


def _curves(judged: Sequence[tuple[RunFindings, Rows | None]]) -> Any:
    """Return a table with a row a run, row and set of points; None where there is none."""
    import pandas as pd

    tables = []
    for run, rows in judged:
        for place, name in enumerate(SETS if rows is not None else ()):
            assert rows is not None
            columns: dict[str, Any] = {"run": run.run, "step": rows.steps, "points": name}
            columns["local_complexity"] = rows.layers[:, place].sum(1)
            for number in range(rows.density.shape[2]):
                columns[f"density_{number}" if number else "density"] = rows.density[:, place, number]
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True) if tables else None


def _by_layer(judged: Sequence[tuple[RunFindings, Rows | None]]) -> Any:
    """Return a table with a row a run, row, set of points and layer; None where there is none."""
    import pandas as pd

    tables = []
    for run, rows in judged:
        if rows is None:
            continue
        numbers = np.arange(rows.layers.shape[2])
        step, name, layer = np.meshgrid(rows.steps, np.array(SETS), numbers, indexing="ij")
        columns = {"step": step.ravel(), "points": name.ravel(), "layer": layer.ravel()}
        tables.append(pd.DataFrame({"run": run.run, **columns, "local_complexity": rows.layers.ravel()}))
    return pd.concat(tables, ignore_index=True) if tables else None
