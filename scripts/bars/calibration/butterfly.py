"""Steps at which forks stay connected, beside landmarks, by `analyze butterfly`."""

from __future__ import annotations

from functools import partial

from nulls.butterfly import LAGS

from bars.calibration.base import Errors, Null, Subject, misses


def butterflies(n: int, seed: int) -> Errors:
    """Forks that stay connected from a step on which knows nothing of a landmark."""
    from nulls.butterfly import LENGTH, earlier, unrelated

    from dynalab.analysis.butterfly.landmarks import against

    (found,) = against(unrelated(n, seed), ["generalised_step"], LENGTH)
    return {
        "butterfly, nearer to a landmark: p": [] if found.p is None else [found.p < 0.05],
        "butterfly, before a landmark: interval of the share": [misses(found.share_interval, earlier())],
    }


def lagging(law: str, n: int, seed: int) -> Errors:
    """Forks that stay connected, and landmarks, that come after what is seen of some runs: the median of the lag."""
    from nulls.butterfly import LENGTH, lag_of, late

    from dynalab.analysis.butterfly.landmarks import against

    (found,) = against(late(law, n, seed), ["generalised_step"], LENGTH)
    return {"butterfly, lag behind a landmark: interval": [misses(found.lag.interval, lag_of(law))]}


SUBJECT = Subject(
    "butterfly",
    [
        *(Null(f"forks of {n} runs", partial(butterflies, n)) for n in (7, 20)),
        *(Null(f"lags of {n} runs, {law}", partial(lagging, law, n)) for n in (5, 20) for law in LAGS),
    ],
    (
        "dynalab/analysis/butterfly",
        "dynalab/analysis/compare",
        "tests/nulls/butterfly.py",
        "tests/nulls/alike.py",
    ),
)
