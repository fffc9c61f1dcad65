"""What is found of one run: from its weights, or from the rows of the probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis import sources
from dynalab.analysis.base import Group, Run
from dynalab.analysis.directions.findings import Part, RunFindings
from dynalab.analysis.directions.path import CURVES, MANY, Path
from dynalab.analysis.directions.read import paths_of
from dynalab.analysis.stored import Shapes
from dynalab.core.words import count

FEWEST = 3  # rows with which a path may turn
# Of the probe's columns the one that every row has.
EVERY_ROW = "displacement"


@dataclass(frozen=True)
class Measured:
    """What is found of a run, with its rows in the tables."""

    findings: RunFindings
    layers: tuple[Part, ...] = ()
    curves: Any = None  # a data frame
    maps: Any = None  # likewise


def source_of(group: Group, asked: str) -> str:
    """Return `weights` or `probe`, what is read of all runs of a group, by the key `source`."""
    return sources.source_of(group, asked, _kept, lambda run: len(rows_of(run)), FEWEST)


def _kept(run: Run) -> int:
    return len(run.weights.grid)


def rows_of(run: Run) -> np.ndarray:
    """Return the steps of the probe's rows, shape (T,)."""
    column = run.first(EVERY_ROW)
    return np.empty(0, np.int64) if column is None else column.steps


def too_few(run: Run, source: str) -> Measured | None:
    """Return what is found of a run with fewer rows than a path takes; None where there are enough."""
    rows = _kept(run) if source == "weights" else len(rows_of(run))
    if rows >= FEWEST:
        return None
    had = "weights were kept at" if source == "weights" else "the probe has rows at"
    why = f"{had} {count(rows, 'step')}, and a path takes {FEWEST}"
    return Measured(RunFindings(run.id, "insufficient_data", why, source, rows))


def of_weights(run: Run, shapes: Shapes, rows: int, wanted: Callable[[str], bool]) -> Measured:
    """Return what is found of a run's weights; see `paths_of`."""
    import pandas as pd

    paths = paths_of(run, shapes, rows, wanted)
    steps, kept = paths.steps, _kept(run)
    if len(steps) < FEWEST:
        why = f"weights are finite at {count(len(steps), 'step')} of {kept}: a path takes {FEWEST}"
        return Measured(RunFindings(run.id, "insufficient_data", why, "weights", len(steps)))
    whole, nulls = _part("", paths.whole)
    layers, kinds = (
        tuple(_part(name, path)[0] for name, path in parts.items()) for parts in (paths.layers, paths.kinds)
    )
    why = f"weights of {count(len(steps), 'step')}, {steps[0]:,} to {steps[-1]:,}"
    why += f"; from step {run.weights.grid[len(steps)]:,} on they are not finite" if len(steps) < kept else ""
    at, upper = steps[paths.chosen], np.triu_indices(len(paths.chosen))
    maps = {"run": run.id, "step": at[upper[0]], "other": at[upper[1]]}
    maps |= {name: values[upper] for name, values in zip(CURVES, paths.whole.maps, strict=True)}
    return _measured(run, "weights", why, steps, paths.whole, whole, nulls, kinds, layers, pd.DataFrame(maps))


def of_probe(run: Run) -> Measured:
    """Return what is found in the rows of the probe: of all weights, without what takes pairs of rows."""
    steps = rows_of(run)
    far, origin, length, turn, *similar = (
        run.series[name].at(steps) if name in run.series else np.full(len(steps), np.nan)
        for name in (EVERY_ROW, "origin_distance", "path_length", "update_angle", *CURVES)
    )
    strides = np.diff(length) ** 2
    counts = [np.cumsum(norm > 0.0) ** 2.0 for norm in (origin, far)]
    units, relative = (np.where(n > 0, x * n, 0.0) for x, n in zip(similar, counts, strict=True))
    turns = np.cos(np.radians(turn[2:])) * np.sqrt(strides[1:] * strides[:-1])
    path = Path(MANY, origin**2, far**2, strides, turns, units, relative, np.zeros(1, int), np.zeros((1, 1)))
    whole, nulls = _part("", path)
    why = f"{count(len(steps), 'row')} of the probe, steps {steps[0]:,} to {steps[-1]:,}"
    return _measured(run, "probe", why, steps, path, replace(whole, weights=None), nulls)


def _measured(
    run: Run,
    source: str,
    why: str,
    steps: np.ndarray,
    path: Path,
    whole: Part,
    nulls: Mapping[str, np.ndarray],
    kinds: tuple[Part, ...] = (),
    layers: tuple[Part, ...] = (),
    maps: Any = None,
) -> Measured:
    import pandas as pd

    moves = bool(path.strides.any())
    verdict, why = ("measured", why) if moves else ("still", f"{why}, all the same")
    about = (len(steps), int(steps[0]), int(steps[-1]))
    findings = RunFindings(run.id, verdict, why, source, *about, whole, kinds)
    curves = {name: getattr(path, name) for name in CURVES}
    curves |= {f"{name}_null": values for name, values in nulls.items()}
    curves |= {"path_length": path.length, "displacement": np.sqrt(path.moved)}
    return Measured(findings, layers, pd.DataFrame({"run": run.id, "step": steps, **curves}), maps)


def _part(name: str, path: Path) -> tuple[Part, dict[str, np.ndarray]]:
    nulls, curves = path.null()
    return Part.of(name, path.size, float(path.length[-1]), path.measures(), nulls), curves
