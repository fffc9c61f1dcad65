"""The keys of `dynalab analyze hmm`, and the numbers that stand behind a preset.

Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dynalab.config.keys import Keys, key
from dynalab.core.convergence import ConvergenceKeys
from dynalab.core.errors import ConfigError

# Stands for "the preset's own" until the preset has filled it in; nobody can give an empty value.
PRESET_WORD = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a preset decides beside the keys of `Config`.

    Pseudo-frames are the unit of the priors: a prior of weight w counts as much as w frames of data.

    Attributes:
        ridges: Weights among which unseen runs choose `Config.ridge`; where nothing can be held out, the last. Neither
            is right everywhere: on the main job 1 predicts better at every K up to 5 and needs fewer states, on 20
            short simulated runs of 100 rows 10 does.
        commons: Weights among which unseen runs choose `Config.common`; where nothing can be held out, the first.
            Phases of training differ in noise as a rule. Where they do not, a covariance for each costs so much
            that states of dynamics are missed.
        intercept_ridge: As ridge, for offsets and means, toward 0: only there so that an empty state has a value.
        shrinkage: Weight of the pull of the noise covariance toward a share of the one-state model's residual
            covariance, added to the number of features.
        shrinkage_scale: That share. Below 1, because late phases of training are far quieter than the pooled
            residual; not far below, or a state without frames would score better than one that has some.
        floor: Least eigenvalue of a noise covariance, relative to the pooled variance of what is predicted.
        transition_prior: Pseudo-counts added to every entry of start and transition probabilities.
        tries: Random segmentations of which a restart takes the best, after two EM iterations each.
        screen_iterations: EM iterations after which the restarts are compared; `finalists` of them go on.
        search_frames: Most frames that starts are sought and compared on; of a larger ensemble whole runs, drawn by
            the seed, at least `search_runs`: a state that few runs visit must be among them.
        reseedings: How often a fit may give a dead state new frames.
        fit_frames: Most frames that a fit of the selection sees. A larger ensemble is thinned to whole runs, drawn
            by the seed; held-out runs are all scored, and the chosen model is carried on over all runs.
        bootstraps: Refits to resampled runs, for the stability of the states.
        resamples: Resampled runs for the intervals of edges, the fitted model held fixed.
        baseline_restarts: Starts per fit of a baseline and of a bootstrap; `baseline_iterations`: most EM iterations of
            these and of the restarts whose stability is measured; `baseline_tol`: their tolerance, nats per frame.
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
    """

    first_rows: int = 1000
    validation: float = 0.2
    min_covar: float = 1e-3
    covars_prior: float = 1e-2
    floor: float = 1e-9


# Values of the keys that a preset decides where they are null.
PRESETS: dict[str, dict[str, Any]] = {
    "robust": {"emission": "auto", "covariance": "full", "n_iter": 200, "tol": 1e-4},
    "paper": {"emission": "level", "covariance": "full", "n_iter": 32, "tol": 1e-2},
}


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the hidden Markov analysis.

    Pseudo-frames are the unit of `ridge`, `common` and `sticky`. `preset=paper` is the pipeline of Hu et al. (2023),
    formula by formula. `ridge` is of unit variance and of the autoregression only.
    """

    metrics: list[str] | None = key(
        None, "columns that are modelled; null: the fourteen weight metrics, as far as they were recorded"
    )
    preset: str = key(
        "robust",
        "how models are fitted and chosen; paper: the published pipeline, formula by formula",
        one_of=("robust", "paper"),
    )
    emission: str = key(
        PRESET_WORD,
        "what a state emits; auto (robust's): what says more of unseen runs, ar: dynamics, level (paper's): a "
        "Gaussian; null: the preset's",
        one_of=("auto", "ar", "level"),
    )
    covariance: str = key(
        PRESET_WORD,
        "covariance of a state; full: both presets', shrunk in robust, lowrank: factors and a diagonal; null: the "
        "preset's",
        one_of=("full", "tied", "diag", "lowrank"),
    )
    rank: int = key(3, "factors of covariance=lowrank", least=1)
    ridge: float | None = key(
        None,
        "pull of ar toward the random walk, in frames; null: 1 or 10, whichever says more of unseen runs",
        above=0,
    )
    common: float | None = key(
        None,
        "pull of the states' covariances toward a common one, in frames; null: 0 or 300, likewise",
        least=0,
    )
    sticky: float = key(0.0, "pseudo-counts of every self-transition", least=0)
    left_to_right: bool = key(False, "states can only be left for later ones")
    n_states: int | None = key(
        None,
        "number of states; null: the fewest within one standard error (of the difference, over runs), or one nat a "
        "run, of the best held-out likelihood (paper: by BIC of the held-out runs)",
        least=1,
    )
    max_states: int = key(8, "largest number of states that is tried", least=1)
    folds: int = key(5, "folds over runs, of which each is held out once", least=2)
    restarts: int = key(5, "starts of EM in every fit", least=1)
    n_iter: int | None = key(
        None, "most EM iterations of a start; null: the preset's, robust 200, paper 32", least=1
    )
    tol: float | None = key(
        None,
        "gain in likelihood at which EM ends; null: the preset's, robust 1e-4 nats a frame, paper 1e-2 nats of all "
        "frames",
        above=0,
    )
    stability: bool = key(True, "refit other starts and resampled runs, to tell how stable the states are")
    baselines: bool = key(True, "compare with the other emission, mixtures, one metric, shuffled time")
    seed: int = key(0, "seed of starts, folds and resampling", least=0)
    workers: int | None = key(
        None, "worker processes, on which the result does not depend; null: one a core where it pays", least=1
    )
    decode_with: str | None = key(
        None,
        "id of a stored hmm analysis, or @last: decode these runs with its model, without looking ahead",
        stored="hmm",
    )
    log_time: bool = key(False, "delays of detours are factors, not differences")
    convergence: ConvergenceKeys = key(ConvergenceKeys(), "what counts as converged; null: the task's own")

    def __post_init__(self) -> None:
        """Fill in the preset's values and refuse what cannot be meant, naming the key and what is legal."""
        for name, value in PRESETS.get(self.preset, {}).items():
            if getattr(self, name) in (PRESET_WORD, None):
                object.__setattr__(self, name, value)
        super().__post_init__()
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
            name = "sticky" if self.sticky else "left_to_right"
            raise ConfigError(f"{name}: preset=paper does not have it; use preset=robust")

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
