"""The tables of a hidden Markov model, and what figures and tables both need of a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dynalab.report.blocks import Block, Cell, Table, Words, cell
from dynalab.report.sections.hmm_words import state_words
from dynalab.report.words import count, listed, number, quartiles, share
from dynalab.show.plots.style import state_colours

# Paths are not broken before an arrow.
ARROW = "\u00a0\u2192 "
# Paths that are shown where most are taken by a single run.
MOST_PATHS = 10
# Paths of no more states than these stand in one line.
SHORT = 8


def entries(data: Any) -> list[list[float]]:
    """Return for every state the first step of each run that visits it."""
    found: list[list[float]] = [[] for _ in range(data["n_states"])]
    for run in data["states"]:
        states = np.asarray(run["states"])
        for state in np.unique(states):
            found[int(state)].append(float(run["steps"][int(np.argmax(states == state))]))
    return found


def occupancy(data: Any) -> list[int]:
    """Return the number of rows spent in every state, K integers."""
    counts = np.zeros(data["n_states"], dtype=int)
    for run in data["states"]:
        counts += np.bincount(np.asarray(run["states"], dtype=int), minlength=data["n_states"])
    return [int(item) for item in counts]


def path_words(states: Sequence[int]) -> str:
    """Return a path in words: arrows between the states, cut where it is long."""
    return (
        ARROW.join(map(str, states))
        if len(states) <= 14
        else f"{ARROW.join(map(str, states[:12]))}{ARROW}..."
    )


def features(edge: Any) -> str:
    """Return what tells the two states of an edge apart best, and how it changes."""
    return ", ".join(
        f"{item['name']} {item['change']:+.3g}"
        for item in edge.get("features") or ()
        if item.get("change") is not None
    )


def _spell(steps: Sequence[float | None]) -> list[Cell]:
    """Return cells of median and quartiles."""
    found = quartiles(steps)
    if found is None:
        return [cell(None), cell(None)]
    low, middle, high = found
    return [cell(whole(middle)), cell(f"{number(whole(low))} to {number(whole(high))}", tone="whole")]


def whole(step: float) -> float:
    """A quantile of steps as a whole step; infinity (never) stays."""
    return float(round(step)) if np.isfinite(step) else step


def state_table(data: Any, total: int, rows: int) -> Table:
    """Return the table of states."""
    colours, first, spent = state_colours(data["n_states"]), entries(data), occupancy(data)
    words = state_words(data)
    cells = [
        [
            Cell(str(k), float(k), swatch=colours[k]),
            Cell(f"{len(first[k]):,} of {total:,}", float(len(first[k])), True),
            Cell(share(spent[k], rows), float(spent[k]), True),
            *_spell(first[k]),
            cell(words[k] or None),
        ]
        for k in range(data["n_states"])
    ]
    what = (
        "what it is: what moves fastest"
        if data.get("emission") != "level"
        else "what it is: what lies farthest"
    )
    header = ["state", "runs", "share of rows", "enters at (median)", "quartiles", what]
    return Table(header, cells, "States")


def path_table(data: Any, total: int) -> Table:
    """Return the table of distinct paths."""
    cells = []
    # Paths of a single run each say no more than the raster does.
    several = sum(path["runs"] > 1 for path in data["paths"])
    most = min(max(several, MOST_PATHS), 60)
    # A seed alone names a run within one ensemble only.
    several_ensembles = len({str(run["run"]).rpartition("/")[0] for run in data["states"]}) > 1
    for path in data["paths"][:most]:
        low, high = path.get("quartiles") or (None, None)
        never = path.get("median_step") is None
        middle = cell(None if never else whole(path["median_step"]))
        until = "never" if high is None else number(whole(high))
        spread = None if low is None or path["runs"] < 2 else f"{number(whole(low))} to {until}"
        runs = Cell(f"{path['runs']:,} of {total:,}", float(path["runs"]), True)
        names = [str(run) for run in path.get("members") or []]
        members = listed(names if several_ensembles else [name.rpartition("/")[2] for name in names], 6)
        tone = "whole" if len(path["states"]) <= SHORT else ""
        way = cell(path_words(path["states"]), tone=tone)
        cells.append([way, runs, middle, cell(spread, tone="whole" if spread else ""), cell(members)])
    more = f" (the first {most} of {len(data['paths'])})" if len(data["paths"]) > most else ""
    rule = data.get("convergence_rule")
    said = (
        f"; each ends at convergence: {rule['metric']} {'at least' if rule['direction'] == 'up' else 'at most'} "
        f"{number(rule['threshold'])} for {count(rule['persistence'], 'row')}"
        if rule
        else ""
    )
    header = ["path", "runs", "converged at (median)", "quartiles", "which"]
    return Table(header, cells, f"Distinct paths{more}{said}", sortable=len(cells) > 1)


def edge_table(data: Any, total: int) -> Table:
    """Return the table of changes of state."""
    cells = []
    for edge in data["edges"]:
        interval = " to ".join(f"{100 * bound:.0f}%" for bound in edge.get("interval") or ()) or None
        runs = Cell(f"{edge['runs']:,} of {total:,}", float(edge["runs"]), True)
        way = cell(f"{edge['from']}{ARROW}{edge['to']}", tone="whole")
        cells.append([way, runs, cell(interval, tone="whole" if interval else ""), cell(features(edge))])
    unit = f" ({data['edge_change']})" if data.get("edge_change") else ""
    header = ["edge", "runs", "95% interval", f"what tells the two states apart best, and its change{unit}"]
    return Table(header, cells, "Changes of state", sortable=len(cells) > 1)


def decoded(data: Any, label: Callable[[str], str]) -> list[Block]:
    """Return where every run stands that was decoded with a stored model."""
    colours = state_colours(data["n_states"])
    cells = []
    for run in data["states"]:
        state = run["states"][-1]
        cells.append(
            [
                cell(label(run["run"])),
                Cell(str(state), float(state), swatch=colours[state]),
                cell(round(run["posterior"][-1][state], 3)),
                cell(run["steps"][-1]),
                cell(run["ll_per_frame"]),
                cell(run["held_out"]),
            ]
        )
    text = (
        f"These runs were decoded with the model of hmm-{data['decoded_with']}: its normalisation, and the filtering "
        "posterior of each row given the rows up to it, so nothing was known of what came later."
    )
    if data.get("heldout_ll_per_frame") is not None:
        own = data.get("model_heldout_ll_per_frame")
        beside = "" if own is None else f" (the model's own held-out runs: {number(own)})"
        text += (
            f" Held-out log-likelihood: {number(data['heldout_ll_per_frame'])} nats a frame{beside}. The states are "
            "those of the model; what they are is told from the runs that it was fitted to."
        )
    header = ["run", "state now", "posterior", "at step", "nats a frame", "held out"]
    return [Words(text), Table(header, cells, "Where the runs stand", sortable=True)]


def trust(data: Any) -> list[Block]:
    """Return how far the states can be trusted: other starts and other runs, and what simpler models give."""
    found: list[Block] = []
    # Any two fits of a single state agree.
    if (rows := data.get("stability")) and data["n_states"] > 1:
        cells = [
            [cell(row["over"]), cell(row["fits"]), _two(row["adjusted_rand"]), cell(_two_to_two(row))]
            for row in rows
        ]
        header = ["with other", "fits", "agreement (median)", "5% to 95%"]
        caption = "Would the states be the same? Adjusted Rand index: 1 the same, 0 no more than by chance"
        found.append(Table(header, cells, caption))
    if rows := data.get("baselines"):
        cells = []
        for row in rows:
            beaten = row.get("less_than_model") if row.get("comparable") else None
            error = "" if row.get("less_se") is None else f" \u00b1 {row['less_se']:.2f}"
            less = cell(None) if beaten is None else Cell(f"{beaten:.2f}{error}", beaten, True)
            states = f"{row['n_states']}, the cap" if row.get("at_cap") else str(row["n_states"])
            score = _two(row.get("heldout_ll_per_frame") if row.get("comparable") else None)
            runs = cell(row.get("runs"))
            cells.append([cell(row["name"]), Cell(states, float(row["n_states"]), True), runs, score, less])
        header = ["simpler model", "states", "held-out runs", "nats a frame", "less than this model"]
        caption = (
            "What simpler models give on runs that were held out (\u00b1 standard error over runs). Some are held "
            "out in fewer folds, to save time; the last column compares on the runs of its row."
        )
        found.append(Table(header, cells, caption))
    return found


def _two(value: float | None) -> Cell:
    """Two decimals."""
    return cell(None) if value is None else Cell(f"{value:.2f}", value, True)


def _two_to_two(row: Any) -> str | None:
    return None if row.get("low") is None else f"{row['low']:.2f} to {row['high']:.2f}"


def transitions(data: Any) -> Table:
    """Return the table of transition probabilities."""
    counts, probabilities = data["transitions"]["counts"], data["transitions"]["probabilities"]
    header = ["from \\ to", *map(str, range(data["n_states"]))]
    cells = [
        [cell(str(a)), *(Cell(f"{number(p)} ({n:,})", p, True) for p, n in zip(row, counts[a], strict=True))]
        for a, row in enumerate(probabilities)
    ]
    return Table(
        header,
        cells,
        "Transition probabilities of a row to the next (and how often each happened)",
        folded=True,
    )
