"""The section of a hidden Markov model: the map of states, who is where when, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.hmm.words import why
from dynalab.report.blocks import Block, Code, Picture, Section, Warnings, Words
from dynalab.report.sections import claims, hmm_runs
from dynalab.report.sections import hmm_detours as detours
from dynalab.report.sections import hmm_tables as tables
from dynalab.report.sections.context import Context
from dynalab.report.words import count, listed, number, quartiles, share
from dynalab.show import plots as figures
from dynalab.store.results import Result

# Share of training below which the first change of state asks for a logarithmic axis.
EARLY = 0.03
EMISSIONS = {
    "ar": "states of dynamics: in each, metrics move by a linear law of their own",
    "level": "states of level: in each, metrics lie around a mean of their own",
}


def summary(result: Result, context: Context) -> list[str]:
    """Return what the model says in a few sentences."""
    data = result.data
    total = len(data["states"])
    lines = [f"**Hidden Markov model** of {count(total, 'run')}: **{count(data['n_states'], 'state')}**."]
    if data.get("decoded_with"):
        model = f"hmm-{data['decoded_with']}"
        lines = [f"**Decoded without looking ahead** with the states of {model}: {count(total, 'run')}."]
    paths = data.get("paths") or []
    if len(paths) == 1:
        who = "The run goes" if total == 1 else f"All {total:,} runs go"
        lines.append(f"{who} {tables.path_words(paths[0]['states'])}.")
    elif paths and len(paths) == total:
        lines.append(f"Each of the {total:,} runs takes a path of its own.")
    elif paths:
        until = " up to convergence" if data.get("convergence_rule") else ""
        most = max(path["runs"] for path in paths)
        first = [tables.path_words(path["states"]) for path in paths if path["runs"] == most]
        common = (
            f"the most common, {first[0]}, is taken by {most:,} of {count(total, 'run')}"
            if len(first) == 1
            else f"{len(first)} are the most common, {listed(first, 3)}, with {count(most, 'run')} of {total:,} each"
        )
        lines.append(f"There are {len(paths)} distinct paths{until}; {common}.")
    begins = []
    for state, steps in enumerate(tables.entries(data)):
        found = quartiles(steps)
        if state and found:
            low, middle, high = (number(tables.whole(item)) for item in found)
            n = "" if len(steps) == total else f", {len(steps):,} of {count(total, 'run')}"
            begins.append(f"{state} at step **{middle}** [{low} to {high}]{n}")
    if begins:
        lines.append(f"States begin (median [quartiles] of first entry): {'; '.join(begins)}.")
    lines += detours.summary(data, total)
    return [" ".join(lines)]


def section(result: Result, context: Context) -> Section:
    """Return the section."""
    data = result.data
    total, rows = len(data["states"]), sum(len(run["states"]) for run in data["states"])
    emission = EMISSIONS.get(data.get("emission", ""), "")
    lead = (
        f"**{count(data['n_states'], 'state')}** over {count(total, 'run')}, {rows:,} rows and "
        f"{count(len(data.get('metrics') or []), 'metric')}{f' ({emission})' if emission else ''}. States are "
        "numbered in the order in which training enters them (by the median of the first entries)."
    )
    blocks: list[Block] = [Words(lead)]
    if data.get("decoded_with"):
        blocks += tables.decoded(data, context.label)
    if lines := context.warnings(result):
        blocks.append(Warnings(lines))
    blocks.append(_map(data, total, rows))
    if raster := _raster(data, context):
        blocks.append(raster)
    blocks.append(tables.state_table(data, total, rows))
    if data.get("paths"):
        blocks.append(tables.path_table(data, total))
        blocks += [*hmm_runs.paths_compared(data, total), *hmm_runs.alike(data)]
    if data.get("edges"):
        blocks.append(tables.edge_table(data, total))
    if not data.get("decoded_with"):
        blocks += detours.blocks(data, total)
        blocks.append(claims.table(data))
    blocks += [*_profiles(data), *_selection(data), *tables.trust(data)]
    blocks.append(tables.transitions(data))
    settings = data.get("settings") or data.get("config")
    if settings and data.get("decoded_with"):
        # The others are of a fit, and nothing was fitted.
        settings = {key: settings[key] for key in ("decode_with", "steps", "convergence") if key in settings}
    if settings:
        import yaml

        blocks.append(Code(yaml.safe_dump(settings, sort_keys=False).rstrip(), "Settings", folded=True))
    title = "Hidden Markov model" if not data.get("decoded_with") else "Runs under a stored model"
    return Section(title, context.anchor(result), blocks)


def _map(data: Any, total: int, rows: int) -> Picture:
    n_states, first, spent = data["n_states"], tables.entries(data), tables.occupancy(data)
    visits = [len(steps) for steps in first]
    medians = [found[1] if (found := quartiles(steps)) else None for steps in first]
    captions = [
        f"{visits[k]:,} of {total:,} runs\n{share(spent[k], rows)} of rows\nfrom {number(tables.whole(step))}"
        if (step := medians[k]) is not None
        else "no run"
        for k in range(n_states)
    ]
    split = claims.forked(data)
    figure = figures.training_map(
        n_states, data["edges"], total, occupancy=[n / rows for n in spent], runs=visits, captions=captions,
        forked=split,
    )  # fmt: skip
    probabilities = data["transitions"]["probabilities"]
    titles = {f"state-{k}": f"state {k}: {captions[k]}".replace("\n", ", ") for k in range(n_states)}
    for edge in data["edges"]:
        a, b = edge["from"], edge["to"]
        titles[f"edge-{a}-{b}"] = (
            f"{a}{tables.ARROW}{b}: {edge['runs']:,} of {total:,} runs; "
            f"probability {number(probabilities[a][b])} a row; {tables.features(edge)}"
        )
    forked = ""
    if split:
        left = sorted({a for a, _ in split})
        forked = (
            f" In orange a fork: at least two runs each first leave {_states(left)} in different directions."
        )
    if flicker := claims.flickering(data):
        forked += f" {flicker}"
    caption = (
        f"**Training map.** States in the order of entry; an edge is as wide as the share of runs that take it, a "
        f"circle the larger, the more rows are spent in it; `from` is the median step of first entry.{forked}"
    )
    return Picture("map", figure, caption, f"Training map of {n_states} states", titles)


def _raster(data: Any, context: Context) -> Picture | None:
    by_id = {run.id: run for run in context.runs}
    rows = [run for run in data["states"] if run["run"] in by_id]
    if not rows:
        return None
    steps = {item["run"]: item["step"] for item in data.get("convergence") or ()}
    landmarks = {}
    for name, key in (("memorised", "memorised_step"), ("generalised", "generalised_step")):
        landmarks[name] = _floats([(by_id[run["run"]].summary or {}).get(key) for run in rows])
    begins = [found[1] for state in tables.entries(data)[1:] if (found := quartiles(state))]
    # A first state of a sliver's width would not be seen on a linear axis.
    early = context.log_steps and bool(begins) and min(begins) < EARLY * max(run["steps"][-1] for run in rows)
    order = _floats([steps.get(run["run"]) for run in rows]) if steps else landmarks["generalised"]
    figure = figures.state_raster(
        [np.asarray(run["steps"]) for run in rows],
        [np.asarray(run["states"]) for run in rows],
        [context.label(run["run"]) for run in rows],
        data["n_states"],
        order_by=order,
        landmarks=landmarks,
        log_steps=True if early else None,
    )
    part = f" The model was fitted to {len(data['states'])} runs; {len(rows)} of them are shown here."
    caption = (
        f"**States of every run**, sorted by {'convergence' if steps else 'generalised'} step, the earliest on top."
        f"{part if len(rows) < len(data['states']) else ''}"
    )
    return Picture("states", figure, caption, f"States of {len(rows)} runs over training")


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _profiles(data: Any) -> list[Picture]:
    pictures = []
    for key, unit, what in (
        ("level", "z", "Mean level of every metric in every state, in standard deviations from its mean"),
        (
            "drift",
            "z per row",
            "Mean change of every metric from row to row in every state, in standard deviations",
        ),
    ):
        found = {item["state"]: item[key] for item in data.get("state_profiles") or () if item.get(key)}
        names = data.get("metrics") or []
        # One state lies at the mean of all rows.
        if found and names and not (key == "level" and data["n_states"] == 1):
            means = np.array(
                [[found.get(k, {}).get(name, np.nan) for name in names] for k in range(data["n_states"])],
                dtype=float,
            )
            figure = figures.state_profiles(means, names, unit=unit)
            pictures.append(Picture(f"profile-{key}", figure, f"**{what}.**", what))
    return pictures


def _selection(data: Any) -> list[Block]:
    rows = data.get("selection") or []
    if not rows:
        return []
    # The error of the difference to the best K, where the rule is about that one.
    paired = any(row.get("behind_se") is not None for row in rows)
    error = "behind_se" if paired else "se"
    columns = {
        key: [row.get(key) for row in rows] for key in ("n_states", "heldout_ll_per_frame", error, "bic")
    }
    figure = figures.model_selection(
        columns["n_states"], columns["heldout_ll_per_frame"], columns[error], columns["bic"], data["n_states"],
        converged=[bool(row.get("converged", True)) for row in rows], paired=paired,
    )  # fmt: skip
    chosen = why(rows, data["n_states"])
    rule = "the smallest number within one standard error of the best is taken"
    if data.get("preset") == "paper":
        rule = "the number of least BIC is taken"
    elif (data.get("settings") or {}).get("n_states") is not None:
        rule = "the number was given"
    what = "the standard error of its difference to the best" if paired else "its standard error over runs"
    bic = (
        "of the held-out runs, a mean over starts"
        if data.get("preset") == "paper"
        else "of the fit on all runs"
    )
    held = any(value is not None for value in columns["heldout_ll_per_frame"])
    said = (
        f"Log-likelihood of runs that were held out whole, with {what}; {rule}. BIC is {bic}."
        if held
        else f"No run could be held out. BIC is {bic}; the number of least BIC is taken unless one is given."
    )
    how = f" {chosen[0]}." if chosen and rule.startswith("the smallest") else ""
    caption = f"**How many states.** {said}{how}"
    return [Picture("selection", figure, caption, f"Model selection: {data['n_states']} states are chosen")]


def _states(states: Sequence[int]) -> str:
    return f"{'state' if len(states) == 1 else 'states'} {listed(list(map(str, states)), 12)}"
