"""What a cell of somebody else's table means, a number, a missing value or a name: alike in every format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.core.errors import ConfigError

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
    """Read a column of numbers.

    Texts are read as well: words for missing values are NaN, `inf` and `Infinity` infinite, `true` and `false` 1 and 0.

    Returns:
        (values, shape (N,), ""), or (nothing, why it holds something else).
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
        found = _WORDS.get(word.casefold())
        if found is not None:
            return found
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

    Args:
        column: The column; a whole number stays whole where gaps made it a float.
        option: What named the column, for the message.

    Raises:
        ConfigError: A row has none.
    """
    values = column.to_numpy(object)
    texts = [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x).strip() for x in values]
    missing = column.isna().to_numpy() | np.array([not text for text in texts], bool)
    if missing.any():
        raise ConfigError(
            f"{option}: row {missing.argmax() + 1} has no name ({missing.sum()} rows have none)"
        )
    return np.array(texts, dtype=object)


def steps(column: pd.Series, option: str, instead: str = "") -> np.ndarray:
    """Return steps as integers, shape (N,).

    Args:
        column: The column.
        option: What named it, for the message.
        instead: What the message says about another column.

    Raises:
        ConfigError: A row has none, or one that is no whole number of 0 or more.
    """
    import pandas as pd

    legal = f"steps are whole numbers of 0 or more{instead}"
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise ConfigError(f"{option}: holds times; {legal}")
    found, why = numbers(column)
    if why:
        raise ConfigError(f"{option}: {why}; {legal}")
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0) & (found % 1 == 0) & (found < 2**53)))
    if len(bad):
        value = found[bad[0]]
        said = "nothing" if np.isnan(value) else f"{value:.17g}"
        raise ConfigError(f"{option}: row {bad[0] + 1} has {said} ({len(bad)} rows are like this); {legal}")
    return found.astype(np.int64)
