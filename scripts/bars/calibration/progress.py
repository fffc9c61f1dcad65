"""Hidden progress on parities, by `analyze progress`."""

from __future__ import annotations

from functools import partial

from bars.calibration.base import Errors, Null, Subject, misses


def plateau(held_out: int, seed: int) -> Errors:
    """Runs on a parity that learn nothing, by `analyze progress`: neither event happens."""
    from nulls.progress import plateau as make

    from dynalab.analysis import progress

    runs = progress.analyse([make(seed, held_out)], progress.Config()).runs
    return {"hidden progress: verdict": [run.verdict != "on_plateau" for run in runs]}


def earlier(chance: float, lead: float, seed: int) -> Errors:
    """Runs on a parity whose two events know nothing of each other."""
    from nulls.progress import first, unordered

    from dynalab.analysis import progress

    found = progress.analyse(unordered(seed, chance, lead), progress.Config()).summary.earlier
    errors = [misses(found.interval, first(chance, lead))] if found.total else []
    return {"hidden progress: interval of the share": errors}


SUBJECT = Subject(
    "progress",
    [
        *(
            Null(f"parity, nothing learned, {held_out:,} examples held out", partial(plateau, held_out))
            for held_out in (1024, 100)
        ),
        *(
            Null(f"parity, two events by chance, {said}", partial(earlier, chance, lead))
            for said, chance, lead in (
                ("alike often", 0.1, 1.0),
                ("often in one row", 0.3, 1.0),
                ("the measure first in 199 of 200", 0.0025, 200.0),
            )
        ),
    ],
    ("dynalab/analysis/progress", "tests/nulls/progress.py"),
)
