"""What is found of the modes of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dynalab.analysis.base import Frame
from dynalab.core.means import Bounds, Mean


@dataclass(frozen=True)
class Count:
    """A number of modes that was tried."""

    modes: int  # how many; fewer come out where fewer can be told apart
    r2: float  # share of the variance of the weights over all snapshots that they hold
    heldout_r2: float  # that at the snapshots held out, of modes of the others


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `measured`; `still` where its weights never move, so that they have no modes; `insufficient_data` with fewer
    # than four snapshots.
    verdict: str
    reason: str  # in words
    rows: int = 0  # snapshots
    first_step: int | None = None  # step of the first of them
    last_step: int | None = None  # step of the last
    weights: int | None = None  # how many
    still: int | None = None  # how many of them never move, and are in no mode
    modes: int | None = None  # number of modes
    r2: float | None = None  # share of the variance of the weights over the snapshots that they hold
    heldout_r2: float | None = None  # that at the snapshots held out, of modes of the others
    pca_r2: float | None = (
        None  # share of the variance along as many principal components as take no more floats
    )
    correlation: float | None = None  # mean absolute correlation of a weight with its reference
    stored: int | None = None  # floats of the modes: 2 a weight, its mode as a quarter, the references' paths
    compression: float | None = None  # the same over those of all snapshots
    counts: tuple[Count, ...] = ()  # numbers of modes that were tried
    # method -> its value on the held-out examples that judge, and `average`, the best of the averages
    scores: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class Method:
    """A way of making a network of the snapshots, tuned."""

    # `modes`, or what stores no more floats: `last` weights, an average (`ema lawa swa`), `pca` of the path
    method: str
    size: int | None  # snapshots of the window, copies of `lawa`, or components; null of modes
    apart: int | None  # of `lawa`, snapshots between its copies
    stored_per_weight: float  # floats that are stored, over the number of weights
    tuning: Mean  # its value on the examples that it was tuned on
    judged: Mean  # that on the others


@dataclass(frozen=True)
class Pair:
    """Modes beside another method, run by run."""

    a: str  # `modes`
    b: str  # the other
    runs: int  # in how many both are known
    estimate: float | None  # mean of the first less the second
    interval: Bounds  # 95% interval of it (Student); null where half of the runs have the lowest or highest
    p: float  # by permutation of signs
    p_adjusted: float  # with the other pairs (Holm)
    least_p: float  # the least p that so many runs could give
    verdict: str  # `better` or `worse` than the other, `equivalent` within the margin, or `cannot_tell`
    reason: str  # why it cannot be told; empty otherwise


@dataclass(frozen=True)
class Budget:
    """The best of every method within so many floats."""

    stored_per_weight: float  # floats over the number of weights
    methods: Mapping[str, Mean]  # method -> its value, tuned within them


@dataclass(frozen=True)
class Summary:
    """What holds over the runs whose weights move."""

    runs: int  # how many
    modes: int | None  # median of their numbers of modes, the lower one of two
    r2: Mean  # share of the variance that they hold
    heldout_r2: Mean  # that at the snapshots held out
    pca_r2: Mean  # share along as many principal components as take no more floats
    compression: Mean  # floats of the modes over those of all snapshots
    metric: str | None = None  # `accuracy` or `loss` on held-out examples; null where no network was run
    margin: float | None = None  # difference within which two methods are equivalent
    methods: tuple[Method, ...] = ()  # modes first
    average: str | None = None  # the average that was best on the examples for tuning
    pairs: tuple[Pair, ...] = ()  # modes against every other
    # that of the pair with the best average; null where no network was run
    verdict: str | None = None
    reason: str = ""  # in words
    budgets: tuple[Budget, ...] = ()  # ascending


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    warnings: tuple[str, ...] = ()
    # A row a run and mode: its reference weight, how many weights are in it, their share of all, and their mean
    # absolute correlation with the reference.
    modes: Frame = None
    # A row a run, mode and layer or kind of parameter: how many weights of that part are in the mode, and their share
    # of the part.
    parts: Frame = None
    # A row a run, mode and snapshot: the reference weight, and the same about its mean in standard deviations.
    paths: Frame = None
    # A row a run and network that was tried: method, size, floats, its value on both halves of the examples.
    networks: Frame = None
