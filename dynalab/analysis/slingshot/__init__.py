"""Slingshots: which spikes of the loss are the cycle of Thilak et al. 2022 (arXiv 2206.04817), and what the others are.

The loss' spikes are found (`spikes`), what the norm of the last layer did around each is measured (`norms`), and each
is named by the first cause whose evidence holds (`kinds`). The engine of slingshots, features that inflate, is looked
for by itself (`inflation`): it is there before a spike, and without one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, Series, key, runs_of
from dynalab.analysis.cycle import groups_at_ends
from dynalab.analysis.slingshot import inflation
from dynalab.analysis.slingshot.confirm import compare, words
from dynalab.analysis.slingshot.findings import Event, Findings, RunFindings, Summary
from dynalab.analysis.slingshot.kinds import Evidence, name
from dynalab.analysis.slingshot.norms import cycles
from dynalab.analysis.slingshot.papers import thilak2022
from dynalab.analysis.slingshot.spikes import (
    find_spikes,
    fitted_from,
    largest_loss,
    log_loss,
    period_of,
    until_it_ends,
)
from dynalab.core.stats import passage, quartiles
from dynalab.core.waves import Fork
from dynalab.core.words import count, listed, number, spoken, which_runs
from dynalab.optim.rates import decay_a_step, rate_changes
from dynalab.show.blocks import Block, Say, Span, Strip, Strips, Table, run_cell, telling

VERSION = 6
NEEDED = ("train_loss", "last_layer_norm")
# What each of these adds is said in `kinds`.
TELLING = (
    *("train_accuracy", "zero_loss_fraction", "median_margin", "min_margin", "class_feature_cosine"),
    *("grad_norm", "last_layer_update_norm", "edge_ratio", inflation.IMBALANCE, *inflation.NORMS),
)
NEEDS = Needs(
    columns=NEEDED,
    optional=(
        *(*TELLING, "train_loss_max", "batch_loss", "gradient_curvature"),
        *("stability_threshold", "scale_invariant_norm"),
    ),
    record="'probes=[gradients,numerics]'",
    statuses=("done", "diverged"),
)
TITLE = "Slingshots"
LEAD = "slingshots"
FIGURES = ("slingshots",)
PAPERS = {"thilak2022": thilak2022}
FEWEST_ROWS = 10
# Rows this many steps apart may miss spikes, where the largest loss between them is not known.
COARSE = 50
DENSER = "record with eval.every=10"
IN_WORDS = {
    "other_spikes": "spikes of another kind",
    "inflation": "inflation without a spike",
    "no_events": "no spikes",
}


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    window: int = key(
        200, "steps that a loss' own level and a norm's slope are taken over (40 rows at least)", least=1
    )
    rise: float = key(2.0, "decades that a spike rises above the level", above=0)
    zero_fraction: float = key(
        0.05, "share of the training examples whose float32 loss is 0 before a slingshot", least=0, most=1
    )
    eps: float = key(1e-6, "largest epsilon of an adaptive optimizer that slingshots", least=0)
    imbalance: float = key(
        1e-3,
        "least sum of the gradients by logit, over the sum of their sizes, of an inflation",
        above=0,
        most=1,
    )


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Find the spikes of every run's loss and say what each was."""
    import pandas as pd

    groups, notes = groups_at_ends(groups, NEEDED)
    runs = []
    doubts: dict[str, list[str]] = {}
    for run in runs_of(groups):
        judged, doubt = judge(run, config)
        runs.append(judged)
        if doubt:
            doubts.setdefault(doubt, []).append(run.id)
    notes += [f"{which_runs(ids, len(runs))}: {doubt}" for doubt, ids in doubts.items()]
    columns = ["run", *list(Event.__dataclass_fields__)[:6]]
    rows = [{"run": run.run, **vars(event)} for run in runs for event in run.events]
    table = pd.DataFrame(rows, columns=columns).astype(
        {"onset_step": "int64", "peak_step": "Int64", "end_step": "Int64", "confidence": float}
    )
    return Findings(tuple(runs), summarise(runs), None, tuple(notes), table)


def judge(run: Run, config: Config) -> tuple[RunFindings, str]:
    """Return what is found of a run, and what is to be doubted about it; empty where nothing is."""
    channels = {name: series for name in NEEDS.names if (series := run.first(name)) is not None}
    missing = [name for name in TELLING if name not in channels]
    missing += [] if run.config.get("optimizer") else ["optimizer"]
    nothing = RunFindings(run=run.id, verdict="insufficient_data", missing_channels=tuple(missing))
    known = largest_loss(run)
    if known is None or min(len(channels.get(name, ())) for name in NEEDED) < FEWEST_ROWS:
        return nothing, f"fewer than {FEWEST_ROWS} rows of {' or '.join(NEEDED)}: {DENSER}"
    last = max(float(steps[-1]) for steps in (run.grid, *(s.steps for s in channels.values())) if len(steps))
    loss, ended = until_it_ends(known, last)
    start = fitted_from(loss, channels.get("train_accuracy"))
    spikes = [] if start is None else find_events(run, channels, loss, start, ended, config)
    events = [*spikes, *find_inflations(run, channels, spikes, config)]
    judged = replace(nothing, events=tuple(sorted(events, key=lambda event: event.onset_step)))
    slingshots = judged.slingshots
    without = inflation.KIND if events else "no_events"
    verdict = "slingshot" if 2 * len(slingshots) > len(spikes) else "other_spikes" if spikes else without
    if start is None:
        return replace(judged, verdict=verdict), ""
    onsets = slingshots if verdict == "slingshot" else [event.onset_step for event in spikes]
    period, spread = period_of(onsets)
    spacing = float(np.median(np.diff(loss.steps))) if len(loss) > 1 else 0.0
    doubt = ""
    if spacing > (period or np.inf) / 5 or (spacing > COARSE and "train_loss_max" not in channels):
        doubt = f"a row every {spacing:g} steps is coarse for spikes that last 6 to 670: some may be missed; {DENSER}"
    return replace(judged, verdict=verdict, period_steps=period, period_cv=spread), doubt


def find_events(
    run: Run, channels: Mapping[str, Series], loss: Series, start: float, ended: bool, config: Config
) -> list[Event]:
    """Return the spikes of a finite loss from a step on, named; `ended`: whether it ended in NaN or infinity."""
    steps, height = loss.steps, channels["last_layer_norm"]
    spikes = find_spikes(steps, loss.values, armed_from=start, window=config.window, rise=config.rise)
    if not spikes:
        return []
    norm = np.interp(steps, height.steps, height.values)
    around = cycles(steps, log_loss(loss.values), norm, spikes, config.window)
    shrunk = channels.get("scale_invariant_norm")
    batch = (run.config.get("train") or {}).get("batch_size")
    evidence = Evidence(
        onset=0.0,
        peak=0.0,
        window=float(config.window),
        channels=channels,
        cycle=around[0],
        optimizer=run.config.get("optimizer") or {},
        rates=rate_changes(run.config, float(steps[-1])),
        full_batch=None if batch is None else batch == "full",
        decay=None if shrunk is None else decay_a_step(run.config, shrunk.steps),
    )
    events = []
    for spike, cycle in zip(spikes, around, strict=True):
        onset, peak = float(steps[spike.onset]), float(steps[spike.peak])
        last = (ended or run.status == "diverged") and spike is spikes[-1] and spike.end is None
        named = name(replace(evidence, onset=onset, peak=peak, cycle=cycle, ended=last), config)
        events.append(
            Event(
                kind=named.kind,
                confidence=round(named.confidence, 3),
                onset_step=int(onset),
                peak_step=int(peak),
                end_step=None if spike.end is None else int(steps[spike.end]),
                amplitude_decades=round(spike.decades, 3),
                norm_growth=round(float(np.expm1(cycle.growth)), 5) if np.isfinite(cycle.growth) else None,
                norm_slope_ratio=None if cycle.ratio is None else round(cycle.ratio, 4),
                reason=named.reason,
            )
        )
    return events


def find_inflations(
    run: Run, channels: Mapping[str, Series], spikes: Sequence[Event], config: Config
) -> list[Event]:
    """Return the inflations of a run, each with the spike that followed it in words."""
    events = []
    for found in inflation.stretches(run, channels, config.window, config.imbalance):
        last = np.inf if found.end is None else found.end + config.window / 4
        spike = next((event.onset_step for event in spikes if found.onset < event.onset_step <= last), None)
        rounded = found.rounded is not None and found.rounded >= config.zero_fraction
        events.append(
            Event(
                kind=inflation.KIND,
                # The imbalance, the growth of both norms and their cosine are seen.
                confidence=(4 + rounded) / 5,
                onset_step=int(found.onset),
                peak_step=None,
                end_step=None if found.end is None else int(found.end),
                amplitude_decades=None,
                norm_growth=None,
                norm_slope_ratio=None,
                reason=found.reason(spike),
            )
        )
    return events


def summarise(runs: Sequence[RunFindings]) -> Summary:
    """Return what the runs come to."""
    first = [min(run.slingshots, default=None) for run in runs if run.verdict != "insufficient_data"]
    periods = [run.period_steps for run in runs if run.verdict == "slingshot" and run.period_steps]
    return Summary(
        dict(Counter(run.verdict for run in runs)),
        dict(Counter(event.kind for run in runs for event in run.events)),
        quartiles(first) if any(step is not None for step in first) else None,
        quartiles(periods) if periods else None,
    )


def explore(
    groups: Sequence[Group], config: Config
) -> Generator[Sequence[Fork], Mapping[str, Sequence[Group]], Findings]:
    """Train runs with slingshots again, from before the first one on, with the loss in float64."""
    findings = analyse(groups, config)
    begins = {run.run: min(run.slingshots) - 1 for run in findings.runs if run.slingshots}
    if not begins:
        return findings
    made = yield [Fork("float64", tuple(begins), begins, {"train.loss_dtype": "float64"})]
    forks = [(group, analyse([group], config).runs) for group in made["float64"]]
    return replace(findings, confirmation=compare(findings.runs, forks))


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    runs = findings.runs
    yield Say(_headline(findings), headline=True)
    recorded = {run.id: run for run in runs_of(groups)}
    strips = [
        Strip(
            run=judged.run,
            left=largest_loss(run),
            right=run.first("last_layer_norm"),
            spans=[Span(event.onset_step, event.end_step, event.kind) for event in judged.events],
        )
        for judged in sorted(runs, key=lambda judged: judged.verdict != "slingshot")
        if (run := recorded.get(judged.run)) and run.first("train_loss") is not None
    ]
    if strips:
        rises = {strip.run: _rise(strip.left) for strip in strips}
        drawn = telling(strips, rises)
        caption = (
            "**Loss and norm of the last layer, events shaded.** A slingshot: the norm grows, the loss leaps by "
            "decades, the norm stands still."
        )
        if len(drawn) < len(strips):
            untold = all(run.verdict == "insufficient_data" for run in runs)
            nothing = "No run has rows enough to tell" if untold else "No run has an event"
            most = max(rises.values())
            rose = (
                f"whose loss rose the most, by {number(most)} decades"
                if most
                else "of the first run: no loss ever rose"
            )
            caption = f"**Loss and norm of the last layer.** {nothing}; drawn is that {rose}."
        yield Strips(
            name="slingshots",
            caption=caption,
            alt="Training loss and last-layer norm of runs with events shaded",
            strips=drawn,
            left="training loss, largest since the last row",
            right="norm of the last layer",
        )
    rows = [
        [run_cell(run.run), spoken(run.verdict), _onsets(run), run.period_steps, run.period_cv]
        for run in runs
    ]
    # Without an event no run differs from another.
    plain = not any(run.events for run in runs) and len(runs) > 1
    yield Table(["run", "verdict", "events", "period", "its variation"], rows, "Every run", folded=plain)
    events = [
        [
            *(run_cell(run.run), spoken(event.kind), event.onset_step, event.peak_step, event.end_step),
            *(event.amplitude_decades, event.norm_slope_ratio, event.confidence, event.reason),
        ]
        for run in runs
        for event in run.events
    ]
    if events:
        header = [
            "run",
            "kind",
            "onset",
            "peak",
            "end",
            "decades",
            "norm after / before",
            "confidence",
            "why",
        ]
        yield Table(header, events, count(len(events), "event"), folded=len(events) > 12)
    if findings.confirmation:
        yield Say(words(findings.confirmation))
    if missing := sorted({channel for run in runs for channel in run.missing_channels}):
        yield Say(f"Not recorded, and so not weighed: {listed(missing)}.", note=True)


def _rise(loss: Series | None) -> float:
    """Return by how many decades a loss rose at most above the least before."""
    values = np.empty(0) if loss is None else loss.values[np.isfinite(loss.values) & (loss.values > 0)]
    return float(np.log10(values / np.minimum.accumulate(values)).max(initial=0.0))


def _headline(findings: Findings) -> str:
    summary = findings.summary
    rest = dict(summary.verdicts)
    untold, total = rest.pop("insufficient_data", 0), len(findings.runs)
    few = f"{count(untold, 'run')} {'has' if untold == 1 else 'have'} too few rows"
    if untold == total:
        return f"**Cannot tell** whether there are slingshots: {few}, fewer than {FEWEST_ROWS}; {DENSER}."
    lead = f"**Cannot tell** in {untold:,} of {count(total, 'run')}, with too few rows. " if untold else ""
    if not findings.summary.kinds and rest.keys() == {"no_events"}:
        return f"{lead}**No slingshots**: no spike of the loss in any of {count(total - untold, 'run')}."
    line = f"{lead}**Slingshots** in **{rest.pop('slingshot', 0):,} of {count(total - untold, 'run')}**"
    line += f", {listed([f'{IN_WORDS[verdict]} in {n:,}' for verdict, n in rest.items()])}" if rest else ""
    line += f"; the first **{passage(summary.first_onset)}**" if summary.first_onset else ""
    line += f"; some **{number(summary.period[1])}** steps apart" if summary.period else ""
    named = ("slingshot", inflation.KIND)
    others = [f"{n:,} {spoken(kind)}" for kind, n in summary.kinds.items() if kind not in named]
    line += f"; other spikes: {listed(others)}" if others else ""
    inflated = sum(len(run.spikes) < len(run.events) for run in findings.runs)
    return line + (f"; features inflate in **{inflated:,}**" if inflated else "") + "."


def _onsets(run: RunFindings) -> str | None:
    """Return when a run's events of each kind began."""
    ordered = sorted(run.events, key=lambda event: event.kind)
    kinds = [
        f"{spoken(kind)} at {', '.join(f'{event.onset_step:,}' for event in events)}"
        for kind, events in groupby(ordered, key=lambda event: event.kind)
    ]
    return "; ".join(kinds) or None
