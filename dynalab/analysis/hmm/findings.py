"""What is found of the latent states that training passes through, as `analyze hmm --json` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from dynalab.analysis.base import Frame, frame
from dynalab.analysis.hmm.claims import Claims
from dynalab.core.convergence import Convergence, Passage

T = TypeVar("T")
# Lower and upper bound; one that lies beyond what was seen is None.
Bounds: TypeAlias = Sequence[float | None]


def known(value: T | UnsetType | None) -> T | None:
    """Return a value of a key that some findings do not have; None where it is not there."""
    return None if isinstance(value, UnsetType) else value


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One number of states that was tried: what it says of unseen runs, alone and beside the best, and its criteria."""

    n_states: int  # K
    # mean over runs that took no part in the fit, nats a frame; null for one run
    heldout_ll_per_frame: float | None = None
    se: float | None = None  # its standard error over runs
    # how much less it says than the best number of states, nats a frame
    behind_best: float | UnsetType | None = UNSET
    behind_se: float | UnsetType | None = UNSET  # standard error of that difference, over runs
    # Bayes' information criterion of the fit on all runs, nats (preset=paper: mean over held-out runs); less is
    # better
    bic: float | None = None
    aic: float | UnsetType | None = UNSET  # Akaike's criterion, likewise; of preset=paper only
    converged: bool = True  # whether EM did


@dataclass(frozen=True, kw_only=True)
class Emission:
    """What one emission says of unseen runs, where the choice was left to that."""

    emission: str  # `ar` or `level`
    n_states: int  # number of states that was chosen under it
    heldout_ll_per_frame: float | None = None  # of the best number of states under it, nats a frame
    se: float | None = None  # its standard error over runs
    common: float | None = None  # pull of covariances toward a common one that was chosen, frames
    ridge: float | UnsetType | None = UNSET  # pull toward the random walk, frames


@dataclass(frozen=True, kw_only=True)
class Course:
    """The states of one run, row by row; under a stored model also their posteriors, and how likely the run is."""

    run: str  # its id
    steps: Sequence[int]  # steps of its rows, (T,)
    states: Sequence[int]  # state of each row, (T,)
    # under a stored model: probability of every state given the rows so far, (T, K)
    posterior: Sequence[Sequence[float]] | UnsetType = UNSET
    ll_per_frame: float | UnsetType = UNSET  # under a stored model: log-likelihood of the run, nats a frame
    held_out: bool | UnsetType = UNSET  # under a stored model: whether the run took no part in its fit


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Runs and rows of a state, and the means of its metrics, in z-units; None for a state without rows."""

    state: int  # its number
    runs: int = 0  # runs that have rows in it
    rows: int = 0  # its rows, over all runs
    mean_first_step: float | None = None  # mean over runs of the step at which it is entered
    level: Mapping[str, float] | None = None  # metric -> mean over its rows, z-units
    drift: Mapping[str, float] | None = None  # metric -> mean change from the row before, z-units a row


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """How often a state follows another, and how probable that is, both (K, K)."""

    # rows in one state followed by a row in the other, (K, K), from by to
    counts: Sequence[Sequence[int]] = ()
    probabilities: Sequence[Sequence[float]] = ()  # the model's, (K, K), from by to


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature of a change of state: see `edges.describe`."""

    name: str  # the metric
    # what changes of it from state to state, in the unit that `edge_change` names
    change: float | None = None
    interval: Bounds | None = None  # 95%, over resampled runs; null under three runs
    # mean size of the derivative of log p(to) by it, at the change
    gradient: float | UnsetType | None = UNSET
    # mean log-likelihood ratio of the new state over the old, of this feature alone, nats a frame of the stay
    llr: float | UnsetType | None = UNSET
    # share of resampled ensembles in which it is among the leading features as well
    stability: float | UnsetType | None = UNSET
    # change of the model's drift where the run stands, z-units a row; under `ar`
    drift_at_edge: float | UnsetType | None = UNSET
    # change of where the dynamics come to rest, z-units; under `ar`, null where they do not
    fixed_point: float | UnsetType | None = UNSET


class Edge(msgspec.Struct, frozen=True, kw_only=True, rename={"start": "from", "end": "to"}):
    """A change of state that some run makes: how many do, their share with its interval, and what changes."""

    start: int  # state that is left, the key `from`
    end: int  # state that is entered, the key `to`
    runs: int  # runs that take it at least once
    interval: Bounds = ()  # exact 95% interval of their share of all runs
    features: Sequence[Feature] = ()  # the three leading features of the change


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path through the states, up to convergence: who takes it, and when these runs converge."""

    states: Sequence[int]  # the states, in order, without stays
    runs: int  # runs that take it
    interval: Bounds = ()  # exact 95% interval of their share
    members: Sequence[str] = ()  # their ids
    # median of their convergence steps; null where it falls among runs that did not converge
    median_step: float | None = None
    quartiles: Bounds = (None, None)  # lower and upper quartile of these steps
    censored: int | None = None  # how many of them did not converge
    # whether it is the most common path, a beginning of it or a continuation: whoever takes it has not left that way
    along: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Parting:
    """A place at which runs part: the states passed until there, and those entered next."""

    after: Sequence[int]  # states passed until there
    to: Sequence[int]  # states entered next
    p: float | None = None  # that the ways converge at one pace, the larger of two tests


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Whether runs that part converge at different steps; no `partings` in one that compared whole paths."""

    paths: Sequence[int] = ()  # places, in `paths`, of the paths that take part
    runs: int = 0  # runs that take part
    left_out: int = 0  # runs that did not converge
    partings: Sequence[Parting] | None = None  # the places at which runs part
    p: float  # the least of theirs times their number


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A mean distance over pairs of runs."""

    value: float | None = None  # mean over pairs, from 0 to 1; null for one run
    # 95%, over runs; null under five, or where half of the pairs are the nearest or the farthest
    interval: Bounds | None = None
    runs: int = 0  # how many runs


@dataclass(frozen=True, kw_only=True)
class Dissimilarity:
    """How differently runs spend their training over the states: see `dissimilarity.describe`."""

    total_variation: Distance = Distance()  # half the sum of differences of the shares of rows in every state
    published: str = ""  # what it is, in words


@dataclass(frozen=True, kw_only=True)
class Detour:
    """What the test of a state as a detour says: see `detours.find`."""

    state: int  # its number
    verdict: bool = False  # whether it is a detour: optional, and visitors converge later
    effect_steps: float | None = None  # delay of its visitors, steps (Hodges and Lehmann's shift)
    interval: Bounds | None = None  # 95% of that delay, steps
    p: float | None = None  # the larger of the p-values of two tests
    p_adjusted: float | None = None  # the larger of the two, each adjusted over the tested states
    # of the log-rank test that counts a run as a visitor from its entry on, one-sided
    p_time_dependent: float | None = None
    statistic: float | None = None  # Gehan's; above 0: visitors are later
    visits: int | None = None  # runs that visit it before they converge
    visits_interval: Bounds | None = None  # exact 95% interval of their share
    optional: bool = False  # whether some run converges without it
    tested: bool = False  # whether enough runs visit it and enough do not
    reason: str | None = None  # why it was not tested, or is none although tests differ
    effect_ratio: float | UnsetType | None = UNSET  # with `log_time=true`: the delay as a factor
    median_visitors: float | UnsetType | None = UNSET  # median convergence step of its visitors
    median_others: float | UnsetType | None = UNSET  # that of the other runs
    # whether the published rule calls it a detour: optional, with a positive coefficient
    published_rule: bool | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """The published regression, and what accounting alone gives."""

    # of the share of rows in every state, steps, without an intercept, (K,)
    coefficients: Sequence[float] = ()
    r2: float | None = None  # share of the variance of the convergence step that they explain, in sample
    # median of the same where each run has the states of another: what accounting gives
    accounting_r2: float | None = None
    accounting_r2_95: float | None = None  # its 95% point
    detours: Sequence[int] = ()  # states that the published rule calls detours


@dataclass(frozen=True, kw_only=True)
class DetourModel:
    """The regression of the convergence step on visits; `loo_r2` was of a version that had another null."""

    r2: float | None = None  # share of the convergence step that visits explain
    null_r2: float | None = None  # median of the same where nothing delays
    null_r2_95: float | None = None  # its 95% point
    runs: int = 0  # runs that enter
    censored: int = 0  # how many of them did not converge
    states: Sequence[int] = ()  # states whose visits enter
    log_time: bool = False  # whether it is of the logarithm of steps
    min_visits: int = 3  # visitors that a state needs to enter, and runs without it
    published: PublishedModel | None = None  # the published regression beside it
    loo_r2: float | UnsetType | None = UNSET  # of results of before


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well the states of other fits agree: median, 5% and 95% of the adjusted Rand index."""

    over: str  # `restarts` or `bootstrap of runs`
    fits: int  # number of fits
    adjusted_rand: float  # median of the adjusted Rand index of their states with the model's, 1 for the same
    low: float  # its 5% point
    high: float  # its 95% point


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a simpler model says of unseen runs; `less_than_model` is of the same runs."""

    name: str  # what it is
    n_states: int  # states, or components, that it chose
    at_cap: bool = False  # whether that is the most that was tried
    heldout_ll_per_frame: float | None = None  # of unseen runs, nats a frame
    se: float | None = None  # its standard error over runs
    runs: int | None = None  # runs that were held out
    comparable: bool = True  # whether its likelihood is of the same metrics as the model's
    # how much less it says than the model, nats a frame; null where not comparable
    less_than_model: float | None = None
    less_se: float | None = None  # standard error of that difference, over runs


@dataclass(frozen=True, kw_only=True)
class Odd:
    """What a model that was fitted without a run says of it, beside what such models say of the others."""

    run: str  # its id
    ll_per_frame: float  # log-likelihood under the model of its fold, fitted without it, nats a frame
    below: float | None = None  # by how much less than the others' median at the same steps, nats a frame
    p: float | None = None  # that a run of the same law is as far below; null where it cannot be told
    p_adjusted: float | None = None  # with the other runs of its ensemble (Holm); below .05 the run is odd
    reason: str = ""  # why it cannot be told; empty otherwise


@dataclass(frozen=True, kw_only=True)
class Collinearity:
    """Of the pooled correlation matrix of the features; exp of its spectrum's entropy (Roy and Vetterli, 2007)."""

    condition_number: float = float("inf")  # largest over smallest eigenvalue
    effective_rank: float = 1.0  # from 1 to the number of metrics


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The states, who is where when, and how far to trust it.

    Under a stored model (`decoded_with`) nothing is fitted: what only a fit says is not there.

    Attributes:
        selection: What every number of states that was tried says of unseen runs.
        n_states: Their number, K.
        state_order: 0 to K - 1: states are numbered in the order in which training enters them.
        states: The decoded path of every run; `state_profiles`: what every state is.
        edges: Changes of state; `edge_change`: what `change` of their features is.
        paths: Distinct paths, the most common first.
        path_comparison: Whether runs that part converge at different steps.
        dissimilarity: How differently runs spend their training.
        detours: The test of every state; None where nothing is watched; `detour_model`: the regression beside it.
        claims: What holds of the published claims; None in results of before.
        metrics: Names of the features; `collinearity`: how nearly they depend on each other.
        preset: `robust` or `paper`; `emission`: `ar` or `level`.
        emissions: What each says of unseen runs, where the choice was left to that.
        ridge: The pull toward the random walk that was chosen; `common`: that of covariances toward a common one.
        log_likelihood: Of all runs, nats.
        residual_correlation: Of what a state leaves of a row and of the row before, in one stay; None without any.
        model: The model, as `model.from_plain` reads it.
        stability: Agreement with other fits; `baselines`: what simpler models give.
        odd: What a model without a run says of it; None where no run, or not every one, was held out.
        settings: All that made it; `cycle`: steps of a cycle of rates, whose ends alone are looked at.
        missing_rows: Rows that are missing between others; their states are told, too.
        convergence: When every run converged; `convergence_rule`: what was watched.
        decoded_with: Id of the analysis whose model decoded the runs.
        heldout_ll_per_frame: Mean over runs that took no part in the fit, nats a frame; `heldout_se`: its standard
            error; `model_heldout_ll_per_frame`: that of the model's own held-out runs.
    """

    n_states: int
    states: Sequence[Course]
    selection: Sequence[Candidate] = ()
    state_order: Sequence[int] = ()
    state_profiles: Sequence[Profile] | None = ()
    transitions: Transitions = Transitions()
    edges: Sequence[Edge] = ()
    edge_change: str | None = None
    paths: Sequence[Path] = ()
    path_comparison: Comparison | UnsetType | None = UNSET
    dissimilarity: Dissimilarity | None = None
    detours: Sequence[Detour] | None = None
    detour_model: DetourModel | UnsetType | None = UNSET
    claims: Claims | UnsetType | None = UNSET
    metrics: Sequence[str] = ()
    collinearity: Collinearity | UnsetType = UNSET
    preset: str | UnsetType = UNSET
    emission: str = ""
    emissions: Sequence[Emission] | UnsetType | None = UNSET
    ridge: float | UnsetType | None = UNSET
    common: float | UnsetType | None = UNSET
    log_likelihood: float | UnsetType = UNSET
    residual_correlation: float | UnsetType | None = UNSET
    model: Mapping[str, Any] | UnsetType | None = UNSET
    stability: Sequence[Agreement] | None = None
    baselines: Sequence[Baseline] | None = None
    odd: Sequence[Odd] | UnsetType | None = UNSET
    settings: Mapping[str, Any] | UnsetType = UNSET
    cycle: int | UnsetType | None = UNSET
    missing_rows: int | UnsetType = UNSET
    convergence: Sequence[Passage] | None = None
    convergence_rule: Convergence | None = None
    decoded_with: str | UnsetType = UNSET
    heldout_ll_per_frame: float | UnsetType | None = UNSET
    heldout_se: float | UnsetType | None = UNSET
    model_heldout_ll_per_frame: float | UnsetType | None = UNSET
    warnings: Sequence[str] = ()
    states_table: Frame = frame("states")
    selection_table: Frame = frame("selection")
    transitions_table: Frame = frame("transitions")
    edges_table: Frame = frame("edges")
    baselines_table: Frame = frame("baselines")
    convergence_table: Frame = frame("convergence")

    def facts(self) -> dict[str, int]:
        """Return what the table of ensembles has of each."""
        return {"states": self.n_states}
