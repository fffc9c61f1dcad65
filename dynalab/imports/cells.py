"""What a cell of somebody else's table means, a number, a missing value or a name: alike in every format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.core.errors import ConfigError
from dynalab.core.words import count

if TYPE_CHECKING:
    import pandas as pd

# The spellings that pandas takes for missing values in a CSV file, in any case, and those of C.
_MISSING = (
    "na n/a <na> #n/a #na nan -nan +nan nan(ind) -nan(ind) 1.#ind -1.#ind 1.#qnan -1.#qnan none null nat"
)
_WORDS = {
    **dict.fromkeys(["", "#n/a n/a", *_MISSING.split()], np.nan),
    **{"true": 1.0, "false": 0.0, "1.#inf": np.inf, "+1.#inf": np.inf, "-1.#inf": -np.inf},
}
_COMMA = re.compile(r"[+-]?[\d.' ]*,\d[\d.,]*([eE][+-]?\d+)?")


def numbers(column: pd.Series) -> tuple[np.ndarray, str]:
    """Return (the numbers of a column, shape (N,), ""), or (nothing, why it holds something else).

    Texts are read as well: words for missing values are NaN, `inf` and `Infinity` infinite, `true` and `false` 1 and 0.
    """
    import pandas as pd

    nothing = np.empty(0)
    if column.dtype.kind in "Mmc" or isinstance(column.dtype, pd.CategoricalDtype):
        return nothing, "not numeric"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(float, na_value=np.nan), ""
    values = np.empty(len(column))
    for row, cell in enumerate(column.to_numpy(object)):
        try:
            values[row] = _number(cell)
        except (ValueError, TypeError, OverflowError):
            text = str(cell)
            why = "a comma in a number" if _COMMA.fullmatch(text.strip()) else "not numeric"
            return nothing, f"{why}: {text[:20]!r} in row {row + 1}"
    return values, ""


def _number(cell: Any) -> float:
    import pandas as pd

    if isinstance(cell, str):
        word = cell.strip()
        value = _WORDS.get(word.casefold())
        if value is not None:
            return value
        # For Python 1_000 is a number; in a table it is a name.
        if "_" in word:
            raise ValueError(word)
        return float(word)
    if cell is None or cell is pd.NA:
        return np.nan
    if isinstance(cell, bytes | bytearray | memoryview):
        raise TypeError("bytes")
    return float(cell)


def names(column: pd.Series, option: str) -> np.ndarray:
    """Return names, one a row, as text: `None`, `NA` and `007` as they are written.

    A whole number stays whole where gaps made its column a float. A row without a name is a `ConfigError` that names
    the option.
    """
    values = column.to_numpy(object)
    texts = [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x).strip() for x in values]
    missing = column.isna().to_numpy() | np.array([not text for text in texts], bool)
    if missing.any():
        raise ConfigError(
            f"{option}: row {missing.argmax() + 1} has no name ({count(int(missing.sum()), 'row')} without one)"
        )
    return np.array(texts, dtype=object)


def steps(column: pd.Series, option: str, instead: str = "") -> np.ndarray:
    """Return steps as integers, shape (N,); a message names the option and says what could be chosen `instead`."""
    import pandas as pd

    legal = f"steps are whole numbers of 0 or more{instead}"
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise ConfigError(f"{option}: holds times; {legal}")
    values, why = numbers(column)
    if why:
        raise ConfigError(f"{option}: {why}; {legal}")
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0) & (values % 1 == 0) & (values < 2**53)))
    if len(bad):
        value = "nothing" if np.isnan(values[bad[0]]) else f"{values[bad[0]]:.17g}"
        raise ConfigError(
            f"{option}: row {bad[0] + 1} has {value} ({count(len(bad), 'row')} like this); {legal}"
        )
    return values.astype(np.int64)
