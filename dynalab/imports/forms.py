"""The forms that tables of runs come in, each read into rows of a run and a step.

Long: a row a run and step, a column a metric. Keyed: a row a run, step and metric. Wide: a row a step and columns
`run - metric`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynalab.config.suggest import listing
from dynalab.core.errors import ConfigError
from dynalab.imports.cells import names, numbers, steps
from dynalab.imports.rows import (
    CLOCKS,
    KEYS,
    RUNS,
    STEPS,
    UNNAMED,
    VALUES,
    Form,
    Rows,
    are_seeds,
    guess_column,
    joined_names,
    numeric_columns,
    pieces_of,
    plain_name,
    require_column,
)
from dynalab.imports.wide import is_wide, read_wide

if TYPE_CHECKING:
    import pandas as pd


def read_rows(frame: pd.DataFrame, form: Form, alone: str) -> Rows:
    """Read a table whose columns have tidy names; one that names no runs is the run `alone`.

    Raises:
        ConfigError: A column is missing, a row has no run or no step, or there is no metric.
    """
    if form.wide or (not form.run and is_wide(frame.drop(columns=form.split or [], errors="ignore"))):
        if form.run:
            raise ConfigError(f"--run {form.run[0]}: with --wide the columns name the runs; leave it out")
        return read_wide(frame, form)
    return _long(frame, form, alone)


def _long(frame: pd.DataFrame, form: Form, alone: str) -> Rows:
    pieces = pieces_of(frame, form)
    runs, guessed = _run_columns(frame, form)
    step = _step_column(frame, form, runs)
    if form.step is None:
        guessed.append(f"column {step} holds the steps")
    if step in runs:
        raise ConfigError(f"--run {step} --step {step}: one column cannot be both")
    if form.split in (step, *runs):
        raise ConfigError(f"--split {form.split}: this column has another meaning already")
    apart = [*runs] if form.split is None else [*runs, form.split]
    rest = frame.drop(columns=[name for name in (*apart, step) if name != "seed"])
    by_seed = runs == ["seed"] or ([*map(plain_name, runs)] == ["seed"] and "seed" not in frame)
    if by_seed:
        seeds = numbers(frame[runs[0]])[0]
        rest = rest.drop(columns="seed", errors="ignore")
        if len(seeds) and are_seeds(seeds).all():
            rest["seed"] = seeds
    key, value = _key_columns(rest, form)
    found = [names(frame[name], f"--run {name}") for name in runs]
    if pieces is not None:
        found.append(pieces)
        if not runs and alone:
            apart, found = ["", *apart], [np.full(len(frame), alone, dtype=object), *found]
    if found:
        labels = found[0] if len(found) == 1 else joined_names(apart, found)
    else:
        _check_alone(frame[step], rest.drop(columns=[] if key is None else [key]))
        labels = np.full(len(frame), alone, dtype=object)
        guessed.append("no column names the runs: a table is one run")
    other = next((name for name in frame.columns if plain_name(name) in STEPS and name != step), None)
    counted = steps(frame[step], f"--step {step}", f" (--step {other}?)" if other else "")
    if key is not None and value is not None:
        if form.key is None:
            guessed.append(f"column {key} names the metrics, {value} holds their values")
        rows = _keyed(rest, labels, counted, key, value)
    else:
        columns, left = numeric_columns(rest)
        if not set(columns) - {"seed"}:
            why = f" ({'; '.join(left[:3])})" if left else ""
            raise ConfigError(
                f"no numeric column beside {' and '.join([*apart, step])}: there is no metric{why}"
            )
        rows = Rows(labels, counted, columns, True, [f"columns left out: {'; '.join(left)}"] if left else [])
    rows.by_seed = by_seed
    rows.pieces = frozenset(() if pieces is None else pieces)
    if guessed:
        rows.doubts.append(f"from the header: {'; '.join(guessed)}")
    return rows


def _check_alone(step: pd.Series, rest: pd.DataFrame) -> None:
    """Refuse a table of one run whose steps repeat beside names that may be those of runs."""
    if step.astype(str).is_unique:
        return
    for name in rest.columns:
        if numbers(rest[name])[1] and rest[name].astype(str).nunique() > 1:
            raise ConfigError(
                f"--run COLUMN is missing: steps repeat, and {name} may name the runs (--run {name}?)"
            )
    # Settings: as many values as a step has rows, or fewer, that tell these rows apart.
    most = step.astype(str).value_counts().max()
    few = [name for name in rest.columns if 1 < rest[name].nunique() <= most and rest[name].notna().all()]
    few = sorted(name for name in few if not CLOCKS.fullmatch(name))
    if few and not rest[few].assign(**{"": step.astype(str)}).duplicated().any():
        raise ConfigError(
            f"--run COLUMN is missing: steps repeat, and {listing(few)} may tell the runs apart "
            f"(--run {','.join(few)}?)"
        )


def _run_columns(frame: pd.DataFrame, form: Form) -> tuple[list[str], list[str]]:
    """Return (the columns that name the run, what was guessed)."""
    if not form.run:
        # A seed that several columns tell apart is no name; contradictions will say so.
        name = guess_column([name for name in frame.columns if name != form.split], RUNS)
        return ([], []) if name is None else ([name], [f"column {name} names the runs"])
    words = form.run_columns(frame.columns)
    for word in words:
        require_column(frame, "run", word)
    if len(set(words)) < len(words):
        raise ConfigError(f"--run {','.join(words)}: one column twice")
    return words, []


def _step_column(frame: pd.DataFrame, form: Form, runs: Sequence[str]) -> str:
    if form.step is not None:
        return require_column(frame, "step", form.step)
    name = guess_column([name for name in frame.columns if name not in runs], STEPS)
    if name is None:
        raise ConfigError(
            f"--step COLUMN is missing: no column is called {listing(STEPS[:4])} or the like; "
            f"there are {listing(frame.columns)}"
        )
    return name


def _key_columns(rest: pd.DataFrame, form: Form) -> tuple[str | None, str | None]:
    """Return (column of the metrics' names, column of their values), or nothing where columns are metrics."""
    key, value = form.key, form.value
    if key is not None:
        require_column(rest, "key", key)
    if value is not None:
        require_column(rest, "value", value)
    value = value or guess_column(list(rest.columns), VALUES)
    if key is None and value is not None:
        key = guess_column(
            [name for name in rest.columns if plain_name(name) in KEYS and numbers(rest[name])[1]], KEYS
        )
    if (key is None and form.value is not None) or (key is not None and value is None):
        missing = "--key" if key is None else "--value"
        raise ConfigError(f"{missing} COLUMN is missing; there are {listing(rest.columns)}")
    if key is not None and key == value:
        raise ConfigError(f"--key {key} --value {value}: one column cannot be both")
    return (key, value) if key is not None else (None, None)


def _keyed(rest: pd.DataFrame, labels: np.ndarray, counted: np.ndarray, key: str, value: str) -> Rows:
    """Gather the rows of one run and step; a metric that is there again takes a row of its own."""
    import pandas as pd

    metrics = names(rest[key], f"--key {key}")
    values, why = numbers(rest[value])
    if why:
        raise ConfigError(f"--value {value}: {why}")
    if "is_nan" in rest.columns:
        # MLflow writes 0 where a value is none.
        flags = numbers(rest["is_nan"])[0]
        values = np.where(flags == 1, np.nan, values) if len(flags) else values
    places = pd.DataFrame({"run": labels, "step": counted, "metric": metrics})
    places["again"] = places.groupby(["run", "step", "metric"], sort=False).cumcount()
    row = places.groupby(["run", "step", "again"], sort=False).ngroup().to_numpy()
    column, found = pd.factorize(metrics)
    first = np.unique(row, return_index=True)[1]
    block = np.full((len(first), len(found)), np.nan)
    block[row, column] = values
    columns = {name: block[:, i] for i, name in enumerate(found) if not np.isnan(block[:, i]).all()}
    if not columns:
        raise ConfigError(f"--value {value}: no row has a number: there is no metric")
    others = [name for name in rest.columns if name not in (key, value, "seed", "is_nan")]
    others = [name for name in others if not UNNAMED.match(name)]
    notes = [f"columns left out: {listing(others)}"] if others else []
    seeds = numbers(rest["seed"])[0] if "seed" in rest.columns else np.empty(0)
    if seeded := len(seeds) > 0 and "seed" not in columns:
        columns["seed"] = seeds[first]
    return Rows(labels[first], counted[first], columns, seeded, notes)
