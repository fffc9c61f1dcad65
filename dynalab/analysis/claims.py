"""What holds of the published claims on latent states of training, from a stored analysis, with intervals.

Hu et al., "Latent State Models of Training Dynamics" (TMLR, 2023, arXiv 2308.09543) claim that some settings fork (runs
take different ways through the states), that some states are detours (optional, and they delay convergence), and that
stabilising a setting removes both and narrows the spread of convergence times. The claims were made without
intervals. Here each comes with one, and two settings are compared with tests that respect censoring. Where convergence
is watched, paths end with it, and those of runs that never converged are not known.

Everything is a pure function of a result's plain values (`states`, `convergence`, `detours`); nothing is read or drawn.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Nothing heavy here: the command line reads every analysis package when it starts.
# Of `compare`; it rises when a number changes.
VERSION = 2
RESAMPLES = 4000
# A direction that a single run takes is no fork: one odd run would make a claim about a task.
LEAST_RUNS = 2
# Times of fewer runs have no spread to speak of.
LEAST_TIMES = 3
# Two-sided 95% point of the normal distribution.
Z95 = 1.959963984540054
# Beyond it a float holds no coefficient of variation.
LARGEST = math.log(700.0)


def claims(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one analysis says of the claims.

    Args:
        result: The plain values of an analysis `hmm`.

    Returns:
        `forks` (see `forks`), `off_path` (converged runs that do not take the most common path, see `off_path`),
        `detours` (how many states could be tested and which of them delay; null where the analysis has no such test),
        `spread` (see `spread`; null where nothing is watched).
    """
    found = result.get("detours")
    return {
        "forks": forks(paths(result)),
        "off_path": off_path([run.path for run in _runs(result) if run.step < math.inf]),
        "detours": None
        if found is None
        else {
            "tested": sum(row.get("p_adjusted") is not None for row in found),
            "states": [row["state"] for row in found if row.get("verdict")],
        },
        "spread": spread(result["convergence"]) if result.get("convergence") else None,
    }


def paths(result: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return the states that each run passes through, without stays, up to its last row."""
    return [_visited(run["states"]) for run in result["states"]]


def forks(paths: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """States that runs leave in different directions.

    A run counts once a state, by the way it leaves it first, so that the shares of a state add up to 1 and returning
    to and fro is no fork.

    Args:
        paths: The states that each run passes through, without stays.

    Returns:
        One entry a state with two directions or more: `{state, runs, directions, fork}`; a direction is
        `{to, runs, share, interval}` (Wilson's 95% interval of the share of the runs that leave the state), the most
        common first. `fork` is True where at least two directions are taken by two runs or more each.
    """
    from dynalab.analysis.hmm.states import wilson

    ways: dict[int, Counter[int]] = {}
    for path in paths:
        left = set()
        for here, there in pairwise(path):
            if here not in left:
                left.add(here)
                ways.setdefault(here, Counter())[there] += 1
    found = []
    for state, counts in sorted(ways.items()):
        if len(counts) < 2:
            continue
        total = counts.total()
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        directions = [
            {"to": to, "runs": n, "share": n / total, "interval": wilson(n, total)} for to, n in ordered
        ]
        split = sum(n >= LEAST_RUNS for _, n in ordered) >= 2
        found.append({"state": state, "runs": total, "directions": directions, "fork": split})
    return found


def off_path(paths: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many runs do not take the most common path.

    Returns:
        `{runs, of, share, interval, paths}`; share and interval are null without runs. Which path is the most common
        one is read off the same runs, which makes it look more common than it is: the interval is that of the largest
        of several shares, from exact intervals (Clopper and Pearson, 1934) of all paths at once (95% over the number of
        paths, Bonferroni).
    """
    from scipy.special import betaincinv

    counts = Counter(tuple(path) for path in paths)
    off = len(paths) - max(counts.values(), default=0)
    tail, on = 0.025 / max(len(counts), 1), len(paths) - off
    low = float(betaincinv(off, on + 1, tail)) if off else 0.0
    high = float(betaincinv(off + 1, on, 1 - tail)) if on else 1.0
    return {
        "runs": off,
        "of": len(paths),
        "share": off / len(paths) if paths else None,
        "interval": [low, high] if paths else None,
        "paths": len(counts),
    }


def spread(convergence: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Spread of the convergence step over runs.

    Args:
        convergence: `{run, step, censored}` of every run.

    Returns:
        `{runs, censored, median, quartiles, cv, cv_interval}`. A run that did not converge counts as later than all
        others in median and quartiles (null where they fall among such runs). The coefficient of variation (standard
        deviation with n - 1 over mean) is null where some run did not converge: how much later it does is not known.
        Its 95% interval is that of the standard deviation of the logarithms, for any kurtosis (Bonett, 2006), told as
        the coefficient of a lognormal law; null with under three runs, where all converge at the same step, or one at
        step 0. (Bootstraps of the coefficient miss it four times as often as they say with ten runs.)
    """
    from dynalab.core.stats import quartiles

    steps = [None if row["censored"] else float(row["step"]) for row in convergence]
    known = [step for step in steps if step is not None]
    value = coefficient_of_variation(known) if len(known) == len(steps) else None
    low, middle, high = quartiles(steps)
    return {
        "runs": len(steps),
        "censored": len(steps) - len(known),
        "median": middle,
        "quartiles": [low, high],
        "cv": value,
        "cv_interval": _cv_interval(known) if value else None,
    }


def coefficient_of_variation(steps: Sequence[float]) -> float | None:
    """Standard deviation (n - 1) over mean; None for under two values or a mean of 0."""
    import numpy as np

    if len(steps) < 2 or np.mean(steps) == 0:
        return None
    return float(np.std(steps, ddof=1) / np.mean(steps))


def _cv_interval(steps: Sequence[float]) -> list[float] | None:
    """Interval of the coefficient of variation by Bonett's (2006) of the variance of the logarithms."""
    import numpy as np
    from scipy.stats import trim_mean

    n = len(steps)
    if n < LEAST_TIMES or min(steps) <= 0:
        return None
    logs = np.log(np.asarray(steps, dtype=np.float64))
    # The kurtosis is taken about a trimmed mean: long tails pull the plain one.
    centre = trim_mean(logs, 0.5 / math.sqrt(n - 4)) if n > 5 else np.median(logs)
    squares = float(((logs - logs.mean()) ** 2).sum())
    kurtosis = n * float(((logs - centre) ** 4).sum()) / squares**2
    inflation = n / (n - Z95)
    error = inflation * math.sqrt(max(kurtosis - (n - 3) / n, 0.0) / (n - 1))
    middle = math.log(inflation * squares / (n - 1))
    low, high = (_lognormal_cv(middle + side * Z95 * error) for side in (-1, 1))
    value = coefficient_of_variation(steps) or 0.0
    return [min(low, value), max(high, value)]


def _lognormal_cv(log_variance: float) -> float:
    """Coefficient of variation of a lognormal law, from the logarithm of the variance of its logarithm."""
    return math.sqrt(math.expm1(math.exp(min(log_variance, LARGEST))))


@dataclass(frozen=True)
class _Run:
    """A run of one setting.

    Attributes:
        path: The states it passes through, without stays; up to convergence.
        step: When it converged; infinity where it did not; 0 where nothing is watched.
        last: How far it was watched.
    """

    path: tuple[int, ...]
    step: float
    last: float


def _runs(result: Mapping[str, Any]) -> list[_Run]:
    """The runs of a result.

    One of an older version does not say how far they were watched: as far as the last that converged, it is taken, and
    for ever where all did.
    """
    watched = {row["run"]: row for row in result.get("convergence") or ()}
    known = [row["step"] for row in watched.values() if not row["censored"]]
    far = float(max(known, default=0)) if len(known) < len(watched) else math.inf
    found = []
    for place, run in enumerate(result["states"]):
        row = watched.get(run["run"]) if "run" in run else list(watched.values())[place] if watched else None
        states, steps = run["states"], run.get("steps")
        if row is None:
            found.append(_Run(_visited(states), 0.0, math.inf))
            continue
        last = float(row.get("last", far))
        if row["censored"]:
            found.append(_Run(_visited(states), math.inf, last))
            continue
        until = max(bisect_left(steps, row["step"]), 1) if steps else len(states)
        found.append(_Run(_visited(states[:until]), float(row["step"]), max(last, float(row["step"]))))
    return found


def content(result: Mapping[str, Any]) -> list[Any]:
    """Return all that `compare` looks at in a result, as plain values: what a stored comparison is known by."""
    runs = [
        [run.path, *(None if math.isinf(x) else x for x in (run.step, run.last))] for run in _runs(result)
    ]
    return [bool(result.get("convergence")), runs]


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two settings.

    Args:
        one: The plain values of an analysis `hmm`, the reference.
        other: The same of the setting that is compared with it.

    Returns:
        - `off_path`: share of the converged runs off the most common path of their own setting, `other` minus `one`, as
          `{difference, interval, p}`: 95% interval from those of the two shares (Newcombe, 1998, method 10), Fisher's
          exact test. Of settings that were watched for different lengths, the runs enter that converged within the
          shorter one, so that late ones are missing on both sides.
        - `spread`: ratio of the coefficients of variation, `other` over `one`, as `{ratio, interval, p}`: 95% interval
          from those of the two (Zou and Donner, 2008), permutation test of deviations of the logarithms from each
          setting's own median (Levene's test as Brown and Forsythe, 1974, have it, with permutations in place of the F
          distribution), so that a setting that is merely faster is not called narrower. Null where a run never
          converged.
        - `speed`: ratio of the median convergence steps (Kaplan and Meier, 1958), `other` over `one`, likewise: 95%
          bootstrap interval over runs (percentiles), null ratio and bounds where censoring leaves them unknown, Gehan's
          test over all runs by permutation.
        - `left_out`: runs that never converged, in `off_path` and `spread`.
        - `reasons`: why one of the three is null, by its name.
    """
    a, b = _runs(one), _runs(other)
    found: dict[str, Any] = {
        "off_path": None,
        "spread": None,
        "speed": None,
        "left_out": sum(run.step == math.inf for run in (*a, *b)),
        "reasons": {},
    }
    reach = _common(a, b)
    shares = [off_path([run.path for run in runs if run.last >= reach >= run.step]) for runs in (a, b)]
    if all(item["of"] for item in shares):
        found["off_path"] = _shares(*shares)
    else:
        found["reasons"]["off_path"] = "no run of one setting converged in the time that both were watched"
    if not (one.get("convergence") and other.get("convergence")):
        found["reasons"] |= dict.fromkeys(("spread", "speed"), "nothing says when runs converge")
    elif min(len(a), len(b)) < LEAST_TIMES:
        found["reasons"] |= dict.fromkeys(("spread", "speed"), f"fewer than {LEAST_TIMES} runs")
    else:
        found["speed"] = _speed(a, b)
        if found["left_out"]:
            found["reasons"]["spread"] = f"{found['left_out']} of {len(a) + len(b)} runs did not converge"
        elif (narrow := _spread([run.step for run in a], [run.step for run in b])) is not None:
            found["spread"] = narrow
        else:
            found["reasons"]["spread"] = "runs of one setting all converge at one step, or at step 0"
    return found


def _common(a: Sequence[_Run], b: Sequence[_Run]) -> float:
    """The step up to which settings are compared: where most runs of both were watched that long and had converged."""

    def usable(reach: float) -> int:
        return min(sum(run.last >= reach >= run.step for run in runs) for runs in (a, b))

    return max(sorted({run.last for run in (*a, *b)}), key=usable)


def _shares(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    from scipy.stats import fisher_exact

    low = math.hypot(b["share"] - b["interval"][0], a["interval"][1] - a["share"])
    high = math.hypot(b["interval"][1] - b["share"], a["share"] - a["interval"][0])
    difference = b["share"] - a["share"]
    table = [[item["runs"], item["of"] - item["runs"]] for item in (b, a)]
    return {
        "difference": difference,
        "interval": [difference - low, difference + high],
        "p": float(fisher_exact(table).pvalue),
    }


def _speed(a: Sequence[_Run], b: Sequence[_Run]) -> dict[str, Any]:
    """Ratio of Kaplan and Meier's medians, a bootstrap interval of it, and Gehan's test."""
    import numpy as np

    from dynalab.analysis.hmm import survival

    rng = np.random.default_rng(0)
    times = [np.array([min(run.step, run.last) for run in runs]) for runs in (a, b)]
    seen = [np.array([run.step < math.inf for run in runs]) for runs in (a, b)]
    one, other = (survival.quantile(time, known, 0.5) for time, known in zip(times, seen, strict=True))
    drawn = [
        survival.quantiles(
            time, known, 0.5, rng.multinomial(len(time), [1 / len(time)] * len(time), RESAMPLES)
        )
        for time, known in zip(times, seen, strict=True)
    ]
    # Beyond what both settings were watched for no pair of runs can be told apart; cut there, both are censored alike.
    reach = min(max(run.last for run in runs) for runs in (a, b))
    time, known = np.concatenate(times), np.concatenate(seen)
    label = np.arange(len(time)) >= len(a)
    _, p, _ = survival.two_sample(np.minimum(time, reach), known & (time <= reach), label, seed=0)
    return {
        "ratio": other / one if one and other is not None else None,
        "interval": _ratio(drawn[1], drawn[0]),
        "p": p,
    }


def _spread(one: Sequence[float], other: Sequence[float]) -> dict[str, Any] | None:
    """Ratio of the coefficients of variation; None where it or the logarithms are not defined."""
    import numpy as np
    from scipy.stats import permutation_test

    first, second = coefficient_of_variation(one), coefficient_of_variation(other)
    if not first or not second or min(*one, *other) <= 0:
        return None
    rng = np.random.default_rng(0)
    samples = [np.asarray(steps, dtype=float) for steps in (one, other)]
    bounds = [_cv_interval(steps) for steps in (one, other)]

    def apart(x: Any, y: Any, axis: int = -1) -> Any:
        sizes = [np.abs(v - np.median(v, axis=axis, keepdims=True)).mean(axis=axis) for v in (x, y)]
        return np.abs(sizes[1] - sizes[0])

    logs = [np.log(x) for x in samples]
    centred = [x - np.median(x) for x in logs]
    p = permutation_test(centred, apart, n_resamples=RESAMPLES, alternative="greater", rng=rng).pvalue
    return {"ratio": second / first, "interval": _ratio_interval((first, second), bounds), "p": float(p)}


def _ratio_interval(values: Sequence[float], bounds: Sequence[Sequence[float] | None]) -> list[float | None]:
    """Interval of the ratio of the second of two positive values to the first, from their own intervals.

    Newcombe's way for logarithms (Zou and Donner, 2008): what is known of each is kept on its side.
    """
    if bounds[0] is None or bounds[1] is None:
        return [None, None]
    one, other = map(math.log, values)
    low, high = map(math.log, bounds[0])
    least, most = map(math.log, bounds[1])
    down, up = math.hypot(other - least, high - one), math.hypot(most - other, one - low)
    return [math.exp(other - one - down), math.exp(other - one + up)]


def _ratio(top: Any, bottom: Any) -> list[float | None]:
    """Middle 95% of a bootstrapped ratio; a bound that rests on unknown values or divisors of 0 is None."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top / bottom
    unknown = np.isnan(ratio) | (bottom == 0)
    low = np.quantile(np.where(unknown, 0.0, ratio), 0.025, method="inverted_cdf")
    high = np.quantile(np.where(unknown | np.isinf(top), np.inf, ratio), 0.975, method="inverted_cdf")
    return [float(low) if 0 < low < math.inf else None, float(high) if math.isfinite(high) else None]


def _visited(states: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(k) for i, k in enumerate(states) if i == 0 or k != states[i - 1])
