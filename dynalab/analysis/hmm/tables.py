"""The tables of a hidden Markov model, and what figures and tables both need of its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from dynalab.analysis.hmm import visits
from dynalab.analysis.hmm.findings import Candidate, Edge, Findings, Path, known
from dynalab.core.words import count, listed, number, quartiles, share
from dynalab.show.blocks import Block, Cell, Say, Table, run_cell

# Paths are not broken before an arrow.
ARROW = "\u00a0\u2192 "
# Paths that are shown where most are taken by a single run, and at most.
MOST_PATHS, ALL_PATHS = 10, 60
# Paths of no more states than these stand in one line; longer ones than the latter are cut.
SHORT, LONGEST = 8, 14
# A metric is named where it moves at least this much of what the fastest metric of any state does.
FAST = 0.1
# A level is named from here on, in standard deviations.
FAR = 0.5
NAMED = 2
# Most rows of a stay, by the median of a state, that is no phase; and the share of an even part of a run, at most.
SHORT_STAY, SHORT_SHARE = 2, 0.1


def entries(findings: Findings) -> list[list[float]]:
    """Return for every state the first step of each run that visits it."""
    states, steps = (
        [np.asarray(run.states) for run in findings.states],
        [run.steps for run in findings.states],
    )
    entered = visits.entries(states, [np.asarray(at) for at in steps], findings.n_states)
    return [column[np.isfinite(column)].tolist() for column in entered.T]


def occupancy(findings: Findings) -> list[int]:
    """Return the number of rows spent in every state, K integers."""
    every = [state for run in findings.states for state in run.states]
    return np.bincount(np.array(every, dtype=int), minlength=findings.n_states).tolist()


def path_words(states: Sequence[int]) -> str:
    """Return a path in words: arrows between the states, cut where it is long."""
    cut = states if len(states) <= LONGEST else [*states[: LONGEST - 2], "..."]
    return ARROW.join(map(str, cut))


def rule_words(findings: Findings) -> str:
    """Return what was watched in words; nothing where nothing was."""
    return "" if findings.convergence_rule is None else findings.convergence_rule.words()


def features(edge: Edge) -> str:
    """Return what tells the two states of an edge apart best, and how it changes."""
    return ", ".join(f"{item.name} {item.change:+.3g}" for item in edge.features if item.change is not None)


def whole(step: float) -> float:
    """Return a quantile of steps as a whole step; infinity (never) stays."""
    return float(round(step)) if np.isfinite(step) else step


def counted(n: int, total: int) -> str:
    """Return `3 of 5 runs`."""
    return f"{n:,} of {count(total, 'run')}"


def runs_cell(n: int, total: int) -> Cell:
    """Return the cell of a number of runs."""
    return Cell(float(n), f"{n:,} of {total:,}")


def state_cell(state: int, n_states: int) -> Cell:
    """Return the cell that names a state."""
    return Cell(float(state), str(state), state=(state, n_states))


def state_words(findings: Findings) -> list[str]:
    """Return a few words for every state, K texts.

    States of dynamics are told by what moves fastest in them, states of level by what lies farthest from its mean.
    """
    level = findings.emission == "level"
    profiles = {
        item.state: values
        for item in findings.state_profiles or ()
        if (values := item.level if level else item.drift)
    }
    fastest = max((abs(value) for values in profiles.values() for value in values.values()), default=0.0)
    least = FAR if level else FAST * fastest
    up, down = ("high", "low") if level else ("rises", "falls")
    found = []
    for k in range(findings.n_states):
        if k not in profiles:
            found.append("")
            continue
        first = sorted(profiles[k].items(), key=lambda item: -abs(item[1]))[:NAMED]
        said = [f"{name} {up if value > 0 else down}" for name, value in first if abs(value) >= least]
        name, value = first[0]
        slow = "nothing moves" if value == 0 else f"{name} {up if value > 0 else down} slowly"
        found.append(", ".join(said) or ("all near their mean" if level else slow))
    return found


def states(findings: Findings, rows: int) -> Table:
    """Return the table of states."""
    first, spent, words = entries(findings), occupancy(findings), state_words(findings)
    cells = [
        [
            state_cell(k, findings.n_states),
            runs_cell(len(first[k]), len(findings.states)),
            Cell(float(spent[k]), share(spent[k], rows)),
            *_spell(first[k]),
            words[k] or None,
        ]
        for k in range(findings.n_states)
    ]
    what = "what lies farthest" if findings.emission == "level" else "what moves fastest"
    header = ["state", "runs", "share of rows", "enters at (median)", "quartiles", f"what it is: {what}"]
    return Table(header, cells, "States", sortable=False)


def _spell(steps: Sequence[float]) -> list[Cell | None]:
    """Cells of median and quartiles."""
    found = quartiles(steps)
    if found is None:
        return [None, None]
    low, middle, high = (whole(step) for step in found)
    return [Cell(middle), Cell(f"{number(low)} to {number(high)}", tone="whole")]


def short(findings: Findings) -> tuple[list[int], int]:
    """Return which states are left within a row or two, and within how many, where runs are long enough to last longer.

    States of dynamics need such a one where levels jump and what scatters about them depends on the row before. How
    often phases are called so, and jumps are, is measured by hmm-jumps of scripts/verify.
    """
    n_states, rows = findings.n_states, [len(run.states) for run in findings.states]
    # Those between two others: how long the first had lasted, and the last would, nobody saw.
    stays: list[list[int]] = [[] for _ in range(n_states)]
    at_ends = [0] * n_states
    for run in findings.states:
        passed = [(state, len(list(rest))) for state, rest in groupby(run.states)]
        for state, length in passed[1:-1]:
            stays[state].append(length)
        for place in {0, len(passed) - 1}:
            at_ends[passed[place][0]] += 1
    most = min(SHORT_STAY, SHORT_SHARE * float(np.mean(rows)) / n_states)
    short = [
        state
        for state, some in enumerate(stays)
        if len(some) > at_ends[state] and float(np.median(some)) <= most
    ]
    return short, int(most)


def jumps(findings: Findings) -> Iterator[Say]:
    """Yield which states are no phases."""
    states, most = short(findings)
    if states and findings.n_states > 1:
        one = len(states) == 1
        yield Say(
            f"{'State' if one else 'States'} **{listed([*map(str, states)])}** {'is' if one else 'are'} left within "
            f"{count(most, 'row')} in half of the stays or more: {'a jump' if one else 'jumps'} between other "
            f"states rather than {'a phase' if one else 'phases'} of training.",
            note=True,
        )


def paths(findings: Findings, total: int) -> Table:
    """Return the table of distinct paths."""
    # Paths of a single run each say no more than the raster does.
    several = sum(path.runs > 1 for path in findings.paths)
    most = min(max(several, MOST_PATHS), ALL_PATHS)
    # A seed alone names a run within one ensemble only.
    pooled = len({run.run.rpartition("/")[0] for run in findings.states}) > 1
    cells = [_path(path, total, pooled) for path in findings.paths[:most]]
    more = f" (the first {most} of {len(findings.paths)})" if len(findings.paths) > most else ""
    rule = rule_words(findings)
    header = ["path", "runs", "converged at (median)", "quartiles", "which"]
    ends = f"; each ends at convergence, or where a run does that never converged: {rule}" if rule else ""
    caption = f"Distinct paths{more}{ends}"
    return Table(header, cells, caption, sortable=len(cells) > 1)


def _path(path: Path, total: int, pooled: bool) -> list[Cell | str | None]:
    low, high = path.quartiles
    until = "never" if high is None else number(whole(high))
    spread = None if low is None or path.runs < 2 else f"{number(whole(low))} to {until}"
    names = path.members if pooled else [name.rpartition("/")[2] for name in path.members]
    return [
        Cell(path_words(path.states), tone="whole" if len(path.states) <= SHORT else ""),
        runs_cell(path.runs, total),
        None if path.median_step is None else Cell(whole(path.median_step)),
        spread and Cell(spread, tone="whole"),
        listed(names, 6),
    ]


def edges(findings: Findings, total: int) -> Table:
    """Return the table of changes of state."""
    cells = []
    for edge in findings.edges:
        interval = " to ".join(f"{100 * bound:.0f}%" for bound in edge.interval if bound is not None)
        way = Cell(f"{edge.start}{ARROW}{edge.end}", tone="whole")
        bounds = Cell(interval, tone="whole") if interval else None
        cells.append([way, runs_cell(edge.runs, total), bounds, features(edge)])
    unit = f" ({findings.edge_change})" if findings.edge_change else ""
    header = ["edge", "runs", "95% interval", f"what tells the two states apart best, and its change{unit}"]
    return Table(header, cells, "Changes of state", sortable=len(cells) > 1)


def decoded(findings: Findings, model: str) -> Iterator[Block]:
    """Yield where every run stands that was decoded with a stored model, which has this id."""
    text = (
        f"These runs were decoded with the model of hmm-{model}: its normalisation, and the filtering "
        "posterior of each row given the rows up to it, so nothing was known of what came later."
    )
    if (held_out := known(findings.heldout_ll_per_frame)) is not None:
        own = known(findings.model_heldout_ll_per_frame)
        beside = "" if own is None else f" (the model's own held-out runs: {number(own)})"
        text += (
            f" Held-out log-likelihood: {number(held_out)} nats a frame{beside}. The states are "
            "those of the model; what they are is told from the runs that it was fitted to."
        )
    yield Say(text)
    cells = []
    for run in findings.states:
        state, sure = run.states[-1], known(run.posterior)
        cells.append(
            [
                run_cell(run.run),
                state_cell(state, findings.n_states),
                round(sure[-1][state], 3) if sure else None,
                _since(run.steps, run.states),
                run.steps[-1],
                known(run.ll_per_frame),
                known(run.held_out),
            ]
        )
    header = ["run", "state now", "posterior", "since step", "at step", "nats a frame", "held out"]
    yield Table(header, cells, "Where the runs stand")


def _since(steps: Sequence[int], states: Sequence[int]) -> int:
    """The step from which on a run is in its last state."""
    changes = np.flatnonzero(np.diff(states))
    return steps[int(changes[-1]) + 1 if len(changes) else 0]


def why(rows: Sequence[Candidate], chosen: int) -> list[str]:
    """Return how the rule came to choose K, in a line: what it passed over; nothing where unseen runs chose nothing.

    The rule: the smallest K within one standard error of the best mean over unseen runs, the error being that of the
    difference over runs, or within one nat a run.
    """
    held = {row.n_states: row for row in rows if known(row.behind_best) is not None}
    if len(held) < 2 or chosen not in held:
        return []
    best = next(k for k, row in held.items() if not known(row.behind_best))
    if best != chosen:
        return [
            f"K = {chosen}: on unseen runs {_behind(held[chosen])} nats a frame behind K = {best}, no more than one "
            "standard error of this difference or one nat a run; no smaller K is as near"
        ]
    smaller = [row for row in held.values() if row.n_states < chosen]
    if not smaller:
        return [f"K = {chosen}: no larger K has a higher mean over unseen runs"]
    near = min(smaller, key=lambda row: known(row.behind_best) or 0.0)
    return [
        f"K = {chosen}: the highest mean over unseen runs, and every smaller K is more than one standard error of the "
        f"difference, and one nat a run, behind, K = {near.n_states} by {_behind(near)} nats a frame"
    ]


def _behind(row: Candidate) -> str:
    """What a K lacks to the best on unseen runs, with the standard error of the difference."""
    behind, error = known(row.behind_best), known(row.behind_se)
    return f"{behind or 0:.2g} (error {'not known' if error is None else f'{error:.2g}'})"


def trust(findings: Findings) -> Iterator[Table]:
    """Yield how far the states can be trusted: other starts and other runs, and what simpler models give."""
    # Any two fits of a single state agree.
    if findings.stability and findings.n_states > 1:
        yield Table(
            ["with other", "fits", "agreement (median)", "5% to 95%"],
            [
                [row.over, row.fits, _two(row.adjusted_rand), f"{row.low:.2f} to {row.high:.2f}"]
                for row in findings.stability
            ],
            "Would the states be the same? Adjusted Rand index: 1 the same, 0 no more than by chance",
            sortable=False,
        )
    if findings.baselines:
        cells = []
        for row in findings.baselines:
            less = row.less_than_model if row.comparable else None
            error = "" if row.less_se is None else f" \u00b1 {row.less_se:.2f}"
            cells.append(
                [
                    row.name,
                    Cell(float(row.n_states), f"{row.n_states}{', the cap' if row.at_cap else ''}"),
                    row.runs,
                    _two(row.heldout_ll_per_frame if row.comparable else None),
                    None if less is None else Cell(less, f"{less:.2f}{error}"),
                ]
            )
        yield Table(
            ["simpler model", "states", "held-out runs", "nats a frame", "less than this model"],
            cells,
            "What simpler models give on runs that were held out (\u00b1 standard error over runs). Some are held "
            "out in fewer folds, to save time; the last column compares on the runs of its row.",
            sortable=False,
        )


def _two(value: float | None) -> Cell | None:
    """Two decimals."""
    return None if value is None else Cell(value, f"{value:.2f}")


def transitions(findings: Findings) -> Table:
    """Return the table of transition probabilities."""
    counts, chances = findings.transitions.counts, findings.transitions.probabilities
    cells = [
        [str(a), *(Cell(p, f"{number(p)} ({n:,})") for p, n in zip(row, counts[a], strict=True))]
        for a, row in enumerate(chances)
    ]
    return Table(
        ["from \\ to", *map(str, range(findings.n_states))],
        cells,
        "Transition probabilities of a row to the next (and how often each happened)",
        folded=True,
        sortable=False,
    )
