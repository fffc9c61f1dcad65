"""Onsets of phases of the number of regions, by `analyze regions`."""

from __future__ import annotations

from functools import partial
from itertools import product

from nulls.regions import LAWS as ONSETS

from bars.calibration.base import NULLS, Errors, Null, Subject, misses, printed


def setting_in(law: str, n: int, seed: int) -> Errors:
    """Phases that set in before or after a landmark: the median of the lag."""
    from nulls.regions import lag, runs

    from dynalab.analysis.regions.findings import summarised

    found = summarised("train", runs(law, n, seed))
    assert found is not None
    interval = found.phases["ascent"].after_memorising.interval
    return {"regions, onset after a landmark: interval": printed(interval, lag(law))}


def rising(n: int, rows: int, share: float, seed: int) -> Errors:
    """`analyze regions` of curves that rise from a known row on, in noise of which neighbouring rows share some."""
    from nulls.regions import REACHES, RISES
    from nulls.regions import rising as make

    from dynalab.analysis import regions

    group, onsets = make(n, rows, share, seed)
    findings = regions.analyse([group], regions.Config(change=0.3))
    ascents = [run.train and run.train.ascent for run in findings.runs]
    ascent = findings.summary.sets[0].phases["ascent"]
    within = ascent.onset.interval if n > 3 else ascent.onset_within
    return {
        "regions, onset in a run: interval": [
            misses(phase.onset_interval, onset)
            for phase, onset in zip(ascents, onsets.tolist(), strict=True)
            if phase
        ],
        "regions, onset over runs: interval": printed(within, RISES * (rows - 1)),
        "regions, onset after a landmark: interval": printed(
            ascent.after_memorising.interval, (RISES - REACHES) * (rows - 1)
        ),
    }


SUBJECT = Subject(
    "regions",
    [
        *(Null(f"phases of {n} runs, {law}", partial(setting_in, law, n)) for n in (5, 20) for law in ONSETS),
        *(
            Null(
                f"regions of {n} runs, {rows} rows, neighbours alike by {alike_by:g}",
                partial(rising, n, rows, alike_by),
                NULLS // n,
            )
            for rows, alike_by, n in product((21, 201), (0.0, 0.8, 0.95), (3, 20))
        ),
    ],
    (
        "dynalab/analysis/regions",
        "dynalab/analysis/compare",
        "tests/nulls/regions.py",
        "tests/nulls/alike.py",
    ),
)
