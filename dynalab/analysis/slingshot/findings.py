"""What is found of slingshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dynalab.analysis.base import Frame
from dynalab.analysis.slingshot.confirm import Confirmation
from dynalab.analysis.slingshot.inflation import KIND as INFLATION


@dataclass(frozen=True)
class Event:
    """A spike, or an inflation, which has no peak.

    Before a spike the norm grows by the share `norm_growth`; `norm_slope_ratio` is the slope after over that.
    """

    kind: str  # `slingshot` or another cause, as in docs/analyses.md
    confidence: float  # share of the evidence for it that was recorded and holds
    onset_step: int  # first step of the rise: of the loss, or of the norms of an inflation
    peak_step: int | None  # step of the largest loss; null for an inflation
    # first step back within a decade of the level before, or the last of an inflation; null where the run ends before
    end_step: int | None
    amplitude_decades: float | None  # height of the peak above that level, decades; null for an inflation
    norm_growth: float | None  # growth of the last layer's norm over the window before, a share
    norm_slope_ratio: float | None  # slope of its logarithm after the spike over that before
    reason: str  # in words


@dataclass(frozen=True, kw_only=True)
class RunFindings:
    """What is found of a run."""

    run: str  # its id
    # `slingshot`, `other_spikes`, `inflation` (without a spike), `no_events` or `insufficient_data`
    verdict: str
    events: tuple[Event, ...] = ()  # spikes of its loss, and inflations, by their onset
    period_steps: float | None = None  # median distance of neighbouring onsets of spikes, steps
    # coefficient of variation of these distances, ddof 1; null under three events
    period_cv: float | None = None
    missing_channels: tuple[str, ...] = ()  # what was not recorded and would have told more

    @property
    def spikes(self) -> list[Event]:
        """Its events that are spikes."""
        return [event for event in self.events if event.kind != INFLATION]

    @property
    def slingshots(self) -> list[int]:
        """Onsets of its slingshots."""
        return [event.onset_step for event in self.events if event.kind == "slingshot"]


@dataclass(frozen=True)
class Summary:
    """Runs of each verdict, events of each kind, and quartiles over runs.

    Of the first slingshot's step, where a run without one counts as later than all others (one with too few rows does
    not count), and of the period of the runs that have one.
    """

    verdicts: Mapping[str, int]  # verdict -> runs
    kinds: Mapping[str, int]  # kind -> events
    # quartiles of the first slingshot's step
    first_onset: tuple[float | None, float | None, float | None] | None = None
    period: tuple[float | None, float | None, float | None] | None = None  # quartiles of the period, steps


@dataclass(frozen=True)
class Findings:
    """What is found of every run; the table has all events."""

    runs: tuple[RunFindings, ...]
    summary: Summary
    confirmation: Confirmation | None = None
    warnings: tuple[str, ...] = ()
    events: Frame = None
