"""From a table to runs: long form (a row a run and step), or wide form (a column a run and metric)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dynalab.config.suggest import did_you_mean, listing
from dynalab.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

# Between run and metric in the columns of a Weights & Biases export, and the ends of its columns of extremes.
WIDE = " - "
EXTREMES = ("__MIN", "__MAX")
# Names that mean something else in a stored series or a data frame of it.
RESERVED = ("run", "seed", "step", "wall")
_UNNAMED = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?$")


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


@dataclass(frozen=True)
class Imported:
    """What a table holds.

    Attributes:
        metrics: Names of the M columns.
        runs: In order of their labels.
        notes: What was left out or renamed.
    """

    metrics: tuple[str, ...]
    runs: tuple[ImportedRun, ...]
    notes: list[str] = field(default_factory=list)


def from_long(frame: pd.DataFrame, run: str, step: str) -> Imported:
    """Read a table with a row a run and step.

    Args:
        frame: The table.
        run: Column that names the run.
        step: Column of steps, whole numbers of 0 or more.

    Returns:
        The runs, on every numeric column. Rows may be in any order. Several rows of a run and step are merged where
        they fill each other's gaps (a logger that writes a row a metric).

    Raises:
        ConfigError: A column is missing, a row has no run or no step, two rows contradict each other, or nothing is
            left.
    """
    _require(frame, {"run": run, "step": step})
    if run == step:
        raise ConfigError(f"--run {run} --step {step}: one column cannot be both")
    names = _names(frame[run], run)
    steps = _steps(frame[step], step)
    notes: list[str] = []
    columns, left = _numeric(frame.drop(columns=[run, step]))
    if left:
        notes.append(f"columns left out: {'; '.join(left)}")
    seeds = _seeds(columns, names)
    if seeds is not None:
        del columns["seed"]
        notes.append("column seed is taken as the seed of each run")
    columns, renamed = _rename(columns)
    notes += renamed
    if not columns:
        raise ConfigError(f"no numeric column beside {run} and {step}: there is no metric")
    return _assemble(names, steps, columns, seeds, notes)


def from_wide(frame: pd.DataFrame, step: str) -> Imported:
    """Read a table with a row a step and columns `run - metric`, as Weights & Biases exports it.

    Columns `run - metric__MIN` and `run - metric__MAX` are left out. A run has no row where all its columns are empty.

    Args:
        frame: The table.
        step: Column of steps.

    Raises:
        ConfigError: No column has the form, or as for `from_long`.
    """
    import pandas as pd

    _require(frame, {"step": step})
    found: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    extremes, others = 0, []
    for name in frame.columns:
        run, separator, metric = name.rpartition(WIDE)
        base = next((name[: -len(end)] for end in EXTREMES if name.endswith(end)), None)
        if name == step:
            continue
        if base is not None and base in frame.columns:
            extremes += 1
        elif not separator or not run.strip() or not metric.strip():
            others.append(name)
        else:
            found.setdefault(run.strip(), {})[metric.strip()] = name
    if not found:
        raise ConfigError(
            f"--wide: no column is called 'run{WIDE}metric' (there are {listing(frame.columns, 6)}); "
            "a table with a row a run and step is read with --run COLUMN and without --wide"
        )
    if extremes:
        notes.append(f"{extremes} columns of minima and maxima left out")
    if others := [name for name in others if not _UNNAMED.match(name)]:
        notes.append(f"columns left out: {listing(others)} (not of the form 'run{WIDE}metric')")
    metrics = list(dict.fromkeys(metric for own in found.values() for metric in own))
    names, steps, blocks = [], [], []
    for run, own in found.items():
        numeric, left = _numeric(frame[list(own.values())])
        if left:
            notes.append(f"columns left out: {'; '.join(left)}")
        nothing = np.full(len(frame), np.nan)
        block = np.column_stack([numeric.get(own.get(metric, ""), nothing) for metric in metrics])
        some = ~np.isnan(block).all(axis=1)
        blocks.append(block[some])
        steps.append(frame[step][some])
        names += [run] * int(some.sum())
    if not names:
        raise ConfigError("--wide: no run has a number in any row")
    stacked = np.concatenate(blocks)
    used = {name: stacked[:, i] for i, name in enumerate(metrics) if not np.isnan(stacked[:, i]).all()}
    columns, renamed = _rename(used)
    result = _assemble(
        np.array(names, dtype=object), _steps(pd.concat(steps), step), columns, None, [*notes, *renamed]
    )
    kept = {item.name for item in result.runs}
    if empty := [run for run in found if run not in kept]:
        result.notes.append(f"runs without a value left out: {listing(empty)}")
    return result


def _require(frame: pd.DataFrame, wanted: Mapping[str, str]) -> None:
    for option, name in wanted.items():
        if name not in frame.columns:
            raise ConfigError(
                f"--{option} {name}: no such column{did_you_mean(name, frame.columns)}; "
                f"there are {listing(frame.columns)}"
            )


def _names(column: pd.Series, name: str) -> np.ndarray:
    """Names of the runs, one a row, as text; a whole number stays whole where gaps made it a float."""
    if len(missing := np.flatnonzero(column.isna())):
        raise ConfigError(f"--run {name}: row {missing[0] + 1} names no run ({len(missing)} rows do not)")
    values = column.to_numpy(object)
    texts = [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x).strip() for x in values]
    if "" in texts:
        raise ConfigError(f"--run {name}: row {texts.index('') + 1} names no run")
    return np.array(texts, dtype=object)


def _steps(column: pd.Series, name: str) -> np.ndarray:
    """Steps as integers."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise ConfigError(f"--step {name}: holds times; steps are whole numbers of 0 or more")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(
            ~(np.isfinite(numbers) & (numbers >= 0) & (numbers % 1 == 0) & (numbers < 2**53))
        )
    if len(bad):
        value = column.iloc[int(bad[0])]
        said = "nothing" if pd.isna(value) else f"{value}"
        raise ConfigError(
            f"--step {name}: row {bad[0] + 1} has {said} ({len(bad)} rows are like this); "
            "steps are whole numbers of 0 or more"
        )
    return numbers.astype(np.int64)


def _numeric(frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return (name -> numbers of the numeric columns, why each other column is left out)."""
    import pandas as pd

    kept, left = {}, []
    for name in frame.columns:
        column = frame[name]
        if _UNNAMED.match(name):
            left.append("one without a name")
        elif column.isna().all():
            left.append(f"{name} (empty)")
        elif column.dtype.kind in "Mmc" or isinstance(column.dtype, pd.CategoricalDtype):
            left.append(f"{name} (not numeric)")
        else:
            numbers = pd.to_numeric(column, errors="coerce").astype(float).to_numpy()
            bad = np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy())
            if len(bad):
                value = str(column.iloc[int(bad[0])])
                left.append(f"{name} (not numeric: {value[:20]!r} in row {bad[0] + 1})")
            else:
                kept[name] = numbers
    return kept, left


def _seeds(columns: Mapping[str, np.ndarray], names: np.ndarray) -> dict[str, int] | None:
    """Return run -> seed if a column `seed` holds one whole number a run."""
    if "seed" not in columns:
        return None
    import pandas as pd

    seeds = pd.Series(columns["seed"]).groupby(names).agg(["min", "max", "count", "size"])
    low, high = seeds["min"].to_numpy(), seeds["max"].to_numpy()
    with np.errstate(invalid="ignore"):
        whole = (low == high) & (low >= 0) & (low % 1 == 0) & (low < 2**53)
    if not (whole & (seeds["count"] == seeds["size"]).to_numpy()).all():
        return None
    return {str(name): int(seed) for name, seed in zip(seeds.index, low, strict=True)}


def _rename(columns: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Give metrics whose names mean something else here a name of their own."""
    kept: dict[str, np.ndarray] = {}
    notes = []
    for name, values in columns.items():
        new = name
        while new in RESERVED or (new != name and new in columns):
            new += "_"
        if new != name:
            notes.append(f"column {name} is stored as {new}")
        kept[new] = values
    return kept, notes


def _assemble(
    names: np.ndarray,
    steps: np.ndarray,
    columns: Mapping[str, np.ndarray],
    seeds: Mapping[str, int] | None,
    notes: list[str],
) -> Imported:
    """Sort rows into runs, merge rows of the same step, and leave out what holds no value."""
    values = np.column_stack(list(columns.values()))
    metrics = tuple(columns)
    labels = _labels(sorted(set(names)))
    if changed := [name for name, label in labels.items() if name != label]:
        notes.append(
            f"runs are called otherwise in ids: {', '.join(f'{n} is {labels[n]}' for n in changed[:3])}"
        )
    runs, merged, empty = [], 0, []
    place = {name: index for index, name in enumerate(labels)}
    group = np.array([place[name] for name in names])
    order = np.lexsort((steps, group))
    ends = np.searchsorted(group[order], np.arange(len(labels) + 1))
    for index, (name, label) in enumerate(labels.items()):
        rows = order[ends[index] : ends[index + 1]]
        own_steps, own, count = _merge(name, steps[rows], values[rows], metrics)
        merged += count
        some = ~np.isnan(own).all(axis=1)
        if not some.any():
            empty.append(name)
            continue
        runs.append(ImportedRun(label, name, (seeds or {}).get(name), own_steps[some], own[some]))
    if not runs:
        raise ConfigError("no run has a value of any metric")
    if merged:
        notes.append(f"{merged} rows merged into others of the same run and step, whose gaps they fill")
    if empty:
        notes.append(f"runs without a value left out: {listing(empty)}")
    return Imported(metrics, tuple(sorted(runs, key=lambda item: item.label)), notes)


def _merge(
    name: str, steps: np.ndarray, values: np.ndarray, metrics: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Merge rows of the same step, shapes (T,) and (T, M), that never give a metric twice."""
    unique, place = np.unique(steps, return_inverse=True)
    if len(unique) == len(steps):
        return steps, values, 0
    some = ~np.isnan(values)
    counts = np.zeros((len(unique), values.shape[1]), np.int64)
    np.add.at(counts, place, some)
    if (counts > 1).any():
        row, column = np.argwhere(counts > 1)[0]
        raise ConfigError(
            f"run {name} has {counts[row, column]} rows with a value of {metrics[column]} at step {unique[row]}; "
            "a run has one row a step (do two runs share a name?)"
        )
    result = np.full(counts.shape, np.nan)
    rows, columns = np.nonzero(some)
    result[place[rows], columns] = values[rows, columns]
    return unique, result, len(steps) - len(unique)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return name -> label: what can stand in an id and on a command line, each once."""
    taken: set[str] = set()
    found = {}
    for name in names:
        base = re.sub(r"[^\w.-]+", "_", name).strip("._-")[:80] or "run"
        label, number = base, 1
        while label in taken:
            number += 1
            label = f"{base}-{number}"
        taken.add(label)
        found[name] = label
    return found
