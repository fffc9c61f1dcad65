"""Settings against each other on the held-out examples, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.compare.settings import comparable, told_apart
from dynalab.analysis.examples.crossed import Answers, Difference, difference, errors_of
from dynalab.analysis.examples.disagreement import Disagreement, disagreement
from dynalab.analysis.examples.findings import Bounds, Churn, Claim, Pair, Parts, Setting
from dynalab.core.means import OPEN, mean_interval
from dynalab.core.progress import counted
from dynalab.core.stats import holm
from dynalab.core.survival import LEVEL
from dynalab.core.words import count


def settings_of(
    groups: Sequence[Group], tested: Sequence[Answers]
) -> tuple[tuple[Setting, ...], tuple[Pair, ...]]:
    """Return what is found of every setting, the most accurate first, and of every pair.

    Args:
        groups: The settings.
        tested: Of each its runs at one step, on the examples of all.
    """
    keys, names = told_apart(groups)
    settings = [
        _setting(group.id, name, own, item)
        for group, name, own, item in zip(groups, names, keys, tested, strict=True)
    ]
    places = list(comparable(keys))
    pairs = _pairs([(groups[a].id, groups[b].id, tested[a], tested[b]) for a, b in places])
    return tuple(sorted(settings, key=lambda item: -1.0 if item.accuracy is None else -item.accuracy)), pairs


def _setting(ensemble: str, label: str, keys: dict[str, object], tested: Answers) -> Setting:
    values, examples = tested.values.values, int(tested.held.any(0).sum())
    if not len(values):
        return Setting(ensemble, label, keys, 0, 0, None, OPEN, OPEN)
    mean, here = float(values.mean()), mean_interval(values)
    new = OPEN
    if here != OPEN and (reach := errors_of([(values, tested.added)]).reach()):
        new = _wider(here, (mean - reach, mean + reach))
    return Setting(ensemble, label, keys, len(values), examples, mean, _share(here), _share(new))


def _wider(one: Bounds, other: Bounds) -> Bounds:
    """Return the wider of two intervals about one estimate."""
    widths = [0.0 if low is None or high is None else high - low for low, high in (one, other)]
    return one if widths[0] > widths[1] else other


def _share(interval: Bounds) -> Bounds:
    """Return an interval of a share, which is between 0 and 1."""
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in interval)
    return low, high


def _pairs(compared: Sequence[tuple[str, str, Answers, Answers]]) -> tuple[Pair, ...]:
    n_pairs, made = len(compared), []
    for a, b, one, other in counted(compared, "pairs", "settings"):
        common = np.logical_and(one.held.any(0), other.held.any(0))
        one, other = one.on(common), other.on(common)
        found = difference(one, other, n_pairs)
        apart = disagreement(one, other, found is not None and found.here.paired)
        made.append((a, b, one, other, int(common.sum()), found, apart))
    here = holm([1.0 if item[5] is None else item[5].here.p for item in made])
    new = holm([1.0 if item[5] is None else item[5].p for item in made])
    churn = holm([1.0 if item[6].p is None else item[6].p for item in made])
    return tuple(
        Pair(
            *(a, b, None if found is None else found.here.estimate, examples),
            found.here.runs if found is not None else (len(one.labels), len(other.labels)),
            found is not None and found.here.paired,
            _claim(found, n_pairs, ps[0], new=False, runs=(len(one.labels), len(other.labels))),
            _claim(found, n_pairs, ps[1], new=True, runs=(len(one.labels), len(other.labels))),
            _parts(found),
            _churn(apart, ps[2]),
        )
        for (a, b, one, other, examples, found, apart), ps in zip(
            made, zip(here, new, churn, strict=True), strict=True
        )
    )


def _claim(
    found: Difference | None, n_pairs: int, adjusted: float, *, new: bool, runs: tuple[int, int]
) -> Claim:
    if found is None:
        reason = f"{runs[0]} and {count(runs[1], 'run')} with examples that both settings hold out"
        return Claim(OPEN, 1.0, 1.0, "cannot_tell", reason)
    interval, p = (found.interval, found.p) if new else (found.here.interval, found.here.p)
    if adjusted <= LEVEL:
        return Claim(interval, p, adjusted, "differ", "")
    n, m = found.here.runs
    if found.here.least_p * n_pairs > LEVEL:
        among = f" among {n_pairs} pairs" if n_pairs > 1 else ""
        reason = f"{n} and {count(m, 'run')} are too few: no outcome{among} could be told from chance"
    elif not found.here.estimate and p == 1.0:
        reason = "no difference is seen"
    else:
        reason = f"the difference could be chance (p = {adjusted:.2g})"
    return Claim(interval, p, adjusted, "cannot_tell", reason)


def _parts(found: Difference | None) -> Parts | None:
    if found is None or found.errors.total <= 0:
        return None
    errors = found.errors
    return Parts(*(part / errors.total for part in (errors.seeds, errors.examples, errors.both)))


def _churn(apart: Disagreement, adjusted: float) -> Churn:
    told = apart.p is not None
    verdict = "more" if told and adjusted <= LEVEL else "cannot_tell"
    reason = "" if verdict == "more" else apart.reason or f"it could be chance (p = {adjusted:.2g})"
    return Churn(
        apart.within, apart.between, apart.excess, apart.p, adjusted if told else None, verdict, reason
    )


def answers_of(
    there: np.ndarray, right: np.ndarray, held: np.ndarray, ids: Sequence[str], group: Group
) -> Answers:
    """Return the runs of a group among those that have a row, in their order.

    Args:
        there: Places of the runs that have one, (S',).
        right: Where they are right, (S', N).
        held: What they were tested on, (S', N).
        ids: Of all runs.
        group: The group.
    """
    own = {run.id for run in group.runs}
    rows = [row for row, place in enumerate(there) if ids[place] in own]
    names = tuple(ids[there[row]].rpartition("/")[2] for row in rows)
    return Answers(names, right[rows], held[rows]).on(np.ones(right.shape[1], bool))
