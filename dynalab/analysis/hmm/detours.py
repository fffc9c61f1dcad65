"""Detours: states that some runs do without, and that delay those that pass through.

The contrast is between runs that visit a state before they converge and runs that do not. Unlike the coefficients of
shares of training it is identified, and a state's delay is a number of steps. A state is called a detour when

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

Beside the test stands the published regression: Hu et al. (2023, section 2.4) regress the convergence step on P_k, the
share of a run's rows in state k, and call a state a detour that some runs do without and whose coefficient is positive.
Two things stand against it. The shares sum to 1, so with an intercept the coefficients, and their signs, are known only
up to a common constant. And time before convergence is spent in the states before convergence, so the shares add up to
the answer: R2 is near 1 on random paths too. How near is measured here: every run keeps its convergence step and gets
the mixture of early states of another run. For the same reason the F-test of the regression has no p-value here: it is
below .05 in every ensemble whose runs walk one way, each at its own speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.hmm import tobit
from dynalab.analysis.hmm.findings import Detour, DetourModel, PublishedModel
from dynalab.analysis.hmm.visits import before_convergence, chances, entries, shares
from dynalab.core import survival
from dynalab.core.stats import benjamini_hochberg, clopper_pearson
from dynalab.core.words import count

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
    """The test of every state, the regressions beside it, and what a reader must know."""

    rows: list[Detour]
    model: DetourModel
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

    Of states and steps of every row, shapes (T,), and `{run, step, censored}` of every run. With `log_time` delays are
    factors, not differences: the shift and the regression are of the logarithm of steps. At least `min_visits` runs
    must visit a state, and as many not, for it to be tested; `untested` says why none is, where these states allow no
    test. The state of a run's first `undecided` rows is decoded from later ones alone.
    """
    last = [int(rows[-1]) for rows in steps]
    time, observed = survival.censored_times(convergence, last)
    early = before_convergence(paths, steps, time, observed)
    entry = entries(early, steps, n_states)
    visits = np.isfinite(entry)
    scale = np.log(np.maximum(time, 1.0)) if log_time else time
    strata = survival.strata_of(row["run"] for row in convergence)
    known = np.array([len(path) > undecided for path in early])
    # A regression over several ensembles would explain what sets them apart.
    alone = len(np.unique(strata)) == 1
    said = published(paths, early, time, observed, n_states, seed) if alone else None
    rows, tests = [], {}
    for k in range(n_states):
        visit, n = visits[:, k], int(visits[:, k].sum())
        # Runs of ensembles in which some visit a state and some do not.
        able = np.zeros(len(visit), bool)
        able[known] = survival.mixed(visit[known], strata[known])
        sides = min((visit & able).sum(), (~visit & able).sum())
        tested = bool(sides >= min_visits and observed[able].any() and not untested)
        if tested:
            parts = (one[able] for one in (time, scale, observed, visit, entry[:, k], strata))
            tests[k] = _test(*parts, log_time=log_time, seed=seed)
        enough = min(visit[known].sum(), (~visit[known]).sum()) >= min_visits and observed.any()
        rows.append(
            Detour(
                state=k,
                visits=n,
                visits_interval=clopper_pearson(n, len(visit)),
                optional=bool((observed & ~visit).any() and n > 0),
                tested=tested,
                reason=(untested or APART) if enough and not tested else None,
                published_rule=None if said is None else k in said.detours,
            )
        )
    adjusted = [
        benjamini_hochberg([p for _, p, _, _ in tests.values()]),
        benjamini_hochberg([since for _, _, since, _ in tests.values()]),
    ]
    for (k, (statistic, p, since, delay)), by_ranks, by_entry in zip(tests.items(), *adjusted, strict=True):
        p_adjusted = float(max(by_ranks, by_entry))
        verdict = p_adjusted < ALPHA and statistic > 0
        crossed = by_ranks < ALPHA and not verdict
        rows[k] = replace(
            rows[k],
            verdict=verdict,
            statistic=statistic,
            p=max(p, since),
            p_adjusted=p_adjusted,
            p_time_dependent=since,
            reason=(LATE if statistic > 0 else EARLY) if crossed else None,
            **delay,
        )
    model = replace(
        _model(time, scale, observed, entry[:, list(tests) if alone else []], seed),
        states=list(tests),
        log_time=log_time,
        min_visits=min_visits,
        published=said,
    )
    return Detours(rows, model, _warnings(rows, observed, min_visits))


def _test(
    time: np.ndarray,
    scale: np.ndarray,
    observed: np.ndarray,
    visits: np.ndarray,
    entry: np.ndarray,
    strata: np.ndarray,
    *,
    log_time: bool,
    seed: int,
) -> tuple[float, float, float, dict[str, Any]]:
    """Gehan's statistic and its p-value, the one from the entry on, and what `Detour` says of the delay."""
    statistic, p, critical = survival.two_sample(time, observed, visits, seed, strata=strata)
    effect, interval = survival.shift(scale, observed, visits, critical, strata)
    since = survival.time_dependent_p(time, observed, entry, strata)
    if since >= ALPHA and interval[0] is not None:
        # No delay at all is not refused by both tests.
        interval[0] = min(interval[0], 0.0)
    middle = survival.quantile(time[~visits], observed[~visits], 0.5)
    delay: dict[str, Any] = {}
    if log_time:
        # A factor of the others' median, in steps.
        delay["effect_ratio"] = None if effect is None else float(np.exp(effect))
        effect, *interval = (
            None if bound is None or middle is None else float(np.expm1(bound)) * middle
            for bound in (effect, *interval)
        )
    visitors = survival.quantile(time[visits], observed[visits], 0.5)
    delay |= {
        "effect_steps": effect,
        "interval": interval,
        "median_visitors": visitors,
        "median_others": middle,
    }
    return statistic, p, since, delay


def _model(
    time: np.ndarray, scale: np.ndarray, observed: np.ndarray, entry: np.ndarray, seed: int
) -> DetourModel:
    """Regress the convergence step on visits: the share that they explain, and the same where nothing delays.

    There each run visits a state as likely as runs of its length do: who takes long has more time to visit, and runs
    that end early less, so that some of the step is explained without any delay.
    """
    model = DetourModel(runs=len(time), censored=int((~observed).sum()))
    if not entry.shape[1] or observed.sum() <= 2:
        return model
    rng = np.random.default_rng(seed)
    chance = chances(entry, time)
    drawn = [rng.random(chance.shape) < chance for _ in range(NULL_DRAWS)]
    r2 = tobit.explained([np.isfinite(entry), *drawn], scale, observed)
    if not r2:
        return model
    return replace(
        model, r2=r2[0], null_r2=float(np.median(r2[1:])), null_r2_95=float(np.quantile(r2[1:], 0.95))
    )


def _warnings(rows: list[Detour], observed: np.ndarray, min_visits: int) -> list[str]:
    lines, n = [], len(observed)
    if not observed.any():
        return ["detours not tested: no run converged"]
    if n < 2 * min_visits:
        runs = f"{count(n, 'run')} {'is' if n == 1 else 'are'}"
        return [f"detours not tested: {runs} too few for {min_visits} on each side"]
    thin = [row for row in rows if row.optional and not row.tested and not row.reason]
    if thin:
        which = ", ".join(f"{row.state} ({row.visits} of {n})" for row in thin)
        lines.append(
            f"not tested as detours, fewer than {min_visits} runs on a side (visits before convergence): {which}"
        )
    for reason in dict.fromkeys(row.reason for row in rows if row.reason and not row.tested):
        which = ", ".join(str(row.state) for row in rows if row.reason == reason)
        lines.append(f"state {which} not tested as a detour: {reason}")
    few = [row for row in rows if row.tested and row.visits and min(row.visits, n - row.visits) < FEW]
    if few:
        which = ", ".join(str(row.state) for row in few)
        lines.append(
            f"detours: fewer than {FEW} runs on a side of state {which}; only large delays can be found there"
        )
    late = [str(row.state) for row in rows if row.reason == LATE]
    if late:
        lines.append(
            f"state {', '.join(late)}: visitors converge later, but may visit because they take long; "
            "counted from the entry on no delay is shown, so it is not called a detour"
        )
    return lines


def published(
    paths: Sequence[np.ndarray],
    early: Sequence[np.ndarray],
    time: np.ndarray,
    observed: np.ndarray,
    n_states: int,
    seed: int = 0,
) -> PublishedModel:
    """Carry out the published regression, and its null by accounting.

    Coefficients are without an intercept (minimum-norm least squares), R2 is in sample. Of states of every row and
    those before convergence, shapes (T,), and of convergence steps, or the last step of a run that never converged (as
    published), shape (S,).
    """
    whole, mixture = shares(paths, n_states), shares(early, n_states)
    until = np.array([len(a) / max(len(b), 1) for a, b in zip(early, paths, strict=True)])
    rest = whole - until[:, None] * mixture
    rng = np.random.default_rng(seed)
    others = (mixture[rng.permutation(len(time))] for _ in range(NULL_DRAWS))
    null = [explained(until[:, None] * other + rest, time) for other in others]
    # A state is optional where some run converges without it.
    visited = whole > 0
    optional = (observed[:, None] & ~visited).any(axis=0) & visited.any(axis=0)
    coefficients = np.linalg.lstsq(whole, time, rcond=None)[0]
    return PublishedModel(
        coefficients=coefficients.tolist(),
        r2=explained(whole, time),
        accounting_r2=float(np.median(null)),
        accounting_r2_95=float(np.quantile(null, 0.95)),
        detours=np.flatnonzero(optional & (coefficients > 0)).tolist(),
    )


def explained(x: np.ndarray, y: np.ndarray) -> float:
    """Return R2 of least squares with an intercept, of y (S,) on covariates (S, Q) of any rank."""
    design = np.column_stack([np.ones(len(y)), x])
    total = float(((y - y.mean()) ** 2).sum())
    if total == 0:
        return 0.0
    left = y - design @ np.linalg.lstsq(design, y, rcond=1e-10)[0]
    return 1 - float((left**2).sum()) / total
