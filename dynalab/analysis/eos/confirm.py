"""Whether it is the threshold that holds the sharpness: runs against forks with half the rate from a step on.

At half the rate the threshold is twice as high. Where the sharpness had stopped because it met the threshold it then
rises again (Cohen et al. 2021, arXiv 2103.00065, section 3.2, figure 5: the rate is cut during training); where it had
stopped for another reason it stays. The rule, on the rows after the fork's rate was halved:

- the fork's ratio falls below .75 (`FALLS`), so that the threshold has risen indeed (the median of the first three
  rows; half of about 1 is expected), and
- the fork's sharpness rises over its level at the halving 1.25 times (`RISES`) as far as the parent's does over the
  same steps. Level: the median of the parent's last five rows up to the halving. Rise: the largest running median of
  five rows, over the level.

Both hold: `confirmed`. Else: `not_confirmed`; with fewer than 10 (`FEWEST`) rows after the halving in either:
`undecided`. For an adaptive optimizer the sharpness is the preconditioned one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.analysis.cycle import groups_at_ends
from dynalab.analysis.eos.edge import AFTER, edge_of
from dynalab.analysis.eos.ratios import NEEDED, Ratios, eigenvalue, ratios_of
from dynalab.core.runs import Group, Run, Series
from dynalab.core.waves import Fork
from dynalab.core.words import count, listed, spoken
from dynalab.show.blocks import Block, Halved, Say, Strip, Table, run_cell

if TYPE_CHECKING:
    from dynalab.analysis.eos import Config, RunFindings

FALLS, RISES, FEWEST = 0.75, 1.25, 10
# The fork is prolonged beyond its parent's end, up to this many times its length, where the parent arrived late.
LONGEST = 2


@dataclass(frozen=True, kw_only=True)
class Forked:
    """A run and its fork; what is not known is None."""

    run: str  # its id
    fork: str  # id of the fork's run
    at_step: int  # first update at half the rate
    verdict: str = "undecided"  # `confirmed`, `not_confirmed` or `undecided`
    confirmed: bool | None = None  # the verdict; null where it is undecided
    ratio_after: float | None = None  # ratio of the fork right after the halving
    rise: float | None = None  # largest sharpness of the fork over the level at the halving
    parent_rise: float | None = None  # the same of the run itself
    fork_onset_step: int | None = None  # step at which the fork arrives at the new threshold
    fork_last_ratio: float | None = None  # its last ratio, median of five rows
    reason: str = ""  # in words
    from_step: int = 0  # step of the checkpoint that the fork goes on from


@dataclass(frozen=True)
class Confirmation:
    """What forks at half the rate say."""

    change: str = ""  # the key that the forks change
    forks: tuple[str, ...] = ()  # ids of their ensembles
    runs: tuple[Forked, ...] = ()  # every run beside its fork


def halvings(runs: Sequence[RunFindings], ratios: Mapping[str, Series], config: Config) -> list[Fork]:
    """Return the forks that tell of every run that arrived, as few as can be; `ratios` are those of each run.

    A run is ready five rows after its arrival. Runs share a step of halving where all of them are at the edge.
    """
    onsets = {run.run: run.onset_step for run in runs if run.onset_step is not None}
    ready: dict[str, int] = {}
    for name, onset in onsets.items():
        after = ratios[name].steps[ratios[name].steps >= onset]
        if len(after) > AFTER:
            ready[name] = int(after[AFTER])
    forks = []
    while ready:
        at = max(ready.values())
        together = tuple(
            name
            for name, step in sorted(ready.items())
            if step == at or (step < at and _holds(ratios[name], at, config))
        )
        last = max(int(ratios[name].steps[-1]) for name in together)
        # At half the rate the way from half of the threshold on takes twice as many steps, and some more.
        way = max(onsets[name] - _halfway(ratios[name], onsets[name]) for name in together)
        length = int(min(max(last, at + 4 * way), LONGEST * last))
        forks.append(Fork(f"half-{at}", together, at, {"train.halve_at": at}, length))
        for name in together:
            del ready[name]
    return forks


def _holds(ratios: Series, at: int, config: Config) -> bool:
    """Return whether a run is at the edge in the rows up to a step."""
    before = ratios.until(at).values[-AFTER:]
    return bool(len(before) and ratios.steps[-1] > at and config.low <= np.median(before) <= config.high)


def _halfway(ratios: Series, onset: float) -> float:
    """Return the last step before the arrival with a ratio of at most a half, else the first step."""
    low = ratios.steps[(ratios.steps <= onset) & (ratios.values <= 0.5)]
    return float(low[-1]) if len(low) else float(ratios.steps[0])


def compare(
    parents: Group, forks: Group, at: int, config: Config
) -> tuple[list[Forked], list[dict[str, Any]]]:
    """Return what forks of the same labels say of their parents' arrival, and the rows that it rests on.

    These are of every fork: run, fork, step, sharpness, threshold (both of the fork), parent_sharpness. `at` is the
    first update at half the rate.
    """
    (parents,), (forks,) = (groups_at_ends([group], NEEDED)[0] for group in (parents, forks))
    forked = {run.label: run for run in forks.runs}
    entries, rows = [], []
    for run in parents.runs:
        fork = forked.get(run.label)
        if fork is None:
            continue
        adaptive = ratios_of(run).adaptive
        parent_sharpness, sharpness = (_sharpness(item, adaptive) for item in (run, fork))
        entry = Forked(run=run.id, fork=fork.id, at_step=at, from_step=int(forks.keys.get("from_step", 0)))
        entries.append(_judge(entry, parent_sharpness, sharpness, ratios_of(fork), config))
        limit = fork.first("stability_threshold")
        limits = [np.nan] if limit is None else np.interp(sharpness.steps, limit.steps, limit.values)
        names = ("run", "fork", "step", "sharpness", "threshold", "parent_sharpness")
        columns = np.broadcast_arrays(
            sharpness.steps, sharpness.values, limits, parent_sharpness.at(sharpness.steps)
        )
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append(dict(zip(names, (run.id, fork.id, *values), strict=True)))
    return entries, rows


def _judge(entry: Forked, parent: Series, fork: Series, ratios: Ratios, config: Config) -> Forked:
    """Judge a fork by the sharpness of its parent and its own, and its ratios."""
    at = entry.at_step
    before = parent.until(at).values[-AFTER:]
    # Row `at` was measured before the halving.
    after, fork_after = (item.values[item.steps > at] for item in (parent, fork))
    later = ratios.steps > at
    least = min(len(after), len(fork_after), int(later.sum()))
    if not len(before) or least < FEWEST:
        return replace(entry, reason=f"{count(least, 'row')} after step {at:,}, at least {FEWEST} are needed")
    level = float(np.median(before))
    shared = int((fork.until(int(parent.steps[-1])).steps > at).sum())
    rise, parent_rise = _highest(fork_after) / level, _highest(after[: max(shared, FEWEST)]) / level
    fell = float(np.median(ratios.values[later][:3]))
    # From here on the ratio begins anew: an arrival is one at the new threshold.
    arrival = edge_of(ratios.steps[later], ratios.values[later], config)
    good = fell < FALLS and rise >= RISES * parent_rise
    return replace(
        entry,
        verdict="confirmed" if good else "not_confirmed",
        confirmed=good,
        ratio_after=fell,
        rise=rise,
        parent_rise=parent_rise,
        fork_onset_step=None if arrival.onset is None else round(arrival.onset),
        fork_last_ratio=float(np.median(ratios.values[-AFTER:])),
        reason=f"the ratio fell to {fell:.2f}, then the sharpness rose {rise:.2f} times (parent: {parent_rise:.2f})",
    )


def _sharpness(run: Run, adaptive: bool) -> Series:
    return eigenvalue(run, adaptive)[0] or Series(np.empty(0, np.int64), np.empty(0))


def _highest(values: np.ndarray) -> float:
    """Return the largest running median of five rows."""
    windows = np.lib.stride_tricks.sliding_window_view(values, min(AFTER, len(values)))
    return float(np.median(windows, axis=1).max())


def show_forks(confirmation: Confirmation, table: Any) -> Iterator[Block]:
    """Yield what forks at half the rate say; `table` is of runs beside their forks, None for no figure."""
    entries = confirmation.runs
    yield Say(f"**{_words(entries)}** (fork: {listed(confirmation.forks)}).")
    rows_of = {} if table is None else dict(list(table.groupby("run")))
    if drawn := [entry for entry in entries if entry.run in rows_of]:
        yield Halved(
            name="halved",
            caption=(
                "**Half the rate, twice the threshold.** A sharpness that the threshold held rises again once the rate "
                "is halved."
            ),
            alt="Sharpness of runs and of their forks at half the rate",
            strips=[_strip(entry, rows_of[entry.run]) for entry in drawn],
            left="fork, half the rate",
            right="run as it was",
            dashed="the fork's threshold",
        )
    rows = [
        [
            *(run_cell(entry.run), spoken(entry.verdict), entry.at_step, entry.fork_onset_step),
            *(entry.fork_last_ratio, entry.reason),
        ]
        for entry in entries
    ]
    header = ["run", "verdict", "rate halved at", "arrival again", "last ratio", "why"]
    yield Table(header, rows, "Every fork", folded=len(rows) > 12, sortable=False)


def _strip(entry: Forked, rows: Any) -> Strip:
    fork, parent, limit = (
        Series.of(rows["step"].to_numpy(), rows[name].to_numpy())
        for name in ("sharpness", "parent_sharpness", "threshold")
    )
    return Strip(
        run=entry.run,
        label=entry.verdict.replace("_", " "),
        left=fork,
        right=parent,
        dashed=limit,
        marks={"rate halved": entry.at_step},
    )


def _words(rows: Sequence[Forked]) -> str:
    """Return what the forks say of all runs, in a line."""
    good, undecided = (sum(row.verdict == kind for row in rows) for kind in ("confirmed", "undecided"))
    rises = [row.rise for row in rows if row.rise is not None]
    span = (
        f": at half the rate the sharpness rose {min(rises):.2f} to {max(rises):.2f} times" if rises else ""
    )
    rest = f"; {undecided:,} undecided" if undecided else ""
    return f"Confirmed in {good:,} of {count(len(rows), 'run')}{span}{rest}"
