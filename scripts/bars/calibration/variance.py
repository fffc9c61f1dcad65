"""Shares of the variance over seeds, by `analyze variance`."""

from __future__ import annotations

from functools import partial

import numpy as np

from bars.calibration.base import WHOLE, Errors, Null, Subject, misses


def shares(seed: int) -> Errors:
    """A crossed design of two streams, of which one has no effect."""
    from nulls.variance import PLANTED, idle

    from dynalab.analysis.variance import components

    values = idle(seed)
    drawn = components.draw(components.strata(values), 400, np.random.default_rng(seed))
    found = components.shares(components.solve(values.shape, drawn), 2)
    bounds = np.quantile(found, [0.025, 0.975], axis=0).T
    return {"shares of variance: interval": list(map(misses, bounds.tolist(), PLANTED))}


def shares_censored(seed: int) -> Errors:
    """The same by `analyze variance`, from metrics on; training ends before the last fifth converges."""
    from nulls.variance import PLANTED, crossed, idle

    from dynalab.analysis import variance

    steps = 500 + 100 * idle(seed)
    runs = crossed(steps, int(np.quantile(steps, 0.8)))
    shares = variance.analyse([runs], variance.Config(draws=400)).shares
    return {"shares of variance: interval": list(map(misses, [row.interval for row in shares], PLANTED))}


def shares_of_nothing(shape: tuple[int, ...], seed: int) -> Errors:
    """The same of runs of which no stream decides anything."""
    from designs import simulate
    from nulls.variance import crossed

    from dynalab.analysis import variance

    runs = crossed(500 + 100 * simulate(shape, (0.0,) * len(shape), 1.0, seed), 1500)
    shares = variance.analyse([runs], variance.Config(draws=400)).shares
    missed = [misses(row.interval, float(row.source == "residual")) for row in shares]
    return {
        "shares of variance: interval of the residual's": missed[-1:],
        "shares of variance: interval": missed,
    }


SUBJECT = Subject(
    "variance",
    [Null("6 x 6 runs, one stream idle", shares)],
    ("dynalab/analysis/variance", "tests/nulls/variance.py", "tests/designs.py"),
    [
        Null(
            "analyze variance: 6 x 6 runs, one stream idle, a fifth never converged", shares_censored, WHOLE
        ),
        *(
            Null(f"analyze variance: {words} runs, all streams idle", partial(shares_of_nothing, shape))
            for words, shape in (("4 x 4", (4, 4)), ("6 x 6", (6, 6)), ("4 x 4 x 4", (4, 4, 4)))
        ),
    ],
    # Of 1,000.
    {"6 x 6 runs, one stream idle": {"shares of variance: interval": 0.044}},
)
