"""What an analysis is: a pure function from stored trajectories to a result.

An analysis module (`dynalab/analysis/KIND/` or `KIND.py`, or a plug-in's) holds

- `Config`, a dataclass of its keys;
- `VERSION`, an integer that is raised when results change (it enters the result's id);
- `analyse(trajectories, config) -> Outcome`;

and, where they differ from the usual,

- `STATUSES`, the statuses of the runs that it takes (default: `done`);
- `COLUMNS`, the columns that it looks for, whichever cadence they were recorded on: its runs then have the rows of all
  of these cadences, NaN where a column has none (default: everything on the evaluation grid or a finer one).

It reads arrays and returns plain values and tables. It knows no folder, no terminal and nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynalab.core.convergence import Convergence as Convergence
from dynalab.core.trajectories import Trajectories as Trajectories
from dynalab.core.trajectories import Trajectory as Trajectory

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """What an analysis found.

    Attributes:
        result: Plain values for result.json, with the keys of the command's `--json`.
        tables: Name -> data frame, stored as Parquet beside it.
        warnings: Lines a reader must see before trusting the numbers.
    """

    result: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
