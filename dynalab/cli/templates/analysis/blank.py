"""`dynalab analyze blank`: where each run's training loss has come down to a share of what it began with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dynalab.analysis.base import Group, Keys, Needs, key, runs_of
from dynalab.core.stats import quantile
from dynalab.core.words import count, number
from dynalab.show.blocks import Block, Say, Strip, Strips, Table, run_cell

VERSION = 1  # raise it when results change: stored ones stay what they are, and are made anew beside
# What it reads, and the words of `dynalab train` that record it. Runs that diverged may enter, up to there.
NEEDS = Needs(columns=("train_loss",), record="eval.every=10", statuses=("done", "diverged"))


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """The keys; `steps=`, which looks at the rows up to a step, is among those of all analyses."""

    share: float = key(0.5, "share of the first loss that is to be reached", above=0, below=1)


@dataclass(frozen=True)
class Fall:
    """What is said of one run; null where its loss did not come down so far."""

    run: str
    step: int | None


@dataclass(frozen=True)
class Findings:
    """What is stored: these fields are the keys of `--json`. Tables would be data frames, `name: Frame = None`."""

    runs: tuple[Fall, ...]
    median_step: float | None  # over runs, those that are not there yet counting as later; null: half are not
    warnings: tuple[str, ...] = ()  # what a reader must know before the numbers


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Compute; `groups` is one ensemble, unless `pool=true`."""
    falls = []
    for run in runs_of(groups):
        loss = run.first("train_loss")  # .steps and .values, both (T,); None where there is no row
        below = [] if loss is None else loss.steps[loss.values <= config.share * loss.values[0]]
        falls.append(Fall(run.id, int(below[0]) if len(below) else None))
    return Findings(tuple(falls), quantile([fall.step for fall in falls], 0.5))


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Say it, for terminal, page and notebook alike; a terminal draws no figures and gives no groups."""
    fallen = sum(fall.step is not None for fall in findings.runs)
    where = "" if findings.median_step is None else f", at median step **{number(findings.median_step)}**"
    yield Say(
        f"The loss **came down** in {fallen} of {count(len(findings.runs), 'run')}{where}.", headline=True
    )
    steps = {fall.run: fall.step for fall in findings.runs}
    strips = [
        Strip(run=run.id, left=run.first("train_loss"), marks={"down": steps[run.id]})
        for run in runs_of(groups)
        if run.id in steps
    ]
    if strips:
        caption, alt = "**Training loss**, and where it had come down.", "Loss of runs, a step marked"
        yield Strips(name="falls", caption=caption, alt=alt, strips=strips, left="training loss")
    yield Table(["run", "down at"], [[run_cell(fall.run), fall.step] for fall in findings.runs], "Every run")
