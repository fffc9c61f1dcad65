"""What a reader sees of a hidden Markov model: the map of states, who is where when, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dynalab.analysis.base import Group, runs_of
from dynalab.analysis.hmm import delays, published, tables
from dynalab.analysis.hmm.claims import doubt, unstable
from dynalab.analysis.hmm.events import event_words
from dynalab.analysis.hmm.findings import Findings, known
from dynalab.analysis.hmm.tables import ARROW, counted, entries, features, occupancy, path_words, whole, why
from dynalab.core.means import LEAST
from dynalab.core.words import count, listed, number, p_equals, quartiles, run_words, share, step_phrase
from dynalab.show.blocks import Arrow, Block, Code, Graph, Node, Profiles, Raster, Say, Selection

ALPHA = 0.05
MOST_ODD = 5
# Rows of all runs for every feature and one more, below which states that are there are missed (measured anew by
# hmm-rows of scripts/verify). Of 820 simulated ensembles of 2 to 4 states, of level or of dynamics, 3 to 40 runs of 10
# to 400 rows and 2 to 14 features, one state was found in 59% at 6 to 8 rows, in 17% at 8 to 10, in 7% at 10 to 13 and
# in 0.1% above; fewer than are there in 85%, 47%, 30% and 8%. No other number tells as much of that (area under the
# curve .98; a run's own rows a feature .88).
ROWS_A_FEATURE = 13
EMISSIONS = {
    "ar": "states of dynamics: in each, metrics move by a linear law of their own",
    "level": "states of level: in each, metrics lie around a mean of their own",
}


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    total, rows = len(findings.states), sum(len(run.states) for run in findings.states)
    yield Say(_headline(findings, total), headline=True)
    if line := event_words(findings, groups) if findings.n_states > 1 else "":
        yield Say(line, headline=True)
    emission = EMISSIONS.get(findings.emission, "")
    missing = known(findings.missing_rows) or 0
    between = f" (and {missing:,} missing between them)" if missing else ""
    yield Say(
        f"**{count(findings.n_states, 'state')}** over {count(total, 'run')}, {rows - missing:,} rows{between} and "
        f"{count(len(findings.metrics), 'metric')}{f' ({emission})' if emission else ''}. States are "
        "numbered in the order in which training enters them (by the median of the first entries)."
    )
    decoded = known(findings.decoded_with)
    if decoded:
        yield from tables.decoded(findings, decoded)
    if findings.convergence_rule:
        yield Say(_converged(findings))
    yield from _odd(findings)
    if groups:
        yield _map(findings, total, rows)
        yield from _raster(findings, groups)
    yield tables.states(findings, rows)
    chosen = not decoded and (known(findings.settings) or {}).get("n_states") is None
    if findings.n_states > 1 and chosen and (few := _few_rows(findings)):
        yield Say(
            f"There may be more states than were found: too few rows to tell them apart {few}.", note=True
        )
    yield from tables.jumps(findings)
    if findings.paths:
        yield tables.paths(findings, total)
        yield from _partings(findings, total)
        yield from _apart(findings)
    if findings.edges:
        yield tables.edges(findings, total)
    if not decoded:
        yield from delays.blocks(findings, figures=bool(groups))
        yield published.table(findings)
    if groups:
        yield from _profiles(findings)
    yield from _selection(findings, figures=bool(groups))
    yield from tables.trust(findings)
    yield tables.transitions(findings)
    if settings := known(findings.settings):
        import yaml

        yield Code(yaml.safe_dump(dict(settings), sort_keys=False).rstrip(), "Settings", folded=True)


def _headline(findings: Findings, total: int) -> str:
    lines = [f"**Hidden Markov model** of {count(total, 'run')}: **{count(findings.n_states, 'state')}**."]
    if decoded := known(findings.decoded_with):
        lines = [
            f"**Decoded without looking ahead** with the states of hmm-{decoded}: {count(total, 'run')}."
        ]
    paths = findings.paths
    until = _until(findings)
    why = doubt(findings)
    if why:
        lines.append(f"Whether runs take different paths, fork or make detours, **cannot be told**: {why}.")
    elif findings.n_states == 1:
        lines.append(_one_state(findings))
    elif len(paths) == 1:
        who = "The run goes" if total == 1 else f"All {total:,} runs go"
        lines.append(f"{who} {path_words(paths[0].states)}{until}.")
    elif paths and len(paths) == total:
        lines.append(f"Each of the {total:,} runs takes a path of its own.")
    elif paths:
        most = max(path.runs for path in paths)
        first = [path_words(path.states) for path in paths if path.runs == most]
        common = (
            f"the most common, {first[0]}, is taken by {most:,} of {count(total, 'run')}"
            if len(first) == 1
            else f"{len(first)} are the most common, {listed(first, 3)}, with {count(most, 'run')} of {total:,} each"
        )
        beside = sum(path.runs for path in paths[1:] if path.along) if len(first) == 1 else 0
        along = f"; {beside:,} more along it, to a nearer or a farther end" if beside else ""
        lines.append(f"There are {len(paths)} distinct paths{until}; {common}{along}.")
    begins = []
    for state, steps in enumerate(entries(findings)):
        found = quartiles(steps)
        if state and found:
            low, middle, high = (number(whole(item)) for item in found)
            n = "" if len(steps) == total else f", {counted(len(steps), total)}"
            begins.append(f"{state} at step **{middle}** [{low} to {high}]{n}")
    if begins:
        lines.append(f"States begin (median [quartiles] of first entry): {'; '.join(begins)}.")
    return " ".join([*lines, *([] if why else delays.headline(findings, total))])


def _until(findings: Findings) -> str:
    """How far runs are followed: up to convergence, those that never converged to their end."""
    passages = findings.convergence or ()
    converged, total = sum(row.step is not None for row in passages), len(passages)
    if not findings.convergence_rule or (total and not converged):
        return ""
    if converged == total:
        return " up to convergence"
    return f", {converged:,} of {total:,} up to convergence and the others to their end"


def _one_state(findings: Findings) -> str:
    """Whether nothing tells phases apart, or nothing could; where no other number was tried neither is known."""
    settings = known(findings.settings) or {}
    if 1 in (settings.get("n_states"), settings.get("max_states")):
        return "No other number of states was tried, so whether phases can be told apart is not known."
    if few := _few_rows(findings):
        return f"**Cannot tell**: too few rows to tell phases apart {few}."
    return "Nothing tells phases apart: one state describes every row."


def _few_rows(findings: Findings) -> str:
    """Return how few rows there are for the features, and what to do; empty where there are enough."""
    rows, size = [len(run.states) for run in findings.states], len(findings.metrics)
    if sum(rows) >= ROWS_A_FEATURE * (size + 1):
        return ""
    each = number(min(rows)) if min(rows) == max(rows) else f"{number(min(rows))} to {number(max(rows))}"
    return f"({each} a run, {count(size, 'feature')}): set eval.every lower or name fewer metrics"


def _converged(findings: Findings) -> str:
    """When runs converge, and how many of them no longer are at the end."""
    passages = findings.convergence or ()
    lost = sum(row.step is not None and row.held is False for row in passages)
    after = f"; {lost:,} of them no longer at the end" if lost else ""
    steps = [None if row.step is None else float(row.step) for row in passages]
    return f"**Convergence** ({tables.rule_words(findings)}): {step_phrase(steps)}{after}."


def _odd(findings: Findings) -> Iterator[Say]:
    """Yield a sentence for every run that is unlike the others of its ensemble, as a rule none."""
    rows = known(findings.odd) or ()
    found = [row for row in rows if row.p_adjusted is not None and row.p_adjusted < ALPHA]
    for row in sorted(found, key=lambda row: row.p_adjusted or 0.0)[:MOST_ODD]:
        home = row.run.rpartition("/")[0]
        others = sum(one.run.rpartition("/")[0] == home for one in rows)
        others -= sum(one.run.rpartition("/")[0] == home for one in found)
        below = number(float(f"{row.below or 0.0:.3g}"))
        yield Say(
            f"**{run_words(row.run)}** is unlike the other {others}: its log-likelihood a frame is **{below}** lower "
            f"(p {p_equals(row.p_adjusted)})."
        )
    if len(found) > MOST_ODD:
        yield Say(f"{count(len(found) - MOST_ODD, 'more run')} likewise.")


def _map(findings: Findings, total: int, rows: int) -> Graph:
    first, spent = entries(findings), occupancy(findings)
    nodes = []
    for steps, n in zip(first, spent, strict=True):
        found = quartiles(steps)
        text = "no run"
        if found:
            text = f"{counted(len(steps), total)}\n{share(n, rows)} of rows\nfrom {number(whole(found[1]))}"
        nodes.append(Node(text, n / rows, len(steps)))
    split = published.forked(findings)
    chances = findings.transitions.probabilities
    titles = {f"state-{k}": f"state {k}: {node.text}".replace("\n", ", ") for k, node in enumerate(nodes)} | {
        f"edge-{edge.start}-{edge.end}": (
            f"{edge.start}{ARROW}{edge.end}: {counted(edge.runs, total)}; "
            f"probability {number(chances[edge.start][edge.end])} a row; {features(edge)}"
        )
        for edge in findings.edges
    }
    forks = ""
    if split:
        left = [str(a) for a in sorted({a for a, _ in split})]
        which = f"{'state' if len(left) == 1 else 'states'} {listed(left, 12)}"
        forks = f" In orange a fork: at least two runs each first leave {which} in different directions."
    if why := doubt(findings):
        forks = f" Forks cannot be told: {why}."
    return Graph(
        name="map",
        caption=(
            "**Training map.** States in the order of entry; an edge is as wide as the share of runs that take it, a "
            f"circle the larger, the more rows are spent in it; `from` is the median step of first entry.{forks}"
        ),
        alt=f"Training map of {findings.n_states} states",
        titles=titles,
        nodes=nodes,
        arrows=[
            Arrow(edge.start, edge.end, edge.runs, (edge.start, edge.end) in split) for edge in findings.edges
        ],
        total=total,
    )


def _raster(findings: Findings, groups: Sequence[Group]) -> Iterator[Raster]:
    there = {run.id for run in runs_of(groups)}
    shown = [run for run in findings.states if run.run in there]
    if not shown:
        return
    steps = {row.run: row.step for row in findings.convergence or ()}
    begins = [found[1] for state in entries(findings)[1:] if (found := quartiles(state))]
    verb = "is" if len(shown) == 1 else "are"
    part = f" The model was fitted to {count(len(findings.states), 'run')}; {len(shown)} of them {verb} shown here."
    yield Raster(
        name="states",
        caption=(
            f"**States of every run**, sorted by {'convergence' if steps else 'generalised'} step, the earliest on "
            f"top.{part if len(shown) < len(findings.states) else ''}"
        ),
        alt=f"States of {count(len(shown), 'run')} over training",
        runs=[run.run for run in shown],
        steps=[np.asarray(run.steps) for run in shown],
        states=[np.asarray(run.states) for run in shown],
        n_states=findings.n_states,
        order=[steps.get(run.run) for run in shown] if steps else None,
        begins=min(begins, default=None),
    )


def _partings(findings: Findings, total: int) -> Iterator[Say]:
    """Whether runs on different paths converge at different steps, in a sentence."""
    found = known(findings.path_comparison)
    if found is None:
        return
    if why := doubt(findings):
        yield Say(f"Whether paths differ in convergence **cannot be told**: {why}.", note=True)
        return
    if found.partings is None:
        # Of a version that compared paths up to the end of training.
        yield Say("How paths differ in convergence was tested otherwise by this older analysis.", note=True)
        return
    said = (
        "Runs that part **converge at different steps**"
        if found.p < ALPHA
        else "**No difference** of the convergence step between paths is shown"
    )
    n = found.left_out
    left = (
        f" {count(n, 'run')} that never converged {'is' if n == 1 else 'are'} left out: the path to convergence is not "
        "known."
        if n
        else ""
    )
    after = [
        f"after {ARROW.join(map(str, one.after))}" if one.after else "at the start" for one in found.partings
    ]
    to = [listed([str(k) for k in one.to]) for one in found.partings]
    places = listed([f"{here} to {there}" for here, there in zip(after, to, strict=True)])
    many = f", times the {len(found.partings)} places where they part" if len(found.partings) > 1 else ""
    which = listed([str(place + 1) for place in found.paths])
    yield Say(
        f"{said}: p {p_equals(found.p)} over {found.runs:,} of {count(total, 'run')} that part {places} "
        f"(rows {which}). It is the larger of two: ranks by permutation, and the log-rank test counted from the "
        f"parting on{many}. "
        f"Paths end at convergence, and one that is the beginning of another is not compared with it.{left}",
        note=True,
    )


def _apart(findings: Findings) -> Iterator[Say]:
    """How differently runs spend their training, in a sentence."""
    found = findings.dissimilarity
    # With one state there is nothing to differ in.
    if found is None or found.total_variation.value is None or findings.n_states == 1:
        return
    apart = found.total_variation
    few = (
        f"fewer than {LEAST} runs"
        if apart.runs < LEAST
        else "half of the pairs are the nearest, or the farthest"
    )
    bounds = (
        f" [{' to '.join(map(published.rounded, apart.interval))}]"
        if apart.interval
        else f" (no interval: {few})"
    )
    why = unstable(findings)
    doubted = f" Of other states it would be another: {why}." if why else ""
    yield Say(
        f"**Dissimilarity of the runs: {published.rounded(apart.value)}**{bounds}. It is the share of "
        "the rows that two runs spend in different states, on the mean over pairs (0: alike, 1: no state in common); "
        f"another pace on the same path counts as well as another path.{doubted}",
        note=True,
    )


def _profiles(findings: Findings) -> Iterator[Profiles]:
    rows = findings.state_profiles or ()
    for name, unit, what, found in (
        (
            "level",
            "z",
            "Mean level of every metric in every state, in standard deviations from its mean",
            {item.state: item.level for item in rows if item.level},
        ),
        (
            "drift",
            "z per row",
            "Mean change of every metric from row to row in every state, in standard deviations",
            {item.state: item.drift for item in rows if item.drift},
        ),
    ):
        # One state lies at the mean of all rows.
        if found and findings.metrics and not (name == "level" and findings.n_states == 1):
            means = [
                [found.get(k, {}).get(metric, np.nan) for metric in findings.metrics]
                for k in range(findings.n_states)
            ]
            yield Profiles(
                name=f"profile-{name}",
                caption=f"**{what}.**",
                alt=what,
                values=np.array(means, dtype=float),
                columns=findings.metrics,
                unit=unit,
            )


def _selection(findings: Findings, *, figures: bool) -> Iterator[Block]:
    """How many states there are, why, and what unseen runs say."""
    rows = findings.selection
    if not rows:
        return
    settings = known(findings.settings) or {}
    given = settings.get("n_states") is not None
    lines = [] if given else [f"{line}." for line in why(rows, findings.n_states)]
    own = next((row for row in rows if row.n_states == findings.n_states), None)
    if own and own.heldout_ll_per_frame is not None:
        error = "" if own.se is None else f" (standard error {_nats(own.se)})"
        lines.append(f"Held-out runs have {_nats(own.heldout_ll_per_frame)} nats a frame{error}.")
    pulls = (("ridge", known(findings.ridge)), ("common", known(findings.common)))
    if chosen := [
        f"{name}={value:g}" for name, value in pulls if value is not None and settings.get(name) is None
    ]:
        # A single run leaves nothing unseen that could choose.
        how = "chosen by unseen runs" if len(findings.states) > 1 else "taken: nothing could be held out"
        lines.append(f"{listed(chosen)} {'was' if len(chosen) == 1 else 'were'} {how}.")
    if lines:
        yield Say(" ".join(lines))
    if not figures:
        return
    # The error of the difference to the best K, where the rule is about that one.
    paired = any(known(row.behind_se) is not None for row in rows)
    what = "the standard error of its difference to the best" if paired else "its standard error over runs"
    rule = "the smallest number within one standard error, or one nat a run, of the best is taken"
    bic = "of the fit on all runs"
    if known(findings.preset) == "paper":
        rule, bic = "the number of least BIC is taken", "of the held-out runs, a mean over starts"
    elif given:
        rule = "the number was given"
    said = (
        f"Log-likelihood of runs that were held out whole, with {what}; {rule}. BIC is {bic}."
        if any(row.heldout_ll_per_frame is not None for row in rows)
        else f"No run could be held out. BIC is {bic}; the number of least BIC is taken unless one is given."
    )
    yield Selection(
        name="selection",
        caption=f"**How many states.** {said}",
        alt=f"Model selection: {findings.n_states} states are chosen",
        tried=[row.n_states for row in rows],
        scores=[row.heldout_ll_per_frame for row in rows],
        errors=[known(row.behind_se) if paired else row.se for row in rows],
        criterion=[row.bic for row in rows],
        chosen=findings.n_states,
        converged=[row.converged for row in rows],
        paired=paired,
    )


def _nats(value: float) -> str:
    """Two decimals; of what is out of all proportion, three digits."""
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.3g}"
