"""What a run came to: the last row of each metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def final_of(grids: Sequence[tuple[np.ndarray, int]]) -> dict[str, Any]:
    """Return `final`, the last row of each metric's own grid, and `final_steps` of those that are of another step.

    Args:
        grids: Rows of a grid, a structured array of shape (T,), one at least, with columns of shape (S,), and the place
            of the run; that of the evaluation comes first, and its last row is that of `final.step`.
    """
    final: dict[str, Any] = {}
    steps: dict[str, int] = {}
    for rows, index in grids:
        row = rows[-1]
        step = final.setdefault("step", int(row["step"]))
        for name in (rows.dtype.names or ())[2:]:
            if name not in final:
                value = float(row[name][index])
                final[name] = value if math.isfinite(value) else None
                steps |= {} if row["step"] == step else {name: int(row["step"])}
    return {"final": final, **({"final_steps": steps} if steps else {})}
