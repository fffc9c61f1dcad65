"""Paths, detours, two settings, odd runs and dissimilarities of `analyze hmm`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from nulls.compare import LAWS
from nulls.hmm import VISITS, pooled, walks

from bars.calibration.base import NULLS, WHOLE, Errors, Null, Subject, any_called, misses, printed

RANDOM, LENGTHS = "states at random", "states at random, runs cut off at lengths of their own"
# Share of the printed values that erred at `BEFORE`: 300 ensembles where states were tested, else 1,000.
RATES: dict[str, dict[str, float]] = {
    "states at random": {
        "paths: p": 0.0,
        "detours: p": 0.558,
        "detours: adjusted p, any state": 0.747,
        "detours: interval of the delay": 0.601,
    },
    "states at random, runs cut off at lengths of their own": {
        "paths: p": 0.024,
        "detours: p": 0.304,
        "detours: adjusted p, any state": 0.41,
        "detours: interval of the delay": 0.345,
    },
    "who skips a state stays longer before it": {
        "paths: p": 0.033,
        "detours: p": 0.597,
        "detours: adjusted p, any state": 0.993,
        "detours: interval of the delay": 0.61,
    },
    "states in order, at paces of their own": {
        "paths: p": 0.037,
        "detours: p": 0.762,
        "detours: adjusted p, any state": 0.86,
        "detours: interval of the delay": 0.797,
    },
    "one way at many speeds, cut off at lengths of their own": {
        "paths: p": 0.687,
        "detours: p": 0.0,
        "detours: adjusted p, any state": 0.0,
        "detours: interval of the delay": 0.0,
    },
    "two ensembles in one: states at random": {
        "paths: p": 0.012,
        "detours: p": 0.507,
        "detours: adjusted p, any state": 0.67,
        "detours: interval of the delay": 0.539,
    },
    "two ensembles in one: states at random, runs cut off at lengths of their own": {
        "paths: p": 0.034,
        "detours: p": 0.337,
        "detours: adjusted p, any state": 0.417,
        "detours: interval of the delay": 0.366,
    },
    "24 and 24 runs, three ways": {
        "two settings, off the common path: p": 0.0,
        "two settings, off the common path: interval": 0.002,
        "two settings, medians: p": 0.043,
        "two settings, medians: interval": 0.038,
        "two settings, spreads: p": 0.047,
        "two settings, spreads: interval": 0.086,
    },
    "one trained half as long": {
        "two settings, off the common path: p": 0.0,
        "two settings, off the common path: interval": 0.002,
        "two settings, medians: p": 0.413,
        "two settings, medians: interval": 0.375,
        "two settings, spreads: p": 0.283,
        "two settings, spreads: interval": 0.678,
    },
    "half of the runs cut off in one": {
        "two settings, off the common path: p": 0.0,
        "two settings, off the common path: interval": 0.002,
        "two settings, medians: p": 0.044,
        "two settings, medians: interval": 0.051,
        "two settings, spreads: p": 0.045,
        "two settings, spreads: interval": 0.099,
    },
    "8 and 60 runs, ties of 200 steps": {
        "two settings, off the common path: p": 0.01,
        "two settings, off the common path: interval": 0.037,
        "two settings, medians: p": 0.012,
        "two settings, medians: interval": 0.013,
        "two settings, spreads: p": 0.033,
        "two settings, spreads: interval": 0.204,
    },
    "20 runs, 1 way alike often": {"off the common path: interval": 0.0},
    "24 runs, 2 ways alike often": {"off the common path: interval": 0.065},
    "40 runs, 4 ways alike often": {"off the common path: interval": 0.111},
    "30 runs, 10 ways alike often": {"off the common path: interval": 0.253},
    "5 runs, lognormal steps of width 0.3": {"coefficient of variation: interval": 0.332},
    "20 runs, lognormal steps of width 0.3": {"coefficient of variation: interval": 0.155},
    "40 runs, lognormal steps of width 0.6": {"coefficient of variation: interval": 0.212},
    "5 runs, shares of two states": {"dissimilarity: interval": 0.108},
    "20 runs, shares of two states": {"dissimilarity: interval": 0.048},
}
NAMES = {
    "off_path": "two settings, off the common path",
    "speed": "two settings, medians",
    "spread": "two settings, spreads",
}


def consequences(make: Callable[..., Any], kind: str, seed: int) -> Errors:
    """Paths and states that cost nothing: the p-value of paths; every `p`, `interval` and verdict of states."""
    from dynalab.analysis.hmm.detours import find
    from dynalab.analysis.hmm.paths import compare

    runs = make(seed, kind)
    return _consequences(compare(*runs)[0], find(*runs, 4).rows)


def _consequences(paths: Any, states: Any) -> Errors:
    rows = [row for row in states if row.p is not None]
    called = [any(row.p_adjusted < 0.05 or row.verdict for row in rows)]
    return {
        "paths: p": [] if paths is None else [paths.p < 0.05],
        "detours: p": [row.p < 0.05 for row in rows],
        "detours: adjusted p, any state": called if rows else [],
        "detours: interval of the delay": [misses(row.interval, 0.0) for row in rows],
    }


def settings(one: dict[str, Any], other: dict[str, Any], seed: int) -> Errors:
    """Two settings of one law."""
    from nulls.hmm import setting

    return _settings(setting(2 * seed, **one), setting(2 * seed + 1, **other))


def _settings(one: Any, other: Any) -> Errors:
    from dynalab.analysis.hmm.comparison import compare
    from dynalab.core.records import plain

    found, errors = plain(compare(one, other)), {}
    for key, same in (("off_path", 0.0), ("speed", 1.0), ("spread", 1.0)):
        if found[key] is not None:
            errors[f"{NAMES[key]}: p"] = [] if found[key]["p"] is None else [found[key]["p"] < 0.05]
            errors[f"{NAMES[key]}: interval"] = [misses(found[key]["interval"], same)]
    return errors


def common_path(n: int, ways: int, seed: int) -> Errors:
    """Runs that take some ways alike often."""
    from dynalab.analysis.hmm.claims import off_path

    drawn = np.random.default_rng(seed).integers(ways, size=n)
    interval = off_path([(int(way),) for way in drawn]).interval
    return {"off the common path: interval": [misses(interval, 1 - 1 / ways)]}


def variation(n: int, width: float, seed: int) -> Errors:
    """Lognormal steps, whose coefficient of variation is known."""
    from nulls.hmm import passages

    from dynalab.analysis.hmm.claims import spread

    steps = np.exp(6 + width * np.random.default_rng(seed).normal(size=n)).round()
    interval = spread(passages(steps.tolist())).cv_interval
    return {"coefficient of variation: interval": [misses(interval, float(np.sqrt(np.expm1(width**2))))]}


def dissimilarity(n: int, seed: int) -> Errors:
    """Runs whose shares of two states are uniform: two are a third apart."""
    from dynalab.analysis.hmm.dissimilarity import describe

    share = np.random.default_rng(seed).random(n)
    drawn = [np.repeat([0, 1], [round(1000 * x), 1000 - round(1000 * x)]) for x in share]
    interval = describe(drawn, 2).total_variation.interval
    return {"dissimilarity: interval": printed(interval, 1 / 3)}


def visiting(law: str, n: int, seed: int) -> Errors:
    """Runs of which some visit a state."""
    from nulls.hmm import apart, visits

    from dynalab.analysis.hmm.dissimilarity import describe

    interval = describe(visits(law, n, seed), 3).total_variation.interval
    return {"dissimilarity: interval": printed(interval, apart(law))}


def unlikely(law: str, cut: bool, n: int, seed: int) -> Errors:
    """What models without a run say of it: whether any run is called odd."""
    from nulls.hmm import said

    from dynalab.analysis.hmm.odd import compared
    from dynalab.core.stats import holm

    _, p = compared(said(law, cut, n, seed))
    return {"hmm, odd runs: adjusted p, any run": [min(holm(p[np.isfinite(p)].tolist())) < 0.05]}


def analysed(kind: str, together: bool, seed: int) -> Errors:
    """`analyze hmm`, from metrics to p-values."""
    findings = _analysis(seed, kind, together)
    odd = {} if together else {"hmm, odd runs: adjusted p, any run": [any_called(findings.odd)]}
    return _consequences(findings.path_comparison, findings.detours) | odd


def apart(kind: str, seed: int) -> Errors:
    """`analyze hmm` of two settings of one law, each with states of its own, and their comparison."""
    return _settings(_analysis(2 * seed, kind, False), _analysis(2 * seed + 1, kind, False))


def _analysis(seed: int, kind: str, together: bool) -> Any:
    from nulls.hmm import trajectories

    from dynalab.analysis.hmm import Config
    from dynalab.analysis.hmm.outcome import infer

    # Neither the choice of K nor what stands beside the model is asked: they are where the time goes.
    config = Config(n_states=4, restarts=2, folds=2, workers=1, stability=False, baselines=False)
    return infer(trajectories(seed, kind, together), config)


def _statistics() -> list[Null]:
    kinds = {
        "random": RANDOM,
        "lengths": LENGTHS,
        "late": "who skips a state stays longer before it",
        "forward": "states in order, at paces of their own",
        "broken": "one way at many speeds, cut off at lengths of their own",
    }
    found = [Null(said, partial(consequences, walks, kind)) for kind, said in kinds.items()]
    found += [
        Null(f"two ensembles in one: {kinds[kind]}", partial(consequences, pooled, kind))
        for kind in ("random", "lengths")
    ]
    laws: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "24 and 24 runs, three ways": ({"ways": 3}, {"ways": 3}),
        "one trained half as long": ({"ways": 3}, {"ways": 3, "watched": 450}),
        "half of the runs cut off in one": ({"cut": 0.5, "ways": 3}, {"ways": 3}),
        "8 and 60 runs, ties of 200 steps": (
            {"n": 8, "grid": 200, "ways": 3},
            {"n": 60, "grid": 200, "ways": 3},
        ),
    }
    found += [Null(said, partial(settings, one, other)) for said, (one, other) in laws.items()]
    for n, ways in ((20, 1), (24, 2), (40, 4), (30, 10)):
        said = f"{n} runs, {ways} way{'s' if ways > 1 else ''} alike often"
        found.append(Null(said, partial(common_path, n, ways)))
    for n, width in ((5, 0.3), (20, 0.3), (40, 0.6)):
        found.append(Null(f"{n} runs, lognormal steps of width {width}", partial(variation, n, width)))
    for n in (5, 20):
        found.append(Null(f"{n} runs, shares of two states", partial(dissimilarity, n)))
    for n in (5, 10, 20, 50):
        found += [Null(f"{n} runs, {law}", partial(visiting, law, n)) for law in VISITS]
    for n in (5, 8, 20, 40):
        for law in LAWS:
            for cut in (False, True):
                lengths = ", cut off at lengths of their own" if cut else ""
                found.append(Null(f"likelihoods of {n} runs, {law}{lengths}", partial(unlikely, law, cut, n)))
        said = f"likelihoods of {n} runs, each at a pace of its own"
        found.append(Null(said, partial(unlikely, "pace", False, n)))
    return found


SUBJECT = Subject(
    "hmm",
    _statistics(),
    ("dynalab/analysis/hmm", "dynalab/analysis/cycle.py", "tests/nulls/hmm.py", "tests/nulls/compare.py"),
    [
        Null(f"analyze hmm: {RANDOM}", partial(analysed, "random", False), NULLS),
        Null(f"analyze hmm: {LENGTHS}", partial(analysed, "lengths", False), WHOLE),
        Null(f"analyze hmm, two ensembles in one: {RANDOM}", partial(analysed, "random", True), WHOLE),
        Null(f"analyze hmm twice, compared: {RANDOM}", partial(apart, "random"), WHOLE),
    ],
    RATES,
)
