"""What holds of the published claims on latent states of training, from a stored analysis, with intervals.

Hu et al., "Latent State Models of Training Dynamics" (TMLR, 2023, arXiv 2308.09543) claim that some settings fork (runs
take different ways through the states), that some states are detours (optional, and they delay convergence), and that
stabilising a setting removes both and narrows the spread of convergence times. The claims were made without
intervals. Here each comes with one, and two settings are compared with a permutation test.

Everything is a pure function of a result's plain values (`states`, `convergence`, `detours`); nothing is read or drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

# Nothing heavy here: the command line reads every analysis package when it starts.
RESAMPLES = 4000
# A direction that a single run takes is no fork: one odd run would make a claim about a task.
LEAST_RUNS = 2


def claims(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one analysis says of the claims.

    Args:
        result: The plain values of an analysis `hmm`.

    Returns:
        `forks` (see `forks`), `off_path` (runs that do not take the most common path, with Wilson's interval),
        `detours` (how many states could be tested and which of them delay; null where the analysis has no such test),
        `spread` (see `spread`; null where nothing is watched).
    """
    paths = [_visited(run["states"]) for run in result["states"]]
    found = result.get("detours")
    return {
        "forks": forks(paths),
        "off_path": off_path(paths),
        "detours": None
        if found is None
        else {
            "tested": sum(row.get("p_adjusted") is not None for row in found),
            "states": [row["state"] for row in found if row.get("verdict")],
        },
        "spread": spread(result["convergence"]) if result.get("convergence") else None,
    }


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
    """How many runs do not take the most common path: `{runs, of, share, interval, paths}`, Wilson's 95% interval."""
    from dynalab.analysis.hmm.states import wilson

    counts = Counter(tuple(path) for path in paths)
    off = len(paths) - counts.most_common(1)[0][1]
    share = off / len(paths)
    return {
        "runs": off,
        "of": len(paths),
        "share": share,
        "interval": wilson(off, len(paths)),
        "paths": len(counts),
    }


def spread(convergence: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Spread of the convergence step over runs.

    Args:
        convergence: `{run, step, censored}` of every run.

    Returns:
        `{runs, censored, median, quartiles, cv, cv_interval}`. A run that did not converge counts as later than all
        others in median and quartiles (null where they fall among such runs) and is left out of the coefficient of
        variation (standard deviation with n - 1 over mean), which is then a lower bound. Its interval is the 95%
        bootstrap interval over runs, bias-corrected and accelerated (Efron, 1987); null with under three runs or where
        all converge at the same step.
    """
    from dynalab.analysis.hmm.states import quantile

    steps = [math.inf if row["censored"] else float(row["step"]) for row in convergence]
    known = [step for step in steps if math.isfinite(step)]
    value = coefficient_of_variation(known)
    return {
        "runs": len(steps),
        "censored": len(steps) - len(known),
        "median": quantile(steps, 0.5),
        "quartiles": [quantile(steps, 0.25), quantile(steps, 0.75)],
        "cv": value,
        "cv_interval": _bootstrap(known) if value else None,
    }


def coefficient_of_variation(steps: Sequence[float]) -> float | None:
    """Standard deviation (n - 1) over mean; None for under two values or a mean of 0."""
    import numpy as np

    if len(steps) < 2 or np.mean(steps) == 0:
        return None
    return float(np.std(steps, ddof=1) / np.mean(steps))


def _bootstrap(steps: Sequence[float]) -> list[float] | None:
    """BCa interval of the coefficient of variation."""
    import numpy as np

    if len(steps) < 3:
        return None
    x = np.asarray(steps, dtype=float)
    value = _cv(x)
    drawn = _cv(x[np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))])
    left_out = _cv(np.array([np.delete(x, i) for i in range(len(x))]))
    normal = NormalDist()
    below = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / RESAMPLES
    pull = left_out.mean() - left_out
    if not 0 < below < 1 or not pull.any():
        return None
    bias = normal.inv_cdf(float(below))
    acceleration = float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))
    ends = []
    for tail in (0.025, 0.975):
        z = bias + normal.inv_cdf(tail)
        ends.append(float(np.quantile(drawn, normal.cdf(bias + z / (1 - acceleration * z)))))
    return ends


def _cv(x: Any) -> Any:
    """Coefficients of variation over the last axis."""
    return x.std(axis=-1, ddof=1) / x.mean(axis=-1)


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two settings.

    Args:
        one: The plain values of an analysis `hmm`, the reference.
        other: The same of the setting that is compared with it.

    Returns:
        - `off_path`: share of runs off the most common path of their own setting, `other` minus `one`, as
          `{difference, interval, p}`: Newcombe's (1998, method 10) 95% interval, Fisher's exact test.
        - `spread`: ratio of the coefficients of variation, `other` over `one`, as `{ratio, interval, p}`.
        - `speed`: ratio of the median convergence steps, `other` over `one`, likewise.

        The last two are null without convergence steps on both sides. Their intervals are 95% bootstrap intervals
        over runs (percentiles of the ratio), their p-values those of permutation tests of the logarithms of the
        steps: `speed` exchanges runs between the settings; `spread` exchanges deviations from each setting's own median
        and compares their mean size (Levene's test as Brown and Forsythe, 1974, have it, with permutations in place
        of the F distribution), so that a setting that is merely faster is not called narrower. Runs that did not
        converge are left out there, and counted as `left_out`.
    """
    a, b = (off_path([_visited(run["states"]) for run in item["states"]]) for item in (one, other))
    found: dict[str, Any] = {"off_path": _shares(a, b), "spread": None, "speed": None, "left_out": 0}
    steps = [
        [float(row["step"]) for row in item.get("convergence") or () if not row["censored"]]
        for item in (one, other)
    ]
    found["left_out"] = sum(row["censored"] for item in (one, other) for row in item.get("convergence") or ())
    # A run that has converged at its very first row has no logarithm of a step; there is no ratio of times then.
    if min(map(len, steps)) >= 3 and min(map(min, steps)) > 0:
        found |= _times(*steps)
    return found


def _shares(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    low = math.hypot(b["share"] - b["interval"][0], a["interval"][1] - a["share"])
    high = math.hypot(b["interval"][1] - b["share"], a["share"] - a["interval"][0])
    difference = b["share"] - a["share"]
    return {
        "difference": difference,
        "interval": [difference - low, difference + high],
        "p": _fisher(b["runs"], b["of"], a["runs"], a["of"]),
    }


def _fisher(x: int, n: int, y: int, m: int) -> float:
    """Fisher's exact test of x of n against y of m, two-sided: all tables that are no likelier than this one."""
    ways = [math.comb(n, k) * math.comb(m, x + y - k) for k in range(max(0, x + y - m), min(n, x + y) + 1)]
    here = math.comb(n, x) * math.comb(m, y)
    return sum(way for way in ways if way <= here) / sum(ways)


def _times(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    x, y = np.asarray(one), np.asarray(other)
    draws = [v[rng.integers(0, len(v), (RESAMPLES, len(v)))] for v in (x, y)]
    cv = [_cv(d) for d in draws]
    middle = [np.median(d, axis=1) for d in draws]
    logs = [np.log(x), np.log(y)]
    sizes = [np.abs(v - np.median(v)) for v in logs]
    centred = [v - np.median(v) for v in logs]

    def difference_of_medians(v: np.ndarray, n: int) -> np.ndarray:
        return np.asarray(np.median(v[..., n:], axis=-1) - np.median(v[..., :n], axis=-1))

    def difference_of_sizes(v: np.ndarray, n: int) -> np.ndarray:
        groups = [v[..., :n], v[..., n:]]
        mean = [np.abs(g - np.median(g, axis=-1, keepdims=True)).mean(axis=-1) for g in groups]
        return np.asarray(mean[1] - mean[0])

    first, second = coefficient_of_variation(one), coefficient_of_variation(other)
    narrow = None
    if first and second and sizes[0].any() and sizes[1].any():
        narrow = {
            "ratio": second / first,
            "interval": _percentiles(cv[1], cv[0]),
            "p": _permute(np.concatenate(centred), len(x), difference_of_sizes, rng),
        }
    fast = {
        "ratio": float(np.median(y) / np.median(x)),
        "interval": _percentiles(middle[1], middle[0]),
        "p": _permute(np.concatenate(logs), len(x), difference_of_medians, rng),
    }
    return {"spread": narrow, "speed": fast}


def _percentiles(top: Any, bottom: Any) -> list[float] | None:
    """Middle 95% of a bootstrapped ratio; None where a resample's divisor is 0 too often to tell."""
    import numpy as np

    kept = bottom > 0
    if kept.mean() < 0.95:
        return None
    return [float(value) for value in np.quantile(top[kept] / bottom[kept], [0.025, 0.975])]


def _permute(values: Any, n: int, statistic: Callable[[Any, int], Any], rng: Any) -> float:
    """Two-sided p-value of a permutation test, the observed arrangement counted (so it is never 0)."""
    import numpy as np

    observed = abs(float(statistic(values, n)))
    drawn = np.abs(statistic(rng.permuted(np.tile(values, (RESAMPLES, 1)), axis=1), n))
    return float((1 + (drawn >= observed - 1e-12).sum()) / (1 + RESAMPLES))


def _visited(states: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(k) for i, k in enumerate(states) if i == 0 or k != states[i - 1])
