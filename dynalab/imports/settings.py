"""One table of several settings: columns, as of a rate, each of whose values is an ensemble of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynalab.core.errors import ConfigError
from dynalab.imports.cells import names
from dynalab.imports.rows import Form, joined_names, require_column

if TYPE_CHECKING:
    import pandas as pd

# Column -> its value, in the order of the columns.
Setting = tuple[tuple[str, int | float | str], ...]
# Of more values a column is one of measurements.
MOST = 100


def apart(frame: pd.DataFrame, form: Form) -> Iterator[tuple[Setting, pd.DataFrame]]:
    """Yield each setting of a table with its rows, which lack the columns that say it; a whole table is of none.

    Raises:
        ConfigError: A column is not there, means something else, is empty in a row, or has too many values.
    """
    columns = form.setting_columns
    if not columns:
        yield (), frame
        return
    taken, cells = (*form.run_columns(frame.columns), form.step, form.key, form.value, form.split), []
    for name in columns:
        option = f"--setting {require_column(frame, 'setting', name)}"
        if name in taken or columns.count(name) > 1:
            raise ConfigError(f"{option}: this column has another meaning already")
        cells.append([value_of(text) for text in names(frame[name], option)])
        if len({*cells[-1]}) > MOST:
            raise ConfigError(
                f"{option}: has {len({*cells[-1]}):,} values; expected {MOST:,} at most, of one setting each"
            )
    rest, places = frame.drop(columns=[*columns]), dict[Setting, list[int]]()
    for place, values in enumerate(zip(*cells, strict=True)):
        places.setdefault(tuple(zip(columns, values, strict=True)), []).append(place)
    for setting, own in places.items():
        yield setting, rest.iloc[own]


def value_of(text: str) -> int | float | str:
    """Return what a cell says: a finite number where it is one, so that 0.10 and 1e-1 are one setting, or its text."""
    try:
        value = float(text)
    except ValueError:
        return text
    # For Python 1_000 is a number; in a table it is a name. What is stored holds no `inf` and no integers of 65 bits.
    if "_" in text or not math.isfinite(value):
        return text
    try:
        return int(text) if abs(value) < 2**64 else value
    except ValueError:
        return value


def names_of(name: str, settings: Sequence[Setting]) -> list[str]:
    """Return what the ensemble of each setting is called, `mine-lr0.1`, with all digits of a number."""
    columns = [column for column, _ in settings[0]]
    texts = [[_text(value) for _, value in own] for own in settings]
    return [f"{name}-{text}" for text in joined_names(columns, [*np.array(texts, dtype=object).T])]


def _text(value: float | str) -> str:
    return repr(value).removesuffix(".0").replace("e+", "e") if isinstance(value, float) else str(value)
