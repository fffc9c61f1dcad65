"""What is found in the examples that runs are right on."""

from __future__ import annotations

from dataclasses import dataclass

from dynalab.analysis.base import Frame, frame

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Row:
    """What the runs were right on after so many updates."""

    step: int  # the row's
    runs: int  # how many have it
    accuracy: float  # mean over runs
    accuracy_sd: float | None  # standard deviation between runs, ddof 1; None of one run
    agreement: (
        float | None
    )  # share of the common examples on which two runs are both right or both wrong, mean
    agreement_by_chance: float | None  # what it would be, were their errors independent
    churn: float | None  # share of a run's examples that changed since its last row, mean; None in the first
    models_share: float | None = (
        None  # share of the variance between runs that is the models' own; None where it is not split
    )
    interval: Bounds = (None, None)  # 95% interval of it
    models_sd: float | None = None  # standard deviation of the models' true accuracies
    models_sd_interval: Bounds = (None, None)  # 95% interval of it
    test_set_sd: float | None = None  # standard deviation that the finite number of examples adds, in squares
    verdict: str = "cannot_tell"  # which is more than half: `models`, `test_set` or `cannot_tell`
    reason: str = ""  # why it cannot be told; empty otherwise
    odd: bool = False  # whether runs differ less than equal models on independent examples would, beyond luck


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run, over all of its rows."""

    run: str  # its id
    examples: int  # how many it was tested on
    accuracy: float  # in its last row
    churn: float | None  # share of its examples that change from a row to the next, mean
    forgotten: float | None  # how often an example went from right to wrong, mean over examples
    never_right: float  # share of its examples that were right in no row
    never_forgotten: float  # share that were right from some row on, in all


@dataclass(frozen=True)
class Difficulty:
    """How hard an example is."""

    example: int  # its place among the held-out examples of `run`
    run: str  # id of the first run that was tested on it
    runs: int  # how many were
    right: float  # share of their rows in which it is right
    right_at_end: float  # share of runs that are right on it in their last rows
    forgotten: float  # how often a run went from right to wrong on it, mean


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The spread between runs split into the models' and the test set's, and how examples are learnt."""

    summary: Row  # the last row that most runs have
    examples: int  # how many different ones there are
    common: float | None  # share of a run's examples that another one has, mean; None of one run
    over_training: tuple[Row, ...]  # every row
    runs: tuple[RunFindings, ...]  # every run
    hardest: tuple[Difficulty, ...]  # the examples that are right in the fewest rows
    easiest: tuple[Difficulty, ...]  # those that are right in the most
    warnings: tuple[str, ...] = ()
    table: Frame = frame("difficulty")  # every example, `difficulty.parquet`
