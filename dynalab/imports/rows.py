"""What a table of runs holds, whatever its form, and what its columns are likely to be called."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError
from dynalab.imports.cells import names, numbers

if TYPE_CHECKING:
    import pandas as pd

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
# Of more values a column is one of measurements.
MOST_PIECES = 10_000
# What TensorBoard calls the file of one run and metric.
_TENSORBOARD = re.compile(r"run-(.+)-tag-(.+)")
UNNAMED = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?$")


@dataclass(frozen=True)
class Form:
    """How a table is to be read; what is not said is taken from its header.

    Attributes:
        run: Columns that name the run together; a word with commas stands for several.
        step: Column of steps, whole numbers of 0 or more.
        key: Column of the metrics' names, where there is a row a metric.
        value: Column of their values.
        wide: The columns are called `run - metric`.
        split: Column each of whose values is a run of its own, beside what names the runs.
        settings: Columns each of whose values is an ensemble of its own; a word with commas stands for several.
    """

    run: tuple[str, ...] = ()
    step: str | None = None
    key: str | None = None
    value: str | None = None
    wide: bool = False
    split: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def setting_columns(self) -> list[str]:
        """The columns of `settings`, one by one."""
        return [part.strip() for word in self.settings for part in word.split(",")]

    def run_columns(self, columns: Container[str]) -> list[str]:
        """Return what `run` says, one by one; of those that are `columns` a word is one of them, also with commas."""
        return [
            part.strip() for word in self.run for part in ([word] if word in columns else word.split(","))
        ]

    def names_runs(self, column: str) -> bool:
        """Return whether a column may name runs, or settings of theirs."""
        given = {part.strip() for word in self.run for part in (word, *word.split(","))} | {
            *self.setting_columns
        }
        return column in given or column == self.split or plain_name(column) in RUNS

    def names_metrics(self, column: str) -> bool:
        """Return whether a column may name metrics."""
        return column == self.key or plain_name(column) in KEYS


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
        pieces: The values of the column that runs are split by.
        by_seed: Whether the column that names the runs is that of their seeds.
    """

    names: np.ndarray
    steps: np.ndarray
    columns: dict[str, np.ndarray]
    seeded: bool = False
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    pieces: frozenset[str] = frozenset()
    by_seed: bool = False


def are_seeds(values: np.ndarray) -> np.ndarray:
    """Return which numbers may be seeds: whole, not below 0, and exact in float64."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values >= 0) & (values % 1 == 0) & (values < 2**53))


def plain_name(name: str) -> str:
    """Return a column's name without case, with underscores for spaces."""
    return name.strip().lower().replace(" ", "_")


def guess_column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column of the likeliest name; of two with one name, the one written so."""
    for name in known:
        found = sorted((column for column in columns if plain_name(column) == name), key=lambda c: c != name)
        if found:
            return found[0]
    return None


def require_column(frame: pd.DataFrame, option: str, name: str) -> str:
    """Return a column's name; one that is not there is a `ConfigError` that names the option."""
    if name not in frame.columns:
        near = did_you_mean(name, frame.columns)
        raise ConfigError(f"--{option} {name}: no such column{near}; there are {listing(frame.columns)}")
    return name


def pieces_of(frame: pd.DataFrame, form: Form) -> np.ndarray | None:
    """Return the value of the column that runs are split by, one a row, as text; None where there is none."""
    if form.split is None:
        return None
    option = f"--split {form.split}"
    require_column(frame, "split", form.split)
    if form.split in (form.step, form.key, form.value, *form.run_columns(frame.columns)):
        raise ConfigError(f"{option}: this column has another meaning already")
    return names(frame[form.split], option)


def check_pieces(rows: Rows, form: Form) -> None:
    """Refuse, as a `ConfigError`, a column to split runs by that is constant, or one of measurements."""
    if form.split is None or 1 < len(rows.pieces) <= MOST_PIECES:
        return
    one = len(rows.pieces) == 1
    what = f"is {min(rows.pieces)} in every row" if one else f"has {len(rows.pieces):,} values"
    raise ConfigError(f"--split {form.split}: {what}; expected 2 to {MOST_PIECES:,} values, each of one run")


def joined_names(columns: Sequence[str], found: Sequence[np.ndarray]) -> np.ndarray:
    """Return names of runs that several columns tell apart: `lr0.1-seed0`."""
    tuples = list(zip(*found, strict=True))
    texts = {own: "-".join(map("".join, zip(columns, own, strict=True))) for own in set(tuples)}
    if len(set(texts.values())) < len(texts):
        # `a1-b2` of one column may read like two columns' values.
        texts = {own: ",".join(map("=".join, zip(columns, own, strict=True))) for own in texts}
    return np.array([texts[own] for own in tuples], dtype=object)


def numeric_columns(frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return (name -> numbers of the numeric columns, why each other column is left out)."""
    kept, left = {}, []
    for name in frame.columns:
        values, why = numbers(frame[name])
        if UNNAMED.match(name):
            left.append("one without a name")
        elif why:
            left.append(f"{name} ({why})")
        elif np.isnan(values).all():
            left.append(f"{name} (empty)")
        else:
            kept[name] = values
    return kept, left


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
        frozenset[str]().union(*(part.pieces for part in parts)),
        all(part.by_seed for part in parts),
    )
