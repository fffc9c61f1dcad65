"""Settings on single examples, and the models' own share, by `analyze examples`."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
from nulls.examples import alike

from bars.calibration.base import NULLS, Errors, Null, Subject, misses


def on_examples(about: Any, seed: int) -> Errors:
    """Two settings that are right on equally many of all examples: seeds and examples are samples."""
    from dynalab.analysis.examples.crossed import difference
    from dynalab.analysis.examples.disagreement import disagreement

    (one, other), gap = about.draw(np.random.default_rng(seed))
    found = difference(one, other)
    apart = disagreement(one, other, found.here.paired)
    errors = {}
    if not about.own:
        # Two settings that differ on no example do so on no test set, and disagree on no more than seeds do.
        errors["settings, disagreement: p"] = [] if apart.p is None else [apart.p < 0.05]
    if not about.better:
        errors["settings, on this test set: interval"] = [misses(found.here.interval, gap)]
        errors["settings, on new examples: p"] = [found.p < 0.05]
        errors["settings, on new examples: interval"] = [misses(found.interval, 0.0)]
    return errors


def models_share(share: float, n: int, models: str, n_models: int, seed: int) -> Errors:
    """Models whose own part of the variance of accuracies is known."""
    from nulls.examples import planted

    from dynalab.analysis.examples.shares import spread

    case = planted(share, n, models)
    right = case.draw(n_models, n, np.random.default_rng(seed))
    found = spread(right, np.ones_like(right))
    if found is None:
        return {}
    truth = float(np.sqrt(case.variances(n)[0]))
    return {
        "models' share: interval": [misses(found.interval, share)],
        "models' deviation: interval": [misses(found.deviation_interval, truth)],
    }


def _statistics() -> list[Null]:
    found = [Null(said, partial(on_examples, about)) for said, about in alike().items()]
    for models, n, share, n_models in product(
        ("normal", "skewed"), (200, 1000, 10_000), (0.0, 0.2, 0.5, 0.8), (8, 20, 40)
    ):
        said = f"{n_models} models, {models}, {share:.0%} theirs, {n:,} examples"
        nulls = 300 if n == 10_000 else NULLS
        found.append(Null(said, partial(models_share, share, n, models, n_models), nulls))
    return found


SUBJECT = Subject(
    "examples",
    _statistics(),
    ("dynalab/analysis/examples", "dynalab/analysis/compare", "tests/nulls/examples.py"),
)
