"""What is found of forks whose weights were moved a little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalab.analysis.base import Frame
from dynalab.analysis.regions.findings import Lag, Time
from dynalab.core.means import mean_over
from dynalab.core.stats import clopper_pearson

Bounds = tuple[float | None, float | None]
Name = Literal["distance", "function_distance", "churn", "barrier", "accuracy_barrier"]
CANNOT_TELL = "cannot_tell"
NAMES: tuple[Name, ...] = ("distance", "function_distance", "churn", "barrier", "accuracy_barrier")


@dataclass(frozen=True)
class Apart:
    """How far the ends of two runs are apart; null where it is not known."""

    distance: float | None = None  # norm of the difference of their weights over that of the first one's
    function_distance: float | None = None  # the same of their outputs on held-out examples
    # share of the held-out examples that they put into different classes; null of targets that are no classes
    churn: float | None = None
    # how far the loss on training examples goes above the line between the ends' losses, along the line between them
    barrier: float | None = None
    accuracy_barrier: float | None = None  # the same of the share of errors; null where there is no accuracy


@dataclass(frozen=True)
class Fork:
    """The fork of a run that was moved at a step."""

    at_step: int  # step at which its weights were moved
    fork: str | None  # id of its run; null where it did not end well
    connected: bool | None  # whether the barrier is within the threshold; null where it is not known
    apart: Apart  # the ends of fork and run


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `connected` where all forks from some tried step on stay connected, `apart` where that of the last step does not,
    # `cannot_tell` where it is not known.
    verdict: str
    # the first tried step from which on all forks stay connected; null where there is none, which is later
    connected_step: int | None
    landmarks: Mapping[str, int | None]  # landmark or boundary of states -> when this run reaches it
    forks: tuple[Fork, ...]  # by `at_step`


@dataclass(frozen=True)
class Mean:
    """A number over runs."""

    runs: int  # in how many it is known
    mean: float | None  # over these
    # 95% interval of it (Student); null where half of the runs have the lowest or highest number
    interval: Bounds

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Mean:
        """Return it for one a run."""
        return cls(*mean_over(values))


@dataclass(frozen=True)
class Point:
    """The forks of one step, over runs."""

    at_step: int  # step at which weights were moved
    runs: int  # in how many it is known whether they stay connected
    connected: int  # in how many they do
    share_interval: Bounds  # exact 95% interval of that share
    apart: Mapping[Name, Mean]  # how far fork and run are apart at their ends

    @classmethod
    def of(cls, forks: Sequence[Fork]) -> Point:
        """Return it for those of one step."""
        known = [fork.connected for fork in forks if fork.connected is not None]
        apart = {name: Mean.of([getattr(fork.apart, name) for fork in forks]) for name in NAMES}
        share = clopper_pearson(sum(known), len(known)) if known else (None, None)
        return cls(forks[0].at_step, len(known), sum(known), share, apart)


@dataclass(frozen=True)
class Against:
    """Where the step from which forks stay connected lies against a landmark."""

    landmark: (
        str  # `memorised_step`, `generalised_step`, or `first_boundary` and `last_boundary` of hidden states
    )
    runs: int  # that reach it
    earlier: int  # in how many of them forks stay connected before or when they do
    share_interval: Bounds  # exact 95% interval of that share
    # The step from which forks stay connected, less the landmark, over all runs: where one of both had not come it is
    # only known to be larger or smaller.
    lag: Lag
    # that the two are not nearer to each other within runs than between them, by permutation; null with fewer than five
    # runs that have both, or where one of both does not vary
    p: float | None
    p_adjusted: float | None  # with the other landmarks (Holm)


@dataclass(frozen=True)
class Summary:
    """What the forks come to."""

    runs: int  # how many were forked
    steps: int  # length of training
    kind: str  # what was moved: `gaussian` noise on every weight, `one` of them, or all along one `direction`
    scale: float  # by how much, in standard deviations of the tensor at its initialisation
    measure: str  # what barrier is held against the threshold: `accuracy_barrier` or `barrier`
    threshold: float  # up to which fork and run are connected
    points: tuple[Point, ...]  # by `at_step`
    connected: Time  # from when on forks stay connected; later than the last tried step where they do not
    against: tuple[Against, ...]  # landmarks that were known
    # The same numbers between each run and the next one, another seed: what runs that share nothing have. These pairs
    # share runs, so their intervals are over runs (`mean_over_pairs`), null of fewer than five.
    between_seeds: Mapping[Name, Mean]
    # the largest of all numbers of forks that were not moved, which is 0; null where none ended well
    control: float | None


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    forks: tuple[str, ...]  # ids of the forks' ensembles, the control's last
    warnings: tuple[str, ...] = ()
    paths: Frame = (
        None  # a row a run, step and point of the line from its end to its fork's: what is measured there
    )
