"""What is found of how networks are connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynalab.analysis.base import Frame
from dynalab.core.means import mean_over_pairs

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Barrier:
    """What a path between two networks goes over; heights are over the line between both ends."""

    loss: float | None  # height of the loss; null where one is not finite
    error: float | None  # of the share of wrong examples; null where the task has no accuracy
    # (e(0) + e(1)) / 2 - e(t) in percent, at the t where it is largest in size (Yang et al. 2021): negative where the
    # error between the ends is higher, positive where it is lower; null as `error`.
    mode_connectivity: float | None
    distance: float  # between both ends, in means of their norms


@dataclass(frozen=True)
class Pair:
    """Two networks."""

    one: str  # id of a run
    other: str  # id of the other; the same, where two steps of it are compared
    verdict: str  # `connected`, `apart` or `undecided`, by the line after what can be done to match them
    line: Barrier  # the straight line between their weights
    aligned: Barrier | None = (
        None  # the line after the units of the other were matched to the first one's; or null
    )
    curve: Barrier | None = None  # a trained Bezier curve; null where none was asked for
    cka: float | None = None  # of their outputs, unbiased; null where outputs do not vary
    cka_published: float | None = None  # the published, biased estimate


@dataclass(frozen=True)
class Over:
    """A number over pairs of runs."""

    pairs: int  # in how many it is defined
    value: float | None  # its mean
    # 95% interval of that, over runs, for pairs share them (`mean_over_pairs`); null of fewer than five runs, or where
    # half of the pairs have the lowest or the highest number
    interval: Bounds


@dataclass(frozen=True)
class Layer:
    """How alike what a layer gives is between networks, before what follows it."""

    layer: str  # its name in the network
    cka: Over  # unbiased
    cka_published: Over  # biased


@dataclass(frozen=True)
class Setting:
    """An ensemble among others, as Yang et al. 2021 (arXiv 2107.11228) tell settings apart."""

    ensemble: str  # its id
    keys: Mapping[str, Any]  # what sets it apart
    runs: int  # how many
    pairs: int  # how many pairs were looked at
    line: Over  # barrier of the loss on the line
    aligned: Over  # after matching
    curve: Over  # on the trained curve
    line_error: Over  # the same of the error
    aligned_error: Over  # likewise
    curve_error: Over  # likewise
    mode_connectivity: Over  # of the curve where there is one, else of the line
    distance: Over  # on the line
    aligned_distance: Over  # after matching
    cka: Over  # unbiased
    cka_published: Over  # biased
    connected: int  # how many pairs are connected
    loss: float | None  # mean loss of the runs
    error: float | None  # mean share of wrong examples
    ln_lambda_max: (
        float | None
    )  # mean logarithm of the largest eigenvalue of the Hessian; null where not measured
    phase: str | None  # `I`, `II`, `III`, `IV-A` or `IV-B`; null where something of it was not measured
    layers: tuple[Layer, ...] = ()  # in the order of the pass; none where they are not asked for, or not seen


@dataclass(frozen=True)
class Confirmation:
    """What forks from a step on with other orders of the examples say."""

    at_step: int  # step that they go on from
    forks: tuple[str, ...]  # ids of their ensembles
    runs: tuple[Pair, ...]  # of every run its two forks, `one` and `other`
    stable: int  # how many runs have forks that stay connected
    error: Over  # barriers of the error between the forks of a run


@dataclass(frozen=True)
class Findings:
    """What is found of all pairs, and of their ensembles."""

    pairs: tuple[Pair, ...]
    summary: tuple[Setting, ...]  # one an ensemble
    step: int  # step of the weights
    other_step: int | None  # that of the other ends, where steps of a run are compared; null: runs are
    examples: int  # how many examples the losses are of
    split: str  # which
    cut: float  # barrier of the error up to which a pair is connected
    matching: (
        str  # `weights`; `none` where it was not asked for, `undescribed` where the model does not say how
    )
    confirmation: Confirmation | None = None  # of `--confirm`
    warnings: tuple[str, ...] = ()
    curves: Frame = (
        None  # a row a pair, kind of path (`line`, `aligned`, `curve`) and point: loss and error there
    )
    # A row for every two layers of the first pair of each ensemble: both estimates of the CKA of what they give.
    layers: Frame = None


def over(pairs: Sequence[Pair], pick: Callable[[Pair], float | None], likeness: bool = False) -> Over:
    """Return the mean of a number over pairs, with its interval; a distance, or a `likeness`."""
    picked = ((pair.one, pair.other, pick(pair)) for pair in pairs)
    known = ((one, other, value) for one, other, value in picked if value is not None)
    return Over(*mean_over_pairs(known, likeness))


def phase_of(
    mode_connectivity: float | None,
    ln_lambda: float | None,
    cka: float | None,
    cuts: tuple[float, float, float],
) -> str | None:
    """Return the phase of Yang et al. 2021 by its three measures and their cut-offs, in this order.

    I and II are poorly connected, sharp and flat; III is well connected and sharp; IV is well connected and flat, with
    outputs that are not alike (IV-A) or are (IV-B).
    """
    if mode_connectivity is None or ln_lambda is None:
        return None
    least, sharp, alike = cuts
    is_sharp = ln_lambda > sharp
    if mode_connectivity < least:
        return "I" if is_sharp else "II"
    if is_sharp:
        return "III"
    return None if cka is None else "IV-B" if cka >= alike else "IV-A"
