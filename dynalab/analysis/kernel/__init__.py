"""The tangent kernel over training: how far it goes from its first, when it stops moving, and what it has learnt.

The kernel of a network holds, for every two examples, by how much a small step of gradient descent on one moves the
outputs of the other: the inner products of their gradients, summed over outputs. Of a network that is wide enough it
does not change, and the network learns as regression with it does (Jacot et al. 2018, arXiv 1806.07572). Of others it
turns fast at first and slowly afterwards (Fort et al. 2020, arXiv 2010.15110), or goes on changing through most of
training (Vyas et al. 2022, arXiv 2206.10012): which of both is to be seen, and not taken for granted.

Of the weights that were kept at some steps the kernel on fixed probes, a run's own training examples, is held against
the first one and the one before; against the labels, centred; and in ridge regression from these labels to held-out
examples, whose accuracy is that of the after-kernel. An angle a step is what is meant by its velocity: the distance 1 -
cos grows with the square of small angles, so that a distance a step would depend on how far apart rows are. From one
row to the next it is mostly jitter where rows are dense, which does not add up, so that how fast the kernel turns is
judged over windows of a share of training, from every row to the last one so far before it: these are as long wherever
weights were kept evenly, by steps or by their logarithm. It is slow from the first such window on that turns by less
than a share of the fastest. Where weights were kept too seldom for that to be excluded, it is not said to move: the
verdict is `cannot_tell`. Of 1,000 simulated kernels at ten spacings of 6 to 20 rows at most 2.3% of those that settle
are said to move, 0.2% of those that move are said to settle; 82% have a verdict at 20 even rows, 45% at ten. The cone
is seen from where it is slow: angles between how the kernel differs from that one later on.

None of these numbers says anything by itself. Beside each stands that of weights, or of updates, whose entries have
changed places within their tensor, so that every norm is the same; of permuted labels; or of a random walk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key, runs_of
from dynalab.analysis.compare.samples import LEVELS, landmark
from dynalab.analysis.directions.findings import Against, Over
from dynalab.analysis.directions.path import choose
from dynalab.analysis.kernel.findings import NAMES, Findings, Name, RunFindings, Summary
from dynalab.analysis.kernel.measure import Measured, Settings, angle, cosines, measured
from dynalab.analysis.kernel.summary import show
from dynalab.analysis.regions.findings import Lag, Time
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.words import count

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 6
TITLE = "Tangent kernel"
FIGURES = ("kernel", "kernel-maps")
# Evenly: wide windows may hide slow ones.
RECORD = "snapshots.every=20"
NEEDS = Needs(
    optional=tuple(LEVELS.values()),
    record=RECORD,
    statuses=("done", "diverged"),
    weights=True,
    network=True,
)
# Rows later than the apex that a cone takes.
CONE = 3
# A window that is longer than its share may hide a slow one where the rest of it can turn so many times as fast as the
# fastest, or where it is so many times as long. Of 397 simulated kernels that settle at most 2.3% are then said to move
# at each of ten spacings (at 2.5 times 5.8%, at twice 7.3%, both of 19 rows by the logarithm; with windows of up to
# three times their share and twice as fast 22%, of ten rows by it).
REST, LONGEST = 3.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    at: list[int] | None = key(
        None, "steps that are looked at, at which weights were kept; null: as many as rows says", least=0
    )
    rows: int = key(20, "steps at most, evenly among those at which weights were kept", least=2)
    probes: int = key(128, "training examples that the kernel is of, and as many held-out ones", least=4)
    most_outputs: int = key(64, "outputs at most, evenly among the network's", least=1)
    full: bool = key(
        False, "whether the after-kernel is of every pair of outputs, or (false) one for all of them"
    )
    ridge: float = key(1e-4, "ridge of the regression, as a share of the mean eigenvalue", above=0)
    still: float = key(0.1, "share of the fastest turn below which the kernel is slow", above=0, below=1)
    window: float = key(
        0.25,
        "share of training over which its turn is taken, in windows of that to twice as many steps",
        above=0,
        below=1,
    )
    persistence: int = key(1, "windows on end that are slow", least=1)
    lazy: float = key(0.01, "distance from the first kernel up to which it has not moved", least=0, below=1)
    apex: int | None = key(
        None, "step that the cone is seen from; null: where the kernel comes to be slow", least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at is not None and len(set(self.at)) < 2:
            raise ConfigError(f"at={self.at}: name two steps at least at which weights were kept, or null")


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Measure the kernel of every run.

    Raises:
        NothingMatched: No run has weights of enough steps, or none of a step that is named, or no network.
        ConfigError: The regression has too many rows.
    """
    settings = Settings(config.probes, config.most_outputs, config.ridge, config.full)
    judged: list[RunFindings] = []
    known: list[Measured] = []
    for group in groups:
        landmarks = [landmark(group, metric) for metric in LEVELS.values()]
        for run, *steps in zip(group.runs, *landmarks, strict=True):
            found = _measured(run, config, settings, f"run {len(judged) + 1} of {len(runs_of(groups))}")
            judged.append(_judge(run, found, config, steps))
            known += [] if found is None or judged[-1].measures is None else [found]
    if not known:
        raise NothingMatched(f"{judged[0].run}: {judged[0].reason}: dynalab train ... {RECORD}")
    of = [run for run in judged if run.measures is not None]
    outputs, every = known[0].outputs
    probes, held_out = (
        len(known[0].rows[0].kernel),
        len(known[0].labels.held_out) if known[0].labels else 0,
    )
    warnings = []
    if outputs < every:
        warnings.append(
            f"the kernel is of {outputs:,} of the {every:,} outputs, evenly among them (most_outputs=)"
        )
    if not known[0].labels or not known[0].labels.of_classes:
        warnings.append("the targets are no classes: there is no accuracy of the after-kernel")
    return Findings(
        tuple(judged),
        _summary(of, known),
        probes,
        held_out,
        outputs,
        every,
        tuple(warnings),
        curves=_curves(known),
        maps=_maps(known),
    )


def _measured(run: Run, config: Config, settings: Settings, which: str) -> Measured | None:
    """Return the rows of a run; None where its weights were kept at one step."""
    if config.at is not None:
        for step in config.at:
            if step not in run.weights.steps:
                raise run.weights.missing(step)
        steps = sorted(set(config.at))
    else:
        grid = run.weights.grid
        steps = [grid[place] for place in choose(len(grid), config.rows)]
    return measured(run, steps, settings, which) if len(steps) > 1 else None


def _judge(run: Run, found: Measured | None, config: Config, landmarks: Sequence[int | None]) -> RunFindings:
    memorised, generalised = landmarks
    rows = [] if found is None else found.rows
    if found is None or len(rows) < 2:
        kept = len(run.weights.grid)
        why = f"weights were kept at {count(kept, 'step')}, and a kernel that moves takes two"
        if found is not None:
            why = f"{count(len(rows), 'row')} of finite numbers, and a kernel that moves takes two"
        return RunFindings(
            run.id, "insufficient_data", why, memorised_step=memorised, generalised_step=generalised
        )
    steps, turns = found.steps, found.column("angle")[1:]
    distances = _distances(found)
    pace = Pace.of(steps, [row.kernel for row in rows], config)
    verdict, place, fastest = pace.verdict, pace.slow, pace.fastest
    reason = f"{count(len(rows), 'row')}, steps {steps[0]:,} to {steps[-1]:,}"
    if distances.max() <= config.lazy:
        verdict, place = "lazy", None
        reason += f"; never farther than {config.lazy:g} from the first kernel"
    elif verdict == "cannot_tell":
        fastest = None
        reason += "; weights were kept too far apart for turns over equal parts of training to be compared "
        reason += "(`snapshots.every` keeps them evenly)"
    elif verdict == "moves" and pace.after < config.persistence:
        reason += (
            "; too few rows follow the one up to which the kernel turns fastest to show that it slows down"
        )
    apex = place if config.apex is None else _place(run, steps, config.apex)
    last = rows[-1]
    pairs: dict[Name, tuple[float, float]] = {
        "distance": (distances[-1], last.distance_null),
        "turned": (float(turns.sum()), float(found.column("angle_null")[1:].sum())),
        "alignment": (last.alignment, last.alignment_permuted),
        "alignment_of_weights": (last.alignment, last.alignment_null),
        "cone_angle": cone([row.kernel for row in rows[apex:]]) if apex is not None else (math.nan, math.nan),
        "after_accuracy": (last.after, last.after_null),
        "after_gain": (last.after, rows[0].after),
    }
    labels = found.labels
    return RunFindings(
        run.id,
        verdict,
        reason,
        len(rows),
        int(steps[0]),
        int(steps[-1]),
        None if place is None else int(steps[place]),
        None if fastest is None else int(steps[fastest]),
        memorised,
        generalised,
        None if apex is None else int(steps[apex]),
        _finite(last.network),
        _finite(labels.chance) if labels else None,
        {name: Against.of(*pair) for name, pair in pairs.items()},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _place(run: Run, steps: np.ndarray, step: int) -> int:
    if step not in steps:
        raise ConfigError(
            f"apex={step}: {run.id} has no row there; give at= with it, or a step among its rows"
        )
    return int(np.flatnonzero(steps == step)[0])


def _distances(found: Measured) -> np.ndarray:
    """Return the distance of every row's kernel from the first, 1 - cos, shape (T,)."""
    first = found.rows[0].kernel
    # 1 - cos is twice the squared sine of half the angle, which resolves what a cosine near 1 does not.
    return np.array([2 * math.sin(math.radians(angle(first, row.kernel)) / 2) ** 2 for row in found.rows])


def windows(steps: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (M,) that are a share of all steps (T,) or more before others, as near as there are, and these."""
    before = (
        np.searchsorted(steps, steps - share * (steps[-1] - steps[0]) + 1e-9 * steps[-1], side="right") - 1
    )
    ends = np.flatnonzero(before >= 0)
    return before[ends], ends


def settled(velocity: np.ndarray, share: float, persistence: int) -> int | None:
    """Return the window from which on velocities (M,) are slow; None: there is none.

    Slow is below a share of the fastest, so many on end after it.
    """
    top = int(np.argmax(velocity))
    slow = velocity < share * velocity[top]
    for place in range(top + 1, len(velocity) - persistence + 1):
        if slow[place : place + persistence].all():
            return place
    return None


def hides(velocity: np.ndarray, gaps: np.ndarray, span: float, share: float) -> bool:
    """Return whether windows (M,) after the fastest that are longer than a span may hold one of it that is slow.

    They do unless the rest of one would have to turn more than `REST` times as fast as the fastest does on average.
    """
    top = int(np.argmax(velocity))
    rest = velocity[top + 1 :] * gaps[top + 1 :] - share * velocity[top] * span
    return bool((rest <= REST * velocity[top] * (gaps[top + 1 :] - span)).any())


@dataclass(frozen=True)
class Pace:
    """How fast a kernel turns over windows of a share of training.

    Attributes:
        verdict: `settles`, `moves` or `cannot_tell`.
        slow: Row from which on it is slow; None where that is not seen.
        fastest: Row up to which it turns fastest; None without windows.
        after: Windows after that one.
    """

    verdict: str
    slow: int | None
    fastest: int | None
    after: int

    @classmethod
    def of(cls, steps: np.ndarray, kernels: Sequence[np.ndarray], config: Config) -> Pace:
        """Return it of kernels, of any shape, at steps (T,)."""
        starts, ends = windows(steps, config.window)
        gaps, span = steps[ends] - steps[starts], config.window * float(steps[-1] - steps[0])
        turns = [angle(kernels[a], kernels[b]) for a, b in zip(starts, ends, strict=True)]
        velocity = np.array(turns) / gaps
        if len(velocity) < 2:
            return cls("cannot_tell", None, None, 0)
        top = int(np.argmax(velocity))
        fastest, after = int(ends[top]), len(velocity) - 1 - top
        slow = settled(velocity, config.still, config.persistence)
        if slow is not None:
            return cls("settles", max(int(starts[slow]), fastest), fastest, after)
        untold = gaps.max() > LONGEST * span or hides(velocity, gaps, span, config.still)
        return cls("cannot_tell" if untold else "moves", None, fastest, after)


def cone(kernels: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the mean angle in degrees between differences from the first kernel, and that of a random walk.

    A walk of many dimensions with steps as long has cosines sqrt(V_i / V_j), V the sum of its squared steps.
    """
    if len(kernels) <= CONE:
        return math.nan, math.nan
    rows = np.stack([kernel.ravel() for kernel in kernels])
    away = rows[1:] - rows[0]
    pairs = np.triu_indices(len(away), 1)
    gone = np.cumsum((np.diff(rows, axis=0) ** 2).sum(1))
    with np.errstate(all="ignore"):
        walk = np.sqrt(gone[pairs[0]] / gone[pairs[1]])
        found = [np.degrees(np.arccos(x)) for x in (cosines(away)[pairs], walk)]
    value, null = (float(x.mean()) for x in found)
    return value, null


def _summary(of: Sequence[RunFindings], known: Sequence[Measured]) -> Summary:
    of = sorted(of, key=lambda run: run.run)
    last = [float(run.last_step or 0) for run in of]
    verdicts = [run.verdict for run in of]
    # The kernel of a lazy network does not come to move slowly: it always does.
    moving = [(run, end) for run, end in zip(of, last, strict=True) if run.verdict in ("settles", "moves")]
    first = sorted(item.rows[0].alignment for item in known if math.isfinite(item.rows[0].alignment))

    def lag(landmark: str) -> Lag:
        # Unless it is seen to be slow, all that is known is that it is not before it is fastest.
        return Lag.between(
            [(run.settle_step, float(run.fastest_step or 0)) for run, _ in moving],
            [(getattr(run, landmark), end) for run, end in moving],
        )

    return Summary(
        len(of),
        {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        Time.of([run.settle_step for run, _ in moving], [end for _, end in moving]),
        lag("memorised_step"),
        lag("generalised_step"),
        float(np.mean(first)) if first else None,
        {name: Over.of([run.measures[name] for run in of if run.measures]) for name in NAMES},
    )


def _curves(known: Sequence[Measured]) -> Any:
    import pandas as pd

    tables = []
    for found in known:
        gaps = np.diff(found.steps, prepend=np.nan)
        columns: dict[str, Any] = {"run": found.run.id, "step": found.steps, "distance": _distances(found)}
        columns |= {
            name: found.column(name)
            for name in ("distance_null", "angle", "angle_null", "alignment", "alignment_permuted")
        }
        columns |= {f"velocity{end}": found.column(f"angle{end}") / gaps for end in ("", "_null")}
        columns |= {name: found.column(name) for name in ("alignment_null", "network", "after", "after_null")}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _maps(known: Sequence[Measured]) -> Any:
    import pandas as pd

    tables = []
    for found in known:
        row, column = np.triu_indices(len(found.rows))
        steps = found.steps
        about = {"run": found.run.id, "step": steps[row], "other": steps[column]}
        tables.append(pd.DataFrame({**about, "cosine": found.cosines[row, column]}))
    return pd.concat(tables, ignore_index=True)
