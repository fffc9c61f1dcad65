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

    n_states: int
    heldout_ll_per_frame: float | None = None
    se: float | None = None
    behind_best: float | UnsetType | None = UNSET
    behind_se: float | UnsetType | None = UNSET
    bic: float | None = None
    aic: float | UnsetType | None = UNSET
    converged: bool = True


@dataclass(frozen=True, kw_only=True)
class Emission:
    """What one emission says of unseen runs, where the choice was left to that."""

    emission: str
    n_states: int
    heldout_ll_per_frame: float | None = None
    se: float | None = None
    common: float | None = None
    ridge: float | UnsetType | None = UNSET


@dataclass(frozen=True, kw_only=True)
class Course:
    """The states of one run, row by row; under a stored model also their posteriors, and how likely the run is."""

    run: str
    steps: Sequence[int]
    states: Sequence[int]
    posterior: Sequence[Sequence[float]] | UnsetType = UNSET
    ll_per_frame: float | UnsetType = UNSET
    held_out: bool | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Runs and rows of a state, and the means of its metrics, in z-units; None for a state without rows."""

    state: int
    runs: int = 0
    rows: int = 0
    mean_first_step: float | None = None
    level: Mapping[str, float] | None = None
    drift: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """How often a state follows another, and how probable that is, both (K, K)."""

    counts: Sequence[Sequence[int]] = ()
    probabilities: Sequence[Sequence[float]] = ()


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature of a change of state: see `edges.describe`."""

    name: str
    change: float | None = None
    interval: Bounds | None = None
    gradient: float | UnsetType | None = UNSET
    llr: float | UnsetType | None = UNSET
    stability: float | UnsetType | None = UNSET
    drift_at_edge: float | UnsetType | None = UNSET
    fixed_point: float | UnsetType | None = UNSET


class Edge(msgspec.Struct, frozen=True, kw_only=True, rename={"start": "from", "end": "to"}):
    """A change of state that some run makes: how many do, their share with its interval, and what changes."""

    start: int
    end: int
    runs: int
    interval: Bounds = ()
    features: Sequence[Feature] = ()


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path through the states, up to convergence: who takes it, and when these runs converge."""

    states: Sequence[int]
    runs: int
    interval: Bounds = ()
    members: Sequence[str] = ()
    median_step: float | None = None
    quartiles: Bounds = (None, None)
    censored: int | None = None


@dataclass(frozen=True, kw_only=True)
class Parting:
    """A place at which runs part: the states passed until there, and those entered next."""

    after: Sequence[int]
    to: Sequence[int]
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Whether runs that part converge at different steps; no `partings` in one that compared whole paths."""

    paths: Sequence[int] = ()
    runs: int = 0
    left_out: int = 0
    partings: Sequence[Parting] | None = None
    p: float


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A mean distance over pairs of runs."""

    value: float | None = None
    interval: Bounds | None = None
    runs: int = 0


@dataclass(frozen=True, kw_only=True)
class Dissimilarity:
    """How differently runs spend their training over the states: see `dissimilarity.describe`."""

    total_variation: Distance = Distance()
    published: str = ""


@dataclass(frozen=True, kw_only=True)
class Detour:
    """What the test of a state as a detour says: see `detours.find`."""

    state: int
    verdict: bool = False
    effect_steps: float | None = None
    interval: Bounds | None = None
    p: float | None = None
    p_adjusted: float | None = None
    p_time_dependent: float | None = None
    statistic: float | None = None
    visits: int | None = None
    visits_interval: Bounds | None = None
    optional: bool = False
    tested: bool = False
    reason: str | None = None
    effect_ratio: float | UnsetType | None = UNSET
    median_visitors: float | UnsetType | None = UNSET
    median_others: float | UnsetType | None = UNSET
    published_rule: bool | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """The published regression, and what accounting alone gives."""

    coefficients: Sequence[float] = ()
    r2: float | None = None
    accounting_r2: float | None = None
    accounting_r2_95: float | None = None
    detours: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class DetourModel:
    """The regression of the convergence step on visits; `loo_r2` was of a version that had another null."""

    r2: float | None = None
    null_r2: float | None = None
    null_r2_95: float | None = None
    runs: int = 0
    censored: int = 0
    states: Sequence[int] = ()
    log_time: bool = False
    min_visits: int = 3
    published: PublishedModel | None = None
    loo_r2: float | UnsetType | None = UNSET


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well the states of other fits agree: median, 5% and 95% of the adjusted Rand index."""

    over: str
    fits: int
    adjusted_rand: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a simpler model says of unseen runs; `less_than_model` is of the same runs."""

    name: str
    n_states: int
    at_cap: bool = False
    heldout_ll_per_frame: float | None = None
    se: float | None = None
    runs: int | None = None
    comparable: bool = True
    less_than_model: float | None = None
    less_se: float | None = None


@dataclass(frozen=True, kw_only=True)
class Collinearity:
    """Condition number of the pooled correlation matrix of the features, and its effective rank.

    exp of the entropy of its eigenvalues' shares (Roy and Vetterli, 2007), 1 to M.
    """

    condition_number: float = float("inf")
    effective_rank: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The states, who is where when, and how far to trust it.

    Under a stored model (`decoded_with`) nothing is fitted: what only a fit says is not there.

    Attributes:
        selection: What every number of states that was tried says of unseen runs.
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
        model: The model, as `model.from_plain` reads it.
        stability: Agreement with other fits; `baselines`: what simpler models give.
        settings: All that made it; `cycle`: steps of a cycle of rates, whose ends alone are looked at.
        convergence: When every run converged; `convergence_rule`: what was watched.
        decoded_with: Id of the analysis whose model decoded the runs.
        heldout_ll_per_frame: Mean over runs that took no part in the fit, with its standard error `heldout_se`;
            `model_heldout_ll_per_frame`: of the model's own held-out runs.
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
    model: Mapping[str, Any] | UnsetType | None = UNSET
    stability: Sequence[Agreement] | None = None
    baselines: Sequence[Baseline] | None = None
    settings: Mapping[str, Any] | UnsetType = UNSET
    cycle: int | UnsetType | None = UNSET
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
