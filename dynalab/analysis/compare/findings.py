"""What a comparison finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynalab.core.convergence import Convergence
from dynalab.core.means import Bounds


@dataclass(frozen=True)
class Landmark:
    """When runs of a setting reached a landmark."""

    reached: int  # how many did
    median_step: float | None  # Kaplan and Meier's median; None where fewer than half did
    interval: Bounds  # 95% interval of it
    steps: tuple[float | None, ...]  # of every run, None where it never did


@dataclass(frozen=True)
class Final:
    """Where a metric of a setting ended."""

    mean: float | None  # over the runs that have one
    interval: Bounds  # 95% interval of it; null where half of the runs have the lowest or highest value
    values: tuple[float, ...]  # of these runs
    lost: int = 0  # how many runs have none, for they diverged or it is infinite
    # Over all runs, those that are lost as the worst; null where it falls among these, or no setting lost one
    median: float | None = None
    short: int = 0  # how many runs have none, for they ended before the step at which it is read


@dataclass(frozen=True)
class Setting:
    """A setting of the sweep."""

    ensemble: str  # its id
    label: str  # what sets it apart, in words
    keys: Mapping[str, Any]  # the keys that were swept, at its values
    runs: int  # how many entered
    diverged: int  # how many of them diverged
    landmarks: Mapping[str, Landmark]  # by their names
    final: Mapping[str, Final]  # by the metric


@dataclass(frozen=True)
class Pair:
    """Two settings beside each other: the second, `b`, against the first, `a`."""

    a: str  # id of the first ensemble
    b: str  # id of the second
    of: str  # the landmark or metric
    # by how many steps b is later, or by how much its mean is higher; where runs were lost the shift of all values
    estimate: float | None
    # 95% interval of it; of means null where half of a setting's runs have its lowest or highest value
    interval: Bounds
    ratio: float | None  # how many times as late, or as high
    ratio_interval: Bounds  # 95% interval of it
    # by permutation: Gehan's test of steps, Welch's of means; of a metric that runs have lost Gehan's, these last
    p: float
    p_adjusted: float  # with the other pairs of this landmark or metric (Holm)
    log_rank_p: float | None  # of steps: the log-rank test, by permutation
    paired: bool  # whether runs of the same seed were compared
    runs: tuple[int, int]  # of a and b
    verdict: str  # `differ`, `equivalent` or `cannot_tell`
    reason: str  # why it cannot be told; empty otherwise
    tested: bool = (
        True  # whether there was something to test; if not, `p` is 1 and Holm's procedure leaves it out
    )

    @property
    def law(self) -> str:
        """Whose interval that of a difference of means is."""
        return "Student's" if self.paired else "Welch's"


@dataclass(frozen=True)
class Effect:
    """What a swept key does, or two of them together."""

    keys: tuple[str, ...]  # one, or two
    of: str  # the landmark or metric
    estimate: (
        float | None
    )  # the second value less the first (of steps: how many times as late), of keys of two values
    interval: Bounds  # 95% interval of it
    p: float  # that the key has no effect, or two none together: an F test with seeds as blocks
    p_adjusted: float  # with the other effects on this landmark or metric (Holm)


@dataclass(frozen=True)
class Odd:
    """How far a run is from the others of its setting."""

    ensemble: str  # id of the setting
    run: str  # its id
    distance: (
        float | None
    )  # from the mean of the others, in their standard deviations; None where it is not known
    p: (
        float | None
    )  # that chance is as far, times the number of landmarks and metrics; None where it cannot be told
    p_adjusted: float | None  # with the other runs of the setting (Holm); below .05 the run is odd
    of: str | None = None  # the landmark or metric that sets it apart most
    value: float | None = None  # its step or value of that; None: it never came
    others: tuple[float, float] | None = None  # the least and the largest of the runs that are not odd
    reason: str = ""  # why it cannot be told; empty otherwise


@dataclass(frozen=True)
class Response:
    """How a landmark or metric changes with the values of the one numeric key that was swept."""

    key: str  # its name
    of: str  # the landmark or metric
    values: tuple[Level, ...]  # the values that were tried, ascending
    best: Best  # the best of them


@dataclass(frozen=True)
class Level:
    """A value of a key: the median or the mean there."""

    value: float  # of the key
    estimate: float | None  # the median step or the mean there; None where it is not known
    interval: Bounds  # 95% interval of it


@dataclass(frozen=True)
class Best:
    """The best value of a key, and the range of those that it is not told apart from."""

    value: float | None  # of the key, where the estimate is best; None where it is so at several values
    interval: tuple[float, float]  # the least and the largest value that are not told apart from it


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Settings, and every pair of them, by landmarks and metrics."""

    task: str | None  # what is learnt; None where that is not known
    settings: tuple[Setting, ...]  # the best first, by `main`
    main: str  # the landmark or metric that they are ranked by
    pairs: tuple[Pair, ...]  # of settings, by every landmark and metric
    # landmark or metric -> the ensemble that leads; None where all are alike, or several lead alike
    best: Mapping[str, str | None]
    # it, or those of one median or mean that lead alike; none where all are alike
    leaders: Mapping[str, tuple[str, ...]]
    # those that the first, or one of several, is not told apart from
    level_with_best: Mapping[str, tuple[str, ...]]
    # landmark or metric -> runs of a setting that would tell the best from the closest that it is not told from, in
    # four of five trials; None where all are told, or no number up to 1,000 would
    needed_runs: Mapping[str, int | None]
    response: Response | None  # over the values of the key, where one numeric key was swept
    effects: tuple[Effect, ...]  # of each key and each two, where two or more were swept
    at_step: int | None  # where metrics were read; None: where each run ends
    rule: Convergence | None  # of the landmark `converged_step`
    margin: float | None  # the key `margin`
    warnings: tuple[str, ...] = ()
    needed_pair: Mapping[str, tuple[str, str] | None] = field(default_factory=dict)  # these two
    # runs that would if these two differ by the most that their runs allow (the far end of its 95% interval)
    needed_least: Mapping[str, int | None] = field(default_factory=dict)
    # whether they are the same seeds in both, compared seed by seed
    needed_paired: Mapping[str, bool | None] = field(default_factory=dict)
    # landmark -> level of its metric from which on a run has reached it, where all settings have the same
    levels: Mapping[str, float] = field(default_factory=dict)
    odd: tuple[Odd, ...] = ()  # every run against the others of its setting
    asked: bool = False  # whether keys say the rule
    uncompared: int = 0  # pairs of settings that are not compared, for they differ in more than one key
