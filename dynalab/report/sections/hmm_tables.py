"""The tables of a hidden Markov model, and what figures and tables both need of a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dynalab.report.blocks import Block, Cell, Table, Words, cell
from dynalab.report.figures.style import state_colours
from dynalab.report.sections import generic
from dynalab.report.words import count, listed, number, quartiles, share

# Paths are not broken before an arrow.
ARROW = "\u00a0\u2192 "


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
    """Return what changes most along an edge."""
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
    return [cell(middle), cell(f"{number(low)} to {number(high)}")]


def state_table(data: Any, total: int, rows: int) -> Table:
    """Return the table of states."""
    colours, first, spent = state_colours(data["n_states"]), entries(data), occupancy(data)
    cells = [
        [
            Cell(str(k), float(k), swatch=colours[k]),
            Cell(f"{len(first[k]):,} of {total:,}", float(len(first[k])), True),
            Cell(share(spent[k], rows), float(spent[k]), True),
            *_spell(first[k]),
        ]
        for k in range(data["n_states"])
    ]
    return Table(["state", "runs", "share of rows", "enters at (median)", "quartiles"], cells, "States")


def path_table(data: Any, total: int) -> Table:
    """Return the table of distinct paths."""
    cells = []
    for path in data["paths"][:60]:
        low, high = path.get("quartiles") or (None, None)
        never = path.get("median_step") is None
        middle = cell(None if never else path["median_step"])
        spread = None if low is None else f"{number(low)} to {number(high) if high is not None else 'never'}"
        runs = Cell(f"{path['runs']:,} of {total:,}", float(path["runs"]), True)
        members = listed([str(run).rpartition("/")[2] for run in path.get("members") or []], 6)
        cells.append([cell(path_words(path["states"])), runs, middle, cell(spread), cell(members)])
    more = f" (the first 60 of {len(data['paths'])})" if len(data["paths"]) > 60 else ""
    rule = data.get("convergence_rule")
    said = (
        f"; converged: {rule['metric']} {'at least' if rule['direction'] == 'up' else 'at most'} "
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
        cells.append([cell(f"{edge['from']}{ARROW}{edge['to']}"), runs, cell(interval), cell(features(edge))])
    unit = f" ({data['edge_change']})" if data.get("edge_change") else ""
    header = ["edge", "runs", "95% interval", f"what changes most{unit}"]
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
            f" Held-out log-likelihood: {number(data['heldout_ll_per_frame'])} nats a frame{beside}; far below, the "
            "runs do something that the model has not seen."
        )
    header = ["run", "state now", "posterior", "at step", "nats a frame", "held out"]
    return [Words(text), Table(header, cells, "Where the runs stand", sortable=True)]


def further(data: Any) -> list[Block]:
    """Return tables of what a result may hold besides."""
    found: list[Block] = []
    for key, title in (("detours", "Detours"), ("stability", "Stability"), ("baselines", "Baselines")):
        value = data.get(key)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            found.append(generic.records(title, value))
        elif isinstance(value, dict) and value:
            found.append(generic.records(title, [value]))
    return found


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
