"""Where a spread comes from: how much of it in convergence time each of the crossed random streams decides.

For ensembles of `design=crossed`, whose runs are labelled by the seeds of their streams (`init3-order1`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.base import Frame, Group, Keys, Needs, Trajectories, frame, key, on_one_grid
from dynalab.analysis.variance import components, impute
from dynalab.analysis.variance.design import CROSSED, Design, level_of, read
from dynalab.core import convergence as watch
from dynalab.core.convergence import Convergence, ConvergenceKeys, Passage
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.words import count, listed, number
from dynalab.show.blocks import Block, Cell, Intervals, Levels, Say, Table

VERSION = 4
NEEDS = Needs(record=CROSSED)
TITLE = "Where the spread comes from"
FIGURES = ("shares",)
LEVEL = 0.975  # of an interval's upper end
FEW = 4  # below this many levels an interval says little about a source


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    log_time: bool = key(False, "split the variance of the logarithm of the convergence step")
    draws: int = key(4000, "draws behind the intervals", least=100)
    seed: int = key(0, "seed of the draws", least=0)
    convergence: ConvergenceKeys = key(ConvergenceKeys(), "what counts as converged; null: the task's own")


@dataclass(frozen=True)
class Share:
    """The share of a source in the variance, and its standard deviation; None where nothing varies."""

    source: str  # a stream, or `residual`
    share: float | None  # its share of the variance; null where nothing varies
    interval: tuple[float | None, float | None]  # 95% of that share
    sd: float | None  # its standard deviation, steps or of their logarithm
    negative: bool  # whether it was estimated below 0, and set to 0


@dataclass(frozen=True)
class Interaction:
    """The share of what several streams decide together."""

    sources: tuple[str, ...]  # the streams
    share: float | None  # their share of the variance, part of the residual's
    negative: bool  # whether it was estimated below 0, and set to 0


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Shares of the streams and the residual in the variance of the convergence step."""

    shares: tuple[Share, ...]  # of every stream and of the residual
    interactions: tuple[Interaction, ...]  # what the residual is made of
    # standard deviation of a cell, in steps or of the logarithm: of the sum of the components, those below 0 set to 0
    sd: float
    # that of the runs as they are (n - 1); null where the step of some is not known
    runs_sd: float | None = None
    levels: Mapping[str, int]  # stream -> number of seeds
    seeds: Mapping[str, tuple[int, ...]]  # stream -> seeds
    cells: int  # number of runs
    empty_cells: tuple[str, ...]  # labels of the cells without a run
    mean_step: float  # mean of a cell
    log_time: bool  # whether the logarithm was split
    convergence_rule: Convergence  # what was watched
    convergence: tuple[Passage, ...]  # when every run converged
    warnings: tuple[str, ...] = ()  # what a reader must know
    table: Frame = frame("cells")  # the runs, `cells.parquet`


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Split the variance of the convergence step of a crossed design by its sources.

    Raises:
        NothingMatched: The runs are no crossed design or several, or fewer than half of them converged.
        ConfigError: There is nothing to watch.
    """
    import pandas as pd

    trajectories = on_one_grid(groups)
    design = read([run.run for run in trajectories.runs])
    watched, notes = watch.resolve(config.convergence, trajectories)
    if watched is None:
        raise ConfigError("variance: no metric to watch; give convergence.metric= and convergence.threshold=")
    passages = tuple(Passage(**row) for row in watch.follow(trajectories, watched))
    values, bounds = _grid(design, passages, config.log_time)
    unknown = int(np.isnan(values).sum())
    if unknown * 2 > values.size:
        raise NothingMatched(_too_few(trajectories, watched, values.size))
    draws = _estimate(values, bounds, config)
    point, mean = draws.estimates.mean(axis=0), float(draws.means.mean())
    table = pd.DataFrame([vars(item) for item in passages]).astype({"step": "Int64"})
    for place, name in enumerate(design.factors):
        table[name] = np.array(design.levels[place])[design.cells[:, place]]
    shares = _shares(design, draws, point, np.random.default_rng([config.seed, 1]))
    interactions = _interactions(design, point)
    return Findings(
        shares=shares,
        interactions=interactions,
        sd=float(np.sqrt(np.maximum(point, 0).sum())),
        runs_sd=None if unknown else float(values.std(ddof=1)),
        levels=dict(zip(design.factors, design.shape, strict=True)),
        seeds=dict(zip(design.factors, design.levels, strict=True)),
        cells=len(design.cells),
        empty_cells=tuple(design.empty),
        mean_step=float(np.exp(mean)) if config.log_time else mean,
        log_time=config.log_time,
        convergence_rule=watched,
        convergence=passages,
        warnings=(*notes, *_warnings(design, shares, interactions, passages, trajectories)),
        table=table,
    )


def _too_few(trajectories: Trajectories, watched: Convergence, total: int) -> str:
    """Return that too few runs converged, by which rule, and what would let more."""

    def converged(rule: Convergence) -> int:
        return sum(row["step"] is not None for row in watch.follow(trajectories, rule))

    at_all = converged(replace(watched, persistence=1))
    advice = f"train longer, or {'lower' if watched.direction == 'up' else 'raise'} convergence.threshold"
    if 2 * at_all >= total and watched.persistence > 1:
        advice = f"convergence.persistence=1 lets {at_all:,} count; or {advice}"
    return (
        f"variance: {converged(watched):,} of {total:,} runs of the design converged ({watched.words()}); half of "
        f"them must ({advice})"
    )


def _grid(design: Design, passages: Sequence[Passage], log_time: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return times and lower bounds of the unknown ones, both of the design's shape."""

    def scale(step: float) -> float:
        return float(np.log(max(step, 1.0))) if log_time else float(step)

    values = np.full(design.shape, np.nan)
    bounds = np.full(design.shape, -np.inf)
    for cell, row in zip(design.cells, passages, strict=True):
        if row.step is None:
            bounds[tuple(cell)] = scale(row.last or 0)
        else:
            values[tuple(cell)] = scale(row.step)
    return values, bounds


def _estimate(values: np.ndarray, bounds: np.ndarray, config: Config) -> impute.Draws:
    """Return draws of the lambdas, components by moments, and the mean of a cell; one row where all is known."""
    rng = np.random.default_rng(config.seed)
    if np.isnan(values).any():
        return impute.augment(values, bounds, max(config.draws // 4, 100), rng)
    strata = components.strata(values)
    lambdas = components.draw(strata, config.draws, rng)
    estimate = components.solve(values.shape, np.nan_to_num(strata.squares))
    sums = np.broadcast_to(strata.sums, lambdas.shape)
    return impute.Draws(lambdas, sums, estimate[None], np.array([values.mean()]))


def _shares(
    design: Design, draws: impute.Draws, point: np.ndarray, rng: np.random.Generator
) -> tuple[Share, ...]:
    """Return the shares, of draws and components by moments (2^F,)."""
    n, total = len(design.factors), float(np.maximum(point, 0).sum())
    sources = [*design.factors, "residual"]
    if total <= 0:
        return tuple(Share(source, None, (None, None), None, False) for source in sources)
    named = components.shares(point, n)
    solved = components.solve(design.shape, draws.lambdas)
    spread = components.shares(solved, n)
    lows, highs = np.quantile(spread, [1 - LEVEL, LEVEL], axis=0)
    # One of several streams that decide nothing is often enough above 0: it takes one that is so among them all.
    none = [float((solved[:, 1 << place] <= 0).mean()) for place in range(n)]
    if min(none) >= (1 - LEVEL) / n:
        highs[n] = 1.0
    for place in range(n):
        # Few seeds whose means happen to be alike do not show that a stream decides nothing, nor the others all.
        drawn, weights = components.above_zero(design.shape, draws.lambdas, draws.sums, place, rng)
        if not weights.sum() > 0:
            continue
        some = components.shares(components.solve(design.shape, drawn), n)
        most = np.quantile(some[:, place], LEVEL, method="inverted_cdf", weights=weights)
        least = np.quantile(some[:, n], 1 - LEVEL, method="inverted_cdf", weights=weights)
        highs[place], lows[n] = max(highs[place], most), min(lows[n], least)
    rows = []
    for place, source in enumerate(sources):
        share, negative = float(named[place]), bool(place < n and point[1 << place] < 0)
        # The estimate by moments, set to 0 where negative, may fall out of an interval that is all above 0.
        interval = (float(min(lows[place], share)), float(max(highs[place], share)))
        rows.append(Share(source, share, interval, float(np.sqrt(share * total)), negative))
    return tuple(rows)


def _interactions(design: Design, point: np.ndarray) -> tuple[Interaction, ...]:
    positive = np.maximum(point, 0)
    return tuple(
        Interaction(
            tuple(name for place, name in enumerate(design.factors) if mask >> place & 1),
            float(positive[mask] / positive.sum()) if positive.sum() > 0 else None,
            bool(point[mask] < 0),
        )
        for mask in range(1, len(point))
        if mask.bit_count() > 1
    )


def _warnings(
    design: Design,
    shares: Sequence[Share],
    interactions: Sequence[Interaction],
    passages: Sequence[Passage],
    trajectories: Trajectories,
) -> Iterator[str]:
    yield "residual holds the interactions of the crossed streams and whatever else differs between runs"
    if censored := sum(row.censored for row in passages):
        yield (
            f"{censored} of {count(len(passages), 'run')} never converged: their steps are drawn, above the last one "
            "watched, from the normal model"
        )
    if empty := design.empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        yield f"cells of the design without a run, drawn from the normal model: {', '.join(empty[:3])}{more}"
    if few := [name for name, n in zip(design.factors, design.shape, strict=True) if n < FEW]:
        yield f"fewer than {FEW} seeds of {', '.join(few)}: the share is hardly known"
    negative = [row.source for row in shares if row.negative]
    negative += [" x ".join(item.sources) for item in interactions if item.negative]
    if negative:
        yield f"estimated below 0 and set to 0: {', '.join(negative)}"
    if all(row.share is None for row in shares):
        yield "all runs converge at the same step: there is no spread to split"
    for place, name in enumerate(design.factors):
        if _idle(design, trajectories, place):
            yield f"{name} has no effect: runs that differ only in it are equal in every row"


def _idle(design: Design, trajectories: Trajectories, place: int) -> bool:
    """Whether runs that differ only in one stream recorded the same values."""
    others = np.delete(design.cells, place, axis=1)
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    for cell, run in zip(others.tolist(), trajectories.runs, strict=True):
        groups.setdefault(tuple(cell), []).append(np.asarray(run.values))
    pairs = [(first, other) for first, *rest in groups.values() for other in rest]
    return bool(pairs) and all(np.array_equal(other, first, equal_nan=True) for first, other in pairs)


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    runs = count(findings.cells, "run")
    known = [row for row in findings.shares if row.share is not None]
    yield Say(_headline(known, runs), headline=True)
    rule = findings.convergence_rule
    crossed = listed([f"{count(n, 'seed')} of {name}" for name, n in findings.levels.items()])
    unit, mean = ("in logarithm", "geometric mean") if findings.log_time else ("steps", "mean")
    yield Say(
        f"**{runs}**: {crossed}, crossed. Convergence ({rule.words()}) comes at step "
        f"**{number(_round(findings.mean_step))}** on the {mean}, with a standard deviation {_spread(findings, unit)}."
    )
    if groups and len(known) == len(findings.shares):
        yield _figure(findings)
    rows = [
        [
            row.source,
            Cell(row.share, "" if row.share is None else f"{row.share:.1%}"),
            None if row.share is None else _interval(row),
            _round(row.sd),
            "estimated below 0, set to 0" if row.negative else "",
        ]
        for row in findings.shares
    ]
    header = ["source", "share", "95% interval", f"standard deviation ({unit})", ""]
    yield Table(header, rows, "Shares of the variance", sortable=False)
    if len(findings.interactions) > 1:
        parts = [
            [" x ".join(item.sources), None if item.share is None else f"{item.share:.1%}"]
            for item in findings.interactions
        ]
        caption = "What the residual is made of: interactions, the last with all other noise"
        yield Table(["streams", "share"], parts, caption, folded=True, sortable=False)


def _headline(known: Sequence[Share], runs: str) -> str:
    if not known:
        return f"**Variance** of {runs}: the convergence step does not vary."
    ranked = sorted(known, key=lambda row: -(row.share or 0))
    shares = [f"**{row.source}** **{row.share:.0%}** [{_interval(row)}]" for row in ranked]
    # All that the interval of the largest does not leave behind.
    level = [row.source for row in ranked if (row.interval[1] or 0) >= (ranked[0].interval[0] or 0)]
    verdict = f"{level[0]} has the largest share"
    if len(level) > 1:
        verdict = f"the intervals do not tell which of {listed(level)} has the largest share"
    return f"**Variance** of the convergence step over {runs}: {listed(shares)}; {verdict}."


def _spread(findings: Findings, unit: str) -> str:
    """Return the standard deviation of the runs, where it is known, and what the components add up to."""
    model = f"of **{number(_round(findings.sd))}** {unit}"
    if findings.runs_sd is None:
        return f"{model} by the components of its variance"
    own = f"of **{number(_round(findings.runs_sd))}** {unit} between these runs"
    return f"{own} ({number(_round(findings.sd))} of a run with seeds of its own, by the components below)"


def _figure(findings: Findings) -> Intervals:
    steps = np.array([row.step for row in findings.convergence], dtype=float)
    columns = [
        Levels(f"seed of {name}", np.array([level_of(row.run, name) for row in findings.convergence]), steps)
        for name in findings.levels
    ]
    return Intervals(
        name="shares",
        caption=(
            "**Share of every stream** in the variance of the convergence step, with 95% intervals; beside it the runs "
            "by the seed of each stream (a dash is their mean). A stream that decides much has dashes far apart."
        ),
        alt="Shares of the variance: "
        + ", ".join(f"{row.source} {row.share:.0%}" for row in findings.shares),
        labels=[row.source for row in findings.shares],
        shares=np.array([row.share for row in findings.shares]),
        intervals=np.array([row.interval for row in findings.shares]),
        axis="share of the variance (line: 95% interval)",
        columns=columns,
        values="convergence step",
        runs=[row.run for row in findings.convergence],
    )


def _interval(row: Share) -> str:
    low, high = row.interval
    return f"{low:.0%} to {high:.0%}"


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}") if abs(value) < 100 else float(round(value))
