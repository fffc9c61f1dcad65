"""What is found of a tangent kernel over training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dynalab.analysis.base import Frame
from dynalab.analysis.directions.findings import Against, Over
from dynalab.analysis.regions.findings import Lag, Time

Name = Literal[
    "distance", "turned", "alignment", "alignment_of_weights", "cone_angle", "after_accuracy", "after_gain"
]
NAMES: tuple[Name, ...] = (
    "distance",
    "turned",
    "alignment",
    "alignment_of_weights",
    "cone_angle",
    "after_accuracy",
    "after_gain",
)


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `settles` where the kernel turns more slowly, over a share `window` of training, than a share `still` of its
    # fastest, `moves` where it does not by its last row, `lazy` where it never goes farther than `lazy` from the first
    # one, `cannot_tell` where weights were kept too far apart for that, `insufficient_data` with too few rows.
    verdict: str
    reason: str  # in words
    rows: int = 0  # how many
    first_step: int | None = None  # step of the first of them
    last_step: int | None = None  # step of the last
    settle_step: int | None = None  # from where on the kernel moves slowly; null where it is not seen
    fastest_step: int | None = None  # the row up to which it turns fastest, over a window
    memorised_step: int | None = None  # first row whose training accuracy is at the task's level
    generalised_step: int | None = None  # first row whose held-out accuracy is
    apex_step: int | None = None  # step of the kernel that the cone is seen from
    network_accuracy: float | None = None  # of the network itself on the held-out probes, in the last row
    chance: float | None = None  # share of the held-out probes in their most frequent class
    # Numbers of the last row beside their nulls. `distance`, 1 less the cosine with the first kernel, and `turned`, the
    # sum of the angles between consecutive kernels in degrees: weights, or updates, whose entries change places;
    # `alignment` with the labels, centred: permuted labels; `alignment_of_weights`, the same number: weights whose
    # entries change places; `cone_angle`, the mean angle in degrees between the kernel's differences from the apex:
    # a random walk with steps of the same lengths; `after_accuracy`, of regression with the last kernel on held-out
    # probes: weights whose entries change places; `after_gain`, the same number: the first kernel.
    measures: Mapping[Name, Against] | None = None


@dataclass(frozen=True)
class Summary:
    """What holds over the runs that were measured."""

    runs: int  # how many
    verdicts: Mapping[str, int]  # verdict -> runs
    settles: Time  # when the kernel comes to move slowly
    after_memorising: Lag  # that less `memorised_step`
    after_generalising: Lag  # that less `generalised_step`
    first_alignment: float | None  # mean alignment in the first row
    measures: Mapping[Name, Over]  # those of `runs[].measures`


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    probes: int  # training examples that the kernel is of
    held_out: int  # held-out ones that the regression is judged on
    outputs: int  # outputs of the network that it is of
    all_outputs: int  # outputs that the network has
    warnings: tuple[str, ...] = ()
    # A row a run and row of its weights: distance, angle to the row before and its velocity in degrees a step, with
    # nulls; alignment, accuracies of network and regression.
    curves: Frame = None
    maps: Frame = None  # a row a run and pair of rows: the cosine of their kernels
