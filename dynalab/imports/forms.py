"""The forms that tables of runs come in, each read into rows of a run and a step.

Long: a row a run and step, a column a metric. Keyed: a row a run, step and metric. Wide: a row a step and columns
`run - metric`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError
from dynalab.imports.cells import names, numbers, steps

if TYPE_CHECKING:
    import pandas as pd

# Between run and metric in the columns of a Weights & Biases export, and the ends of its columns of extremes.
WIDE = " - "
MINIMUM, MAXIMUM = "__MIN", "__MAX"
# What trackers call these columns, the likeliest first; compared without case, and with spaces as underscores.
RUNS = ("run", "run_name", "run_id", "run_uuid", "trial", "trial_id", "experiment", "seed")
STEPS = (
    *("step", "_step", "global_step", "trainer/global_step", "steps", "iteration", "iter"),
    *("iterations", "update", "updates", "epoch", "epochs"),
)
KEYS = ("key", "metric", "tag", "metric_name", "variable", "name")
VALUES = ("value", "values")
# What tells the time: a row that is written again has another.
CLOCKS = re.compile(r"_?(epoch|time|wall|wall[ _]time|timestamp|runtime|relative[ _]time.*|elapsed.*)", re.I)
# What TensorBoard calls the file of one run and metric.
_TENSORBOARD = re.compile(r"run-(.+)-tag-(.+)")
_UNNAMED = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?$")


@dataclass(frozen=True)
class Form:
    """How a table is to be read; what is not said is taken from its header.

    Attributes:
        run: Columns that name the run together; a word with commas stands for several.
        step: Column of steps, whole numbers of 0 or more.
        key: Column of the metrics' names, where there is a row a metric.
        value: Column of their values.
        wide: The columns are called `run - metric`.
    """

    run: tuple[str, ...] = ()
    step: str | None = None
    key: str | None = None
    value: str | None = None
    wide: bool = False

    def names_runs(self, column: str) -> bool:
        """Return whether a column may name runs."""
        given = {part.strip() for word in self.run for part in (word, *word.split(","))}
        return column in given or _plain(column) in RUNS

    def names_metrics(self, column: str) -> bool:
        """Return whether a column may name metrics."""
        return column == self.key or _plain(column) in KEYS


@dataclass
class Rows:
    """What a table holds, in the order of its rows.

    Attributes:
        names: The run of each row, shape (N,).
        steps: Its step, shape (N,).
        columns: Metric -> its values, shape (N,); NaN where the row has none.
        seeded: Whether a column `seed` is the seed of the row's run.
        notes: What was left out or read otherwise than it is written.
        doubts: What was guessed, and what may not be what it seems.
    """

    names: np.ndarray
    steps: np.ndarray
    columns: dict[str, np.ndarray]
    seeded: bool = False
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def read_rows(frame: pd.DataFrame, form: Form, alone: str) -> Rows:
    """Read a table.

    Args:
        frame: The table, its columns' names tidy.
        form: How.
        alone: The run's name where no column names it: the table is of one run.

    Raises:
        ConfigError: A column is missing, a row has no run or no step, or there is no metric.
    """
    if form.wide or (not form.run and _is_wide(frame)):
        if form.run:
            raise ConfigError(f"--run {form.run[0]}: with --wide the columns name the runs; leave it out")
        return _wide(frame, form)
    return _long(frame, form, alone)


def _long(frame: pd.DataFrame, form: Form, alone: str) -> Rows:
    runs, guessed = _run_columns(frame, form)
    step = _step_column(frame, form, runs)
    if form.step is None:
        guessed.append(f"column {step} holds the steps")
    if step in runs:
        raise ConfigError(f"--run {step} --step {step}: one column cannot be both")
    rest = frame.drop(columns=[name for name in (*runs, step) if name != "seed" or len(runs) == 1])
    key, value = _key_columns(rest, form)
    if runs:
        found = [names(frame[name], f"--run {name}") for name in runs]
        labels = found[0] if len(runs) == 1 else _joined(runs, found)
    else:
        _check_alone(frame[step], rest.drop(columns=[] if key is None else [key]))
        labels = np.full(len(frame), alone, dtype=object)
        guessed.append("no column names the runs: a table is one run")
    other = next((name for name in frame.columns if _plain(name) in STEPS and name != step), None)
    counted = steps(frame[step], f"--step {step}", f" (--step {other}?)" if other else "")
    if key is not None and value is not None:
        if form.key is None:
            guessed.append(f"column {key} names the metrics, {value} holds their values")
        rows = _keyed(rest, labels, counted, key, value)
    else:
        columns, left = _numeric(rest)
        if not set(columns) - {"seed"}:
            why = f" ({'; '.join(left[:3])})" if left else ""
            raise ConfigError(
                f"no numeric column beside {' and '.join([*runs, step])}: there is no metric{why}"
            )
        rows = Rows(labels, counted, columns, True, [f"columns left out: {'; '.join(left)}"] if left else [])
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


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _guess(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column of the likeliest name; of two with one name, the one written so."""
    for name in known:
        found = sorted((column for column in columns if _plain(column) == name), key=lambda c: c != name)
        if found:
            return found[0]
    return None


def _require(frame: pd.DataFrame, option: str, name: str) -> str:
    if name not in frame.columns:
        near = did_you_mean(name, frame.columns)
        raise ConfigError(f"--{option} {name}: no such column{near}; there are {listing(frame.columns)}")
    return name


def _run_columns(frame: pd.DataFrame, form: Form) -> tuple[list[str], list[str]]:
    """Return (the columns that name the run, what was guessed)."""
    if not form.run:
        # A seed that several columns tell apart is no name; contradictions will say so.
        name = _guess(list(frame.columns), RUNS)
        return ([], []) if name is None else ([name], [f"column {name} names the runs"])
    words = [
        part.strip() for word in form.run for part in ([word] if word in frame.columns else word.split(","))
    ]
    for word in words:
        _require(frame, "run", word)
    if len(set(words)) < len(words):
        raise ConfigError(f"--run {','.join(words)}: one column twice")
    return words, []


def _step_column(frame: pd.DataFrame, form: Form, runs: Sequence[str]) -> str:
    if form.step is not None:
        return _require(frame, "step", form.step)
    name = _guess([name for name in frame.columns if name not in runs], STEPS)
    if name is None:
        raise ConfigError(
            f"--step COLUMN is missing: no column is called {listing(STEPS[:4])} or the like; "
            f"there are {listing(frame.columns)}"
        )
    return name


def _joined(runs: Sequence[str], found: Sequence[np.ndarray]) -> np.ndarray:
    """Return names of runs that several columns tell apart: `lr0.1-seed0`."""
    tuples = list(zip(*found, strict=True))
    texts = {own: "-".join(map("".join, zip(runs, own, strict=True))) for own in set(tuples)}
    if len(set(texts.values())) < len(texts):
        # `a1-b2` of one column may read like two columns' values.
        texts = {own: ",".join(map("=".join, zip(runs, own, strict=True))) for own in texts}
    return np.array([texts[own] for own in tuples], dtype=object)


def _key_columns(rest: pd.DataFrame, form: Form) -> tuple[str | None, str | None]:
    """Return (column of the metrics' names, column of their values), or nothing where columns are metrics."""
    key, value = form.key, form.value
    if key is not None:
        _require(rest, "key", key)
    if value is not None:
        _require(rest, "value", value)
    value = value or _guess(list(rest.columns), VALUES)
    if key is None and value is not None:
        key = _guess([name for name in rest.columns if _plain(name) in KEYS and numbers(rest[name])[1]], KEYS)
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
    others = [name for name in others if not _UNNAMED.match(name)]
    notes = [f"columns left out: {listing(others)}"] if others else []
    seeds = numbers(rest["seed"])[0] if "seed" in rest.columns else np.empty(0)
    if seeded := len(seeds) > 0 and "seed" not in columns:
        columns["seed"] = seeds[first]
    return Rows(labels[first], counted[first], columns, seeded, notes)


def _numeric(frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return (name -> numbers of the numeric columns, why each other column is left out)."""
    kept, left = {}, []
    for name in frame.columns:
        values, why = numbers(frame[name])
        if _UNNAMED.match(name):
            left.append("one without a name")
        elif why:
            left.append(f"{name} ({why})")
        elif np.isnan(values).all():
            left.append(f"{name} (empty)")
        else:
            kept[name] = values
    return kept, left


def _is_wide(frame: pd.DataFrame) -> bool:
    """Tell a Weights & Biases export: columns `run - metric`, and none but axes beside them."""
    columns = [name for name in frame.columns if not _UNNAMED.match(name)]
    axes = [name for name in columns if WIDE not in name]
    others = [name for name in axes if _plain(name) not in STEPS and not CLOCKS.fullmatch(name)]
    return len(columns) > len(axes) and len(columns) > 1 and (not others or others == axes[:1] == axes)


def _wide(frame: pd.DataFrame, form: Form) -> Rows:
    """Read a table of columns `run - metric`; a run has no row where all its columns are empty."""
    found: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    doubts = [] if form.wide else [f"from the header: the columns are 'run{WIDE}metric'"]
    extremes, others = [], []
    own_steps = form.step if form.step not in (None, *frame.columns) else None
    step = form.step or _guess(list(frame.columns), STEPS)
    for name in frame.columns:
        run, separator, metric = name.rpartition(WIDE)
        base = next((name[: -len(end)] for end in (MINIMUM, MAXIMUM) if name.endswith(end)), None)
        if name == step and own_steps is None:
            continue
        if base is not None and base in frame.columns:
            extremes.append(name)
        elif not separator or not run.strip() or not metric.strip():
            others.append(name)
        else:
            found.setdefault(run.strip(), {})[metric.strip()] = name
    if not found:
        raise ConfigError(
            f"--wide: no column is called 'run{WIDE}metric' (there are {listing(frame.columns, 6)}); "
            "a table with a row a run and step is read with --run COLUMN and without --wide"
        )
    if step is None and all("_step" in own for own in found.values()):
        # The axis is of time.
        own_steps = "_step"
        doubts.append(f"no column of steps: each run's own is its column 'run{WIDE}_step'")
    if own_steps is not None and not all(own_steps in own for own in found.values()):
        _require(frame, "step", own_steps)
    if own_steps is None and step is None:
        raise ConfigError(
            f"--step COLUMN is missing: neither Step nor 'run{WIDE}_step'; there are {listing(frame.columns)}"
        )
    if extremes:
        notes.append(f"{len(extremes)} columns of minima and maxima left out")
    doubts += _means(frame, extremes)
    if others := [name for name in others if not _UNNAMED.match(name)]:
        notes.append(f"columns left out: {listing(others)} (not of the form 'run{WIDE}metric')")
    metrics = list(dict.fromkeys(metric for own in found.values() for metric in own if metric != own_steps))
    labels, counted, blocks, empty = [], [], [], []
    for run, own in found.items():
        numeric, left = _numeric(frame[[name for metric, name in own.items() if metric != own_steps]])
        if left:
            notes.append(f"columns left out: {'; '.join(left)}")
        nothing = np.full(len(frame), np.nan)
        block = np.column_stack([nothing, *(numeric.get(own.get(name, ""), nothing) for name in metrics)])[
            :, 1:
        ]
        some = ~np.isnan(block).all(axis=1)
        if not some.any():
            empty.append(run)
            continue
        axis = frame[own[own_steps]] if own_steps is not None else frame[str(step)]
        blocks.append(block[some])
        instead = " (--step _step?)" if own_steps is None and "_step" in own else ""
        counted.append(steps(axis[some], f"--step {own_steps or step}", instead))
        labels += [run] * int(some.sum())
    if not labels:
        raise ConfigError("--wide: no run has a number in any row")
    if empty:
        notes.append(f"runs without a value left out: {listing(empty)}")
    stacked = np.concatenate(blocks)
    columns = {name: stacked[:, i] for i, name in enumerate(metrics) if not np.isnan(stacked[:, i]).all()}
    return Rows(np.array(labels, dtype=object), np.concatenate(counted), columns, notes=notes, doubts=doubts)


def _means(frame: pd.DataFrame, extremes: Sequence[str]) -> list[str]:
    """Return what is to be said of columns of minima and maxima: where they differ from the values, these are means."""
    apart: dict[str, None] = {}
    for name in extremes:
        base = name[: -len(MINIMUM)]
        (value, _), (extreme, why) = numbers(frame[base]), numbers(frame[name])
        if why or not len(value):
            continue
        both = ~np.isnan(value) & ~np.isnan(extreme)
        if not np.allclose(value[both], extreme[both], rtol=1e-9, atol=0):
            apart[base.rpartition(WIDE)[0].strip()] = None
    if not apart:
        return []
    return [
        f"minima and maxima differ from the values of {listing(apart, 3)}: these are means over runs (or over "
        "steps), not runs; export the runs ungrouped for what holds of runs"
    ]


def named_by_tensorboard(rows: Rows, stem: str) -> None:
    """Name the run and the metric of a table that has neither after its file, `run-RUN-tag-METRIC`."""
    found = _TENSORBOARD.fullmatch(stem)
    if found and set(rows.columns) <= {"Wall time", "Value"} and "Value" in rows.columns:
        rows.names[:] = found[1]
        rows.columns[found[2]] = rows.columns.pop("Value")
        rows.doubts = ["from the names of the files: run-RUN-tag-METRIC"]


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several tables, one after another, each note once."""
    if len(parts) == 1:
        return parts[0]
    counts = [len(part.steps) for part in parts]
    ends = np.cumsum([0, *counts])
    columns: dict[str, np.ndarray] = {}
    for index, part in enumerate(parts):
        for name, values in part.columns.items():
            columns.setdefault(name, np.full(ends[-1], np.nan))[ends[index] : ends[index + 1]] = values
    return Rows(
        np.concatenate([part.names for part in parts]),
        np.concatenate([part.steps for part in parts]),
        columns,
        all(part.seeded for part in parts),
        list(dict.fromkeys(note for part in parts for note in part.notes)),
        list(dict.fromkeys(doubt for part in parts for doubt in part.doubts)),
    )
