"""What the columns and blocks of the recorded series are: each is declared once, in the module that computes it.

A module of a probe or of a task says so in `COLUMNS`, name -> `Column`; a number at the end of a name stands there as
`#` (`sharpness_#`). Those of a task are recorded with `train_` and `test_` before them. docs/metrics.md is made from
these.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """What a recorded column is.

    Attributes:
        about: Its definition, and where it is NaN or absent.
        unit: Its unit: `1` for pure numbers, `loss` for that of the task's loss, `weight` for that of the weights.
    """

    about: str
    unit: str


Columns = Mapping[str, Column]

# Before the name of a column of the evaluation, where it is of averaged weights.
AVERAGED = "average_"

# Of the updates: the loop's own, on the grid of `eval.every`.
OF_UPDATES: Columns = {
    "batch_loss": Column(
        "loss of the update t-1 -> t, in training mode, a mean over its batches; NaN in row 0", "loss"
    ),
    "train_loss_max": Column("largest `batch_loss` of the updates since the last row; NaN in row 0", "loss"),
}

# Of weights that are given up to modes (`train.modes`), on the same grid.
OF_EMBEDDING: Columns = {
    "embedded_share": Column(
        "share of a run's trained weights that are affine functions of their mode's reference by now; 0 in the warm-up",
        "1",
    )
}


def declared(name: str, columns: Container[str]) -> str | None:
    """Return the name, or the form of numbered names, that declares a column; None where none does."""
    numbered = re.sub(r"\d+$", "#", name)
    return next((form for form in (name, numbered) if form in columns), None)
