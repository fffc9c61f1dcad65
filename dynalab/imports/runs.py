"""From the rows of a table to runs: renamed, merged, each on its own steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.convergence import direction_of
from dynalab.core.errors import ConfigError
from dynalab.core.words import count
from dynalab.imports.rows import CLOCKS, Rows, are_seeds
from dynalab.imports.settings import Setting

if TYPE_CHECKING:
    from dynalab.store.references import References

# Rows without a loss that say that a run diverged, as a single one may be an evaluation that was left out; and rows
# with one before these.
LOST, FILLED = 2, 3
# Names that mean something else in a stored series or a data frame of it.
RESERVED = ("run", "seed", "step", "wall")
# The fourteen metrics' names in the published code where they are others here.
PUBLISHED = {
    "code_sparsity": "l1_over_l2",
    "spectral": "lambda_max",
    "computational_sparsity": "trace_over_lambda_max",
    "mean_lambda": "mean_sv",
    "variance_lambda": "var_sv",
}
# All of that code's names: one alone may mean anything.
_FOURTEEN = {"l1", "l2", "mean_w", "median_w", "var_w", "mean_b", "median_b", "var_b", "trace", *PUBLISHED}


@dataclass(frozen=True)
class ImportedRun:
    """One run of someone else's.

    Attributes:
        label: Last part of its id.
        name: As the file calls it.
        seed: Its seed, where the file has a column `seed`.
        steps: Shape (T,), ascending.
        values: Shape (T, M); NaN where the file has none.
    """

    label: str
    name: str
    seed: int | None
    steps: np.ndarray
    values: np.ndarray

    def diverged_step(self, metrics: Sequence[str]) -> int | None:
        """Return from which step on a loss or error is infinite or NaN up to the end; None where none is.

        NaN is as a rule a value that was not measured. It is a divergence where the metric has a value in every row up
        to some step and none in the `LOST` rows or more after it, while another one goes on.
        """
        found = []
        filled = ~np.isnan(self.values)
        goes_on = (filled.all(axis=0) & (self.values != self.values[0]).any(axis=0)).any()
        for metric, values, known in zip(metrics, self.values.T, filled.T, strict=True):
            if direction_of(metric) != "down":
                continue
            steps, finite = self.steps[known], np.flatnonzero(~np.isinf(values[known]))
            first = finite[-1] + 1 if len(finite) else 0
            found += steps[first : first + 1].tolist()
            rows = int(known.sum())
            if goes_on and known[:rows].all() and FILLED <= rows <= len(values) - LOST:
                found.append(int(self.steps[rows]))
        return min(found, default=None)


@dataclass(frozen=True)
class Imported:
    """What a table or checkpoints hold.

    Attributes:
        metrics: Their names.
        runs: By label.
        notes: What was left out or renamed.
        doubts: What was guessed.
        references: Where checkpoints stand; None of a table.
        contents: Run, step and hash of the weights of each of them.
        computed: Metrics that were computed from these weights, which stand for them.
        by_seed: Whether runs are named by their seeds alone, which say no more than names do.
        setting: What the table says that they were trained with; nothing where it was not asked.
    """

    metrics: tuple[str, ...]
    runs: tuple[ImportedRun, ...]
    notes: list[str]
    doubts: list[str]
    references: References | None = None
    contents: tuple[tuple[str, int, str], ...] = ()
    computed: frozenset[str] = frozenset()
    by_seed: bool = False
    setting: Setting = ()


@dataclass(frozen=True)
class Changes:
    """What is said of a table beside how it is read.

    Attributes:
        renamed: Metric in the table -> its name here.
        constants: Metric that the table lacks -> its one value.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)


def infinite_words(imported: Imported) -> list[str]:
    """Return which metrics of how many runs are infinite, and which of these diverged."""
    n, ends = count(len(imported.runs), "run"), [run.diverged_step(imported.metrics) for run in imported.runs]
    said, lost = [], sorted(step for step in ends if step is not None)
    if lost:
        span = f"step {lost[0]:,}" if lost[0] == lost[-1] else f"steps {lost[0]:,} to {lost[-1]:,}"
        said.append(f"{len(lost)} of {n} diverged: a loss or error is infinite or NaN from {span} on")
    others = [run.values for run, step in zip(imported.runs, ends, strict=True) if step is None]
    for place, metric in enumerate(imported.metrics):
        if some := sum(bool(np.isinf(values[:, place]).any()) for values in others):
            said.append(f"{metric} is infinite in some rows of {some} of {n} that did not diverge")
    return said


def runs_of(rows: Rows, changes: Changes | None = None, setting: Setting = ()) -> Imported:
    """Return the runs of a table.

    Rows may be in any order. Several rows of a run and step are merged where they fill each other's gaps, as a logger
    leaves them that writes a row a metric, or say the same, as a resumed one does.

    Raises:
        ConfigError: Two rows contradict each other, a change does not fit, or nothing is left.
    """
    changes = changes or Changes()
    notes, columns = list(rows.notes), dict(rows.columns)
    seeds = _seeds(columns, rows.names) if rows.seeded else None
    if seeds is not None:
        del columns["seed"]
    columns = _mapped(columns, changes.renamed)
    published = [name for name in PUBLISHED if name in columns and PUBLISHED[name] not in columns]
    if published and len(_FOURTEEN & columns.keys()) > 1:
        columns = {PUBLISHED[name] if name in published else name: columns[name] for name in columns}
        notes.append(
            f"known from the published code: {', '.join(f'{name} is {PUBLISHED[name]}' for name in published)}"
        )
    columns = _rename(columns, notes)
    for name in changes.constants:
        if name in columns or name in RESERVED:
            raise ConfigError(f"--const {name}: the table has this column")
    metrics, runs = _assemble(rows.names, rows.steps, columns, seeds, changes.constants, notes)
    return Imported(metrics, runs, notes, rows.doubts, by_seed=rows.by_seed, setting=setting)


def _mapped(columns: Mapping[str, np.ndarray], renamed: Mapping[str, str]) -> dict[str, np.ndarray]:
    for old, new in renamed.items():
        if old not in columns:
            turned = f" (--map {new}={old}?)" if new in columns else did_you_mean(old, columns)
            raise ConfigError(
                f"--map {old}={new}: no metric is called {old}{turned}; there are {listing(columns)}"
            )
        if new in RESERVED:
            raise ConfigError(f"--map {old}={new}: {new} means something else here; choose another name")
    names = [renamed.get(name, name) for name in columns]
    for name in renamed.values():
        if names.count(name) > 1:
            raise ConfigError(f"--map: two metrics would be called {name}")
    return dict(zip(names, columns.values(), strict=True))


def _seeds(columns: Mapping[str, np.ndarray], names: np.ndarray) -> dict[str, int] | None:
    """Return run -> seed if a column `seed` holds one whole number a run."""
    if "seed" not in columns:
        return None
    import pandas as pd

    seeds = pd.Series(columns["seed"]).groupby(names).agg(["min", "max", "count", "size"])
    low, high = seeds["min"].to_numpy(), seeds["max"].to_numpy()
    if not ((low == high) & are_seeds(low) & (seeds["count"] == seeds["size"]).to_numpy()).all():
        return None
    return {str(name): int(seed) for name, seed in zip(seeds.index, low, strict=True)}


def _rename(columns: Mapping[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """Give metrics whose names mean something else here a name of their own, which is noted."""
    kept: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        new = name
        while new in RESERVED or (new != name and new in columns):
            new += "_"
        if new != name:
            notes.append(f"column {name} is stored as {new}")
        kept[new] = values
    return kept


def _assemble(
    names: np.ndarray,
    steps: np.ndarray,
    columns: Mapping[str, np.ndarray],
    seeds: Mapping[str, int] | None,
    constants: Mapping[str, float],
    notes: list[str],
) -> tuple[tuple[str, ...], tuple[ImportedRun, ...]]:
    """Sort rows into runs, merge rows of the same step, and leave out what holds no value, which is noted."""
    values = np.column_stack(list(columns.values()))
    metrics = tuple(columns)
    labels = _labels(sorted(set(names)))
    if changed := [name for name, label in labels.items() if name != label]:
        notes.append(
            "runs are called otherwise in ids: "
            + ", ".join(f"{' '.join(name.split())} is {labels[name]}" for name in changed[:3])
        )
    runs, merged, equal, empty = [], 0, 0, []
    place = {name: index for index, name in enumerate(labels)}
    group = np.array([place[name] for name in names])
    order = np.lexsort((steps, group))
    ends = np.searchsorted(group[order], np.arange(len(labels) + 1))
    for index, (name, label) in enumerate(labels.items()):
        rows = order[ends[index] : ends[index + 1]]
        own_steps, own, again = _merge(name, steps[rows], values[rows], metrics)
        merged += len(rows) - len(own_steps)
        equal += again
        some = ~np.isnan(own).all(axis=1)
        if not some.any():
            empty.append(name)
            continue
        fixed = np.tile(list(constants.values()), (int(some.sum()), 1))
        runs.append(
            ImportedRun(label, name, (seeds or {}).get(name), own_steps[some], np.hstack([own[some], fixed]))
        )
    if not runs:
        raise ConfigError("no run has a value of any metric")
    if merged:
        said = (
            f", in which {count(equal, 'value')} {'stands' if equal == 1 else 'stand'} again, alike"
            if equal
            else ""
        )
        notes.append(f"{count(merged, 'row')} merged into others of the same run and step{said}")
    if empty:
        notes.append(f"runs without a value left out: {listing(empty)}")
    return (*metrics, *constants), tuple(sorted(runs, key=lambda item: item.label))


def _merge(
    name: str, steps: np.ndarray, values: np.ndarray, metrics: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Merge rows (T,), (T, M) of one step that agree; count values that stand again. Of clocks the first stands."""
    unique, place = np.unique(steps, return_inverse=True)
    if len(unique) == len(steps):
        return steps, values, 0
    result = np.full((len(unique), values.shape[1]), np.nan)
    rows, columns = np.nonzero(~np.isnan(values))
    # What is assigned last stands.
    result[place[rows[::-1]], columns[::-1]] = values[rows[::-1], columns[::-1]]
    apart = values[rows, columns] != result[place[rows], columns]
    measured = ~np.array([bool(CLOCKS.fullmatch(metric)) for metric in metrics], bool)
    apart &= measured[columns]
    if apart.any():
        row, column = rows[apart][0], columns[apart][0]
        raise ConfigError(
            f"run {name} has two values of {metrics[column]} at step {unique[place[row]]}: "
            f"{float(result[place[row], column])!r} and {float(values[row, column])!r} "
            "(two runs of one name? --run A,B names runs by two columns)"
        )
    return unique, result, int(measured[columns].sum() - (~np.isnan(result[:, measured])).sum())


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return name -> label: what can stand in an id and on a command line, each once."""
    owners: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^\w.-]+", "_", name).strip("._-")[:80] or "run"
        label, number = base, 1
        while label in owners:
            number += 1
            label = f"{base}-{number}"
        owners[label] = name
    return {name: label for label, name in owners.items()}
