"""The section of a hidden Markov model: the map of states, who is where when, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.report import figures
from dynalab.report.blocks import Block, Cell, Code, Picture, Section, Table, Warnings, Words, cell
from dynalab.report.figures.style import state_colours
from dynalab.report.sections import generic
from dynalab.report.sections.context import Context
from dynalab.report.words import count, listed, number, quartiles, share
from dynalab.store.results import Result

ARROW = " \u2192 "
EMISSIONS = {
    "ar": "states of dynamics: in each, metrics move by a linear law of their own",
    "level": "states of level: in each, metrics lie around a mean of their own",
}


def summary(result: Result, context: Context) -> list[str]:
    """Return what the model says in a few sentences."""
    data = result.data
    total = len(data["states"])
    lines = [f"**Hidden Markov model** of {count(total, 'run')}: **{count(data['n_states'], 'state')}**."]
    paths = data.get("paths") or []
    if len(paths) == 1:
        who = "The run goes" if total == 1 else f"All {total:,} runs go"
        lines.append(f"{who} {_path(paths[0]['states'])}.")
    elif paths:
        first = paths[0]
        lines.append(
            f"There are {len(paths)} distinct paths; the most common, {_path(first['states'])}, is taken by "
            f"{first['runs']} of {count(total, 'run')}."
        )
    begins = []
    for state, steps in enumerate(entries(data)):
        found = quartiles(steps)
        if state and found:
            low, middle, high = (number(round(item)) for item in found)
            n = "" if len(steps) == total else f", {len(steps)} of {count(total, 'run')}"
            begins.append(f"{state} at step **{middle}** [{low}, {high}]{n}")
    if begins:
        lines.append(f"States begin (median [quartiles] of first entry): {'; '.join(begins)}.")
    return lines


def entries(data: Any) -> list[list[float]]:
    """Return for every state the first step of each run that visits it."""
    found: list[list[float]] = [[] for _ in range(data["n_states"])]
    for run in data["states"]:
        states = np.asarray(run["states"])
        for state in np.unique(states):
            found[int(state)].append(float(run["steps"][int(np.argmax(states == state))]))
    return found


def section(result: Result, context: Context) -> Section:
    """Return the section."""
    data = result.data
    total, rows = len(data["states"]), sum(len(run["states"]) for run in data["states"])
    emission = EMISSIONS.get(data.get("emission", ""), "")
    lead = (
        f"**{count(data['n_states'], 'state')}** over {count(total, 'run')}, {rows:,} rows and "
        f"{count(len(data.get('metrics') or []), 'metric')}{f' ({emission})' if emission else ''}. States are "
        "numbered in the order in which training enters them."
    )
    blocks: list[Block] = [Words(lead)]
    if lines := context.warnings(result):
        blocks.append(Warnings(lines))
    blocks.append(_map(data, total, rows))
    if raster := _raster(data, context):
        blocks.append(raster)
    blocks.append(_state_table(data, total, rows))
    if data.get("paths"):
        blocks.append(_path_table(data, total))
    if data.get("edges"):
        blocks.append(_edge_table(data, total))
    blocks += [*_profiles(data), *_selection(data), *_further(data)]
    blocks.append(_transitions(data))
    if settings := data.get("settings") or data.get("config"):
        import yaml

        blocks.append(Code(yaml.safe_dump(settings, sort_keys=False).rstrip(), "Settings of the model", folded=True))
    return Section("Hidden Markov model", context.anchor(result), blocks)


def _path(states: Sequence[int]) -> str:
    return ARROW.join(map(str, states)) if len(states) <= 14 else f"{ARROW.join(map(str, states[:12]))}{ARROW}..."


def _occupancy(data: Any) -> list[int]:
    counts = np.zeros(data["n_states"], dtype=int)
    for run in data["states"]:
        counts += np.bincount(np.asarray(run["states"], dtype=int), minlength=data["n_states"])
    return [int(item) for item in counts]


def _map(data: Any, total: int, rows: int) -> Picture:
    n_states, first, spent = data["n_states"], entries(data), _occupancy(data)
    visits = [len(steps) for steps in first]
    medians = [found[1] if (found := quartiles(steps)) else None for steps in first]
    captions = [
        f"{visits[k]} of {total} runs\n{share(spent[k], rows)} of rows\nfrom {number(round(step))}"
        if (step := medians[k]) is not None
        else "no run"
        for k in range(n_states)
    ]
    figure = figures.training_map(
        n_states, data["edges"], total, occupancy=[n / rows for n in spent], runs=visits, captions=captions
    )
    probabilities = data["transitions"]["probabilities"]
    titles = {f"state-{k}": f"state {k}: {captions[k]}".replace("\n", ", ") for k in range(n_states)}
    for edge in data["edges"]:
        a, b = edge["from"], edge["to"]
        titles[f"edge-{a}-{b}"] = (
            f"{a}{ARROW}{b}: {edge['runs']} of {total} runs; probability {number(probabilities[a][b])} a row; "
            f"{_features(edge)}"
        )
    split = figures.forks(figures.state_graph(n_states, data["edges"]))
    forked = f" Forks (in orange): runs leave {_states(split)} in more than one direction." if split else ""
    caption = (
        f"**Training map.** States in the order of entry; an edge is as wide as the share of runs that take it, a "
        f"circle as large as the share of rows spent in it; `from` is the median step of first entry.{forked}"
    )
    return Picture("map", figure, caption, f"Training map of {n_states} states", titles)


def _states(states: Sequence[int]) -> str:
    return f"{'state' if len(states) == 1 else 'states'} {listed(list(map(str, states)), 12)}"


def _raster(data: Any, context: Context) -> Picture | None:
    by_id = {run.id: run for run in context.runs}
    rows = [run for run in data["states"] if run["run"] in by_id]
    if not rows:
        return None
    steps = {item["run"]: item["step"] for item in data.get("convergence") or ()}
    landmarks = {}
    for name, key in (("memorised", "memorised_step"), ("generalised", "generalised_step")):
        landmarks[name] = _floats([(by_id[run["run"]].summary or {}).get(key) for run in rows])
    order = _floats([steps.get(run["run"]) for run in rows]) if steps else landmarks["generalised"]
    figure = figures.state_raster(
        [np.asarray(run["steps"]) for run in rows],
        [np.asarray(run["states"]) for run in rows],
        [context.label(run["run"]) for run in rows],
        data["n_states"],
        order_by=order,
        landmarks=landmarks,
        log_steps=context.log_steps,
    )
    part = f" The model was fitted to {len(data['states'])} runs; {len(rows)} of them are shown here."
    caption = (
        f"**States of every run**, sorted by {'convergence' if steps else 'generalised'} step, the earliest on top."
        f"{part if len(rows) < len(data['states']) else ''}"
    )
    return Picture("states", figure, caption, f"States of {len(rows)} runs over training")


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _spell(steps: Sequence[float | None]) -> list[Cell]:
    """Return cells of median and quartiles."""
    found = quartiles(steps)
    if found is None:
        return [cell(None), cell(None)]
    low, middle, high = found
    return [cell(round(middle)), cell(f"{number(round(low))} to {number(round(high))}")]


def _state_table(data: Any, total: int, rows: int) -> Table:
    colours, first, spent = state_colours(data["n_states"]), entries(data), _occupancy(data)
    cells = [
        [
            Cell(str(k), float(k), swatch=colours[k]),
            Cell(f"{len(first[k])} of {total}", float(len(first[k])), True),
            Cell(share(spent[k], rows), float(spent[k]), True),
            *_spell(first[k]),
        ]
        for k in range(data["n_states"])
    ]
    return Table(["state", "runs", "rows", "enters at (median)", "quartiles"], cells, "States")


def _path_table(data: Any, total: int) -> Table:
    cells = []
    for path in data["paths"][:60]:
        low, high = path.get("quartiles") or (None, None)
        never = path.get("median_step") is None
        middle = cell(None) if never else cell(round(path["median_step"]))
        spread = None if low is None else f"{number(round(low))} to {number(round(high)) if high is not None else 'never'}"
        runs = Cell(f"{path['runs']} of {total}", float(path["runs"]), True)
        members = listed([str(run).rpartition("/")[2] for run in path.get("members") or []], 6)
        cells.append([cell(_path(path["states"])), runs, middle, cell(spread), cell(members)])
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


def _features(edge: Any) -> str:
    return ", ".join(
        f"{item['name']} {item['change']:+.3g}" for item in edge.get("features") or () if item.get("change") is not None
    )


def _edge_table(data: Any, total: int) -> Table:
    cells = []
    for edge in data["edges"]:
        low, high = edge.get("interval") or (None, None)
        interval = None if low is None else f"{100 * low:.0f}% to {100 * high:.0f}%"
        runs = Cell(f"{edge['runs']} of {total}", float(edge["runs"]), True)
        cells.append([cell(f"{edge['from']}{ARROW}{edge['to']}"), runs, cell(interval), cell(_features(edge))])
    unit = f" ({data['edge_change']})" if data.get("edge_change") else ""
    header = ["edge", "runs", "95% interval", f"what changes most{unit}"]
    return Table(header, cells, "Changes of state", sortable=len(cells) > 1)


def _profiles(data: Any) -> list[Picture]:
    pictures = []
    for key, unit, what in (
        ("level", "z", "Mean level of every metric in every state, in standard deviations from its mean"),
        ("drift", "z a row", "Mean change of every metric from row to row in every state, in standard deviations"),
    ):
        found = {item["state"]: item[key] for item in data.get("state_profiles") or () if item.get(key)}
        names = data.get("metrics") or []
        if found and names:
            means = np.array(
                [[found.get(k, {}).get(name, np.nan) for name in names] for k in range(data["n_states"])], dtype=float
            )
            figure = figures.state_profiles(means, names, unit=unit)
            pictures.append(Picture(f"profile-{key}", figure, f"**{what}.**", what))
    return pictures


def _selection(data: Any) -> list[Block]:
    rows = data.get("selection") or []
    if not rows:
        return []
    columns = {key: [row.get(key) for row in rows] for key in ("n_states", "heldout_ll_per_frame", "se", "bic")}
    figure = figures.model_selection(
        columns["n_states"], columns["heldout_ll_per_frame"], columns["se"], columns["bic"], data["n_states"],
        converged=[bool(row.get("converged", True)) for row in rows],
    )  # fmt: skip
    caption = (
        "**How many states.** Log-likelihood of runs that were held out whole, with its standard error over runs; the "
        "smallest number within one standard error of the best is taken. BIC beside it is of the fit on all runs."
    )
    return [Picture("selection", figure, caption, f"Model selection: {data['n_states']} states are chosen")]


def _further(data: Any) -> list[Block]:
    """Tables of what a result may hold besides."""
    found: list[Block] = []
    for key, title in (("detours", "Detours"), ("stability", "Stability"), ("baselines", "Baselines")):
        value = data.get(key)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            found.append(generic.records(title, value))
        elif isinstance(value, dict) and value:
            found.append(generic.records(title, [value]))
    return found


def _transitions(data: Any) -> Table:
    counts, probabilities = data["transitions"]["counts"], data["transitions"]["probabilities"]
    header = ["from \\ to", *map(str, range(data["n_states"]))]
    cells = [
        [cell(str(a)), *(Cell(f"{number(p)} ({n:,})", p, True) for p, n in zip(row, counts[a], strict=True))]
        for a, row in enumerate(probabilities)
    ]
    return Table(header, cells, "Transition probabilities of a row to the next (and how often each happened)", folded=True)
