"""What holds of the published claims on latent states, in words: of one setting, and of settings beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dynalab.analysis.hmm.claims import (
    LEAST_RUNS,
    Claims,
    OffPath,
    Spread,
    doubt,
    forks,
    paths,
    unstable,
)
from dynalab.analysis.hmm.comparison import Contrast, Difference, Ratio
from dynalab.analysis.hmm.findings import Findings, known
from dynalab.core.words import count, listed, number, p_value
from dynalab.show.blocks import Block, Cell, Say, Table

PAPER = "Hu et al., TMLR 2023"
DEGREE = Cell("a matter of degree", tone="quiet")
UNTESTED = Cell("not tested", tone="quiet")
NOTHING = Cell("\u2013", tone="quiet")


def table(findings: Findings) -> Block:
    """Return the table of claims on one setting; of an analysis of before, which holds none, how they are had."""
    said = known(findings.claims)
    if said is None:
        return Say(
            f"This older analysis says nothing of the published claims ({PAPER}); `dynalab analyze hmm` does.",
            note=True,
        )
    rows = [
        ["runs fork: they first leave a state in different directions", *_forks(said, findings)],
        ["detours: states that some runs skip, and that delay convergence", *_detours(said, findings)],
        ["convergence times are spread out", *_spread(said.spread)],
        ["runs spend their training in different states (dissimilarity)", *_apart(findings)],
    ]
    header = ["published claim", "here", "by these runs, with 95% intervals"]
    return Table(header, rows, f"What holds of the published claims here ({PAPER})", sortable=False)


def forked(findings: Findings) -> set[tuple[int, int]]:
    """Return the edges (from, to) of the forks that the table of claims counts, and no others."""
    if doubt(findings):
        return set()
    said = known(findings.claims)
    return {
        (item.state, way.to)
        for item in (forks(paths(findings)) if said is None else said.forks)
        if item.fork
        for way in item.directions
        if way.runs >= LEAST_RUNS
    }


def rounded(value: float | None) -> str:
    """Return a number to three digits, and of a larger one all before the point."""
    if value is None:
        return "open"
    return number(float(round(value)) if abs(value) >= 100 else float(f"{value:.3g}"))


def _range(bounds: Sequence[float | None] | None) -> str:
    """Bounds; one that censoring leaves open says so."""
    return "no interval" if bounds is None else " to ".join(rounded(bound) for bound in bounds)


def _holds(holds: bool, otherwise: str) -> Cell:
    """Whether a claim is seen to hold; the colour is that of forks and detours in the figures."""
    return Cell("yes", tone="found") if holds else Cell(otherwise)


def _unknown(why: str) -> Cell:
    return Cell(f"cannot tell: {why}", tone="quiet")


def _shares(bounds: Sequence[float]) -> str:
    return " to ".join(f"{100 * bound:.0f}%" for bound in bounds)


def _forks(said: Claims, findings: Findings) -> list[Any]:
    if findings.n_states == 1:
        return [UNTESTED, "a single state has nothing to fork into"]
    off = _off(said.off_path, bool(findings.convergence))
    if why := doubt(findings):
        return [_unknown(why), f"{off}, in the states of this fit"]
    ways = []
    for item in said.forks:
        directions = [f"{way.runs} to {way.to} ({_shares(way.interval)})" for way in item.directions]
        rare = "" if item.fork else ", a single run, so no fork"
        ways.append(f"of {count(item.runs, 'run')} that leave state {item.state}, {listed(directions)}{rare}")
    return [_holds(any(item.fork for item in said.forks), "none seen"), "; ".join([off, *ways])]


def _off(off: OffPath, watched: bool) -> str:
    """How many runs leave the most common path."""
    if off.interval is None:
        return "no run converged, so that no path is whole"
    which, until = ("converged ", " up to there") if watched else ("", "")
    return (
        f"{off.runs} of {count(off.of, f'{which}run')} ({_shares(off.interval)}) do not take the most common "
        f"path{until}; {count(off.paths, 'distinct path')}"
    )


def _detours(said: Claims, findings: Findings) -> list[Any]:
    rows = findings.detours
    if said.detours is None or rows is None:
        return [NOTHING, "not tested by this analysis"]
    tested = [row for row in rows if row.p_adjusted is not None]
    if not tested:
        return [UNTESTED, "no state is visited by enough runs and skipped by enough runs to be tested"]
    lines = []
    for row in tested:
        interval = f" ({_range(row.interval)})" if row.interval else ""
        size = "no estimate" if row.effect_steps is None else f"{rounded(row.effect_steps)} steps{interval}"
        shown = "" if row.verdict else " (not shown)"
        lines.append(f"state {row.state}{shown}: {size}, adjusted p = {row.p_adjusted:.2g}")
    if rest := len(rows) - len(tested):
        lines.append(f"{count(rest, 'other state')} cannot be tested: too few runs visit it, or skip it")
    if why := doubt(findings):
        return [_unknown(why), "; ".join(lines)]
    return [_holds(bool(said.detours.states), "none shown"), "; ".join(lines)]


def _spread(said: Spread | None) -> list[Any]:
    if said is None:
        return [NOTHING, "nothing says when a run has converged (convergence.metric=)"]
    if said.median is None:
        n = said.runs - said.censored
        return [
            UNTESTED,
            f"{n or 'none'} of {count(said.runs, 'run')} converged, and so the median step is not known",
        ]
    low, middle, high = (
        "never" if step is None else rounded(step)
        for step in (said.quartiles[0], said.median, said.quartiles[1])
    )
    cv = "not known" if said.cv is None else f"{rounded(said.cv)} ({_range(said.cv_interval)})"
    lines = [f"median step {middle} [quartiles {low} to {high}]", f"coefficient of variation {cv}"]
    if said.censored:
        lines.append(f"{said.censored} of {count(said.runs, 'run')} did not converge")
    return [DEGREE, "; ".join(lines)]


def _apart(findings: Findings) -> list[Any]:
    apart = findings.dissimilarity and findings.dissimilarity.total_variation
    if not apart or apart.value is None or findings.n_states == 1:
        return [NOTHING, "nothing to compare: a single run, a single state, or an older analysis"]
    bounds = f"{rounded(apart.value)} ({_range(apart.interval)})"
    if why := unstable(findings):
        return [_unknown(why), f"{bounds} in the states of this fit"]
    return [DEGREE, f"{bounds}, from 0, alike, to 1, no state in common"]


def show_contrasts(contrasts: Mapping[str, Contrast], findings: Mapping[str, Findings]) -> Iterator[Block]:
    """Yield what settings say beside each other, by name: each with the first, the reference."""
    reference, first = next(iter(findings.items()))
    rows: list[list[Any]] = []
    doubts = set()
    for name, found in contrasts.items():
        ratio = "spread of convergence steps, ratio of coefficients of variation"
        rows += [
            [name, "share of runs off the most common path, difference", *_difference(found)],
            [name, ratio, *_ratio(found.spread, found.reasons.get("spread"))],
            [name, "median convergence step, ratio", *_ratio(found.speed, found.reasons.get("speed"))],
        ]
        doubts |= _doubts(first, findings[name], found)
    yield Table(
        ["setting", "what is compared", f"against {reference}", "95% interval", "p"],
        rows,
        f"The published claims, setting against setting ({PAPER}): a ratio below 1 is narrower, or faster, than "
        f"{reference}",
        sortable=False,
    )
    text = (
        "Intervals: of shares by Newcombe, wide enough for the common path being found in the same runs; of the ratio "
        "of spreads from those of the two (Bonett), of medians by bootstrap over runs. p: permutations of the runs for "
        "spread and median (Gehan's ranks, with runs that never converged), not corrected for the number of rows; the "
        "shares have none, since each setting has states of its own."
    )
    yield Say(" ".join([text, *sorted(doubts)]), note=True)


def _difference(found: Contrast) -> list[Any]:
    item: Difference | None = found.off_path
    if item is None:
        return [None, f"not known: {found.reasons.get('off_path')}", None]
    low, high = (f"{100 * bound:+.0f}" for bound in item.interval)
    value = f"{100 * item.difference:+.0f} percentage points"
    return [value, Cell(f"{low} to {high}", tone="whole"), Cell(p_value(item.p), tone="whole")]


def _ratio(item: Ratio | None, reason: str | None) -> list[Any]:
    if item is None:
        return [None, f"not known: {reason}", None]
    value = "not known: under half of the runs converged" if item.ratio is None else rounded(item.ratio)
    return [value, Cell(_range(item.interval), tone="whole"), Cell(p_value(item.p), tone="whole")]


def _doubts(first: Findings, other: Findings, found: Contrast) -> set[str]:
    """What may look like a difference of the settings and is none."""
    doubts = {
        "Each setting has states of its own, so paths are compared by how often runs leave the common one, not "
        "state by state."
    }
    if found.left_out:
        doubts.add("The paths of runs that did not converge are not known, and are left out.")
    rules = [item.convergence_rule for item in (first, other)]
    if rules[0] != rules[1] and all(rules):
        doubts.add("The settings converge by different rules.")
    rows = [max(len(run.states) for run in item.states) for item in (first, other)]
    if max(rows) > 1.5 * min(rows):
        doubts.add(
            f"The runs differ in their number of rows ({rows[0]:,} and {rows[1]:,}), and fewer rows tell fewer states "
            "apart."
        )
    return doubts
