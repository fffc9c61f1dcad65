"""Periods of batch normalisation with weight decay, and the three regimes of training on the sphere.

Lobacheva et al. 2021 (arXiv 2106.15739): weight decay shrinks the norm rho of scale-invariant weights, the effective
rate eta / rho^2 grows until training destabilises, rho jumps up, and it begins again. Kodryan et al. 2022 (arXiv
2209.03695): with rho held fixed the effective rate decides between convergence, a chaotic equilibrium and divergence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dynalab.analysis.base import Frame, Group, Keys, Needs, Run, Series, key, runs_of
from dynalab.analysis.cycle import groups_at_ends
from dynalab.core.stats import quantile, theil_sen
from dynalab.core.words import count, listed, number, spoken
from dynalab.optim.rates import decay_a_step, drag, learning_rates, rate_changes
from dynalab.show.blocks import Block, Say, Span, Strip, Strips, Table, run_cell, telling

VERSION = 3
TITLE = "Periods and regimes"
FIGURES = ("periods",)
NEEDS = Needs(
    ("scale_invariant_norm",),
    optional=("effective_gradient_norm", "train_loss", "train_loss_max", "batch_loss"),
    record="model=si_mlp 'probes=[gradients,scale_invariant]'",
    statuses=("done", "diverged"),
)
FEWEST_ROWS = 20
FIXED = 1e-3  # a norm that moves by less, relative to itself, is held fixed
LOSS_RISE = 1.0  # decades that the loss rises by at a jump of a period
MARGIN = 0.15  # share of the way between two jumps, at both ends, that their slope leaves out
STILL, FALLS = 0.95, 0.9  # loss of the last quarter over that of the second: above it stands, below it falls
CHAOTIC, DIVERGES = 0.03, 1.0  # radians a step from which on training is no descent, and a random walk
GUESSES, INTERPOLATES = 0.9, 1e-2  # share of ln(classes) that is guessing; loss that is always convergence
UNKNOWN = "the learning rate is not known, or weight decay alone does not say how the norm falls"
CLASSES = {"digits": 10, "mnist": 10}  # of the tasks whose configuration does not say


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    jump: float = key(0.1, "rise of the log norm that begins an event", above=0)
    window: int = key(25, "steps that it is taken over (a row at least)", least=1)
    tolerance: float = key(0.1, "how far slopes may be from the decay's, as a share", above=0, below=1)


@dataclass(frozen=True)
class Event:
    """A jump of the norm: its natural logarithm rises by `norm_rise`, the loss by `loss_rise_decades`."""

    onset_step: int  # first step of the jump
    end_step: int  # its last step
    norm_rise: float  # rise of the natural logarithm of the norm
    loss_rise_decades: float | None = None  # rise of the loss, decades
    effective_rate: float | None = None  # eta / rho^2 at the onset


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    verdict: str  # periodic, single_event, no_period, equilibrium, fixed_norm, unknown or insufficient_data
    reason: str  # in words
    events: tuple[Event, ...] = ()  # jumps of the norm
    period_steps: float | None = None  # median distance of neighbouring onsets
    period_cv: float | None = None  # its coefficient of variation, ddof 1
    slope_ratio: float | None = None  # slope of the log norm between events over that of weight decay alone
    regime: str | None = None  # at a fixed norm: convergence, chaotic_equilibrium, divergence or transition
    effective_rate: float | None = None  # median of eta / rho^2 there


@dataclass(frozen=True)
class Findings:
    """What is found of every run; the table has all events."""

    runs: tuple[RunFindings, ...]
    warnings: tuple[str, ...] = ()
    events: Frame = None


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Find the periods of every run, or its regime where the norm is held fixed."""
    import pandas as pd

    groups, notes = groups_at_ends(groups, NEEDS.required)
    runs = tuple(judge(run, config) for run in runs_of(groups))
    rows = [{"run": run.run, **vars(event)} for run in runs for event in run.events]
    table = pd.DataFrame(rows, columns=["run", *Event.__dataclass_fields__])
    return Findings(runs, tuple(notes), table)


def judge(run: Run, config: Config) -> RunFindings:
    """Return what is found of a run."""
    norm = run.first("scale_invariant_norm")
    if norm is None or len(norm) < FEWEST_ROWS:
        why = f"fewer than {FEWEST_ROWS} rows of scale_invariant_norm"
        return RunFindings(run.id, "insufficient_data", why)
    rate, decay = learning_rates(run.config, norm.steps), decay_a_step(run.config, norm.steps)
    effective = None if rate is None else Series(norm.steps, rate / norm.values**2)
    # Where weight decay pulls and nothing projects, a norm at rest is one where decay and growth balance.
    projected = (run.config.get("train") or {}).get("sphere")
    if norm.values.max() / norm.values.min() < 1 + FIXED and (projected or not _decays(run)):
        return _on_the_sphere(run, effective)
    # A jump of the rate moves the norm as well.
    changes = rate_changes(run.config, float(norm.steps[-1]))
    jumps, events = [], []
    for jump in find_jumps(norm, config.jump, config.window):
        event = _event(run, norm, effective, jump)
        by_rate = any(abs(event.onset_step - step) <= config.window for step in changes)
        if not by_rate and (event.loss_rise_decades is None or event.loss_rise_decades >= LOSS_RISE):
            jumps.append(jump)
            events.append(event)
    if not jumps:
        return RunFindings(run.id, *_settled(run, norm, effective, decay))
    return _with_events(RunFindings(run.id, "unknown", "", tuple(events)), norm, jumps, decay, config)


def find_jumps(norm: Series, jump: float, window: float) -> list[tuple[int, int]]:
    """Return the jumps of a norm as rows (onset, end), in their order.

    An event begins where the log norm rises by `jump` within `window` steps (a row at least), and ends with the last
    row that is still higher than the one before.
    """
    x, steps, last = np.log(norm.values), norm.steps, len(norm) - 1
    ahead = np.maximum(np.searchsorted(steps, steps + window, side="right") - 1, np.arange(len(x)) + 1)
    rising = x[np.minimum(ahead, last)] - x > jump
    jumps, row = [], 0
    while row <= last:
        end = row
        # As long as the window ahead still rises, and then to its top.
        while rising[row] and end < last and (rising[end] or x[end + 1] > x[end]):
            end += 1
        if end > row:
            jumps.append((row + int(np.argmin(x[row : end + 1])), end))
        row = end + 1
    return jumps


def slopes_between(norm: Series, jumps: Sequence[tuple[int, int]], unit: np.ndarray) -> list[float]:
    """Return the slope of the log norm, in a unit, (T,), between neighbouring jumps with four rows between them."""
    slopes = []
    for (_, former), (latter, _) in pairwise(jumps):
        begin, end = float(norm.steps[former]), float(norm.steps[latter])
        margin = MARGIN * (end - begin)
        inside = (norm.steps >= begin + margin) & (norm.steps <= end - margin)
        if inside.sum() >= 4:
            tilt = theil_sen(norm.steps[inside], np.log(norm.values[inside]))[0]
            slopes.append(tilt / float(unit[inside].mean()))
    return slopes


def _event(run: Run, norm: Series, effective: Series | None, jump: tuple[int, int]) -> Event:
    onset, end = jump
    begin, stop = norm.steps[onset], norm.steps[end]
    rise, loss = None, run.first("train_loss_max", "train_loss")
    if loss is not None:
        before, during = loss.between(begin - 200, begin - 20), loss.between(begin - 20, stop + 20)
        before, during = before[before > 0], during[np.isfinite(during)]
        if len(before) and len(during) and during.max() > 0:
            rise = round(float(np.log10(during.max()) - np.log10(np.median(before))), 3)
    height = round(float(np.log(norm.values[end]) - np.log(norm.values[onset])), 4)
    rate = None if effective is None else float(effective.values[onset])
    return Event(int(begin), int(stop), height, rise, rate)


def _with_events(
    judged: RunFindings, norm: Series, jumps: list[tuple[int, int]], decay: np.ndarray | None, config: Config
) -> RunFindings:
    """Judge a run with events by how its norm falls between them."""
    gaps = np.diff([float(event.onset_step) for event in judged.events])
    if not len(gaps):
        return replace(judged, verdict="single_event", reason="one event: a period needs two")
    spread = float(gaps.std(ddof=1) / gaps.mean()) if len(gaps) > 1 else None
    judged = replace(judged, period_steps=float(np.median(gaps)), period_cv=spread)
    if decay is None:
        return replace(judged, reason=UNKNOWN)
    slopes = slopes_between(norm, jumps, -decay)
    if not slopes:
        return replace(judged, reason="fewer than 4 rows between events: no slope")
    ratio = float(np.median(slopes))
    verdict = "periodic" if abs(ratio - 1) <= config.tolerance else "unknown"
    why = f"between events the log norm falls by {ratio:.2f} times rate times weight decay"
    return replace(judged, verdict=verdict, slope_ratio=ratio, reason=why)


def _decays(run: Run) -> bool:
    return bool((run.config.get("optimizer") or {}).get("weight_decay"))


def _settled(run: Run, norm: Series, effective: Series | None, decay: np.ndarray | None) -> tuple[str, str]:
    """Judge a run without events: whether it has come to rest where decay and growth balance.

    The norm of weights that are orthogonal to their gradients grows by (eta g / rho)^2 and shrinks by 2 eta w rho^2;
    with heavy ball both act 1 / (1 - mu) times as long, and growth once more so (Wan et al. 2021, arXiv 2006.08419):
    eta / rho^2 = sqrt(2 eta w (1 - mu)) / g. Of AdamW no such balance is taken for known.
    """
    if not _decays(run):
        return "no_period", "no events, and no weight decay that would make them"
    if decay is None or effective is None:
        return "no_period", f"no events; {UNKNOWN}"
    last = float(decay[-1])
    length = 3 / last if last > 0 else math.inf
    first = norm.steps[-1] - length
    tail = norm.steps >= first
    if norm.steps[-1] - norm.steps[0] < 2 * length or tail.sum() < 8:
        return "no_period", f"no events; too short to settle, which takes some {2 * length:,.0f} steps"
    tilt, _ = theil_sen(norm.steps[tail], np.log(norm.values[tail]))
    gradient, optimizer = run.first("effective_gradient_norm"), run.config["optimizer"]
    pull = np.empty(0) if gradient is None else gradient.between(first, math.inf)
    if abs(tilt) < 0.1 * last and len(pull) and optimizer["name"] in ("sgd", "sam"):
        here = float(np.median(effective.values[tail]))
        balance = math.sqrt(2 * float(np.median(decay[tail]))) * drag(optimizer) / float(np.median(pull))
        if 0.5 <= here / balance <= 2:
            return "equilibrium", f"effective rate {here:.3g}, where decay and growth balance {balance:.3g}"
    return "no_period", "no events"


def _on_the_sphere(run: Run, effective: Series | None) -> RunFindings:
    # The loss of the updates: of the network as it is trained, with the batch's statistics.
    loss, gradient = run.first("batch_loss", "train_loss"), run.first("effective_gradient_norm")
    if loss is None or gradient is None or effective is None:
        return RunFindings(run.id, "unknown", "the norm is fixed, but loss, gradient or rate are not known")
    if run.status == "diverged":
        return RunFindings(run.id, "fixed_norm", "the run diverged", regime="divergence")
    rate = float(np.median(effective.values))
    angle, task = rate * float(np.median(gradient.values)), run.config.get("task") or {}
    classes = task.get("classes") or CLASSES.get(str(task.get("name")))
    regime, why = regime_of(loss.values[np.isfinite(loss.values)], angle, classes, gradient.values)
    return RunFindings(run.id, "fixed_norm", why, regime=regime, effective_rate=rate)


def regime_of(loss: np.ndarray, angle: float, classes: int | None, gradient: np.ndarray) -> tuple[str, str]:
    """Return `convergence`, `chaotic_equilibrium`, `divergence` or `transition`, and why.

    Longer training moves the boundary between the first two down: a loss that stands still may yet fall.
    `loss`, (T,), is finite, `angle` is in radians a step, and `gradient`, (T',), is the effective gradient's norm.
    """
    from scipy.stats import ks_2samp

    quarter = max(len(loss) // 4, 1)
    middle, final = float(np.median(loss[quarter : 2 * quarter])), float(np.median(loss[-quarter:]))
    ratio = final / middle if middle > 0 else 0.0
    why = f"loss {middle:.3g} to {final:.3g} from the second quarter to the last, {angle:.2g} rad a step"
    if angle > DIVERGES or (classes and final >= GUESSES * math.log(classes)):
        return "divergence", why
    part = len(gradient) // 4
    falling = part >= 2 and np.median(gradient[-part:]) < np.median(gradient[part : len(gradient) // 2])
    if ratio < FALLS or (final < INTERPOLATES and falling):
        return "convergence", why
    if ratio >= STILL and angle > CHAOTIC:
        # The spread about the median stands still as well: halves of the last half, thinned to hardly correlated rows.
        tail = loss[-2 * quarter :][:: max(len(loss) // 200, 1)]
        half = len(tail) // 2
        spread = [np.abs(part - np.median(part)) for part in (tail[:half], tail[half:])]
        if ks_2samp(*spread).pvalue > 0.001:
            return "chaotic_equilibrium", why
    return "transition", why


def _moved(norm: Series | None) -> float:
    """Return a norm's largest value over its smallest."""
    values = np.empty(0) if norm is None else norm.values[np.isfinite(norm.values) & (norm.values > 0)]
    return float(values.max() / values.min()) if len(values) else 1.0


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    kinds = Counter(spoken(run.regime or run.verdict) for run in findings.runs)
    tally = listed([f"{kind} in {n:,}" for kind, n in kinds.items()])
    periods = [run.period_steps for run in findings.runs if run.verdict == "periodic" and run.period_steps]
    apart = f"; events some **{number(quantile(periods, 0.5))}** steps apart" if periods else ""
    tally = f"{tally} of {count(len(findings.runs), 'run')}"
    yield Say(f"**Periods and regimes:** {tally}{apart}.", headline=True)
    recorded = {run.id: run for run in runs_of(groups)}
    strips = [
        Strip(
            run=judged.run,
            left=run.first("train_loss_max", "train_loss"),
            right=run.first("scale_invariant_norm"),
            spans=[Span(event.onset_step, event.end_step, "norm_jump") for event in judged.events],
        )
        for judged in findings.runs
        if (run := recorded.get(judged.run)) and run.first("scale_invariant_norm") is not None
    ]
    if strips:
        moved = {strip.run: _moved(strip.right) for strip in strips}
        # On a fixed norm nothing jumps, and curves show the regimes.
        drawn = strips if any(run.regime for run in findings.runs) else telling(strips, moved)
        said = "Shaded: the norm jumps."
        if len(drawn) < len(strips):
            most = number(max(moved.values()))
            said = f"It jumps in no run; drawn is that in which it changed the most, {most} times."
        yield Strips(
            name="periods",
            caption=f"**Loss and norm of the scale-invariant weights.** {said}",
            alt="Training loss and norm of scale-invariant weights, jumps shaded",
            strips=drawn,
            left="training loss, largest since the last row",
            right="norm of the scale-invariant weights",
        )
    rows = [
        [*(run_cell(run.run), spoken(run.verdict), spoken(run.regime), len(run.events)),
         *(run.period_steps, run.period_cv, run.reason)]
        for run in findings.runs
    ]  # fmt: skip
    yield Table(["run", "verdict", "regime", "events", "period", "its variation", "why"], rows, "Every run")
