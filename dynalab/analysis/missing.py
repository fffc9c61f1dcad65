"""What an analysis says of columns that the runs do not have, and how they would get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynalab.errors import NothingMatched

if TYPE_CHECKING:
    from dynalab.analysis.base import Trajectories


def not_recorded(
    trajectories: Trajectories, kind: str, missing: str, columns: Sequence[str], words: str
) -> NothingMatched:
    """Return the error: of imported runs it names the columns to import, of others the command that records them.

    Args:
        trajectories: The runs.
        kind: The analysis.
        missing: What is missing.
        columns: The columns that the analysis needs.
        words: The overrides of `dynalab train` that record them.
    """
    if trajectories.imported:
        how = f"dynalab import a table with columns named {' and '.join(columns)} (a constant one: --const NAME=NUMBER)"
    else:
        how = f"dynalab train ... {words}"
    return NothingMatched(
        f"{trajectories.ensemble}: no {missing} recorded, which analyze {kind} needs: {how}"
    )
