"""What is found in the examples that runs are right on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Setting:
    """A setting of the sweep."""

    ensemble: str  # its id
    label: str  # what sets it apart, in words
    keys: Mapping[str, Any]  # the keys that were swept, at its values
    runs: int  # how many have the row
    examples: int  # on how many they were tested, all together
    accuracy: float | None  # mean over these runs; None of no run
    # 95% interval of it over other seeds, on this test set; null where half of the runs have the lowest or highest
    this_test_set: Bounds
    new_examples: Bounds  # and over other examples too; null likewise


@dataclass(frozen=True)
class Claim:
    """That one setting is right on more examples than another."""

    interval: Bounds  # 95% interval of the difference; null where half of a setting's runs are at an end
    p: float  # of no difference, two-sided
    p_adjusted: float  # with the other pairs (Holm)
    verdict: str  # `differ` or `cannot_tell`
    reason: str  # why it cannot be told; empty otherwise


@dataclass(frozen=True)
class Parts:
    """Shares of the variance of a difference on new examples, by what it comes from."""

    seeds: float  # what sets the seeds of a setting apart: more seeds take it away
    examples: float  # on which examples the settings differ: more examples take it away, more seeds do not
    both: float  # luck of single runs on single examples: either takes it away


@dataclass(frozen=True)
class Churn:
    """On how many of their common examples two runs disagree, as shares, means over pairs of runs."""

    within: tuple[float | None, float | None]  # two runs of a, and two of b; None of one run
    between: float | None  # a run of a and one of b
    excess: float | None  # how many more that is than within the settings, were all of equal accuracy
    p: float | None  # that it is no more, by permutation
    p_adjusted: float | None  # with the other pairs (Holm)
    verdict: str  # `more` or `cannot_tell`
    reason: str  # why it cannot be told; empty otherwise


@dataclass(frozen=True)
class Pair:
    """Two settings beside each other: the second, `b`, against the first, `a`."""

    a: str  # id of the first ensemble
    b: str  # id of the second
    estimate: float | None  # by how much the accuracy of b is higher, mean over runs
    examples: int  # how many both hold out, on which they are compared
    runs: tuple[int, int]  # of a and b
    paired: bool  # whether runs of the same seed were compared
    this_test_set: Claim  # for other seeds, on these examples: p by permutation
    new_examples: Claim  # for other seeds, on other examples as well
    variance: Parts | None  # what the error on new examples comes from; None where nothing varies
    churn: Churn  # whether settings disagree on more examples than seeds do


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
    settings: tuple[
        Setting, ...
    ] = ()  # of several ensembles each, the most accurate first, at the summary's step
    pairs: tuple[Pair, ...] = ()  # of these
    warnings: tuple[str, ...] = ()
    table: Frame = frame("difficulty")  # every example, `difficulty.parquet`
