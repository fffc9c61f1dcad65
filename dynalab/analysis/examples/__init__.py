"""Which held-out examples are right, and what of the spread between seeds is the test set's.

From the bits that the probe `examples` records. A test set is a sample: of two models that are equally good one is
right on more of it by luck. How much of the variance of accuracy between seeds that is, and how much is that some
models are better, is told from the examples on which seeds differ, row by row, with 95% intervals over seeds and
examples. Where the interval of the models' share holds a half, it cannot be told which is more. Four seeds are needed.

Beside it: on how many examples two runs agree, and how many that would be were their errors independent; how many
change from a row to the next; how often examples are forgotten (from right to wrong, Toneva et al. 2019, arXiv
1812.05159; between rows, which is less than between updates); and which are the hardest and the easiest.

Several ensembles of one task are compared as well, at the last row that most runs have. Is one right on more of them
than another? On this test set, where seeds alone are a sample, and on new examples, where the test set is one too: a
leaderboard shows the first, and most who read it mean the second. Each has its interval and p (Holm's over all
pairs), and the share of the second's variance that is seeds' and examples'. And do they disagree on more examples
than two seeds of one setting do, at equal accuracy? Settings that hold out different examples are compared on those
that both do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, key, runs_of
from dynalab.analysis.examples.disagreement import agreements
from dynalab.analysis.examples.findings import Difficulty, Findings, Pair, Row, RunFindings, Setting
from dynalab.analysis.examples.followed import BITS, SET, Followed, followed
from dynalab.analysis.examples.settings import answers_of, settings_of
from dynalab.analysis.examples.shares import FEWEST, spread
from dynalab.analysis.examples.summary import show
from dynalab.core.errors import NothingMatched
from dynalab.core.progress import counted
from dynalab.core.words import count, listed, steps_words

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 6
FIGURES = ("test-set-noise", "settings-over-examples")
NEEDS = Needs(blocks=(BITS, SET), record="'probes=[weights,gradients,examples]'", together=True)


def TITLE(findings: Findings) -> str:
    """Return the heading of a section."""
    return "Settings over seeds and examples" if findings.settings else "Test-set noise and examples"


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    listed: int = key(10, "examples that are listed among the hardest, and among the easiest", least=1)


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Split the spread of accuracy between runs, follow their examples, and compare settings.

    Raises:
        NothingMatched: The settings learn different tasks, no run has a row, or which examples a run was tested on is
            not known.
        StoreError: The blocks do not fit each other.
    """
    import pandas as pd

    groups = [group for group in groups if group.runs]
    tasks = list(dict.fromkeys(str((group.runs[0].config.get("task") or {}).get("name")) for group in groups))
    if len(tasks) > 1:
        raise NothingMatched(f"examples compares settings of one task, and these are of {listed(tasks)}")
    found = followed(runs_of(groups))
    held = found.held
    before: dict[int, np.ndarray] = {}
    rows = tuple(_row(found, held, step, before) for step in counted(found.grid.tolist(), "rows"))
    runs, table = _over_rows(found)
    most = max(row.runs for row in rows)
    summary = next(row for row in reversed(rows) if row.runs == most)
    order = sorted(range(found.size), key=lambda i: (table["right"][i], table["right_at_end"][i], i))
    last = [Difficulty(**{name: table[name][i] for name in table}) for i in order[: config.listed]]
    first = [Difficulty(**{name: table[name][i] for name in table}) for i in order[::-1][: config.listed]]
    settings, pairs = _compared(found, held, groups, summary.step) if len(groups) > 1 else ((), ())
    return Findings(
        summary=summary,
        examples=found.size,
        common=_common(held),
        over_training=rows,
        runs=runs,
        hardest=tuple(last),
        easiest=tuple(first),
        settings=settings,
        pairs=pairs,
        warnings=(*found.left, *_warnings(groups, found, held, rows), *_unlike(settings, pairs)),
        table=pd.DataFrame(table),
    )


def _row(found: Followed, held: np.ndarray, step: int, before: dict[int, np.ndarray]) -> Row:
    """Return what holds of a row; `before` has the last row of each run, and gets this one."""
    there, right = found.at(step)
    held = held[there]
    accuracy = right.sum(1) / held.sum(1)
    changed = [
        float((right[i] != before[run]).sum() / held[i].sum()) for i, run in enumerate(there) if run in before
    ]
    alike, chance = _agreement(right, held)
    before |= {int(run): right[i] for i, run in enumerate(there)}
    few = len(there) < FEWEST
    row = Row(
        step=step,
        runs=len(there),
        accuracy=float(accuracy.mean()),
        accuracy_sd=float(accuracy.std(ddof=1)) if len(there) > 1 else None,
        reason=f"fewer than {FEWEST} runs" if few else "the runs have equal accuracy",
        agreement=alike,
        agreement_by_chance=chance,
        churn=float(np.mean(changed)) if changed else None,
    )
    split = spread(right, held)
    if split is None:
        return row
    low, high = split.interval
    verdict = "models" if low > 0.5 else "test_set" if high < 0.5 else "cannot_tell"
    return replace(
        row,
        models_share=split.share,
        interval=(low, high),
        models_sd=split.deviation,
        models_sd_interval=split.deviation_interval,
        test_set_sd=float(np.sqrt(split.test_set)),
        verdict=verdict,
        reason="the interval of the models' share holds a half" if verdict == "cannot_tell" else "",
        odd=split.is_odd,
    )


def _agreement(right: np.ndarray, held: np.ndarray) -> tuple[float | None, float | None]:
    """Return on which share of their common examples two runs agree, and would by chance, means over pairs."""
    pairs = np.triu_indices(len(right), 1)
    alike, chance = (values[pairs] for values in agreements(right, held))
    if np.isnan(alike).all():
        return None, None
    return float(np.nanmean(alike)), float(np.nanmean(chance))


def _compared(
    found: Followed, held: np.ndarray, groups: Sequence[Group], step: int
) -> tuple[tuple[Setting, ...], tuple[Pair, ...]]:
    """Return the settings and their pairs at a step."""
    there, right = found.at(step)
    ids = [run.id for run in found.runs]
    return settings_of(groups, [answers_of(there, right, held[there], ids, group) for group in groups])


def _over_rows(found: Followed) -> tuple[tuple[RunFindings, ...], dict[str, list]]:
    """Return what is found of every run over its rows, and of every example over the runs, as columns."""
    sums = {name: np.zeros(found.size) for name in ("runs", "right", "right_at_end", "forgotten")}
    runs = []
    for index, (run, places) in enumerate(
        zip(counted(found.runs, "runs", "over training"), found.places, strict=True)
    ):
        right = found.right(index)
        # In uint8, which a bit needs no more than.
        forgotten = (right[:-1] & ~right[1:]).sum(0)
        changed = (right[:-1] != right[1:]).mean(1)
        learnt, several = right.any(0), len(right) > 1
        runs.append(
            RunFindings(
                run.id,
                len(places),
                float(right[-1].mean()),
                float(changed.mean()) if several else None,
                float(forgotten.mean()) if several else None,
                float((~learnt).mean()),
                float((learnt & (forgotten == 0)).mean()),
            )
        )
        own = (1.0, right.mean(0), right[-1], forgotten)
        for name, values in zip(sums, own, strict=True):
            sums[name][places] += values
    first, place = found.holders()
    means = {name: (sums[name] / sums["runs"]).tolist() for name in ("right", "right_at_end", "forgotten")}
    names = [found.runs[index].id for index in first]
    return tuple(runs), {
        "example": place.tolist(),
        "run": names,
        "runs": sums["runs"].astype(int).tolist(),
        **means,
    }


def _common(held: np.ndarray) -> float | None:
    if len(held) < 2:
        return None
    h = held.astype(np.float32)
    shares = (h @ h.T).astype(float) / held.sum(1)[:, None]
    return float(shares[~np.eye(len(held), dtype=bool)].mean())


def _warnings(
    groups: Sequence[Group], found: Followed, held: np.ndarray, rows: Sequence[Row]
) -> Iterator[str]:
    single = len(groups) == 1
    if single and len(found.runs) < FEWEST:
        yield f"the spread of {count(len(found.runs), 'run')} is not split; {FEWEST} are needed"
    common = _common(held)
    if common is not None and common < 1:
        yield (
            f"the runs hold out different examples, two of them share {common:.0%}: which ones a run was tested on is "
            "part of the test set's noise (seed_streams.split=0 gives all the same)"
        )
    if single and (odd := [row.step for row in rows if row.odd]):
        yield (
            f"in {len(odd)} of {count(len(rows), 'row')} (the last at step {odd[-1]:,}) accuracies differ less than "
            "those of equal models on independent examples would"
        )
    if fewer := [row.step for row in rows if row.runs < len(found.runs)]:
        yield (
            f"not all of the {count(len(found.runs), 'run')} have a row at {steps_words(fewer)}: what is said of these "
            "is of the others"
        )


def _unlike(settings: Sequence[Setting], pairs: Sequence[Pair]) -> Iterator[str]:
    sizes = {setting.ensemble: setting.examples for setting in settings}
    if unlike := [pair.examples for pair in pairs if pair.examples < max(sizes[pair.a], sizes[pair.b])]:
        least, most = min(unlike), max(unlike)
        among = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield (
            f"in {len(unlike)} of {count(len(pairs), 'pair')} the settings hold out different examples: they are "
            f"compared on those that both do, {among}"
        )
