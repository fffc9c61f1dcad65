"""How often every p-value and interval that is printed errs where there is nothing to find.

The null runs are those of `tests/nulls`: cut off, of unequal lengths, with ties on the grid, of several settings. A
p-value errs below .05, an interval where it misses what it is of. The suite asks the same of each statistic
(`test_calibration.py`, with fewer permutations); here the whole analysis is asked as well, from metrics to p-values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from state import commit

from bars.base import Bar, cases, workers

NULLS, WHOLE = 1000, 150
MOST = 0.07
# The code before its statistics were mended: what the column "before" was measured at, once, with this file.
BEFORE = "6014725"
# Fewer printed values have no rate to speak of.
LEAST = 100
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
    "6 x 6 runs, one stream idle": {"shares of variance: interval": 0.044},
}
# For every printed value, whether it errs; empty where none is printed.
Errors = dict[str, list[bool]]


@dataclass(frozen=True)
class Null:
    """Null ensembles, and what is printed of each.

    Attributes:
        runs: The runs, in words.
        errors: From a seed, the errors of every p-value and interval.
        nulls: Number of null ensembles.
        most: The share of a thousand that may err.
    """

    runs: str
    errors: Callable[[int], Errors]
    nulls: int = NULLS
    most: float = MOST


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
        "detours: interval of the delay": [_misses(row.interval, 0.0) for row in rows],
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
            errors[f"{NAMES[key]}: interval"] = [_misses(found[key]["interval"], same)]
    return errors


NAMES = {
    "off_path": "two settings, off the common path",
    "speed": "two settings, medians",
    "spread": "two settings, spreads",
}


def common_path(n: int, ways: int, seed: int) -> Errors:
    """Runs that take some ways alike often."""
    from dynalab.analysis.hmm.claims import off_path

    drawn = np.random.default_rng(seed).integers(ways, size=n)
    interval = off_path([(int(way),) for way in drawn]).interval
    return {"off the common path: interval": [_misses(interval, 1 - 1 / ways)]}


def variation(n: int, width: float, seed: int) -> Errors:
    """Lognormal steps, whose coefficient of variation is known."""
    from nulls.hmm import passages

    from dynalab.analysis.hmm.claims import spread

    steps = np.exp(6 + width * np.random.default_rng(seed).normal(size=n)).round()
    interval = spread(passages(steps.tolist())).cv_interval
    return {"coefficient of variation: interval": [_misses(interval, float(np.sqrt(np.expm1(width**2))))]}


def dissimilarity(n: int, seed: int) -> Errors:
    """Runs whose shares of two states are uniform: two are a third apart."""
    from dynalab.analysis.hmm.dissimilarity import describe

    share = np.random.default_rng(seed).random(n)
    drawn = [np.repeat([0, 1], [round(1000 * x), 1000 - round(1000 * x)]) for x in share]
    interval = describe(drawn, 2).total_variation.interval
    return {"dissimilarity: interval": _printed(interval, 1 / 3)}


def visiting(law: str, n: int, seed: int) -> Errors:
    """Runs of which some visit a state."""
    from nulls.hmm import apart, visits

    from dynalab.analysis.hmm.dissimilarity import describe

    interval = describe(visits(law, n, seed), 3).total_variation.interval
    return {"dissimilarity: interval": _printed(interval, apart(law))}


def shares(seed: int) -> Errors:
    """A crossed design of two streams, of which one has no effect."""
    from nulls.variance import PLANTED, idle

    from dynalab.analysis.variance import components

    values = idle(seed)
    drawn = components.draw(components.strata(values), 400, np.random.default_rng(seed))
    found = components.shares(components.solve(values.shape, drawn), 2)
    bounds = np.quantile(found, [0.025, 0.975], axis=0).T
    return {"shares of variance: interval": list(map(_misses, bounds.tolist(), PLANTED))}


def shares_censored(seed: int) -> Errors:
    """The same by `analyze variance`, from metrics on; training ends before the last fifth converges."""
    from nulls.variance import PLANTED, crossed, idle

    from dynalab.analysis import variance

    steps = 500 + 100 * idle(seed)
    runs = crossed(steps, int(np.quantile(steps, 0.8)))
    shares = variance.analyse([runs], variance.Config(draws=400)).shares
    return {"shares of variance: interval": list(map(_misses, [row.interval for row in shares], PLANTED))}


def shares_of_nothing(shape: tuple[int, ...], seed: int) -> Errors:
    """The same of runs of which no stream decides anything."""
    from designs import simulate
    from nulls.variance import crossed

    from dynalab.analysis import variance

    runs = crossed(500 + 100 * simulate(shape, (0.0,) * len(shape), 1.0, seed), 1500)
    shares = variance.analyse([runs], variance.Config(draws=400)).shares
    missed = [_misses(row.interval, float(row.source == "residual")) for row in shares]
    return {
        "shares of variance: interval of the residual's": missed[-1:],
        "shares of variance: interval": missed,
    }


def analysed(kind: str, together: bool, seed: int) -> Errors:
    """`analyze hmm`, from metrics to p-values."""
    findings = _analysis(seed, kind, together)
    odd = {} if together else {"hmm, odd runs: adjusted p, any run": [_any(findings.odd)]}
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
    errors = [_misses(found.interval, first(chance, lead))] if found.total else []
    return {"hidden progress: interval of the share": errors}


def negative(seed: int) -> Errors:
    """Eigenvalues of which none is negative beyond those near zero: half a percent that is called so is an error."""
    from nulls.spectrum import GRID, flat

    from dynalab.analysis import spectrum

    largest, shares = flat(range(100 * seed, 100 * seed + 100))
    rows = [spectrum.read(0, *row, GRID, 0.01) for row in zip(largest.tolist(), shares, strict=True)]
    return {"spectrum: negative share": [row.negative > 0.005 for row in rows]}


def directed(kind: str, n: int, rows: int, weights: int, seed: int) -> Errors:
    """Runs whose weights walk at random: none has an excess over the walk."""
    from nulls.directions import walk

    from dynalab.analysis.directions.findings import Against, Over
    from dynalab.analysis.directions.path import Path as Walk
    from dynalab.analysis.directions.path import choose

    rng, found = np.random.default_rng(seed), dict[str, list[Any]]()
    for _ in range(n):
        path = Walk.of(walk(kind, rows, weights, rng), choose(rows, 100))
        (nulls, _), measured = path.null(), path.measures()
        for name, value in measured.items():
            found.setdefault(name, []).append(Against.of(value, nulls[name]))
    return {
        f"directions, {name.replace('_', ' ')}: interval of the excess": [
            _misses(Over.of(items).interval, 0.0)
        ]
        for name, items in found.items()
    }


def hybrids(n: int, seed: int) -> Errors:
    """Hybrids that are as good as full training from a known step on."""
    from nulls.hybrid import FIRST, GAPS, MARGIN, STEPS, values

    from dynalab.analysis.hybrid.findings import Over, Point, first_step, verdict_of

    hybrid, full = values(n, seed)
    overs = [Over.of(row, full) for row in hybrid]
    points = [
        Point(step, verdict_of(over, n, MARGIN, True), {"test_accuracy": over})
        for step, over in zip(STEPS, overs, strict=True)
    ]
    _, low, high = first_step(points, "test_accuracy", MARGIN, True)
    missed = (low is not None and low >= FIRST) or (high is not None and high < FIRST)
    return {
        "hybrid, difference: interval": [
            _misses(over.interval, gap) for over, gap in zip(overs, GAPS, strict=True)
        ],
        "hybrid, first step as good: interval": [missed],
    }


def modes(n: int, seed: int) -> Errors:
    """Modes and averages that are equally good."""
    from nulls.modes import values

    from dynalab.analysis.modes.judge import pairs

    found = pairs(values(n, seed), 0.005, 1)
    return {
        "modes against averages: p": [pair.p < 0.05 for pair in found],
        "modes against averages: adjusted p, any": [any(pair.p_adjusted < 0.05 for pair in found)],
        "modes against averages: interval": [_misses(pair.interval, 0.0) for pair in found],
    }


def butterflies(n: int, seed: int) -> Errors:
    """Forks that stay connected from a step on which knows nothing of a landmark."""
    from nulls.butterfly import LENGTH, earlier, unrelated

    from dynalab.analysis.butterfly.landmarks import against

    (found,) = against(unrelated(n, seed), ["generalised_step"], LENGTH)
    return {
        "butterfly, nearer to a landmark: p": [] if found.p is None else [found.p < 0.05],
        "butterfly, before a landmark: interval of the share": [_misses(found.share_interval, earlier())],
    }


def lagging(law: str, n: int, seed: int) -> Errors:
    """Forks that stay connected, and landmarks, that come after what is seen of some runs: the median of the lag."""
    from nulls.butterfly import LENGTH, lag_of, late

    from dynalab.analysis.butterfly.landmarks import against

    (found,) = against(late(law, n, seed), ["generalised_step"], LENGTH)
    return {"butterfly, lag behind a landmark: interval": [_misses(found.lag.interval, lag_of(law))]}


def paired(law: str, n: int, neighbours: bool, seed: int) -> Errors:
    """Barriers between all pairs of some runs, or of each and the next one, of a known mean."""
    from nulls.connectivity import mean, pairs

    from dynalab.analysis.connectivity.findings import over

    interval = over(pairs(law, n, seed, neighbours), lambda pair: pair.line.loss).interval
    name = "means over every run and the next" if neighbours else "connectivity, means over pairs"
    return {f"{name}: interval": _printed(interval, mean(law))}


def around(law: str, n: int, seed: int) -> Errors:
    """A number a run, of a known mean: of landscapes, and as all that prints a mean over runs has it."""
    from nulls.landscape import mean, values

    from dynalab.analysis.directions.findings import Against, Over
    from dynalab.analysis.hybrid.findings import Over as Hybrids
    from dynalab.core.means import Mean

    drawn, truth = values(law, n, seed), mean(law)
    intervals = {
        "landscape, means over runs": Mean.of(drawn).interval,
        "directions, means over runs": Over.of([Against(x, 0.0, x) for x in drawn.tolist()]).interval,
        "hybrid, means of differences": Hybrids.of(1 - drawn, np.ones(n)).interval,
    }
    truths = {"hybrid, means of differences": -truth}
    return {f"{name}: interval": _printed(it, truths.get(name, truth)) for name, it in intervals.items()}


def setting_in(law: str, n: int, seed: int) -> Errors:
    """Phases that set in before or after a landmark: the median of the lag."""
    from nulls.regions import lag, runs

    from dynalab.analysis.regions.findings import summarised

    found = summarised("train", runs(law, n, seed))
    assert found is not None
    interval = found.phases["ascent"].after_memorising.interval
    return {"regions, onset after a landmark: interval": _printed(interval, lag(law))}


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
            _misses(phase.onset_interval, onset)
            for phase, onset in zip(ascents, onsets.tolist(), strict=True)
            if phase
        ],
        "regions, onset over runs: interval": _printed(within, RISES * (rows - 1)),
        "regions, onset after a landmark: interval": _printed(
            ascent.after_memorising.interval, (RISES - REACHES) * (rows - 1)
        ),
    }


def kernels(n: int, seed: int) -> Errors:
    """Runs whose kernels know nothing of the labels and walk at random: none has an excess."""
    from nulls.kernel import unrelated, wandering

    from dynalab.analysis.directions.findings import Against, Over
    from dynalab.analysis.kernel import cone
    from dynalab.analysis.kernel.measure import aligned

    seeds = range(n * seed, n * seed + n)
    alike = Over.of([Against.of(*aligned(*unrelated(own))) for own in seeds])
    return {
        "kernel, alignment: interval of the excess": [_misses(alike.interval, 0.0)],
        "kernel, cone: interval of the excess": [
            _misses(Over.of([Against.of(*cone(wandering(own))) for own in seeds]).interval, 0.0)
        ],
    }


def paced(spacing: str, seed: int) -> Errors:
    """Kernels that settle or move, by rows every 200th of training, of which fewer are kept."""
    from nulls.kernel import LAST, SPACINGS, turning

    from dynalab.analysis.kernel import Config, Pace

    (kernel, noisy), dense = turning(seed), np.arange(0, LAST + 1, LAST // 200)
    steps = SPACINGS[spacing](np.random.default_rng(seed))
    truth, said = (Pace.of(at, of[at], Config()).verdict for at, of in ((dense, kernel), (steps, noisy)))
    return {
        f"kernel: {wrong} where it {right}": [said == wrong] if truth == right else []
        for right, wrong in (("settles", "moves"), ("moves", "settles"))
    }


def aperiodic(seed: int) -> Errors:
    """Norms without periods of weight decay."""
    from nulls.periods import decoy

    from dynalab.analysis import periods

    return {"periods: verdict": [periods.judge(decoy(seed), periods.Config()).verdict == "periodic"]}


def steps_of(kind: str, n: int, m: int, seed: int) -> Errors:
    """When the runs of two settings of one law reach a landmark."""
    from nulls.compare import MEDIAN, steps

    from dynalab.analysis.compare.medians import median_interval
    from dynalab.analysis.compare.pairs import between_times

    one, other = steps(kind, n, m, seed)
    gap = between_times(one, other)
    middle = 1200.0 if kind.startswith("ties") else MEDIAN
    single = median_interval(*one.until(float(one.last.max())))
    return {
        "settings, steps: p": [gap.p < 0.05],
        "settings, steps: log-rank p": [(gap.log_rank_p or 0.0) < 0.05],
        "settings, steps: interval of the difference": [_misses(gap.interval, 0.0)],
        "settings, steps: interval of the ratio": [_misses(gap.ratio_interval, 1.0)],
        "a setting's median: interval": [_misses(single, middle)],
    }


def values_of(kind: str, n: int, m: int, seed: int) -> Errors:
    """Last values of two settings of one mean."""
    from nulls.compare import values

    from dynalab.analysis.compare.pairs import between_values
    from dynalab.core.means import mean_interval

    one, other = values(kind, n, m, seed)
    gap = between_values(one, other, sign=1)
    # With lost runs it is of ranks, and where both ends are open it says so and does not err, as of steps.
    between = [_misses(gap.interval, 0.0)] if one.lost or other.lost else _printed(gap.interval, 0.0)
    ratio = {"settings, means: interval of the ratio": _printed(gap.ratio_interval, 1.0)}
    return {
        "settings, means: p": [gap.p < 0.05],
        "settings, means: interval of the difference": between,
        "a setting's mean: interval": _printed(mean_interval(one.values), 5.0),
        # Zou and Donner's is of means that are far from 0.
        **(ratio if "end" in kind else {}),
    }


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
        errors["settings, on this test set: interval"] = [_misses(found.here.interval, gap)]
        errors["settings, on new examples: p"] = [found.p < 0.05]
        errors["settings, on new examples: interval"] = [_misses(found.interval, 0.0)]
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
        "models' share: interval": [_misses(found.interval, share)],
        "models' deviation: interval": [_misses(found.deviation_interval, truth)],
    }


def odd(law: str, kind: str, n: int, seed: int) -> Errors:
    """The runs of a setting, of one law: whether any is called odd, with the other runs (Holm)."""
    from nulls.compare import alike

    from dynalab.analysis.compare.odd import odd_runs

    return {"compare, odd runs: adjusted p, any run": [_any(odd_runs(*alike(law, kind, n, seed)))]}


def unlikely(law: str, cut: bool, n: int, seed: int) -> Errors:
    """What models without a run say of it: whether any run is called odd."""
    from nulls.hmm import said

    from dynalab.analysis.hmm.odd import compared
    from dynalab.core.stats import holm

    _, p = compared(said(law, cut, n, seed))
    return {"hmm, odd runs: adjusted p, any run": [min(holm(p[np.isfinite(p)].tolist())) < 0.05]}


def _any(rows: Sequence[Any] | None) -> bool:
    return any(row.p_adjusted is not None and row.p_adjusted < 0.05 for row in rows or ())


def effects_of(kind: str, shape: tuple[int, int], n: int, seed: int) -> Errors:
    """Two keys that do nothing, neither alone nor together."""
    from nulls.compare import grid

    from dynalab.analysis.compare.effects import effects

    found = effects("it", *grid(kind, shape, n, seed))
    still = 1.0 if kind.startswith("steps") else 0.0
    return {
        "effects of two keys: p of a key": [effect.p < 0.05 for effect in found if len(effect.keys) == 1],
        "effects of two keys: p of the interaction": [
            effect.p < 0.05 for effect in found if len(effect.keys) == 2
        ],
        "effects of two keys: adjusted p, any": [any(effect.p_adjusted < 0.05 for effect in found)],
        "effects of two keys: interval": [
            _misses(effect.interval, still) for effect in found if effect.estimate is not None
        ],
    }


def compared(last: int, seed: int) -> Errors:
    """`analyze compare` of four settings of one law: whether any pair is called different, by any name."""
    from nulls.compare import groups

    from dynalab.analysis import compare

    found = compare.analyse(groups(seed, last=last), compare.Config())
    called: dict[str, list[bool]] = {}
    for pair in found.pairs:
        called.setdefault(pair.of, []).append(pair.verdict == "differ")
    errors = {f"compare, {name}: any pair differs": [any(pairs)] for name, pairs in called.items()}
    by_setting = [
        _any([row for row in found.odd if row.ensemble == setting.ensemble]) for setting in found.settings
    ]
    return errors | {"compare, odd runs: adjusted p, any run": by_setting}


def _printed(interval: Sequence[float | None] | None, truth: float) -> list[bool]:
    """Return whether an interval misses, if there is one."""
    return [] if interval is None or tuple(interval) == (None, None) else [_misses(interval, truth)]


def _misses(interval: Sequence[float | None] | None, truth: float) -> bool:
    low, high = interval or (None, None)
    return (low is not None and low > truth) or (high is not None and high < truth)


RANDOM, LENGTHS = "states at random", "states at random, runs cut off at lengths of their own"


def _statistics() -> list[Null]:
    from nulls.butterfly import LAGS
    from nulls.compare import CENSORED, LAWS, VALUES
    from nulls.compare import KINDS as STEPS
    from nulls.connectivity import KINDS as BASINS
    from nulls.connectivity import LAWS as BARRIERS
    from nulls.directions import KINDS as WALKS
    from nulls.examples import alike
    from nulls.hmm import VISITS, pooled, walks
    from nulls.kernel import SPACINGS
    from nulls.landscape import LAWS as SLICES
    from nulls.regions import LAWS as ONSETS

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
        found.append(
            Null(f"{n} runs, {ways} way{'s' if ways > 1 else ''} alike often", partial(common_path, n, ways))
        )
    for n, width in ((5, 0.3), (20, 0.3), (40, 0.6)):
        found.append(Null(f"{n} runs, lognormal steps of width {width}", partial(variation, n, width)))
    for n in (5, 20):
        found.append(Null(f"{n} runs, shares of two states", partial(dissimilarity, n)))
    for n in (5, 10, 20, 50):
        found += [Null(f"{n} runs, {law}", partial(visiting, law, n)) for law in VISITS]
    found.append(Null("6 x 6 runs, one stream idle", shares))
    for held_out in (1024, 100):
        found.append(
            Null(f"parity, nothing learned, {held_out:,} examples held out", partial(plateau, held_out))
        )
    for said, chance, lead in (
        ("alike often", 0.1, 1.0),
        ("often in one row", 0.3, 1.0),
        ("the measure first in 199 of 200", 0.0025, 200.0),
    ):
        found.append(Null(f"parity, two events by chance, {said}", partial(earlier, chance, lead)))
    found.append(Null("spectra without negative eigenvalues, a hundred at once", negative, NULLS // 100))
    found.append(Null("norms without periods", aperiodic))
    found += [Null(f"kernels whose weights are kept at {said}", partial(paced, said)) for said in SPACINGS]
    for kind, (n, rows, weights) in product(WALKS, ((5, 12, 120), (10, 60, 1000))):
        said = f"{n} runs, {weights:,} weights walk {rows - 1} steps, {kind}"
        found.append(Null(said, partial(directed, kind, n, rows, weights)))
    # In so few dimensions walks are drawn, which takes its time.
    said = f"5 runs, 20 weights walk 29 steps, {WALKS[0]}"
    found.append(Null(said, partial(directed, WALKS[0], 5, 30, 20), 200))
    for n in (5, 10):
        found.append(Null(f"hybrids of {n} runs", partial(hybrids, n)))
    for n in (8, 20):
        found.append(Null(f"modes and averages of {n} runs", partial(modes, n)))
    for n in (7, 20):
        found.append(Null(f"forks of {n} runs", partial(butterflies, n)))
    for n in (5, 20):
        found.append(Null(f"kernels of {n} runs", partial(kernels, n)))
        for law in (*BARRIERS, *BASINS):
            found.append(Null(f"all pairs of {n} runs, {law}", partial(paired, law, n, False)))
            found.append(Null(f"{n} runs, each and the next, {law}", partial(paired, law, n, True)))
        found += [Null(f"phases of {n} runs, {law}", partial(setting_in, law, n)) for law in ONSETS]
        found += [Null(f"lags of {n} runs, {law}", partial(lagging, law, n)) for law in LAGS]
    for rows, alike_by, n in product((21, 201), (0.0, 0.8, 0.95), (3, 20)):
        said = f"regions of {n} runs, {rows} rows, neighbours alike by {alike_by:g}"
        found.append(Null(said, partial(rising, n, rows, alike_by), NULLS // n))
    for n in (3, 5, 8, 20):
        # Of so few skewed values no interval of a mean holds its level, as below.
        few = 0.08 if n <= 5 else MOST
        found += [Null(f"{n} runs, {law}", partial(around, law, n), most=few) for law in SLICES]
    for n, m in ((3, 3), (5, 5), (8, 8), (20, 20), (5, 20)):
        for kind in STEPS:
            if n > 3 and not (kind.startswith("seeds") and (n != m or n < 6)):
                found.append(Null(f"{n} and {m} runs, steps: {kind}", partial(steps_of, kind, n, m)))
        for kind in VALUES:
            if not (kind.startswith("seeds") and (n != m or n < 6)):
                # Of so few skewed values no interval of a mean holds its level: 92% are asked of it.
                few = 0.08 if min(n, m) <= 5 else MOST
                found.append(
                    Null(f"{n} and {m} runs, values: {kind}", partial(values_of, kind, n, m), most=few)
                )
    found += [Null(said, partial(on_examples, about)) for said, about in alike().items()]
    for models, n, share, n_models in product(
        ("normal", "skewed"), (200, 1000, 10_000), (0.0, 0.2, 0.5, 0.8), (8, 20, 40)
    ):
        said = f"{n_models} models, {models}, {share:.0%} theirs, {n:,} examples"
        nulls = 300 if n == 10_000 else NULLS
        found.append(Null(said, partial(models_share, share, n, models, n_models), nulls))
    for n in (5, 8, 20, 40):
        for law in LAWS:
            for kind in CENSORED if law in ("lognormal", "t(4)") else ("all reach",):
                found.append(Null(f"odd runs, {n} runs, {law}: {kind}", partial(odd, law, kind, n)))
            for cut in (False, True):
                lengths = ", cut off at lengths of their own" if cut else ""
                found.append(Null(f"likelihoods of {n} runs, {law}{lengths}", partial(unlikely, law, cut, n)))
        found.append(
            Null(f"likelihoods of {n} runs, each at a pace of its own", partial(unlikely, "pace", False, n))
        )
    for n in (5, 8, 20):
        for shape in ((2, 2), (3, 2)):
            for kind in (
                "values",
                "values, shared seeds",
                "values, another number each",
                "steps, shared seeds",
            ):
                said = f"{shape[0]} x {shape[1]} settings of {n} runs, {kind}"
                found.append(Null(said, partial(effects_of, kind, shape, n)))
    return found


STATISTICS = _statistics()
ANALYSES = [
    Null(f"analyze hmm: {RANDOM}", partial(analysed, "random", False), NULLS),
    Null(f"analyze hmm: {LENGTHS}", partial(analysed, "lengths", False), WHOLE),
    Null(f"analyze hmm, two ensembles in one: {RANDOM}", partial(analysed, "random", True), WHOLE),
    Null(f"analyze hmm twice, compared: {RANDOM}", partial(apart, "random"), WHOLE),
    Null("analyze compare: four settings of 8 runs, all reach", partial(compared, 4000), NULLS),
    Null("analyze compare: four settings of 8 runs, a tenth never", partial(compared, 1500), NULLS),
    Null("analyze variance: 6 x 6 runs, one stream idle, a fifth never converged", shares_censored, WHOLE),
    *(
        Null(f"analyze variance: {words} runs, all streams idle", partial(shares_of_nothing, shape))
        for words, shape in (("4 x 4", (4, 4)), ("6 x 6", (6, 6)), ("4 x 4 x 4", (4, 4, 4)))
    ),
]


def _errors(runs: str, seed: int) -> Errors:
    """The errors of one null ensemble; by name, so that it can be sent to a process."""
    (null,) = [one for one in (*STATISTICS, *ANALYSES) if one.runs == runs]
    return {name: list(map(bool, errors)) for name, errors in null.errors(seed).items()}


def most(nulls: int, printed: int, many: float = MOST) -> float:
    """The share that may err: two standard errors of chance are granted to fewer than a thousand."""
    return many if nulls >= NULLS else 0.05 + 2 * (0.05 * 0.95 / max(printed, 1)) ** 0.5


def _measured(null: Null, place: Path, pool: ProcessPoolExecutor) -> tuple[dict[str, list[bool]], bool]:
    """The errors of every value printed of some null runs, and whether none errs too often.

    Of hundreds of rates a few of exact tests lie above the bar by chance. What does is asked of three times as many
    further nulls, and judged by all.
    """
    for nulls in (null.nulls, 4 * null.nulls):
        errors = cases(place, range(nulls), partial(_errors, null.runs), pool=pool)
        names = dict.fromkeys(name for one in errors for name in one)
        every = {name: [error for one in errors for error in one.get(name, ())] for name in names}
        reached = all(
            np.mean(found) <= most(nulls, len(found), null.most)
            for found in every.values()
            if len(found) >= LEAST
        )
        if reached:
            break
    return every, reached


def calibration(work: Path) -> tuple[str, bool, list[list[str]]]:
    """The share of errors of every p-value and interval: a row a value, its least and its most over the null runs."""
    rates: dict[str, list[tuple[float, int, str]]] = {}
    silent: list[str] = []
    reached = True
    with workers() as pool:
        for null in (*STATISTICS, *ANALYSES):
            place = work / "calibration" / f"{hashlib.sha256(null.runs.encode()).hexdigest()[:12]}.jsonl"
            every, well = _measured(null, place, pool)
            reached = reached and well
            for name, errors in every.items():
                if len(errors) < LEAST:
                    silent.append(name)
                else:
                    rates.setdefault(name, []).append((float(np.mean(errors)), len(errors), null.runs))
    rows = []
    for name, found in sorted(rates.items()):
        worst, printed, runs = max(found)
        before = [rate for _, _, where in found if (rate := RATES.get(where, {}).get(name)) is not None]
        rows.append(
            [
                name,
                str(len(found)),
                f"{min(found)[0]:.1%} to {worst:.1%}" if len(found) > 1 else f"{worst:.1%}",
                f"{runs} ({printed:,})",
                f"{max(before):.1%}" if before else "",
                commit(),
            ]
        )
    worst = max(rate for found in rates.values() for rate, _, _ in found)
    header = [
        "p-value or interval",
        "kinds of null runs",
        "errs",
        "most in (printed)",
        f"most before ({BEFORE})",
        "at",
    ]
    n = sum(map(len, rates.values()))
    figure = (
        f"{n} rates of {len(rows)} values; the worst errs in {worst:.1%}; {len(silent)} print too few to tell"
    )
    return figure, reached, [header, *rows]


BARS = [
    Bar(
        "calibration",
        "how often p-values are below .05 and 95% intervals miss, where there is nothing to find",
        "at most 7% in 1,000 null ensembles (8% for means of 5 runs), 5% and two standard errors in fewer; "
        "where it is more, in 4 times as many",
        "test_calibration.py",
        calibration,
        ("dynalab/analysis", "dynalab/core/survival.py", "scripts/bars/calibration.py", "tests/nulls"),
    )
]
