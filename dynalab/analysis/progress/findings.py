"""What is found of hidden progress: of every run, and over them."""

from __future__ import annotations

from dataclasses import dataclass

from dynalab.analysis.base import Frame, frame
from dynalab.core.stats import Spread


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `leads` where the measure crosses its level before accuracy leaves the plateau, `together` in the same row,
    # `follows` after it; `from_the_start` where one of the two holds in the first row already, `on_plateau` where
    # neither happens, `insufficient_data` where nothing is known.
    verdict: str
    reason: str  # in words
    progress_step: int | None = None  # where the measure first holds its level; None: it does not
    plateau_end_step: int | None = None  # where accuracy does
    lead_steps: int | None = None  # the second step less the first; None where one of them has not been seen
    key_frequencies: tuple[int, ...] = ()  # of its last row; of a parity there are none


@dataclass(frozen=True)
class Earlier:
    """In how many of the runs that had an event the measure was first, and the exact 95% interval of the share.

    Neither is an event in a run in whose first row one of them holds.
    """

    runs: int  # runs in which the measure was first
    total: int  # runs that had either event
    share: float | None  # the first over the second
    interval: tuple[float | None, float | None]  # its exact 95% interval


@dataclass(frozen=True)
class Summary:
    """What holds over the runs that have rows; one in which something does not happen is later than all others."""

    measure: str  # the column
    level: float  # of the measure
    accuracy: float  # the accuracy that is off the plateau; above the key's where few examples are held out
    persistence: int  # rows on end
    progress_step: Spread  # over runs
    plateau_end_step: Spread  # over runs
    lead_steps: Spread  # over runs that had either event
    earlier: Earlier  # how often the measure is first


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    # With frequencies=last: run, step, and the losses of its last key frequencies.
    losses: Frame = frame("losses")
