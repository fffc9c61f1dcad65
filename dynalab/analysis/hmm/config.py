"""The keys of `dynalab analyze hmm`, and the numbers that stand behind a preset.

Imports nothing heavy: the command line reads every analysis' `Config` when it starts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from dynalab.analysis.convergence import ConvergenceKeys
from dynalab.errors import ConfigError

EMISSIONS = ("auto", "ar", "level")
COVARIANCES = ("full", "tied", "diag", "lowrank")
# Stands for "the preset's own" until the preset has filled it in; nobody can give an empty value.
PRESET_WORD = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a preset decides beside the keys of `Config`.

    Pseudo-frames are the unit of the priors: a prior of weight w counts as much as w frames of data.

    Attributes:
        ridges: Weights among which unseen runs choose the pull toward the random walk, `Config.ridge`; where nothing
            can be held out, the last. Neither is right everywhere: on the main job 1 predicts better at every K up
            to 5 and needs fewer states, on 20 short simulated runs of 100 rows 10 does.
        commons: Weights among which unseen runs choose `Config.common`; where nothing can be held out, the first.
            Phases of training differ in noise as a rule. Where they do not, a covariance for each costs so much
            that states of dynamics are missed.
        intercept_ridge: The same for offsets and means, toward 0: only there so that an empty state has a
            value.
        shrinkage: Weight in pseudo-frames of the pull of the noise covariance toward a share of the one-state
            model's residual covariance, added to the number of features.
        shrinkage_scale: That share. Below 1, because late phases of training are far quieter than the pooled
            residual; not far below, or a state without frames would score better than one that has some.
        floor: Least eigenvalue of a noise covariance, relative to the pooled variance of what is predicted.
        transition_prior: Pseudo-counts added to every entry of start and transition probabilities.
        tries: Random segmentations of which a restart takes the best, after two EM iterations each.
        screen_iterations: EM iterations after which the restarts are compared.
        search_frames: Most frames that starts are sought and compared on; of a larger ensemble whole runs, drawn by
            the seed. The restarts that go on see all.
        search_runs: Fewest runs there, whatever their length: a state that few runs visit must be among them.
        finalists: Number of restarts that go on after the comparison.
        reseedings: How often a fit may give a dead state new frames.
        fit_frames: Most frames that a fit of the selection sees. A larger ensemble is thinned to whole runs, drawn
            by the seed; held-out runs are all scored, and the chosen model is carried on over all runs.
        bootstraps: Refits to resampled runs, for the stability of the states.
        resamples: Resampled runs for the intervals of edges, the fitted model held fixed.
        baseline_restarts: Starts per fit of a baseline and of a bootstrap.
        baseline_iterations: Most EM iterations of these and of the restarts whose stability is measured.
        baseline_tol: Their tolerance, nats per frame.
        baseline_folds: Folds that baselines other than the other emission are held out in.
    """

    ridges: tuple[float, ...] = (1.0, 10.0)
    commons: tuple[float, ...] = (0.0, 300.0)
    intercept_ridge: float = 1e-3
    shrinkage: float = 2.0
    shrinkage_scale: float = 0.1
    floor: float = 1e-6
    transition_prior: float = 0.1
    tries: int = 5
    screen_iterations: int = 10
    search_frames: int = 3_000
    search_runs: int = 10
    finalists: int = 2
    reseedings: int = 3
    fit_frames: int = 24_000
    bootstraps: int = 20
    resamples: int = 1000
    baseline_restarts: int = 2
    baseline_iterations: int = 60
    baseline_tol: float = 1e-3
    baseline_folds: int = 2


@dataclass(frozen=True, kw_only=True)
class PaperSettings:
    """The numbers of the published pipeline (Hu et al., 2023, section 3 and appendix; hmmlearn 0.3's own).

    Attributes:
        first_rows: Rows of a run that are looked at.
        validation: Share of the runs that are held out; they choose both K and the restart.
        min_covar: Added to the diagonal of the first covariance.
        covars_prior: Added to every entry of the scatter (full, tied) or to its diagonal (diag) in the M-step.
        floor: Least eigenvalue of a covariance; hmmlearn has none, so it acts only where hmmlearn would fail.
        top_features: Features named on an edge.
    """

    first_rows: int = 1000
    validation: float = 0.2
    min_covar: float = 1e-3
    covars_prior: float = 1e-2
    floor: float = 1e-9
    top_features: int = 3


# Values of the keys that a preset decides where they are null.
PRESETS: dict[str, dict[str, Any]] = {
    "robust": {"emission": "auto", "covariance": "full", "n_iter": 200, "tol": 1e-4},
    "paper": {"emission": "level", "covariance": "full", "n_iter": 32, "tol": 1e-2},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Keys of the hidden Markov analysis.

    Attributes:
        metrics: Columns that are the features; None takes the fourteen weight metrics as far as they are
            present.
        preset: `robust`, or `paper` (the pipeline of Hu et al., 2023, formula by formula).
        emission: `ar` (switching autoregression: states of dynamics), `level` (Gaussian: states of level; all that
            paper has), or `auto` (robust's: the one that says more of unseen runs).
        covariance: Noise covariance: `full` (robust: shrunk), `tied` (one for all states), `diag`, or `lowrank`
            (factors plus a diagonal).
        rank: Number of factors of `lowrank`.
        ridge: Weight, in pseudo-frames of unit variance, of the pull of A toward the identity (autoregression only);
            None takes 1 or 10, whichever says more of unseen runs.
        common: Weight, in pseudo-frames, of the pull of every state's noise covariance toward the one that the states
            have in common; None takes 0 or 300, whichever says more of unseen runs.
        sticky: Pseudo-counts added to every self-transition.
        left_to_right: Whether states can only be left for later ones.
        n_states: Number of states; None takes the fewest that are within one standard error of the best held-out
            likelihood, the error being that of the difference over runs (paper: least BIC of the held-out runs).
        max_states: Largest number of states that is tried.
        folds: Folds over runs for the held-out likelihood (robust).
        restarts: Starts of EM per fit.
        n_iter: Most EM iterations per start; None takes the preset's, robust 200, paper 32.
        tol: EM has converged when an iteration gains less than this; None takes the preset's, robust 1e-4, in nats per
            frame, paper 1e-2, in nats of all frames together.
        stability: Whether to refit restarts and resampled runs at the chosen number of states.
        baselines: Whether to fit the other emission, mixtures, one metric and shuffled time for comparison.
        seed: Seed of starts, folds and resampling.
        workers: Processes; None takes one per core. The result does not depend on it.
        steps: Look only at rows up to this step.
        decode_with: Id of a stored analysis whose model decodes the runs; nothing is fitted then.
        log_time: Delays of detours are factors: their tests are of the logarithm of the convergence step.
        convergence: What counts as converged.
    """

    metrics: list[str] | None = None
    preset: str = "robust"
    emission: str = PRESET_WORD
    covariance: str = PRESET_WORD
    rank: int = 3
    ridge: float | None = None
    common: float | None = None
    sticky: float = 0.0
    left_to_right: bool = False
    n_states: int | None = None
    max_states: int = 8
    folds: int = 5
    restarts: int = 5
    n_iter: int | None = None
    tol: float | None = None
    stability: bool = True
    baselines: bool = True
    seed: int = 0
    workers: int | None = None
    steps: int | None = None
    decode_with: str | None = None
    log_time: bool = False
    convergence: ConvergenceKeys = field(default_factory=ConvergenceKeys)

    def __post_init__(self) -> None:
        """Fill in the preset's values and refuse what cannot be meant, naming the key and what is legal."""
        _one_of("preset", self.preset, tuple(PRESETS))
        for key, value in PRESETS[self.preset].items():
            if getattr(self, key) in (PRESET_WORD, None):
                object.__setattr__(self, key, value)
        _one_of("emission", self.emission, EMISSIONS)
        _one_of("covariance", self.covariance, COVARIANCES)
        _at_least("n_states", self.n_states, 1)
        _at_least("max_states", self.max_states, 1)
        _at_least("folds", self.folds, 2)
        _at_least("restarts", self.restarts, 1)
        if self.iterations < 1:
            raise ConfigError(f"n_iter={self.n_iter}: must be 1 or more, or null for the preset's")
        _at_least("rank", self.rank, 1)
        _at_least("seed", self.seed, 0)
        _at_least("workers", self.workers, 1)
        _at_least("steps", self.steps, 0)
        if not 0 < self.tolerance < float("inf"):
            raise ConfigError(f"tol={self.tol}: must be a number above 0, or null for the preset's")
        if self.ridge is not None and not 0 < self.ridge < float("inf"):
            raise ConfigError(f"ridge={self.ridge}: must be a number above 0")
        if self.common is not None and not 0 <= self.common < float("inf"):
            raise ConfigError(f"common={self.common}: must be a number, 0 or more")
        if not 0 <= self.sticky < float("inf"):
            raise ConfigError(f"sticky={self.sticky}: must be a number, 0 or more")
        if self.metrics is not None and not self.metrics:
            raise ConfigError("metrics=[]: must name at least one column")
        if self.preset == "paper":
            self._only_robust()

    def _only_robust(self) -> None:
        """Refuse what the published pipeline does not have."""
        if self.emission != "level":
            raise ConfigError(
                f"emission={self.emission}: preset=paper has level emissions only; use preset=robust"
            )
        if self.covariance not in ("full", "diag"):
            raise ConfigError(f"covariance={self.covariance}: preset=paper has full, diag; use preset=robust")
        if self.sticky or self.left_to_right:
            key = "sticky" if self.sticky else "left_to_right"
            raise ConfigError(f"{key}: preset=paper does not have it; use preset=robust")

    @property
    def iterations(self) -> int:
        """`n_iter`, the preset's where none was given."""
        assert self.n_iter is not None
        return self.n_iter

    @property
    def tolerance(self) -> float:
        """`tol`, the preset's where none was given."""
        assert self.tol is not None
        return self.tol

    @property
    def settings(self) -> Settings:
        """The numbers behind robust fits (also those that stand beside the published pipeline)."""
        return Settings()


def describe(config: Config) -> dict[str, Any]:
    """The configuration and its preset's numbers as plain values, for the result.

    `workers` is left out: the same result must have the same words however many processes made it.
    """
    plain = asdict(config)
    plain.pop("workers")
    numbers = PaperSettings() if config.preset == "paper" else config.settings
    return {**plain, "preset_values": asdict(numbers)}


def _one_of(key: str, given: str, legal: tuple[str, ...]) -> None:
    if given not in legal:
        close = get_close_matches(str(given), legal, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{key}={given}: must be one of {', '.join(legal)}{hint}")


def _at_least(key: str, given: int | None, least: int) -> None:
    if given is not None and given < least:
        raise ConfigError(f"{key}={given}: must be {least} or more")
