"""The edge of stability (Cohen et al. 2021, arXiv 2103.00065; adaptive optimizers: 2022, arXiv 2207.14484).

Whether the sharpness of a run rose to the threshold above which its optimizer is unstable, when it arrived, how long it
hovered there and whether it left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.base import Frame, Group, Keys, Needs, Run, Series, frame, key, runs_of
from dynalab.analysis.cycle import cycle_of, groups_at_ends
from dynalab.analysis.eos.confirm import Confirmation, compare, halvings, show_forks
from dynalab.analysis.eos.corroborate import LossAround, RawSharpness, loss_before_and_after, raw_sharpness
from dynalab.analysis.eos.edge import Edge, edge_of
from dynalab.analysis.eos.papers import cohen2021
from dynalab.analysis.eos.ratios import NEEDED, Ratios, eigenvalue, ratios_of
from dynalab.core.stats import passage, quantile, quartiles
from dynalab.core.waves import Fork
from dynalab.core.words import count, listed, metric_words, spoken, which_runs
from dynalab.curvature.rows import SKIPPED, close_enough
from dynalab.show.blocks import Block, Number, Say, Span, Strip, Strips, Table, run_cell, telling

VERSION = 7
NEEDS = Needs(
    columns=(NEEDED,),
    optional=(
        *("stability_threshold", "sharpness_residual", "preconditioned_residual", "grad_norm"),
        *("train_loss", "batch_loss", "curvature_probe_size", "curvature_probe_training"),
    ),
    record="'probes=[weights,gradients,curvature]'",
    imports="sharpness and stability_threshold (or edge_ratio alone)",
    statuses=("done", "diverged"),
)
TITLE = "Edge of stability"
LEAD = "edge"
FIGURES = ("edge", "halved")
PAPERS = {"cohen2021": cohen2021}
# Verdicts that leave open whether a run arrived.
UNTOLD = ("insufficient_data", "unknown")
IN_WORDS = {
    "at_edge": "at the edge of stability",
    "visited": "at the edge for a time",
    "below_edge": "below the edge",
    "never_sharpened": "without sharpening",
    "insufficient_data": "with too few rows",
    "unknown": "undecided",
}


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    low: float = key(
        0.9, "least median ratio of sharpness to threshold from an arrival, at 1, on", above=0, most=1
    )
    high: float = key(
        1.25, "largest median ratio there, and largest ratio that counts as at the edge", above=1
    )
    leave: float = key(
        0.8, "ratio below which five rows in a row say that the run has left the edge", above=0, below=1
    )
    rise: float = key(1.25, "times that the ratio rises from its minimum before it can arrive", least=1)
    skip: int = key(
        SKIPPED, "steps at the beginning that are not looked at, for adaptive optimizers", least=0
    )


@dataclass(frozen=True)
class Stay:
    """A time at the edge, from step to step."""

    first: int  # first step
    last: int  # last step


@dataclass(frozen=True, kw_only=True)
class RunFindings:
    """What is found of a run; ratios are of sharpness to threshold."""

    run: str  # its id
    verdict: str  # `at_edge`, `visited`, `below_edge`, `never_sharpened`, `insufficient_data` or `unknown`
    adaptive: bool = False  # whether it is of the preconditioned sharpness
    onset_step: int | None = None  # step of the first arrival
    end_step: int | None = None  # step at which it left for the last time
    # median ratio at the edge; of the last quarter of the rows where it never arrived
    median_ratio: float | None = None
    iqr_ratio: float | None = None  # interquartile range of the same ratios
    fraction_at_edge: float = 0.0  # share of the run's steps at the edge
    reason: str = ""  # in words
    sharpening_rate: float | None = None  # slope of the log ratio before the arrival, 1/step
    rise: float | None = None  # largest ratio before the arrival over the smallest one before that
    stays: tuple[Stay, ...] | int = ()  # times at the edge; in results of before, how many
    loss: LossAround | None = None  # what the loss of a full batch did, recorded at every step
    raw_sharpness: RawSharpness | None = None  # the sharpness itself at the edge of an adaptive optimizer
    probe_size: int | None = None  # training examples that the sharpness was measured on
    probe_mode: str | None = None  # mode of the network there: `training` or `evaluation`
    residual_median: float | None = None  # median residual over eigenvalue
    residual_max: float | None = None  # the largest one


@dataclass(frozen=True)
class Summary:
    """Runs of each verdict, and quartiles over runs of the arrival and of the ratio at the edge.

    A run that never arrived counts as later than all others; one of which that is not known does not count.
    """

    verdicts: Mapping[str, int]  # verdict -> runs
    onset: tuple[float | None, float | None, float | None] | None = None  # quartiles of the arrival, steps
    ratio: tuple[float, float, float] | None = None  # quartiles of `median_ratio` over runs that arrived


@dataclass(frozen=True)
class Findings:
    """What is found of every run; the tables have the ratios of all rows, and runs beside their forks."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    confirmation: Confirmation | None = None
    warnings: tuple[str, ...] = ()
    ratios: Frame = None
    forked: Frame = frame("confirmation")


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Say of every run whether, when and how it was at the edge of stability."""
    import pandas as pd

    groups, notes = groups_at_ends(groups, NEEDED)
    recorded = runs_of(groups)
    ratios = [ratios_of(run) for run in recorded]
    runs, ids = [], []
    for run, ratio in zip(recorded, ratios, strict=True):
        runs.append(judge(run, ratio, config))
        ids += [run.id] * len(ratio.steps)
    dropped = {run.id: ratio.dropped for run, ratio in zip(recorded, ratios, strict=True) if ratio.dropped}
    if dropped:
        rows, which = count(sum(dropped.values()), "row"), which_runs([*dropped], len(recorded))
        notes.append(f"{which}: {rows} left out, whose eigenvalues had not converged")
    notes += _too_few(runs)
    steps = np.concatenate([ratio.steps for ratio in ratios] or [np.empty(0, np.int64)])
    values = np.concatenate([ratio.values for ratio in ratios] or [np.empty(0)])
    table = pd.DataFrame({"run": np.array(ids, dtype=object), "step": steps, "ratio": values})
    return Findings(tuple(runs), summarise(runs), None, tuple(notes), table)


def _too_few(runs: Sequence[RunFindings]) -> Iterator[str]:
    """Yield a line for each reason for which runs have too few rows to be judged."""
    reasons: dict[str, list[str]] = {}
    for run in runs:
        if run.verdict == "insufficient_data":
            reasons.setdefault(run.reason, []).append(run.run)
    for reason, which in reasons.items():
        yield f"{which_runs(which, len(runs))} cannot be judged: {reason}"


def judge(run: Run, ratios: Ratios, config: Config) -> RunFindings:
    """Return what is found of a run."""
    if ratios.reason:
        edge = Edge("unknown", reason=ratios.reason)
    elif ratios.dropped > len(ratios.steps):
        total = ratios.dropped + len(ratios.steps)
        edge = Edge("unknown", reason=f"{ratios.dropped} of {total} eigenvalues had not converged")
    else:
        edge = edge_of(ratios.steps, ratios.values, config, adaptive=ratios.adaptive)
        # Where rows were lost, closer ones may be lost as well.
        if edge.verdict == "insufficient_data" and not ratios.dropped:
            skip = config.skip if ratios.adaptive else 0
            edge = replace(edge, reason=edge.reason + _closer(run, ratios.steps, skip))
    judged = RunFindings(
        run=run.id,
        verdict=edge.verdict,
        adaptive=ratios.adaptive,
        onset_step=None if edge.onset is None else round(edge.onset),
        end_step=None if edge.end is None else round(edge.end),
        median_ratio=edge.median,
        iqr_ratio=edge.spread,
        fraction_at_edge=edge.fraction,
        reason=edge.reason,
        sharpening_rate=edge.rate,
        rise=edge.rise,
        stays=tuple(Stay(round(first), round(last)) for first, last in edge.stays),
        **measured_on(run, ratios.adaptive),
    )
    if edge.onset is None:
        return judged
    # Within a cycle the loss of the weights that rows show does not move.
    full = cycle_of(run.config) == 1 and (run.config.get("train") or {}).get("batch_size") in (None, "full")
    loss, raw = run.first("train_loss"), run.first("sharpness")
    return replace(
        judged,
        loss=loss_before_and_after(loss, edge.stays) if full and loss is not None else None,
        raw_sharpness=raw_sharpness(raw, edge.stays) if ratios.adaptive and raw is not None else None,
    )


def _closer(run: Run, steps: np.ndarray, skip: int) -> str:
    """Return what would have given a run rows enough, as the end of a sentence; empty where that is not known.

    `steps` (R,) are of the rows with a ratio. A fork may have none from before it began.
    """
    grid = run.config.get("eval") or {}
    if not grid or not len(run.grid):
        return ""
    last = int(run.grid[-1])
    first = int(steps[0]) if len(steps) else 0
    every = close_enough(last, max(skip, first), int(grid["every"]))
    if every is None:
        return f"; {count(last - first, 'step')} are too few"
    if len(steps) > 1 and every >= np.diff(steps).min():
        return ""
    return f"; over {count(last, 'step')} probe.curvature.every={every} gives them"


def measured_on(run: Run, adaptive: bool) -> dict[str, Any]:
    """Return what a run's sharpness was measured on and how well; None where it was not recorded."""
    examples, training = run.first("curvature_probe_size"), run.first("curvature_probe_training")
    sharp, left = eigenvalue(run, adaptive)
    shares = np.empty(0)
    if sharp is not None and left is not None:
        steps = np.intersect1d(sharp.steps, left.steps)
        shares = left.at(steps) / np.maximum(np.abs(sharp.at(steps)), 1e-300)
    return {
        "probe_size": None if examples is None else int(examples.values[-1]),
        "probe_mode": None if training is None else ("training" if training.values[-1] else "evaluation"),
        "residual_median": float(np.median(shares)) if len(shares) else None,
        "residual_max": float(shares.max()) if len(shares) else None,
    }


def summarise(runs: Sequence[RunFindings]) -> Summary:
    """Return what the runs come to."""
    known = [run.onset_step for run in runs if run.verdict not in UNTOLD]
    ratios = [run.median_ratio for run in runs if run.onset_step is not None and run.median_ratio is not None]
    low, middle, high = (quantile(ratios or [0.0], share) or 0.0 for share in (0.25, 0.5, 0.75))
    return Summary(
        dict(Counter(run.verdict for run in runs)),
        quartiles(known) if any(step is not None for step in known) else None,
        (low, middle, high) if ratios else None,
    )


def explore(
    groups: Sequence[Group], config: Config
) -> Generator[Sequence[Fork], Mapping[str, Sequence[Group]], Findings]:
    """Train runs that arrived at the edge again, at half the rate from soon after on."""
    import pandas as pd

    findings = analyse(groups, config)
    curves = {
        str(run): Series(rows["step"].to_numpy(), rows["ratio"].to_numpy())
        for run, rows in findings.ratios.groupby("run")
    }
    forks = halvings(findings.runs, curves, config)
    if not forks:
        return findings
    made = yield forks
    ids, entries, rows = [], [], []
    for fork in forks:
        for group in made[fork.name]:
            compared, drawn = compare(groups[0], group, fork.changes["train.halve_at"], config)
            ids.append(group.id)
            entries += compared
            rows += drawn
    entries.sort(key=lambda entry: entry.run)
    confirmation = Confirmation("train.halve_at", tuple(ids), tuple(entries))
    return replace(findings, confirmation=confirmation, forked=pd.DataFrame(rows))


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    runs, summary = findings.runs, findings.summary
    tally = listed([f"{n:,} {IN_WORDS.get(verdict, verdict)}" for verdict, n in summary.verdicts.items()])
    alone, median = len(runs) == 1, "" if len(runs) == 1 else "median "
    when = "" if not summary.onset else f"at step {runs[0].onset_step:,}" if alone else passage(summary.onset)
    arrival = f"; arrival **{when}**" if when else ""
    ratio = f", {median}ratio there **{summary.ratio[1]:.3f}**" if summary.onset and summary.ratio else ""
    yield Say(
        f"**Edge of stability:** of {count(len(runs), 'run')}, **{tally}**{arrival}{ratio}.", headline=True
    )
    yield from _numbers(runs, summary)
    recorded = {run.id: run for run in runs_of(groups)}
    yield from _curves(runs, recorded)
    losses = any(run.loss for run in runs)
    header = ["run", "verdict", "arrival", "left", "median ratio", "its IQR", "share of steps"]
    header += ["loss up before / after"] * losses
    rows = [
        [
            *(run_cell(run.run), spoken(run.verdict), run.onset_step, run.end_step, run.median_ratio),
            *(run.iqr_ratio, run.fraction_at_edge),
            *[run.loss and f"{100 * run.loss.loss_up_before:.0f}% / {100 * run.loss.loss_up_after:.0f}%"]
            * losses,
            run.reason,
        ]
        for run in runs
    ]
    caption = (
        "Every run; the ratio is that at the edge, or of the last quarter. A run arrives at the first row whose ratio "
        "has risen from its minimum to 1, less two standard errors of its noise (15% at most), and stays near it"
    )
    yield Table([*header, "why"], rows, caption)
    if measured := _measured(runs):
        yield Say(measured, note=True)
    if findings.confirmation:
        yield from show_forks(findings.confirmation, findings.forked if groups else None)


def _numbers(runs: Sequence[RunFindings], summary: Summary) -> Iterator[Number]:
    """Yield what is written large: when runs arrived at the edge, and how far above it they train."""
    told = [run.onset_step for run in runs if run.verdict not in UNTOLD]
    arrived = sum(step is not None for step in told)
    of, median = (
        f"{arrived} of {count(len(told), 'run')}" if len(told) > 1 else "",
        ", median" * (len(told) > 1),
    )
    if told and summary.onset and summary.onset[1] is not None:
        yield Number(f"step {summary.onset[1]:,.0f}", f"arrival at the edge{median}", of)
    elif told:
        yield Number(f"{arrived} of {len(told)}" if arrived else "never", "arrival at the edge", of)
    if summary.onset and summary.ratio:
        low, middle, high = summary.ratio
        spread = f"quartiles {low:.3f} to {high:.3f}" if arrived > 2 else ""
        yield Number(f"{middle:.3f}", f"sharpness over its threshold there{median}", spread)


def _curves(runs: Sequence[RunFindings], recorded: Mapping[str, Run]) -> Iterator[Strips]:
    adaptive = any(run.adaptive for run in runs)
    metric, other = ("preconditioned_sharpness", "sharpness") if adaptive else ("sharpness", "train_loss")
    strips = [
        Strip(
            run=judged.run,
            label=judged.verdict.replace("_", " "),
            left=run.first(metric),
            right=run.first(other),
            dashed=run.first("stability_threshold"),
            spans=[Span(stay.first, stay.last, "edge") for stay in judged.stays]
            if isinstance(judged.stays, tuple)
            else (),
            marks={"arrival": judged.onset_step},
        )
        for judged in runs
        if (run := recorded.get(judged.run)) and run.first(metric) is not None
    ]
    if strips:
        drawn = telling(strips, {run.run: run.median_ratio or 0.0 for run in runs})
        on = ", where the sharpness itself may go on rising" if adaptive else ""
        said = f"Shaded: at the edge of stability{on}."
        if len(drawn) < len(strips):
            said = (
                "No run arrived at the edge of stability; drawn is that whose sharpness ends nearest to it."
            )
        yield Strips(
            name="edge",
            caption=f"**Sharpness against its threshold.** {said}",
            alt="Sharpness and stability threshold of runs, arrival marked",
            strips=drawn,
            left=metric_words(metric),
            right="sharpness" if adaptive else "training loss",
            dashed="threshold" if any(strip.dashed is not None for strip in strips) else "",
        )


def _measured(runs: Sequence[RunFindings]) -> str:
    """Return what the sharpness was measured on, empty where it was not recorded."""
    sizes = sorted({run.probe_size for run in runs if run.probe_size})
    modes = sorted({run.probe_mode for run in runs if run.probe_mode})
    worst = [run.residual_max for run in runs if run.residual_max is not None]
    if not sizes or not modes:
        return ""
    left = f", residuals at most {100 * max(worst):.1f}% of the eigenvalue" if worst else ""
    named = listed([f"{size:,}" for size in sizes])
    return f"Sharpness on {named} training examples, network in {' and '.join(modes)} mode{left}."
