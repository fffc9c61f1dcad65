"""Wide tables: a row a step and columns `run - metric`, as Weights & Biases exports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynalab.config.suggest import listing
from dynalab.core.errors import ConfigError
from dynalab.core.words import count
from dynalab.imports.cells import numbers, steps
from dynalab.imports.rows import (
    CLOCKS,
    STEPS,
    UNNAMED,
    Form,
    Rows,
    guess_column,
    joined_names,
    numeric_columns,
    pieces_of,
    plain_name,
    require_column,
)

if TYPE_CHECKING:
    import pandas as pd

# Between run and metric in the columns of a Weights & Biases export, and the ends of its columns of extremes.
WIDE = " - "
MINIMUM, MAXIMUM = "__MIN", "__MAX"


def is_wide(frame: pd.DataFrame) -> bool:
    """Tell a Weights & Biases export: columns `run - metric`, and none but axes beside them."""
    columns = [name for name in frame.columns if not UNNAMED.match(name)]
    axes = [name for name in columns if WIDE not in name]
    others = [name for name in axes if plain_name(name) not in STEPS and not CLOCKS.fullmatch(name)]
    return len(columns) > len(axes) and len(columns) > 1 and (not others or others == axes[:1] == axes)


def read_wide(frame: pd.DataFrame, form: Form) -> Rows:
    """Read a table of columns `run - metric`; a run has no row where all its columns are empty."""
    found: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    doubts = [] if form.wide else [f"from the header: the columns are 'run{WIDE}metric'"]
    extremes, others = [], []
    pieces = pieces_of(frame, form)
    own_steps = form.step if form.step not in (None, *frame.columns) else None
    step = form.step or guess_column(list(frame.columns), STEPS)
    for name in frame.columns:
        run, separator, metric = name.rpartition(WIDE)
        base = next((name[: -len(end)] for end in (MINIMUM, MAXIMUM) if name.endswith(end)), None)
        if name == form.split or (name == step and own_steps is None):
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
        require_column(frame, "step", own_steps)
    if own_steps is None and step is None:
        raise ConfigError(
            f"--step COLUMN is missing: neither Step nor 'run{WIDE}_step'; there are {listing(frame.columns)}"
        )
    if extremes:
        notes.append(f"{count(len(extremes), 'column')} of minima and maxima left out")
    doubts += _means(frame, extremes)
    if others := [name for name in others if not UNNAMED.match(name)]:
        notes.append(f"columns left out: {listing(others)} (not of the form 'run{WIDE}metric')")
    metrics = list(dict.fromkeys(metric for own in found.values() for metric in own if metric != own_steps))
    labels, counted, blocks, empty = [], [], [], []
    for run, own in found.items():
        numeric, left = numeric_columns(frame[[name for metric, name in own.items() if metric != own_steps]])
        if left:
            notes.append(f"columns left out: {'; '.join(left)}")
        block = np.full((len(frame), len(metrics)), np.nan)
        for place, name in enumerate(metrics):
            block[:, place] = numeric.get(own.get(name, ""), np.nan)
        some = ~np.isnan(block).all(axis=1)
        if not some.any():
            empty.append(run)
            continue
        axis = frame[own[own_steps]] if own_steps is not None else frame[str(step)]
        blocks.append(block[some])
        instead = " (--step _step?)" if own_steps is None and "_step" in own else ""
        counted.append(steps(axis[some], f"--step {own_steps or step}", instead))
        names = np.full(int(some.sum()), run, dtype=object)
        if form.split is not None and pieces is not None:
            names = joined_names(["", form.split], [names, pieces[some]])
        labels.append(names)
    if not labels:
        raise ConfigError("--wide: no run has a number in any row")
    if empty:
        notes.append(f"runs without a value left out: {listing(empty)}")
    stacked = np.concatenate(blocks)
    columns = {name: stacked[:, i] for i, name in enumerate(metrics) if not np.isnan(stacked[:, i]).all()}
    split = frozenset[str](() if pieces is None else pieces)
    return Rows(
        np.concatenate(labels), np.concatenate(counted), columns, notes=notes, doubts=doubts, pieces=split
    )


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
