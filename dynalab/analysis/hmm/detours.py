"""Detours: states that some runs do without, and that delay those that pass through.

The contrast is between runs that visit a state before they converge and runs that do not. Unlike the coefficients of
shares of training (`accounting`) it is identified, and a state's delay is a number of steps. A state is called a
detour when

- at least `min_visits` runs visit it before they converge and at least as many do not;
- the visitors converge later: Gehan's rank test, which respects censoring, by permutation of the runs, two-sided,
  adjusted over the tested states (Benjamini and Hochberg, 1995), and the shift is a delay;
- the delay is not only the time that a long run has for visiting: the log-rank test that counts a run as a visitor
  from its entry on agrees (one-sided, adjusted likewise).

By ranks alone the visitors of most states that cost nothing are later: a run that takes long has more time to visit.
So a state's p-value is the larger of the two, and so is its adjusted one, and the interval of a delay reaches down to 0
where the second test does not refuse 0.

Runs of several ensembles are compared within each: what sets ensembles apart is no detour. Only ensembles in which some
runs visit a state and some do not say anything of it, and only runs with rows before they converge. Under `ar` these
are two or more: the first, which nothing precedes, is decoded from the second, and that may be the one of convergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from dynalab.analysis.hmm import survival, tobit
from dynalab.analysis.hmm.accounting import published
from dynalab.analysis.hmm.states import wilson
from dynalab.analysis.hmm.visits import before_convergence, chances, entries

ALPHA = 0.05
MIN_VISITS = 3
# Below this many runs on a side only large delays can be found; a line says so.
FEW = 5
NULL_DRAWS = 199
# Why a state is not tested although enough runs visit it and enough do not.
APART = "too few of its visitors are in one ensemble with runs that do without it"
# Why a state is no detour although its visitors and the others converge at different steps.
LATE = "from its entry on no delay is shown, and its visitors may visit it because they take long"
EARLY = "its visitors converge earlier"


@dataclass(frozen=True)
class Detours:
    """What the test found.

    Attributes:
        rows: One a state.
        model: The regression of the convergence step on visits, its null, and the published rule beside it.
        warnings: What a reader must know.
    """

    rows: list[dict[str, Any]]
    model: dict[str, Any]
    warnings: list[str]


def find(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    convergence: list[dict[str, Any]],
    n_states: int,
    *,
    log_time: bool = False,
    min_visits: int = MIN_VISITS,
    untested: str | None = None,
    undecided: int = 0,
    seed: int = 0,
) -> Detours:
    """Test every state.

    Args:
        paths: State of every row of every run, shapes (T,).
        steps: Steps of these rows, shapes (T,).
        convergence: `{run, step, censored}` of the same runs.
        n_states: K.
        log_time: Delays are factors, not differences: the shift and the regression are of the logarithm of steps.
        min_visits: Least number of runs that visit a state, and of runs that do not, for it to be tested.
        untested: Why no state is tested, where these states allow no test.
        undecided: First rows of a run whose state is decoded from later rows alone.
        seed: Of the permutations.
    """
    last = [int(rows[-1]) for rows in steps]
    time, observed = survival.censored_times(convergence, last)
    early = before_convergence(paths, steps, time, observed)
    entry = entries(early, steps, n_states)
    visits = np.isfinite(entry)
    scale = np.log(np.maximum(time, 1.0)) if log_time else time
    strata = survival.strata_of(row["run"] for row in convergence)
    known = np.array([len(path) > undecided for path in early])
    # Runs of ensembles in which some visit a state and some do not.
    able = np.zeros((n_states, len(time)), bool)
    for k in range(n_states):
        able[k, known] = survival.mixed(visits[known, k], strata[known])
    tested = [
        k
        for k in range(n_states)
        if min((visits[:, k] & able[k]).sum(), (~visits[:, k] & able[k]).sum()) >= min_visits
        and observed[able[k]].any()
        and not untested
    ]
    rows = [_row(k, visits[:, k], observed) for k in range(n_states)]
    for k in set(range(n_states)).difference(tested):
        if min(visits[known, k].sum(), (~visits[known, k]).sum()) >= min_visits and observed.any():
            rows[k]["reason"] = untested or APART
    for k in tested:
        use = able[k]
        rows[k] |= _test(
            time[use], scale[use], observed[use], visits[use, k], entry[use, k], strata[use], log_time, seed
        )
    ranks = [found.pop("p_ranks") for found in (rows[k] for k in tested)]
    entered = [rows[k]["p_time_dependent"] for k in tested]
    adjusted = [stats.false_discovery_control(p) if tested else [] for p in (ranks, entered)]
    for k, p, by_ranks, since in zip(tested, ranks, *adjusted, strict=True):
        row = rows[k]
        row["p"] = max(p, row["p_time_dependent"])
        row["p_adjusted"] = float(max(by_ranks, since))
        row["verdict"] = row["p_adjusted"] < ALPHA and row["statistic"] > 0
        if by_ranks < ALPHA and not row["verdict"]:
            row["reason"] = LATE if row["statistic"] > 0 else EARLY
    # A regression over several ensembles would explain what sets them apart.
    alone = len(np.unique(strata)) == 1
    model = _model(time, scale, observed, entry[:, tested if alone else []], seed)
    model |= {"states": tested, "log_time": log_time, "min_visits": min_visits, "published": None}
    said = published(paths, early, time, observed, n_states, seed) if alone else None
    if said is not None:
        model["published"] = {
            "coefficients": said.coefficients.tolist(),
            "r2": said.r2,
            "accounting_r2": said.null_median,
            "accounting_r2_95": said.null_high,
            "detours": said.detours,
        }
    for row in rows:
        row["published_rule"] = None if said is None else row["state"] in said.detours
    return Detours(rows, model, _warnings(rows, observed, min_visits))


def _row(state: int, visits: np.ndarray, observed: np.ndarray) -> dict[str, Any]:
    """What is known of a state before it is tested."""
    n = int(visits.sum())
    return {
        "state": state,
        "verdict": False,
        "effect_steps": None,
        "interval": None,
        "p": None,
        "p_adjusted": None,
        "p_time_dependent": None,
        "statistic": None,
        "visits": n,
        "visits_interval": wilson(n, len(visits)),
        "optional": bool((observed & ~visits).any() and n > 0),
        "tested": False,
        "reason": None,
    }


def _test(
    time: np.ndarray,
    scale: np.ndarray,
    observed: np.ndarray,
    visits: np.ndarray,
    entry: np.ndarray,
    strata: np.ndarray,
    log_time: bool,
    seed: int,
) -> dict[str, Any]:
    statistic, p, critical = survival.two_sample(time, observed, visits, seed, strata=strata)
    effect, interval = survival.shift(scale, observed, visits, critical, strata)
    since = survival.time_dependent_p(time, observed, entry, strata)
    if since >= ALPHA and interval[0] is not None:
        # No delay at all is not refused by both tests.
        interval[0] = min(interval[0], 0.0)
    found: dict[str, Any] = {"tested": True, "statistic": statistic, "p_ranks": p}
    if log_time:
        # A factor of the others' median, in steps.
        middle = survival.quantile(time[~visits], observed[~visits], 0.5)
        found["effect_ratio"] = None if effect is None else float(np.exp(effect))
        effect, *interval = (
            None if bound is None or middle is None else float(np.expm1(bound)) * middle
            for bound in (effect, *interval)
        )
    return {
        **found,
        "effect_steps": effect,
        "interval": interval,
        "p_time_dependent": since,
        "median_visitors": survival.quantile(time[visits], observed[visits], 0.5),
        "median_others": survival.quantile(time[~visits], observed[~visits], 0.5),
    }


def _model(
    time: np.ndarray, scale: np.ndarray, observed: np.ndarray, entry: np.ndarray, seed: int
) -> dict[str, Any]:
    """Regress the convergence step on visits: the share that they explain, and the same where nothing delays.

    There each run visits a state as likely as runs of its length do: who takes long has more time to visit, and runs
    that end early less, so that some of the step is explained without any delay.
    """
    shares: list[float] = []
    if entry.shape[1] and observed.sum() > 2:
        rng = np.random.default_rng(seed)
        chance = chances(entry, time)
        drawn = [rng.random(chance.shape) < chance for _ in range(NULL_DRAWS)]
        shares = tobit.explained([np.isfinite(entry), *drawn], scale, observed)
    return {
        "r2": shares[0] if shares else None,
        "null_r2": float(np.median(shares[1:])) if shares else None,
        "null_r2_95": float(np.quantile(shares[1:], 0.95)) if shares else None,
        "runs": len(time),
        "censored": int((~observed).sum()),
    }


def _warnings(rows: list[dict[str, Any]], observed: np.ndarray, min_visits: int) -> list[str]:
    lines = []
    n = len(observed)
    if not observed.any():
        return ["detours not tested: no run converged"]
    if n < 2 * min_visits:
        return [f"detours not tested: {n} runs are too few for {min_visits} on each side"]
    thin = [row for row in rows if row["optional"] and not row["tested"] and not row["reason"]]
    if thin:
        which = ", ".join(f"{row['state']} ({row['visits']} of {n})" for row in thin)
        lines.append(
            f"not tested as detours, fewer than {min_visits} runs on a side (visits before convergence): {which}"
        )
    for reason in dict.fromkeys(row["reason"] for row in rows if row["reason"] and not row["tested"]):
        which = ", ".join(str(row["state"]) for row in rows if row["reason"] == reason)
        lines.append(f"state {which} not tested as a detour: {reason}")
    few = [row for row in rows if row["tested"] and min(row["visits"], n - row["visits"]) < FEW]
    if few:
        which = ", ".join(str(row["state"]) for row in few)
        lines.append(
            f"detours: fewer than {FEW} runs on a side of state {which}; only large delays can be found there"
        )
    late = [row["state"] for row in rows if row["reason"] == LATE]
    if late:
        lines.append(
            f"state {', '.join(map(str, late))}: visitors converge later, but may visit because they take long; "
            "counted from the entry on no delay is shown, so it is not called a detour"
        )
    return lines
